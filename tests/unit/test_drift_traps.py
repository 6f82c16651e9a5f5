"""Changes that real sources made, and what goes wrong with each elsewhere: one test a trap."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog, drift
from tests.unit.catalogs import MOMENT, TEXT, Json, document, picked, shuffled, stream

Path = tuple[str, ...]
KEYS: Json = {"id": TEXT, "updated": MOMENT}
OWN: Json = {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}
NUMBER: Json = {"type": ["null", "number"]}


def thing(**inner: Any) -> Json:
    """An object with these fields."""
    return {"type": ["null", "object"], "properties": inner}


def diffs(before: Json, after: Json) -> list[tuple[str, str, str]]:
    """Kind, dotted path and severity of what changed in one stream."""
    plan = healing.plan_changes(catalog.parse(document(before)), document(after))
    return [(c.kind, ".".join(c.path), v.severity.value) for c, v in plan]


def applied(
    before: Json, after: Json, became: dict[Path, Path] | None = None
) -> tuple[Json, list[str]]:
    """The stream with every change applied, and the codes of what comes with it."""
    head = catalog.parse(document(before))
    decisions = [
        Instruction(change, "apply", became=(became or {}).get(change.path))
        for change in drift.diff(head, document(after))
    ]
    result = healing.heal(head, document(after), decisions)
    catalog.validate(catalog.parse(result.catalog))
    [pair] = orjson.loads(result.catalog)["streams"]
    return pair, [effect.code for effect in result.effects]


# -- renames, and what only looks like one


def test_harvest_inverted_meaning() -> None:
    """`deactivated` became `is_active`: no name, type or place says that true is false now.

    It is reported as removed and added, and is a rename only where a person said so.
    """
    before = stream(fields=KEYS | {"deactivated": TEXT}, **picked("id", "updated", "deactivated"))
    after = stream(fields=KEYS | {"is_active": TEXT})
    assert diffs(before, after) == [
        ("field_removed", "deactivated", "needs_review"),
        ("field_added", "is_active", "harmless"),
    ]
    pair, codes = applied(before, after)
    assert pair["config"]["selectedFields"] == picked("id", "updated")["selectedFields"]
    assert codes == ["selected_fields_gone"]


def test_harvest_dates_for_times() -> None:
    """`spent_at` became `spent_date`, the cursor: followed, with a warning about its state."""
    before = stream(fields={"id": TEXT, "spent_at": MOMENT}, offer=OWN, cursorField=["spent_at"])
    after = stream(fields={"id": TEXT, "spent_date": MOMENT}, offer=OWN)
    assert diffs(before, after)[0] == ("field_removed", "spent_at", "breaking")
    pair, codes = applied(before, after, {("spent_at",): ("spent_date",)})
    assert pair["config"]["cursorField"] == ["spent_date"]
    assert codes == ["cursor_followed", "field_renamed"]


def test_facebook_nested_rename() -> None:
    """`instagram_actor_id` became `instagram_user_id`, at the top and under `object_story_spec`."""
    old, new = "instagram_actor_id", "instagram_user_id"
    before, after = (
        stream(fields=KEYS | {name: TEXT, "object_story_spec": thing(**{name: TEXT, "link": TEXT})})
        for name in (old, new)
    )
    assert diffs(before, after) == [
        ("field_removed", old, "needs_review"),
        ("field_added", new, "harmless"),
        ("field_removed", f"object_story_spec.{old}", "needs_review"),
        ("field_added", f"object_story_spec.{new}", "harmless"),
    ]
    before["config"] |= picked("id", "updated", old, "object_story_spec")
    became: dict[Path, Path] = {
        (old,): (new,),
        ("object_story_spec", old): ("object_story_spec", new),
    }
    pair, _ = applied(before, after, became)
    chosen = picked("id", "updated", new, "object_story_spec")["selectedFields"]
    assert pair["config"]["selectedFields"] == chosen


def test_facebook_split_in_three() -> None:
    """`relevance_score` became three rankings: one rename at most, the others are new."""
    rankings = ["conversion_rate_ranking", "engagement_rate_ranking", "quality_ranking"]
    before = stream(
        fields=KEYS | {"relevance_score": TEXT}, **picked("id", "updated", "relevance_score")
    )
    after = stream(fields=KEYS | dict.fromkeys(rankings, TEXT))
    assert [kind for kind, _, _ in diffs(before, after)].count("field_added") == 3
    pair, _ = applied(before, after, {("relevance_score",): ("quality_ranking",)})
    chosen = picked("id", "updated", "quality_ranking")["selectedFields"]
    assert pair["config"]["selectedFields"] == chosen


def test_hubspot_reshaped() -> None:
    """Contacts lost `canonical-vid`, their key, and nearly everything else: no automatic rename."""
    before = stream(
        fields={"canonical-vid": TEXT, "updated": MOMENT, "merged-vids": TEXT},
        offer=OWN,
        primaryKey=[["canonical-vid"]],
    )
    after = stream(
        fields={"id": TEXT, "updated": MOMENT, "properties": thing(email=TEXT)}, offer=OWN
    )
    assert ("field_removed", "canonical-vid", "breaking") in diffs(before, after)
    pair, codes = applied(before, after)
    assert pair["config"]["destinationSyncMode"] == "append"
    assert codes == ["key_fallback"]


def test_hubspot_moved_up_a_level() -> None:
    """`engagement.engagement_id` became `engagement_id`, and the key follows it up."""
    before = stream(
        fields={"updated": MOMENT, "engagement": thing(engagement_id=TEXT, type=TEXT)},
        offer=OWN,
        primaryKey=[["engagement", "engagement_id"]],
        **picked("updated", "engagement"),
    )
    after = stream(
        fields={"updated": MOMENT, "engagement": thing(type=TEXT), "engagement_id": TEXT}, offer=OWN
    )
    assert diffs(before, after) == [
        ("field_removed", "engagement.engagement_id", "breaking"),
        ("field_added", "engagement_id", "harmless"),
    ]
    pair, _ = applied(before, after, {("engagement", "engagement_id"): ("engagement_id",)})
    assert pair["config"]["primaryKey"] == [["engagement_id"]]
    chosen = picked("updated", "engagement", "engagement_id")["selectedFields"]
    assert pair["config"]["selectedFields"] == chosen


def test_hubspot_parent_renamed() -> None:
    """`form-submission` became `form-submissions`: one change, and its fields move along."""
    form = thing(at=MOMENT, page=TEXT)
    before = stream(
        fields={"id": TEXT, "form-submission": form},
        offer=OWN,
        cursorField=["form-submission", "at"],
    )
    after = stream(fields={"id": TEXT, "form-submissions": form}, offer=OWN)
    assert diffs(before, after) == [
        ("field_removed", "form-submission", "breaking"),
        ("field_added", "form-submissions", "harmless"),
    ]
    pair, _ = applied(before, after, {("form-submission",): ("form-submissions",)})
    assert pair["config"]["cursorField"] == ["form-submissions", "at"]


@pytest.mark.parametrize(
    "gone,new",
    [
        ("site", "_site"),
        ("balance", "balance_cents"),
        ("currency", "original_currency"),
        ("last_synced_at", "last_auto_synced_at"),
        ("language", "language_code"),
    ],
)
def test_similar_names_are_no_renames(gone: str, new: str) -> None:
    """As cursor the field is lost, and the stream is read in full."""
    before = stream(fields={"id": TEXT, gone: MOMENT}, offer=OWN, cursorField=[gone])
    pair, codes = applied(before, stream(fields={"id": TEXT, new: MOMENT}, offer=OWN))
    assert pair["config"]["syncMode"] == "full_refresh"
    assert codes == ["cursor_fallback"]


@pytest.mark.parametrize(
    "gone,new",
    [
        ("inbox", "intake"),
        ("comment", "body"),
        ("display", "name"),
        ("icon", "emoji"),
        ("service_account", "app"),
    ],
)
def test_confirmed_rename_with_nothing_alike(gone: str, new: str) -> None:
    """A person's decision counts, also when the type changed with the name."""
    before = stream(fields=KEYS | {gone: TEXT}, **picked("id", gone, "updated"))
    after = stream(fields=KEYS | {new: NUMBER})
    pair, _ = applied(before, after, {(gone,): (new,)})
    assert pair["config"]["selectedFields"] == picked("id", new, "updated")["selectedFields"]


