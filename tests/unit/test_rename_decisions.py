"""What people decided about renames before, and what it does to the suggestions after it."""

from __future__ import annotations

from typing import Any

import pytest

from services.rag_engine.evidence import NAMES_AT_MOST, PastDecision
from tests.bench import decisions, renames
from tests.unit.renaming import NUMBER, TEXT, YES_NO, became, element, only


def decided(removed: str, became: str | None, *, accepted: bool = True, **at: Any) -> PastDecision:
    """A decision, by default in the stream of the request."""
    return PastDecision(
        entity="field",
        namespace=None,
        stream=at.get("stream", "orders"),
        removed=(removed,),
        became=None if became is None else (became,),
        is_accepted=accepted,
        connection=at.get("connection"),
    )


def test_identical_decision_is_more_than_names() -> None:
    """Not in another stream, and not when the types do not fit any more."""
    before = only(became("icon", "emoji size color"))
    here = only(became("icon", "emoji size color", past=[decided("icon", "emoji")]))
    assert (here.became, here.confidence, here.more_than_names) == (("emoji",), 0.95, True)
    elsewhere = decided("icon", "emoji", stream="users")
    there = only(became("icon", "emoji size color", past=[elsewhere]))
    assert there.more_than_names is False
    assert before.confidence < there.confidence < 0.9
    clash = became("icon", [element("emoji", NUMBER)], past=[decided("icon", "emoji")])
    assert only(clash).more_than_names is False


def test_rejected_pair_is_not_suggested() -> None:
    """Neither as a suggestion nor as another candidate; a hint does not restore it."""
    hinted = [element("price_amount", TEXT | {"x-renamed-from": "price"})]
    past = [decided("price", "price_amount", accepted=False)]
    assert became("price", hinted, past=past).unmatched == [("price",)]
    suggestion = only(became("price", [*hinted, element("cost")], past=past))
    assert (suggestion.became, suggestion.alternatives) == (("cost",), [])


def test_newest_decision_counts() -> None:
    """Decisions come newest first: a later approval overrides an earlier one."""
    accepted = [decided("icon", "emoji"), decided("icon", "glyph")]
    answer = became("icon", "emoji glyph", past=accepted)
    assert (only(answer).became, only(answer).more_than_names) == (("emoji",), True)
    dropped = became("icon", "emoji glyph", past=[decided("icon", None), *accepted])
    assert only(dropped) == only(became("icon", "emoji glyph"))


REGION = ("Region__c", [element("Sales_Region__c"), element("Fax_Consent__c", YES_NO)])


def test_dropped_field_does_not_affect_later_fields() -> None:
    """In the README's order: the field is dropped, and later a rename of it is requested."""
    fresh = only(became(*REGION))
    assert (fresh.became, fresh.confidence > 0.8) == (("Sales_Region__c",), True)
    for connection in (None, "a", "b"):
        past = [decided("Region__c", None, connection=connection)]
        assert only(became(*REGION, past=past, connection="a")) == fresh
    assert only(became(*REGION, past=[decided("Other__c", None)] * 5)) == fresh


def test_rejection_is_final_only_in_its_connection() -> None:
    """In another connection it is weak evidence against the pair; elsewhere it is ignored."""
    fresh = only(became(*REGION))
    past = [decided("Region__c", "Sales_Region__c", accepted=False, connection="a")]
    assert became(*REGION, past=past, connection="a").suggestions == []
    for connection in ("b", None):
        other = only(became(*REGION, past=past, connection=connection))
        assert other.became == ("Sales_Region__c",)
        assert 0.5 < other.confidence < fresh.confidence
    # Other names may change in the same words.
    past = [decided("Zone__c", "Sales_Zone__c", accepted=False, connection="a")] * 3
    assert only(became(*REGION, past=past, connection="a")) == fresh


