"""No deduplicated stream names a cursor or key that its schema lacks, in whatever mode it is read.

The destination takes both for columns, and refuses all of a catalog in which one is none.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Instruction
from shared.domain import catalog
from shared.domain.catalog import InvalidCatalog
from tests.unit.catalogs import MOMENT, TEXT, Json, document, picked, stream

LSN: Json = {"type": ["null", "number"]}
PLAIN: Json = {"id": TEXT, "updated": MOMENT}


def replicated(fields: Json, cursor: list[str], *, own: bool = False, **config: Any) -> Json:
    """A stream of a database, read in full and deduplicated unless `config` says otherwise."""
    settings = {
        "syncMode": "full_refresh",
        "destinationSyncMode": "overwrite_dedup",
        "cursorField": ["_lsn"],
        "primaryKey": [["id"]],
    }
    offer: Json = {
        "sourceDefinedCursor": own,
        "defaultCursorField": cursor,
        "sourceDefinedPrimaryKey": [],
    }
    return stream(fields=fields, offer=offer, **(settings | config))


def codes(pair: Json) -> list[tuple[str, str]]:
    """Why Airbyte, or the destination, would refuse it."""
    try:
        catalog.validate(catalog.parse(document(pair)))
    except InvalidCatalog as error:
        return [(problem.code, problem.field.partition(".")[2]) for problem in error.problems]
    return []


def healed(before: Json, after: Json) -> tuple[Json, list[str]]:
    """The config after all changes were applied, and what came with it."""
    head, offered = catalog.parse(document(before)), document(after)
    decisions = [Instruction(c, "apply") for c, _ in healing.plan_changes(head, offered)]
    result = healing.heal(head, offered, decisions)
    [pair] = orjson.loads(result.catalog)["streams"]
    assert codes(pair) == []
    return pair["config"], [effect.code for effect in result.effects]


MODES = [
    {},
    {"syncMode": "incremental", "destinationSyncMode": "append_dedup"},
]


@pytest.mark.parametrize("modes", MODES)
@pytest.mark.parametrize("own", [False, True])
def test_dangling_setting_of_a_caller_is_refused(modes: Json, *, own: bool) -> None:
    """Also where the source defines the cursor, and where nothing is read by it."""
    dangling = ("unknown_field", "config.cursorField")
    assert codes(replicated(PLAIN, ["_lsn"], own=own, **modes)) == [dangling]
    assert codes(replicated(PLAIN | {"_lsn": LSN}, ["_lsn"], own=own, **modes)) == []
    keyed = replicated(PLAIN | {"_lsn": LSN}, ["_lsn"], own=own, **modes, primaryKey=[["gone"]])
    assert codes(keyed) == [("unknown_field", "config.primaryKey[0]")]


@pytest.mark.parametrize("modes", MODES)
def test_path_into_a_scalar_is_refused(modes: Json) -> None:
    """A text or number has no fields; an object that declares none may have any."""
    fields = PLAIN | {"_lsn": LSN, "meta": {"type": "object"}, "any": {}}
    wrong = replicated(fields, [], **modes, cursorField=["_lsn", "at"], primaryKey=[["id", "no"]])
    assert codes(wrong) == [
        ("unknown_field", "config.cursorField"),
        ("unknown_field", "config.primaryKey[0]"),
    ]
    right = replicated(
        fields, [], **modes, cursorField=["meta", "at"], primaryKey=[["id"], ["any", "no"]]
    )
    assert codes(right) == []


@pytest.mark.parametrize("writes", ["append", "overwrite"])
def test_without_deduplication_it_is_allowed(writes: str) -> None:
    """A cursor left over from another mode does no harm there."""
    assert codes(replicated(PLAIN, [], destinationSyncMode=writes)) == []


def test_unselected_field_is_refused() -> None:
    """Airbyte cuts the schema down to the selected fields before the destination sees it."""
    pair = replicated(PLAIN | {"_lsn": LSN}, [], **picked("id", "updated"))
    assert codes(pair) == [("cursor_not_selected", "config.cursorField")]


@pytest.mark.parametrize("own", [False, True])
def test_heal_removes_it_and_reports_it(*, own: bool) -> None:
    """The upgraded source no longer has such a column."""
    config, effects = healed(
        replicated(PLAIN | {"_lsn": LSN}, ["_lsn"], own=own), replicated(PLAIN, [], own=own)
    )
    assert (config["cursorField"], effects) == ([], ["cursor_dropped"])
    assert (config["syncMode"], config["destinationSyncMode"]) == (
        "full_refresh",
        "overwrite_dedup",
    )


def test_heal_removes_one_that_existed_before() -> None:
    """An older Airbyte stored it so; another change of the stream is applied."""
    config, effects = healed(replicated(PLAIN, []), replicated(PLAIN | {"new": TEXT}, []))
    assert (config["cursorField"], effects) == ([], ["cursor_dropped"])


def test_heal_keeps_a_source_defined_cursor_without_a_name() -> None:
    """Incremental and deduplicated, by a cursor that is no column."""
    incremental = {"syncMode": "incremental", "destinationSyncMode": "append_dedup"}
    before = replicated(PLAIN | {"_lsn": LSN}, ["_lsn"], own=True, **incremental)
    config, effects = healed(before, replicated(PLAIN, ["_lsn"], own=True))
    assert (config["cursorField"], config["syncMode"]) == ([], "incremental")
    assert effects == ["cursor_dropped"]


@pytest.mark.parametrize(
    "meta",
    [
        {"type": ["null", "object"]},
        {"type": "array", "items": {"properties": {"key": TEXT, "at": MOMENT}}},
        {"type": "string"},
        {},
    ],
    ids=str,
)
def test_path_that_its_field_no_longer_declares_is_gone(meta: Json) -> None:
    """All checks agree with the diff."""
    inner: Json = {"type": "object", "properties": {"key": TEXT, "at": MOMENT}}
    modes = {"syncMode": "incremental", "destinationSyncMode": "append_dedup"}
    settings: Json = modes | {"cursorField": ["updated"], "primaryKey": [["meta", "key"]]}
    before = replicated(PLAIN | {"meta": inner}, [], **settings)
    after = replicated(PLAIN | {"meta": meta}, [], **settings)
    config, effects = healed(before, after)
    assert "key_fallback" in effects
    assert (config["destinationSyncMode"], config["primaryKey"]) == ("append", [])
    head = catalog.parse(document(before))
    assert [one.code for one in healing.incompatibilities(head, document(after))] == ["key_gone"]
    merged = catalog.merge(head, document(after), every_stream=False)
    assert [note.code for note in merged.notes] == ["key_gone"]

    settings |= {"cursorField": ["meta", "at"], "primaryKey": [["id"]]}
    before = replicated(PLAIN | {"meta": inner}, [], **settings)
    after = replicated(PLAIN | {"meta": meta}, [], **settings)
    config, effects = healed(before, after)
    assert "cursor_fallback" in effects
    assert config["cursorField"] == []


def test_stream_without_declared_fields_loses_its_key() -> None:
    """Its former key is one of the fields that are gone."""
    before, after = (replicated(PLAIN, [], cursorField=[]) for _ in range(2))
    after["stream"]["jsonSchema"] = {"type": "object"}
    config, effects = healed(before, after)
    assert "key_fallback" in effects
    assert config["destinationSyncMode"] == "overwrite"


def test_dangling_setting_of_another_stream_blocks_no_heal() -> None:
    """Airbyte has it already; that stream stays as it is."""
    other = replicated(PLAIN, [])
    other["stream"]["name"] = "other"
    head = catalog.parse(document(stream(), other))
    offered = document(stream(fields={"id": TEXT, "updated": MOMENT}), other)
    decisions = [Instruction(c, "apply") for c, _ in healing.plan_changes(head, offered)]
    result = healing.heal(head, offered, decisions)
    assert orjson.loads(result.catalog)["streams"][1] == other


@pytest.mark.parametrize("own", [False, True])
def test_merge_drops_it_with_a_note(*, own: bool) -> None:
    before = replicated(PLAIN | {"_lsn": LSN}, ["_lsn"], own=own)
    head, offered = catalog.parse(document(before)), document(replicated(PLAIN, [], own=own))
    merged = catalog.merge(head, offered, every_stream=False)
    [pair] = orjson.loads(merged.catalog)["streams"]
    assert pair["config"]["cursorField"] == []
    assert [note.code for note in merged.notes] == ["cursor_dropped"]
    assert codes(pair) == []


def test_older_version_with_it_does_not_fit() -> None:
    """A rollback would restore the name."""
    older = catalog.parse(document(replicated(PLAIN | {"_lsn": LSN}, ["_lsn"])))
    found = healing.incompatibilities(older, document(replicated(PLAIN, [])))
    assert "cursor_gone" in [problem.code for problem in found]


def test_chosen_catalog_names_only_columns() -> None:
    """A cursor without a column is not written down."""
    offered = stream(offer={"defaultCursorField": ["_lsn"]})
    modes = {"append", "append_dedup"}
    for destination, expected in ((modes, []), ({"append"}, ["_lsn"])):
        chosen = catalog.choose(document(offered), streams=None, destination_sync_modes=destination)
        [pair] = orjson.loads(catalog.dump(chosen))["streams"]
        assert (pair["config"]["syncMode"], pair["config"]["cursorField"]) == (
            "incremental",
            expected,
        )


def test_excluded_cursor_is_not_named() -> None:
    """Nothing reads by it, and the destination would look for it."""
    private = replicated(PLAIN | {"lsn_ssn": LSN}, [], cursorField=["lsn_ssn"])
    [configured] = catalog.parse(document(private)).streams
    cut = catalog.Exclusions().without(configured)
    assert (cut.config.cursor_field, codes(orjson.loads(cut.raw))) == ((), [])

    before = replicated(PLAIN, [], cursorField=["updated"])
    after = replicated(PLAIN | {"updated": LSN}, [])
    head = catalog.parse(document(before))
    decisions = [Instruction(c, "exclude") for c, _ in healing.plan_changes(head, document(after))]
    result = healing.heal(head, document(after), decisions)
    [pair] = orjson.loads(result.catalog)["streams"]
    assert pair["config"]["cursorField"] == []
    assert "cursor_dropped" in [effect.code for effect in result.effects]
