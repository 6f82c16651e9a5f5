"""What a newer Airbyte has and AAM does not know is kept, and holds nothing up."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Instruction
from shared.domain import catalog
from shared.domain.catalog import FORWARD, InvalidCatalog, ToleratedSettings
from tests.unit.catalogs import MOMENT, TEXT, Json, document, stream

GROWN: Json = {"id": TEXT, "updated": MOMENT, "total": TEXT, "region": TEXT}
NEWER = [
    {"recordMapping": {"kind": "later"}},
    {"destinationSyncMode": "upsert"},
    {"syncMode": "continuous"},
    {"syncMode": "continuous", "destinationSyncMode": "upsert", "later": [1, {"a": None}]},
]


def healed(head: Json, *others: Json, only: str) -> tuple[list[Json], list[str]]:
    """Both streams grew a field, and the changes of one of them are applied."""
    configured = catalog.parse(document(head, *others))
    offered = document(*(stream(one["stream"]["name"], GROWN) for one in (head, *others)))
    changes = [c for c, _ in healing.plan_changes(configured, offered) if c.stream.name == only]
    added = [change for change in changes if change.kind == "field_added"]
    result = healing.heal(configured, offered, [Instruction(c, "apply") for c in added])
    return orjson.loads(result.catalog)["streams"], [effect.code for effect in result.effects]


@pytest.mark.parametrize(
    "newer,changed", [*((one, "b") for one in NEWER), *((one, "a") for one in NEWER[:2])]
)
def test_heal_keeps_unknown_settings(newer: Json, changed: str) -> None:
    """Where another stream is healed, the one that has them stays byte for byte."""
    newest = stream("a", **newer)
    pairs, effects = healed(newest, stream("b"), only=changed)
    assert pairs[0]["config"] == newest["config"]
    assert pairs[0] == newest or changed == "a"
    assert "region" in pairs["ab".index(changed)]["stream"]["jsonSchema"]["properties"]
    assert effects == []


def test_unknown_setting_is_refused() -> None:
    """A typo would be silently dropped by Airbyte."""
    familiar = ToleratedSettings.of(catalog.parse(document(stream())).streams)
    wrong: list[Any] = [{"selectd": False}, {"syncMode": "sometimes"}, {"destinationSyncMode": "x"}]
    for config in wrong:
        posted = catalog.parse(document(stream("a", **config)))
        with pytest.raises(InvalidCatalog) as refused:
            catalog.validate(posted)
        assert refused.value.code in FORWARD
        with pytest.raises(InvalidCatalog):
            catalog.validate(posted, familiar=familiar)


def test_unknown_setting_has_a_suggestion() -> None:
    """A misspelt setting by the nearest known one, a misplaced one by where it belongs."""
    for change, message in (
        ({"config": {**stream("a")["config"], "selectd": False}}, "did you mean 'selected'?"),
        ({"selected": False}, "'selected' of 'a' belongs in `config`."),
        ({"confg": {}}, "'confg' of 'a' is not a known member."),
    ):
        posted = document({**stream("a"), **change})
        with pytest.raises(InvalidCatalog) as refused:
            catalog.validate(catalog.parse(posted))
        assert refused.value.code == "unknown_setting"
        assert refused.value.problems[0].message.endswith(message)
        familiar = ToleratedSettings.of(catalog.parse(posted).streams)
        catalog.validate(catalog.parse(posted), familiar=familiar)


@pytest.mark.parametrize("newer", NEWER)
def test_setting_of_catalog_or_discovery_is_accepted(newer: Json) -> None:
    """In whatever stream."""
    held = stream("held", **newer)
    modes = ["full_refresh", "incremental", "continuous"]
    posted = stream("posted", offer={"supportedSyncModes": modes}, **newer)
    familiar = ToleratedSettings.of(catalog.parse(document(held)).streams)
    catalog.validate(catalog.parse(document(posted)), familiar=familiar)
    # Nothing of that is remembered for who does not know it.
    with pytest.raises(InvalidCatalog):
        catalog.validate(catalog.parse(document(posted)))


def test_stream_with_only_unknown_modes_is_left_out() -> None:
    """Unless named, and with a note; named, it is refused."""
    newer = stream("newer", offer={"supportedSyncModes": ["continuous"]})
    offered = document(newer, stream("plain"))
    modes = {"append", "overwrite", "append_dedup"}
    chosen = catalog.choose_with_notes(offered, streams=None, destination_sync_modes=modes)
    assert [one.id.name for one in chosen.catalog.streams] == ["plain"]
    assert [note.code for note in chosen.notes] == ["unsupported_sync_mode"]
    with pytest.raises(InvalidCatalog) as refused:
        catalog.choose(offered, streams=["newer"], destination_sync_modes=modes)
    assert refused.value.code == "unsupported_sync_mode"
