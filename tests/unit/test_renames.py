"""What a removed field became: the traps of real data, and what holds for every question."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.rag_engine import json_schema, matching, name_similarity
from services.rag_engine.evidence import NAMES_AT_MOST, Element, Question
from services.rag_engine.field_samples import Sample, are_same, overlap
from services.rag_engine.matching import Answer, suggest
from tests.bench import renames
from tests.unit.renaming import NUMBER, TEXT, YES_NO, became, element, kinds_of, only, pairs

# The traps of real data


@pytest.mark.parametrize(
    "gone, new",
    [
        ("site", "_site"),
        ("balance", "balance_cents"),
        ("currency", "original_currency"),
        ("last_synced_at", "last_auto_synced_at"),
        ("language", "language_code"),
    ],
)
def test_qualifier_lowers_the_confidence(gone: str, new: str) -> None:
    """The names are more alike than those of many renames, and it is another field."""
    suggestion = only(became(gone, new, NUMBER))
    plain = only(became(gone, f"{gone}_at", NUMBER))
    assert "qualifier" in kinds_of(suggestion)
    assert suggestion.confidence < 0.75
    assert plain.confidence > 0.85


@pytest.mark.parametrize(
    "gone, new",
    [
        ("deactivated", "is_active"),
        ("hidden", "is_visible"),
        ("is_enabled", "is_disabled"),
        ("unpublished", "published"),
        ("archived", "not_archived"),
    ],
)
def test_inverted_meaning_is_reported(gone: str, new: str) -> None:
    """Applied as a rename, it would invert every value."""
    suggestion = only(became(gone, new, YES_NO))
    assert "inverse" in kinds_of(suggestion)
    assert suggestion.confidence <= 0.4
    assert "inverse" not in kinds_of(only(became(gone, new, TEXT)))
    hinted = only(became([element(gone, YES_NO)], [element(new, YES_NO | {"aliases": [gone]})]))
    assert (hinted.confidence, hinted.more_than_names) == (0.4, False)


def test_field_split_in_three_is_ambiguous() -> None:
    """`relevance_score` was split into three rankings: none of them is what it became."""
    three = "quality_ranking engagement_rate_ranking conversion_rate_ranking"
    suggestion = only(became("relevance_score", three))
    assert suggestion.confidence < 0.4
    assert len(suggestion.alternatives) == 2


def test_several_renames_of_one_release_are_matched() -> None:
    """Harvest's second version: each field finds its own, though all are dates or ids."""
    answer = became("spent_at due_at created_by_id", "spent_date due_date creator_id")
    assert pairs(answer) == {
        "spent_at": "spent_date",
        "due_at": "due_date",
        "created_by_id": "creator_id",
    }


def test_same_change_of_words_is_reinforcing() -> None:
    """At the top and nested: `instagram_actor_id` → `instagram_user_id`."""
    answer = became(
        "instagram_actor_id object_story_spec.instagram_actor_id",
        "instagram_user_id object_story_spec.instagram_user_id",
    )
    assert pairs(answer) == {
        "instagram_actor_id": "instagram_user_id",
        "object_story_spec.instagram_actor_id": "object_story_spec.instagram_user_id",
    }
    assert all("pattern" in kinds_of(suggestion) for suggestion in answer.suggestions)
    alone = only(became("instagram_actor_id", "instagram_user_id other_user_id"))
    assert "pattern" not in kinds_of(alone)


def test_field_moved_up_a_level_is_found() -> None:
    """`engagement.engagement_id` → `engagement_id`, beside another id."""
    suggestion = only(became("engagement.engagement_id", "engagement_id owner_id"))
    assert suggestion.became == ("engagement_id",)
    assert suggestion.confidence > 0.6


def test_renamed_object_is_found() -> None:
    """All its fields move with it, as one change."""
    inside = {"type": "object", "properties": dict.fromkeys(("id", "url", "at", "title"), TEXT)}
    answer = became([element("form-submission", inside)], [element("form-submissions", inside)])
    assert only(answer).confidence == NAMES_AT_MOST
    assert "members" in kinds_of(only(answer))