def test_own_decision_takes_precedence_over_others() -> None:
    """However new the others are; they count where the connection has decided nothing."""
    here, there = decided("icon", "emoji", connection="a"), decided("icon", "glyph", connection="b")
    for past in ([here, there], [there, here]):
        assert only(became("icon", "emoji glyph", past=past, connection="a")).became == ("emoji",)
    own = only(became("icon", "emoji glyph", past=[there], connection="a"))
    assert (own.became, own.more_than_names) == (("glyph",), True)
    taken_back = [decided("icon", "glyph", accepted=False, connection="c"), there]
    assert only(became("icon", "emoji glyph", past=taken_back)).more_than_names is False
    dropped_there = [decided("icon", None, connection="b"), there]
    assert only(became("icon", "emoji glyph", past=dropped_there)).more_than_names is False


def test_nothing_is_suggested_below_the_minimum_confidence() -> None:
    """A wrong type and another name are no suggestion, though there is nothing else."""
    assert became("Region__c", [element("Fax_Consent__c", YES_NO)]).suggestions == []


def test_suggestion_has_its_rival_and_type_clash() -> None:
    """Another new name for the field, or another field that might have become it."""
    names = only(became("amount", "amount_net amount_gross"))
    assert names.rival == names.alternatives[0].confidence > 0.3
    gone = only(became("amount_net amount_gross", "amount"))
    assert gone.rival > 0.2
    assert only(became("meta", "metadata")).rival == 0
    assert only(became("meta", "metadata")).types_clash is False
    assert only(became("is_active", [element("isActive", NUMBER)])).types_clash is True
    for values in ({"enum": ["on", "off", None]}, {"const": "on"}):
        answer = became([element("is_active", values)], [element("isActive", YES_NO)])
        assert only(answer).types_clash is True
    for item, is_clash in (({"type": "integer"}, True), ({"type": ["string", "null"]}, False)):
        tags, labels = ({"type": "array", "items": one} for one in (TEXT, item))
        answer = became([element("tags", tags)], [element("tags_all", labels)])
        assert only(answer).types_clash is is_clash


def test_similar_decision_is_weak_evidence() -> None:
    """The same change of words, accepted for other names."""
    plain = became("modified", "modified_on seen_on").suggestions[0].confidence
    past = [decided("created", "created_on", stream="users")]
    [suggestion] = became("modified", "modified_on seen_on", past=past).suggestions
    assert plain < suggestion.confidence <= NAMES_AT_MOST
    assert suggestion.more_than_names is False


# After sequences of decisions about the renames that developers declared

STEPS = renames.steps()
TOTAL = sum(len(step.gold) for step in STEPS)


@pytest.mark.parametrize("sequence", [decisions.dropped, decisions.others_words])
def test_unrelated_decisions_change_no_suggestion(
    sequence: decisions.Decisions,
) -> None:
    """A field that was dropped before, and other fields' rejections."""
    assert decisions.after(STEPS, sequence) == renames.assess(STEPS)


def test_rejected_wrong_suggestions_are_not_repeated() -> None:
    """The suggestions in their place are right more often."""
    plain, after_mistakes = (
        renames.assess(STEPS),
        decisions.after(STEPS, decisions.mistaken),
    )
    assert renames.best_f1(after_mistakes, TOTAL) > renames.best_f1(plain, TOTAL)
    assert len(after_mistakes) < len(plain)


def test_rejections_of_another_connection_keep_the_order() -> None:
    """Each suggestion was rejected there: the confidence stays calibrated."""
    suggestions = decisions.after(STEPS, decisions.elsewhere)
    assert renames.best_f1(suggestions, TOTAL) > 0.8
    assert renames.ece(suggestions) <= 0.15


def test_history_of_true_decisions_improves_suggestions() -> None:
    """The steps of each application in order, each decided before the next."""
    suggestions = decisions.history(STEPS)
    assert renames.best_f1(suggestions, TOTAL) >= renames.best_f1(renames.assess(STEPS), TOTAL)
    assert renames.ece(suggestions) <= 0.15
