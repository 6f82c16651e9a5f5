"""Weighing: what the policy, a suggestion and earlier refusals make of a source's changes."""

from __future__ import annotations

from typing import Any

import pytest

from services.drift_repair_agent.repairs import planned_changes
from services.drift_repair_agent.repairs.planned_changes import (
    Decision,
    PlannedChange,
    Suggestion,
    identity,
)
from services.drift_repair_agent.repairs.policy import Policy, PolicyOverrides, Reaction, changed
from services.drift_repair_agent.repairs.suggestions import Asked
from services.drift_repair_agent.repairs.weighing import weigh
from shared.domain.catalog import StreamId
from shared.domain.drift import Change, Severity, Verdict

ORDERS = StreamId("shop", "orders")
NUMBER = {"type": ["null", "number"]}
GONE = Change("field_removed", ORDERS, ("total",), before=NUMBER)
NEW = Change("field_added", ORDERS, ("amount",), after=NUMBER)
LOSS = Verdict(Severity.NEEDS_REVIEW, "field", "removed", True, "It is gone.", ("total",))
GAIN = Verdict(Severity.HARMLESS, "field", "added", True, "It is new.")
BOTH = [(GONE, LOSS), (NEW, GAIN)]


def suggested(**fields: Any) -> Asked:
    """The rag_engine's word that the one became the other."""
    word: dict[str, Any] = {"became": ("amount",), "confidence": 0.95, "more_than_names": True}
    return Asked({identity(GONE): Suggestion(**(word | fields))})


def renaming(**more: Any) -> Policy:
    """A policy under which renames are applied."""
    return Policy(PolicyOverrides(reactions={"field": {"renamed": Reaction.APPLY}}, **more))


def reactions(planned: list[PlannedChange]) -> list[str]:
    """What is done about each."""
    return [item.reaction.value for item in planned]


@pytest.mark.parametrize(
    "asked, policy, expected",
    [
        (Asked(), Policy(PolicyOverrides()), ["propose", "apply"]),
        (suggested(), Policy(PolicyOverrides()), ["propose", "propose"]),
        (suggested(), renaming(), ["apply", "apply"]),
        (suggested(more_than_names=False), renaming(), ["propose", "propose"]),
        (suggested(confidence=0.89), renaming(), ["propose", "propose"]),
        (suggested(confidence=0.89), renaming(rename_min_confidence=0.8), ["apply", "apply"]),
        (suggested(became=("elsewhere",)), renaming(), ["propose", "apply"]),
        (suggested(), renaming(never_select=("*amount*",)), ["propose", "apply"]),
        (Asked(unanswered=frozenset({ORDERS})), Policy(PolicyOverrides()), ["propose", "propose"]),
    ],
)
def test_removal_and_addition_are_weighed_together(
    asked: Asked, policy: Policy, expected: list[str]
) -> None:
    """A rename needs more than names and its confidence; without a suggestion both wait."""
    assert reactions(weigh(BOTH, asked, policy, frozenset())) == expected


@pytest.mark.parametrize(
    "suggestion, reason",
    [
        ({}, None),
        ({"confidence": 0.5}, None),
        ({"confidence": 0.49}, "below 0.50"),
        ({"types_clash": True}, "types are incompatible"),
        ({"confidence": 0.9, "rival": 0.71}, "Another candidate"),
        ({"confidence": 0.9, "rival": 0.69}, None),
        ({"alternatives": ({"became": ["sum"], "confidence": 0.8},)}, "Another candidate"),
    ],
)
def test_weak_suggestion_is_not_taken_by_an_approval(suggestion: Any, reason: str | None) -> None:
    """It is unlikely, its types clash, or there is a rival; the policy does not take it either."""
    gone, _ = weigh(BOTH, suggested(**suggestion), renaming(rename_min_confidence=0), frozenset())
    assert gone.suggestion is not None
    assert gone.suggestion.taken_by_approve is (reason is None)
    assert (reason or "") in (gone.suggestion.not_taken_because or "")
    assert gone.reaction is (Reaction.APPLY if reason is None else Reaction.PROPOSE)