def test_only_additions() -> None:
    """Two new fields and none gone: nothing was renamed, and nothing that was there is touched."""
    before, after = stream(fields=KEYS), stream(fields=KEYS | {"ids": TEXT, "updated_on": MOMENT})
    assert {severity for _, _, severity in diffs(before, after)} == {"harmless"}
    assert applied(before, after) == (after, [])


# -- data lost by configuration


def test_cdc_switched_off() -> None:
    """CDC was switched off, so the cursor went: no stream is deselected for it."""
    cdc = {"_ab_cdc_lsn": TEXT, "_ab_cdc_deleted_at": MOMENT}
    offer = {"defaultCursorField": ["_ab_cdc_lsn"]}
    before = stream(fields=KEYS | cdc, offer=offer, cursorField=["_ab_cdc_lsn"])
    after = stream(fields=KEYS, offer={"sourceDefinedCursor": False, "defaultCursorField": []})
    assert ("field_removed", "_ab_cdc_lsn", "breaking") in diffs(before, after)
    pair, codes = applied(before, after)
    assert pair["config"]["selected"] is True
    assert codes == ["cursor_fallback"]
    healed = healing.heal(catalog.parse(document(before)), document(after), [])
    assert healed.catalog == document(before)


def test_every_stream_is_gone() -> None:
    """A permission was lost, or the connector failed silently: it is no catalog to apply."""
    head = catalog.parse(document(stream("a"), stream("b")))
    plan = healing.plan_changes(head, document())
    assert {verdict.severity for _, verdict in plan} == {drift.Severity.BREAKING}
    with pytest.raises(HealImpossible) as impossible:
        healing.heal(head, document(), [Instruction(change, "apply") for change, _ in plan])
    assert impossible.value.code == "no_selected_stream"