@pytest.mark.parametrize(
    "gone, new",
    [
        ("inbox", "intake"),
        ("comment", "body"),
        ("display", "name"),
        ("icon", "emoji"),
        ("service_account", "app"),
    ],
)
def test_names_with_nothing_alike(gone: str, new: str) -> None:
    """The only candidate of the same type is likelier than not; one of many is not."""
    assert 0.4 < only(became(gone, new)).confidence < 0.8
    answer = became(gone, f"{new} note subject summary footer")
    assert all(suggestion.confidence < 0.4 for suggestion in answer.suggestions)


def test_no_rename_without_removal_and_addition() -> None:
    """A rename guessed where fields were only added is a known bug elsewhere."""
    assert became("", "total amount total_net") == Answer([], [])
    assert became("total amount", "").unmatched == [("amount",), ("total",)]


def test_clashing_types_lower_the_confidence() -> None:
    """Related ones hardly do."""
    same, related, clashing = (
        only(became([element("total", {"type": "integer"})], [element("total_sum", {"type": to})]))
        for to in ("integer", "number", "boolean")
    )
    assert same.confidence >= related.confidence > clashing.confidence + 0.2


def test_common_words_count_little() -> None:
    """A prefix of every column is no similarity."""
    unchanged = tuple(f"hs_{name}" for name in ("id", "owner", "stage", "amount", "source"))
    free = only(became("hs_color", "hs_notes hs_kind"))
    known = only(became("hs_color", "hs_notes hs_kind", unchanged=unchanged))
    assert known.confidence < free.confidence


# Evidence that is more than names


@pytest.mark.parametrize(
    "of_removed, of_added",
    [
        ({}, {"x-renamed-from": "comment"}),
        ({}, {"renamed_from": ["remark", "comment"]}),
        ({}, {"aliases": ["comment"]}),
        ({}, {"x-renamed-from": "thread.comment"}),
        ({"x-renamed-to": "body"}, {}),
    ],
)
def test_declared_hint_decides(of_removed: dict[str, Any], of_added: dict[str, Any]) -> None:
    """Against names that are more alike."""
    answer = became(
        [element("thread.comment", TEXT | of_removed)],
        [element("thread.body", TEXT | of_added), element("thread.comments")],
    )
    assert pairs(answer) == {"thread.comment": "thread.body"}
    assert (answer.suggestions[0].confidence, answer.suggestions[0].more_than_names) == (0.98, True)


@pytest.mark.parametrize(
    "removed, added, hint",
    [
        ("name", "billing.title", {"x-renamed-from": "name"}),
        ("id", "lines.sku", {"aliases": ["id"]}),
        ("thread.comment", "body", {"x-renamed-from": "comment"}),
    ],
)
def test_hint_without_a_path_is_about_the_fields_beside_it(
    removed: str, added: str, hint: dict[str, Any]
) -> None:
    """A field of that name elsewhere is another one."""
    answer = became([element(removed)], [element(added, TEXT | hint), element("full_name")])
    assert all(not one.more_than_names for one in answer.suggestions)


def test_contradictory_hints_are_ignored() -> None:
    """Two fields claim the same one; or the type cannot have its values."""
    hinted = TEXT | {"x-renamed-from": "comment"}
    suggestion = only(became("comment", [element("body", hinted), element("text", hinted)]))
    assert suggestion.more_than_names is False
    assert suggestion.confidence < 0.6
    clashing = only(became("comment", [element("body", {**hinted, "type": "boolean"})]))
    assert clashing.more_than_names is False


@pytest.mark.parametrize(
    "of_removed, of_added",
    [
        ({"description": "Deprecated: use `body` instead."}, {}),
        ({"description": "DEPRECATED since v3, please see body"}, {}),
        ({"description": "Use body instead.", "deprecated": True}, {}),
        ({"deprecationReason": "Renamed to body."}, {}),
        ({}, {"description": "Formerly known as comment."}),
        ({}, {"description": "The text (previously called `comment`)"}),
    ],
)
def test_deprecation_note_is_weak_evidence(
    of_removed: dict[str, Any], of_added: dict[str, Any]
) -> None:
    """What is to be used instead need not have the same values."""
    suggestion = became(
        [element("comment", TEXT | of_removed)],
        [element("body", TEXT | of_added), element("commenter")],
    ).suggestions[0]
    assert suggestion.became == ("body",)
    assert 0.8 < suggestion.confidence <= 0.92
    assert suggestion.more_than_names is False