@pytest.mark.parametrize("refused", [GONE, NEW])
def test_rejected_change_is_only_proposed(refused: Change) -> None:
    """Either half of a rename keeps it from being applied; so does an addition on its own."""
    mark = frozenset({identity(refused)})
    assert reactions(weigh(BOTH, suggested(), renaming(), mark)) == ["propose", "propose"]
    alone = reactions(weigh([(NEW, GAIN)], Asked(), Policy(PolicyOverrides()), mark))
    assert alone == (["propose"] if refused is NEW else ["apply"])


def test_irrelevant_changes_are_dropped() -> None:
    """Changes of unselected fields, unless one is a lost field's new name."""
    unpicked = Verdict(
        Severity.HARMLESS, "field", "added", affects_sync=False, reason="Not picked."
    )
    changes = [(GONE, LOSS), (NEW, unpicked)]
    assert len(weigh(changes, Asked(), Policy(PolicyOverrides()), frozenset())) == 1
    assert len(weigh(changes, suggested(), Policy(PolicyOverrides()), frozenset())) == 2


def test_proposed_change_keeps_its_id_and_no_other_gets_it() -> None:
    """Nor does another get that of a change that was decided before."""
    named = Change("field_removed", ORDERS, ("name",), before=NUMBER)
    [_, asked] = weigh([(GONE, LOSS), (named, LOSS)], Asked(), Policy(PolicyOverrides()), ())
    assert asked.id == "c2"
    ids = planned_changes.numbered([NEW, GONE, named], proposed=[asked], decided=["c1", "c3"])
    planned = weigh(
        [(NEW, GAIN), (GONE, LOSS), (named, LOSS)], suggested(), renaming(), (), ids=ids
    )
    assert [item.id for item in planned] == ["c4", "c5", "c2"]
    assert [item.pair for item in planned] == ["c5", "c4", None]


@pytest.mark.parametrize(
    "severity, entity, what, expected",
    [
        (Severity.HARMLESS, "type", "widened", "apply"),
        (Severity.NEEDS_REVIEW, "type", "widened", "propose"),
        (Severity.HARMLESS, "cursor", "changed", "apply"),
        (Severity.NEEDS_REVIEW, "cursor", "changed", "propose"),
        (Severity.BREAKING, "cursor", "lost", "pause"),
        (Severity.BREAKING, "stream", "removed", "propose"),
        (Severity.HARMLESS, "stream", "added", "ignore"),
        (Severity.HARMLESS, "mode", "added", "apply"),
    ],
)
def test_default_policy_decides_the_usual_cases(
    severity: Severity, entity: Any, what: Any, expected: str
) -> None:
    """Harmless changes are applied, others proposed."""
    verdict = Verdict(severity, entity, what, True, "So it is.")
    assert Policy(PolicyOverrides()).reaction(verdict).value == expected


def test_policy_override_is_applied_literally() -> None:
    """`apply` applies also what needs review."""
    verdict = Verdict(Severity.NEEDS_REVIEW, "type", "widened", True, "So it is.")
    own = Policy(PolicyOverrides(reactions={"type": {"widened": Reaction.APPLY}}))
    assert own.reaction(verdict) is Reaction.APPLY


@pytest.mark.parametrize(
    "name, is_excluded",
    [
        ("Password__c", True),
        ("PassWord", True),
        ("customer_SSN", True),
        ("customerSsn__c", True),
        ("SSNLast4", True),
        ("custssn", True),
        ("businessName", False),
        ("Process_Number__c", False),
        ("pass", False),
        ("amount", False),
    ],
)
def test_patterns_ignore_case(name: str, is_excluded: bool) -> None:
    """A short one matches where words begin, as far as the name shows them."""
    assert Policy(PolicyOverrides()).excludes(name) is is_excluded