@pytest.mark.parametrize("unpicked", [[], None])
def test_null_and_missing_selection_mean_all_fields(unpicked: list[Any] | None) -> None:
    """An SDK turned `null`, which is all fields, into `[]`, which was none."""
    before = stream(selectedFields=unpicked, fieldSelectionEnabled=None)
    after = stream(fields=KEYS | {"total": TEXT, "new": TEXT})
    assert diffs(before, after) == [("field_added", "new", "harmless")]
    pair, _ = applied(before, after)
    assert pair["config"] == before["config"]


def test_new_column_is_not_added_to_selected_fields() -> None:
    """Airbyte appends it when it propagates: a way for personal data into the lake."""
    before = stream(**picked("id", "updated"))
    after = stream(fields=KEYS | {"total": TEXT, "ssn": TEXT})
    pair, codes = applied(before, after)
    assert pair["config"] == before["config"]
    assert codes == []


def test_change_of_an_unselected_column_does_not_matter() -> None:
    before = stream(fields=KEYS | {"ssn": TEXT}, **picked("id", "updated"))
    for fields in (KEYS | {"ssn": NUMBER}, KEYS | {"social": TEXT}, KEYS):
        assert {severity for _, _, severity in diffs(before, stream(fields=fields))} == {"harmless"}


def test_added_stream_does_not_reset_others() -> None:
    """They stay byte for byte, so that nothing about them can be read as a change."""
    head = catalog.parse(document(stream("a"), stream("b")))
    after = document(stream("b"), stream("c"), stream("a"))
    [added] = [Instruction(change, "apply") for change in drift.diff(head, after)]
    result = healing.heal(head, after, [added])
    assert [s.raw for s in catalog.parse(result.catalog).streams[:2]] == [
        s.raw for s in head.streams
    ]