def test_unrelated_note_is_ignored() -> None:
    """A word that happens to follow is no new name."""
    assert json_schema.noted_later({"description": "Use with care; see body of the mail."}) == set()
    assert json_schema.noted_later({"description": "Deprecated. Use the field `a.b`."}) == {"a.b"}


def test_equal_description_is_evidence() -> None:
    """If no other field has it."""
    described = TEXT | {"description": "What the customer wrote to us, in their own words."}
    suggestion = became([element("comment", described)], [element("body", described), element("x")])
    assert suggestion.suggestions[0].became == ("body",)
    twice = became(
        [element("comment", described)], [element("body", described), element("x", described)]
    )
    assert "description" not in kinds_of(twice.suggestions[0])


def test_equal_position_is_weak_evidence() -> None:
    """If the caller says that positions mean something."""
    answer = became(
        [element("icon", position=3)], [element("emoji", position=3), element("imago", position=9)]
    )
    assert answer.suggestions[0].became == ("emoji",)


WORDS = [f"word {n}" for n in range(40)]


def test_matching_values_decide() -> None:
    """However unlike the names."""
    answer = became(
        [element("inbox", values=WORDS)],
        [element("intake", values=WORDS[4:]), element("inbox_name", values=["a", "b"] * 9)],
    )
    assert pairs(answer) == {"inbox": "intake"}
    assert answer.suggestions[0].more_than_names is True
    assert answer.suggestions[0].confidence == 0.95


@pytest.mark.parametrize(
    "values",
    [
        WORDS[:9],
        [True, False] * 20,
        list(range(1, 200)),
        [f"2026-01-{day:02}T00:00:00Z" for day in range(1, 32)],
        [None] * 50,
        [str(number) for number in range(1, 101)],
        [f"{day}/12/2026" for day in range(1, 32)],
    ],
    ids=["few", "truth values", "counted ids", "times", "nothing", "counted texts", "days"],
)
def test_common_values_are_no_evidence(values: list[Any]) -> None:
    """Two ids from 1 on are the same numbers, and creation time equals modification time."""
    suggestion = only(became([element("a", values=values)], [element("b", values=values)]))
    assert suggestion.more_than_names is False


def test_values_shared_by_two_fields_are_no_evidence() -> None:
    """A billing and a shipping address."""
    answer = became(
        [element("email", values=WORDS)],
        [element("billing_email", values=WORDS), element("shipping_email", values=WORDS[2:])],
    )
    assert only(answer).more_than_names is False


def test_disjoint_enums_lower_the_confidence() -> None:
    """`paid` and `open` are no `EUR`."""
    states, currencies = ["paid", "open"] * 20, ["EUR", "CHF"] * 20
    apart = only(became([element("a", values=states)], [element("b", values=currencies)]))
    assert apart.confidence < only(became("a", "b")).confidence


def test_samples_are_compared_by_value() -> None:
    """1.0 is 1 where an integer became a number; true is not."""
    assert overlap(Sample.of([1, 2, None]), Sample.of([1.0, 2.0])) == 1
    assert overlap(Sample.of([1]), Sample.of([True])) == 0
    assert Sample.of([10**400, 0.5, *range(10)]).is_telling
    sparse = Sample.of([n * n * 1000 for n in range(20)])
    assert are_same(sparse, sparse, share=1, rival=0)
    assert not are_same(sparse, sparse, share=1, rival=0.9)


# What holds for every question

