"""The state machine of a repair: what may follow what, and that nothing else writes the state."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from services.drift_repair_agent.repairs import transitions
from services.drift_repair_agent.repairs.transitions import NEXT, InvalidTransition
from shared.models import Repair, RepairState

ROOT = Path(__file__).parents[2]
_BY: dict[RepairState, Callable[[Repair], None]] = {
    RepairState.PROPOSED: transitions.propose,
    RepairState.APPROVED: transitions.approve,
    RepairState.REJECTED: transitions.reject,
    RepairState.EXPIRED: transitions.expire,
    RepairState.APPLYING: lambda repair: transitions.mark_applying(repair, uuid4()),
    RepairState.ROLLING_BACK: lambda repair: transitions.start_rollback(repair, "schema"),
}


def in_state(state: str | None) -> Repair:
    """A repair as it is in a state."""
    repair: Repair = Repair(id=uuid4(), **({} if state is None else {"state": state}))
    return repair


@pytest.mark.parametrize(
    "before, after", [(before, after) for before in NEXT for after in RepairState]
)
def test_only_allowed_transitions_are_accepted(before: str | None, after: RepairState) -> None:
    """Every pair: what is refused changes nothing."""
    repair = in_state(before)
    if after in NEXT[before]:
        transitions._enter(repair, after)
        assert repair.state == after
        return
    with pytest.raises(InvalidTransition, match=f"is {before}; it cannot become {after}"):
        transitions._enter(repair, after)
    assert repair.state == before


@pytest.mark.parametrize("after", _BY)
def test_each_function_enters_its_state_from_allowed_states(after: RepairState) -> None:
    """A final state gets its time; a refused transition does not."""
    for before in NEXT:
        repair = in_state(before)
        if after in NEXT[before]:
            _BY[after](repair)
            assert repair.state == after
            assert (repair.ended_at is not None) == (not NEXT[after])
        elif (before, after) == (RepairState.ROLLING_BACK, RepairState.APPLYING):
            _BY[after](repair)  # the operation that restores the version before
            assert repair.state == RepairState.ROLLING_BACK
        else:
            with pytest.raises(InvalidTransition):
                _BY[after](repair)
            assert (repair.state, repair.ended_at) == (before, None)


def test_every_state_is_in_the_diagram_and_reachable() -> None:
    """A state without a next one is final."""
    assert NEXT.keys() == {None, *RepairState}
    assert frozenset().union(*NEXT.values()) == frozenset(RepairState)
    drawn = set(re.findall(r"[A-Z_]{6,}", transitions.__doc__ or ""))
    assert drawn == {state.name for state in RepairState}
    ends = {state.value for state in RepairState if not NEXT[state]}
    assert ends == {"applied", "rejected", "expired", "superseded", "failed", "rolled_back"}


def test_no_other_module_writes_the_state() -> None:
    """No assignment, no argument of a new row, and no UPDATE."""
    wrong = []
    for path in (*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py")):
        if path.name == "transitions.py":
            continue
        text = path.read_text()
        wrong += [
            path
            for sql in re.findall(r"UPDATE repairs.*?WHERE", text, re.DOTALL)
            if re.search(r"\bstate\s*=", sql)
        ]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and "DeliveryState" not in ast.unparse(node.value):
                wrong += [
                    path
                    for one in node.targets
                    if isinstance(one, ast.Attribute) and one.attr == "state"
                ]
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Repair":
                wrong += [path for one in node.keywords if one.arg == "state"]
    assert wrong == []