def test_removed_cursor_is_removed_everywhere() -> None:
    """Airbyte keeps a removed cursor and key in the refreshed catalog, which then fails."""
    before = stream(offer=OWN, **picked("id", "updated", "total"))
    pair, codes = applied(before, stream(fields={"total": TEXT}, offer=OWN))
    config = pair["config"]
    assert (config["cursorField"], config["primaryKey"]) == ([], [["id"]])
    assert config["destinationSyncMode"] == "overwrite", "which needs no key"
    assert config["selectedFields"] == picked("total")["selectedFields"]
    assert codes == ["cursor_fallback", "selected_fields_gone"]


# -- types


def test_added_format_is_no_widening() -> None:
    """Text became date-time and production was down twice."""
    before, after = (stream(fields=KEYS | {"seen": t}) for t in (TEXT, MOMENT))
    assert diffs(before, after) == [("field_retyped", "seen", "needs_review")]
    [(change, verdict)] = healing.plan_changes(catalog.parse(document(before)), document(after))
    assert verdict.what == "clashing"
    assert verdict.loses == ("seen",)
    healed = healing.heal(
        catalog.parse(document(before)), document(after), [Instruction(change, "keep")]
    )
    assert healed.catalog == document(before)


def test_narrowing_is_never_harmless() -> None:
    """Number to integer drops what stands after the point."""
    before, after = (
        stream(fields=KEYS | {"total": {"type": ["null", basic]}})
        for basic in ("number", "integer")
    )
    assert diffs(before, after) == [("field_retyped", "total", "needs_review")]
    assert diffs(after, before) == [("field_retyped", "total", "harmless")]


def test_changed_source_defined_cursor() -> None:
    """Airbyte does not compare it; the saved state is the other cursor's."""
    after = stream(offer={"defaultCursorField": ["total"]})
    assert diffs(stream(), after) == [("cursor_changed", "", "needs_review")]
    assert applied(stream(), after)[1] == ["cursor_followed"]


# -- false alarms


def test_union_hides_no_sibling() -> None:
    """Airbyte drops the children of a union `foo` by prefix, and so its sibling `foobar`."""
    union = {"oneOf": [thing(a=TEXT), {"type": "string"}]}
    before = stream(
        fields=KEYS | {"foo": union, "foobar": TEXT}, offer=OWN, primaryKey=[["foobar"]]
    )
    after = stream(fields=KEYS | {"foo": union}, offer=OWN)
    assert diffs(before, after) == [("field_removed", "foobar", "breaking")]


def test_order_of_values_is_no_change() -> None:
    """Of values, types, alternatives, keys, fields or streams."""
    parts = [{"type": "string", "enum": ["a", "b"]}, {"type": "integer"}]
    turned = [{"type": "integer"}, {"enum": ["b", "a"], "type": "string"}]
    before, after = (
        stream(fields=KEYS | {"x": {"anyOf": some}, "y": {"type": types}})
        for some, types in ((parts, ["null", "string"]), (turned, ["string", "null"]))
    )
    after = shuffled(after, 7)
    assert diffs(before, after) == []
    hashes = {catalog.canonical_hash(one) for one in catalog.scan(document(before, after))}
    assert len(hashes) == 1, "the same catalog has one hash"


def test_field_described_twice() -> None:
    """Airbyte gives up on it as a duplicate; here its types are those of both branches."""
    both = {"oneOf": [thing(x=TEXT), thing(x=NUMBER)]}
    one = {"oneOf": [thing(x=TEXT), thing(y=TEXT)]}
    before, after = stream(fields=KEYS | {"foo": both}), stream(fields=KEYS | {"foo": one})
    assert diffs(before, after) == [
        ("field_retyped", "foo.x", "needs_review"),
        ("field_added", "foo.y", "harmless"),
    ]
    assert applied(before, after)[0] == after


def test_two_changes_at_once_equal_two_in_a_row() -> None:
    first = stream(fields=KEYS | {"a": TEXT})
    second = stream(fields=KEYS | {"a": TEXT, "b": TEXT})
    once, _ = applied(stream(fields=KEYS), second)
    twice, _ = applied(applied(stream(fields=KEYS), first)[0], second)
    assert msgspec.json.encode(once) == msgspec.json.encode(twice)