NAMES = st.text("abcde_", min_size=1, max_size=8) | st.sampled_from(
    ["created", "created_at", "meta", "metadata", "total_net", "total_net_amount", "is_active"]
)
SCHEMAS: st.SearchStrategy[Any] = st.sampled_from(
    [TEXT, NUMBER, YES_NO, {"type": "string", "format": "date"}, {}]
)


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Up to six fields on each side, of which some have hints."""
    fields = draw(st.dictionaries(NAMES, SCHEMAS, max_size=12))
    split = draw(st.integers(0, len(fields)))
    listed = list(fields.items())
    gone = [element(name, schema) for name, schema in listed[:split]]
    new = [
        element(name, dict(schema) | draw(_hints([name for name, _ in listed[:split]])))
        for name, schema in listed[split:]
    ]
    return Question(removed=gone, added=new, stream="orders")


def _hints(gone: list[str]) -> st.SearchStrategy[dict[str, str]]:
    if not gone:
        return st.just({})
    hinted = st.fixed_dictionaries({"x-renamed-from": st.sampled_from(gone)})
    return st.one_of(st.just({}), st.just({}), hinted)


@given(questions())
def test_every_answer_is_complete(question: Question) -> None:
    """Each removed field has one suggestion or none, each added one is used at most once."""
    answer = suggest(question)
    removed = [s.removed for s in answer.suggestions]
    assert sorted([*removed, *answer.unmatched]) == sorted(e.path for e in question.removed)
    used = [s.became for s in answer.suggestions]
    assert len(set(used)) == len(used)
    assert set(used) <= {e.path for e in question.added}
    for suggestion in answer.suggestions:
        assert matching.SHOWN_FROM <= suggestion.confidence <= 1
        others = [each.confidence for each in suggestion.alternatives]
        assert all(0 <= other <= 1 for other in others)
        assert all(one >= other for one, other in pairwise(others))
        assert suggestion.more_than_names <= ("hint" in kinds_of(suggestion))
        if not kinds_of(suggestion) & {"hint", "note"}:
            assert suggestion.confidence <= NAMES_AT_MOST


_KEYS = st.sampled_from(
    [
        "type", "format", "properties", "items", "oneOf", "anyOf", "allOf", "airbyte_type",
        "aliases", "renamed_from", "x-renamed-to", "description", "deprecated", "title", "other",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=6),
            st.dictionaries(_KEYS, JSON, max_size=5),
            st.none() | st.lists(SCALARS, max_size=30),
        ),
        unique_by=lambda field: field[0],
        max_size=6,
    )
)
def test_any_schema_and_any_value_is_accepted(fields: list[tuple[str, Any, Any]]) -> None:
    elements = [
        Element((name,), schema, sample=None if values is None else Sample.of(values))
        for name, schema, values in fields
    ]
    half = len(elements) // 2
    answer = became(elements[:half], elements[half:])
    assert len(answer.suggestions) + len(answer.unmatched) == half


@given(questions(), st.randoms(use_true_random=False))
def test_answer_is_independent_of_order(question: Question, random: Any) -> None:
    removed, added = list(question.removed), list(question.added)
    random.shuffle(removed)
    random.shuffle(added)
    shuffled = Question(removed=removed, added=added, stream="orders")
    assert suggest(shuffled) == suggest(question) == suggest(question)


@given(questions(), st.text("xyz", min_size=1, max_size=6), SCHEMAS, st.booleans())
def test_unrelated_field_removes_no_hinted_suggestion(
    question: Question, name: str, schema: Any, is_added: bool
) -> None:
    """Whichever side it is on."""
    assume(name not in {e.name for e in (*question.removed, *question.added)})
    more = [element(name, schema)]
    larger = Question(
        removed=[*question.removed, *([] if is_added else more)],
        added=[*question.added, *(more if is_added else [])],
        stream="orders",
    )
    proven = {s.removed: s.became for s in suggest(question).suggestions if s.more_than_names}
    still = {s.removed: s.became for s in suggest(larger).suggestions if s.more_than_names}
    assert proven.items() <= still.items()


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=6))
def test_probabilities_of_one_row_are_exact(odds: list[float]) -> None:
    """One of so many, or none: the sum over all of these is one."""
    columns = np.arange(len(odds))
    found = matching._marginals(np.zeros_like(columns), columns, np.array(odds))
    weights = np.exp(odds)
    assert np.allclose(found, weights / (1 + weights.sum()), atol=1e-4)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=3), min_size=3, max_size=3))
def test_probabilities_approximate_those_of_all_matchings(odds: list[list[float]]) -> None:
    """Counted one by one: each of three has one partner of three, or none.

    They are least near in a circle of likely pairs; where odds are higher, less than here.
    """
    rows, columns = (side.ravel() for side in np.indices((3, 3)))
    found = matching._marginals(rows, columns, np.array(odds).ravel()).reshape(3, 3)
    exact, total = np.zeros((3, 3)), 0.0
    for first in range(-1, 3):
        for second in range(-1, 3):
            for third in range(-1, 3):
                taken = [(r, c) for r, c in enumerate((first, second, third)) if c >= 0]
                if len({c for _, c in taken}) == len(taken):
                    weight = float(np.exp(sum(odds[r][c] for r, c in taken)))
                    total += weight
                    for pair in taken:
                        exact[pair] += weight
    assert np.abs(found - exact / total).max() < 0.15
    assert found.sum(axis=0).max() <= 1.001
    assert found.sum(axis=1).max() <= 1.001


def test_large_request_considers_the_likeliest_pairs() -> None:
    """Of 160,000 pairs not all are scored; true pairs are, and hints too."""
    places = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "qwertzuiopasdfghjkly"]
    gone = [element(f"{place}_total") for place in places]
    new = [element(f"{place}_total_amount") for place in places[1:]]
    hinted = element("elsewhere", NUMBER | {"x-renamed-from": f"{places[0]}_total"})
    answer = became(gone, [*new, hinted])
    wrong = {
        one: other
        for one, other in pairs(answer).items()
        if other not in (f"{one}_amount", "elsewhere")
    }
    assert wrong == {}
    assert pairs(answer)[f"{places[0]}_total"] == "elsewhere"
    assert len(answer.suggestions) == len(places)


# Parts


@pytest.mark.parametrize(
    "name, parted",
    [
        ("privateMeta", ("private", "meta")),
        ("private_metas", ("private", "meta")),
        ("Private Meta", ("private", "meta")),
        ("HTTPStatusCode2", ("http", "status", "code", "2")),
        ("Region__c", ("region",)),
        ("order_qty", ("order", "quantity")),
        ("categories", ("category",)),
        ("address", ("address",)),
        ("größeMax", ("größe", "max")),
        ("$", ("$",)),
    ],
)
def test_words(name: str, parted: tuple[str, ...]) -> None:
    assert name_similarity.words(name) == parted


def test_similarity_of_words_and_letters() -> None:
    """The same words are the same name; an abbreviation is nearly one."""
    alike = name_similarity.similarity(
        ["createdAt", "order_desc", "total"], ["created_at", "order_description", "icon"]
    )
    assert alike[0, 0] == 1
    assert alike[1, 1] > 0.75
    assert alike[2, 2] < 0.3
    assert ((alike >= 0) & (alike <= 1)).all()


def test_word_edits() -> None:
    """Removed and added words; nothing where no word stayed."""
    assert name_similarity.edit("total_net", "total_net_amount") == ((), ("amount",))
    assert name_similarity.edit("privateMeta", "private_metadata") == (("meta",), ("metadata",))
    assert name_similarity.edit("meta", "metadata") == (("meta",), ("metadata",))
    assert name_similarity.edit("service_account", "app") is None


@pytest.mark.parametrize(
    "schema, kinds",
    [
        (TEXT, {"string"}),
        ({"type": "string", "format": "date-time"}, {"date-time"}),
        ({"type": "number", "airbyte_type": "integer"}, {"integer"}),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}, {"type": "integer"}]},
            {"string", "integer"},
        ),
        ({"properties": {"a": {}}}, {"object"}),
        ({"items": {}}, {"array"}),
        ({}, set()),
    ],
)
def test_kinds(schema: dict[str, Any], kinds: set[str]) -> None:
    assert json_schema.kinds(schema) == kinds


# Renames that developers declared

STEPS = renames.steps()


def test_declared_renames_are_found_better_than_by_name_similarity() -> None:
    """By F1, and by recall at every confidence, with no lower precision."""
    total = sum(len(step.gold) for step in STEPS)
    ours, plain = (
        renames.assess(STEPS),
        renames.assess(STEPS, renames.plainly),
    )
    assert renames.best_f1(ours, total) > renames.best_f1(plain, total)
    for at_least in (0.3, 0.5, 0.6, 0.7, 0.8):
        mine, theirs = (
            renames.score(suggestions, total, at_least) for suggestions in (ours, plain)
        )
        assert mine.f1 > theirs.f1
        assert mine.precision >= theirs.precision


def test_confidence_is_calibrated() -> None:
    """On average within 15 points, by tenths of confidence."""
    assert renames.ece(renames.assess(STEPS)) <= 0.15


def test_recorded_data_has_no_evidence_but_names() -> None:
    """No hint, decision or value."""
    for step in STEPS:
        assert not any(s.more_than_names for s in suggest(step.question).suggestions)
