"""Which approvals count as approvals of the same."""

from __future__ import annotations

from datetime import UTC, datetime

from services.drift_repair_agent.repairs.planned_changes import Decision, PlannedChange
from services.drift_repair_agent.repairs.policy import Reaction
from services.drift_repair_agent.repairs.schemas import Approve
from services.drift_repair_agent.repairs.two_approvals import mark_of
from shared.domain.catalog import StreamId
from shared.domain.drift import Change, severity

AT = datetime(2026, 11, 30, tzinfo=UTC)


def removal(field: str, decision: Decision) -> PlannedChange:
    """A decided removal of a field of Account."""
    change = Change("field_removed", StreamId(None, "Account"), (field,))
    verdict = severity(change, None)
    return PlannedChange(
        id=field, change=change, verdict=verdict, reaction=Reaction.PROPOSE, decision=decision
    )


def test_same_changes_and_choices_are_the_same_approval() -> None:
    """Whoever approves, when, why, and in which order the changes are listed."""
    ada = Decision("apply", "Ada", AT, reason="Unused.", requested_by="Ada (key 1)")
    bob = Decision("apply", "Bob", datetime.now(UTC), is_named=True)

    first = mark_of([removal("a", ada), removal("b", ada)], Approve(by="Ada"))
    second = mark_of([removal("b", bob), removal("a", bob)], Approve(by="Bob"))

    assert first == second


def test_another_choice_is_another_approval() -> None:
    """Of a new name, a cursor, a key, the state, or of fewer changes."""
    plain = Decision("apply", "Ada", AT)
    marks = [
        mark_of([removal("a", plain)], Approve()),
        mark_of([removal("a", plain), removal("b", plain)], Approve()),
        mark_of([removal("a", plain)], Approve(on_global_state="accept_gap")),
        mark_of([removal("a", plain)], Approve(on_renamed_stream="read_again")),
        mark_of([removal("a", Decision("apply", "Ada", AT, became=("b",)))], Approve()),
        mark_of([removal("a", Decision("apply", "Ada", AT, cursor=("b",)))], Approve()),
        mark_of([removal("a", Decision("apply", "Ada", AT, primary_key=(("b",),)))], Approve()),
    ]
    assert len({mark["approval"] for mark in marks}) == len(marks)
