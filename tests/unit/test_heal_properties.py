"""What holds for every heal, and what no longer fits a source."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import HealImpossible, Instruction
from shared.domain import catalog
from tests.unit.catalogs import (
    CATALOGS,
    MOMENT,
    TEXT,
    Json,
    document,
    histories,
    picked,
    shuffled,
    stream,
)
from tests.unit.healing import FIELDS, PLAIN, attempt, decided, heal


@given(CATALOGS, CATALOGS)
def test_no_decision_changes_nothing(before: list[Json], after: list[Json]) -> None:
    """Byte for byte; the same where everything was decided to be kept."""
    for decisions in ([], decided(before, after, "keep")):
        result = heal(before, after, decisions)
        assert result.catalog == document(*before)
        assert result.effects == ()


@given(histories())
def test_applying_everything_leaves_nothing_to_plan(history: tuple[list[Json], list[Json]]) -> None:
    """Each stream has the source's definition byte for byte, and what is left is not breaking."""
    before, after = history
    head, discovered = catalog.parse(document(*before)), document(*after)
    decisions = decided(before, after)
    result = attempt(before, after, decisions)
    if result is None:
        return
    new = catalog.parse(result.catalog)

    offered = {s.id: s for s in catalog.parse(discovered).streams}
    touched = {decision.change.stream for decision in decisions}
    assert {s.id for s in new.selected().streams} == offered.keys()
    for stream_ in new.selected().streams:
        if stream_.id in touched:
            definition = offered[stream_.id].raw.split(b',"config":')[0]
            assert stream_.raw.startswith(definition)
        else:
            assert stream_.raw == head.by_id()[stream_.id].raw
    assert [s.selected for s in new.streams] == sorted(s.selected for s in new.streams)[::-1]
    assert healing.plan_changes(new, discovered) == []
    assert healing.incompatibilities(new, discovered) == []


@given(histories(), st.data())
def test_only_decided_changes_are_applied(
    history: tuple[list[Json], list[Json]], data: st.DataObject
) -> None:
    """Also within one stream, and within one field."""
    before, after = history
    every = decided(before, after)
    chosen = [d for d in every if data.draw(st.booleans())]
    result = attempt(before, after, chosen)
    if result is None:
        return
    left = {
        (c.stream, c.kind, c.path)
        for c, _ in healing.plan_changes(catalog.parse(result.catalog), document(*after))
    }
    open_ = {(d.change.stream, d.change.kind, d.change.path) for d in every if d not in chosen}
    if any(effect.code == "field_kept_whole" for effect in result.effects):
        assert left >= open_
    else:
        assert left == open_
    concerned = {decision.change.stream for decision in chosen}
    streams = {s.id: s.raw for s in catalog.parse(result.catalog).streams}
    for stream_ in catalog.parse(document(*before)).streams:
        assert stream_.id in streams, "no stream drops out of the document"
        if stream_.id not in concerned:
            assert streams[stream_.id] == stream_.raw


@given(histories(), st.data())
def test_healing_is_idempotent(history: tuple[list[Json], list[Json]], data: st.DataObject) -> None:
    """Also with decisions read back from JSON; arguments are not changed."""
    before, after = history
    actions = st.sampled_from(["apply", "apply", "keep", "exclude"])
    decisions = [
        msgspec.structs.replace(decision, action=data.draw(actions))
        for decision in decided(before, after)
    ]
    once = attempt(before, after, decisions)
    if once is None:
        return
    head, discovered, copy = catalog.parse(document(*before)), document(*after), deepcopy(decisions)
    assert healing.heal(head, discovered, decisions) == once
    assert catalog.dump(head) == document(*before)
    assert discovered == document(*after)
    assert decisions == copy

    again = msgspec.json.decode(msgspec.json.encode(decisions), type=list[Instruction])
    assert healing.heal(head, discovered, again) == once
    twice = healing.heal(catalog.parse(once.catalog), discovered, decisions)
    assert twice.catalog == once.catalog


@given(histories())
def test_selected_fields_never_grow_automatically(
    history: tuple[list[Json], list[Json]],
) -> None:
    """A new field may be personal data: only what the cursor or key needs is added, with a note."""
    before, after = history
    head = catalog.parse(document(*before))
    result = attempt(before, after, decided(before, after))
    if result is None:
        return
    known = head.by_id()
    for stream_ in catalog.parse(result.catalog).selected().streams:
        had = stream_.id in known and known[stream_.id].config.selected_names()
        if not had:
            continue
        more = (stream_.config.selected_names() or frozenset()) - had
        needed = {path[0] for path in (stream_.cursor, *stream_.primary_key) if path}
        assert more <= needed
        assert stream_.config.selected_names() is not None, "a list is never switched off"
        effects = [
            e for e in result.effects if e.code == "field_selected" and e.stream == stream_.id
        ]
        assert len(effects) == len(more)


@given(histories(), st.integers(0, 99))
def test_order_does_not_affect_a_heal(history: tuple[list[Json], list[Json]], seed: int) -> None:
    """The source may answer in any order, and as slices; decisions come in any order too."""
    before, after = history
    other = shuffled({"streams": after}, seed)["streams"]
    decisions = decided(before, after)
    head = catalog.parse(document(*before))

    def outcome(discovered: Any, some: Sequence[Instruction]) -> str:
        try:
            result = healing.heal(head, discovered, some)
        except HealImpossible as impossible:
            return impossible.code
        return catalog.document_fingerprint(result.catalog)

    expected = outcome(document(*after), decisions)
    assert outcome(document(*other), decisions) == expected
    assert outcome(catalog.scan(document(*after)), decisions[::-1]) == expected


# -- fields


@given(histories())
def test_offered_catalog_fits_its_source(history: tuple[list[Json], list[Json]]) -> None:
    """A stream that is gone does not."""
    before, after = history
    head = catalog.parse(document(*before))
    assert healing.incompatibilities(head, document(*before)) == []
    gone = {pair["stream"]["name"] for pair in before} - {p["stream"]["name"] for p in after}
    incompatibilities = healing.incompatibilities(head, document(*after))
    assert {
        p.stream.name for p in incompatibilities if p.stream and p.code == "stream_gone"
    } == gone


def test_misfits_name_what_the_source_no_longer_has() -> None:
    """Each with its place; changed types and unused fields are no incompatibilities."""

    def incompatibilities(before: Json, after: Json) -> list[tuple[str, str]]:
        found = healing.incompatibilities(catalog.parse(document(before)), document(after))
        return [(problem.code, problem.field.removeprefix("streams[0].")) for problem in found]

    shrunk = stream(fields={"total": TEXT}, offer=PLAIN | {"supportedSyncModes": ["full_refresh"]})
    assert incompatibilities(stream(), shrunk) == [
        ("field_gone", "config.selectedFields"),
        ("field_gone", "config.selectedFields"),
        ("unsupported_sync_mode", "config.syncMode"),
        ("cursor_gone", "config.cursorField"),
        ("key_gone", "config.primaryKey"),
    ]
    less = stream(fields={"id": TEXT, "updated": MOMENT})
    assert incompatibilities(stream(), less) == [("field_gone", "config.selectedFields")]
    assert incompatibilities(stream(**picked("id", "updated")), less) == []
    assert incompatibilities(stream(), stream(fields=FIELDS | {"total": MOMENT, "new": TEXT})) == []
    assert incompatibilities(stream(), stream("other")) == [("stream_gone", "stream.name")]
    assert incompatibilities(stream(selected=False), stream("other")) == []