@pytest.mark.parametrize(
    "change, entity, what, stuck, expected",
    [
        (Change("field_added", ORDERS, ("ssn",)), "field", "added", False, ("apply", True)),
        (Change("field_added", ORDERS, ("who", "ssn")), "field", "added", False, ("propose", True)),
        (Change("field_added", ORDERS, ("who",)), "field", "added", False, ("apply", True)),
        (Change("field_retyped", ORDERS, ("who",)), "type", "widened", False, ("propose", True)),
        (Change("field_added", ORDERS, ("ssn",)), "field", "added", True, ("propose", True)),
        (Change("stream_added", ORDERS), "stream", "added", True, ("propose", False)),
    ],
)
def test_excluded_field_removes_nothing_without_a_decision(
    change: Change, entity: Any, what: Any, *, stuck: bool, expected: tuple[str, bool]
) -> None:
    """A new field is left out; a synced one that now contains such a field needs a decision."""
    policy = Policy(PolicyOverrides(reactions={"stream": {"added": Reaction.APPLY}}))
    verdict = Verdict(Severity.HARMLESS, entity, what, True, "So it is.")
    marks = frozenset({identity(change)})
    hiding = marks if change.path == ("who",) else frozenset()
    [item] = weigh(
        [(change, verdict)],
        Asked(),
        policy,
        frozenset(),
        hiding=hiding,
        stuck=marks if stuck else frozenset(),
    )
    assert (item.reaction.value, item.excluded) == expected


def test_update_of_only_nulls_restores_the_default() -> None:
    own = changed(
        PolicyOverrides(), {"reactions": {"field": {"added": "propose"}}, "verify": "sync"}
    )
    assert own == PolicyOverrides(reactions={"field": {"added": Reaction.PROPOSE}}, verify="sync")
    assert (
        changed(own, {"reactions": {"field": {"added": None}}, "verify": None}) == PolicyOverrides()
    )


def test_planned_changes_round_trip() -> None:
    """Also with a suggestion and a decision; a change found again is the same one."""
    decision = Decision(action="apply", by="Ada", at="2026-11-24T09:30:00Z", became=("amount",))  # type: ignore[arg-type]
    planned = weigh(BOTH, suggested(), Policy(PolicyOverrides()), frozenset())
    decided = [item.decided(decision) for item in planned]
    read = planned_changes.read(planned_changes.write(decided))
    assert planned_changes.write(read) == planned_changes.write(decided)
    assert [item.identity for item in read] == [identity(GONE), identity(NEW)]


LAPSED = Change(
    "mapper_lapsed", ORDERS, ("total",), before={"mappers": [{"type": "hashing", "id": "1"}]}
)
LAPSE = Verdict(Severity.BREAKING, "mapper", "lapsed", True, "It finds no field.", ("total",))
OTHER = Change("field_added", StreamId("shop", "items"), ("amount",), after=NUMBER)


@pytest.mark.parametrize(
    "asked, policy, kept, expected",
    [
        (Asked(), Policy(PolicyOverrides()), False, ["propose", "pause", "propose", "apply"]),
        (Asked(), Policy(PolicyOverrides()), True, ["propose", "propose", "apply", "apply"]),
        (suggested(), renaming(), False, ["apply", "apply", "apply", "apply"]),
        (suggested(confidence=0.4), renaming(), False, ["propose", "pause", "propose", "apply"]),
    ],
)
def test_lapsed_hash_waits_for_a_person_unless_it_follows_a_rename(
    asked: Asked, policy: Policy, *, kept: bool, expected: list[str]
) -> None:
    """New fields of its stream wait, too: one may be the hashed field under another name."""
    changes = [(GONE, LOSS), (LAPSED, LAPSE), (NEW, GAIN), (OTHER, GAIN)]
    marks = frozenset({identity(LAPSED)} if kept else ())
    assert reactions(weigh(changes, asked, policy, frozenset(), kept=marks)) == expected


def test_no_policy_drops_a_mapper() -> None:
    """Not even one that applies removals and lapses."""
    own = {"field": {"removed": Reaction.APPLY}, "mapper": {"lapsed": Reaction.APPLY}}
    planned = weigh(
        [(GONE, LOSS), (LAPSED, LAPSE)], Asked(), Policy(PolicyOverrides(own)), frozenset()
    )
    assert reactions(planned) == ["propose", "propose"]
    assert [item.choices for item in planned] == [(), ("drop", "keep_field")]
