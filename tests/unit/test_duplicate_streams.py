"""A discovery that names one stream twice is not believed, in whatever order it does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Instruction
from shared.domain import catalog, drift
from shared.domain.catalog import InvalidCatalog
from tests.unit.catalogs import TEXT, document, stream

MODES = {"append", "overwrite", "append_dedup"}
ONE = stream("items", {"id": TEXT, "updated": TEXT, "price": TEXT}, namespace="shop")
TWIN = stream("items", {"id": TEXT, "updated": TEXT, "label": TEXT}, namespace="shop")
OTHER = stream("other")
HEAD = catalog.parse(document(ONE))


@pytest.mark.parametrize(
    "pairs", [(ONE, TWIN), (TWIN, ONE), (ONE, OTHER, ONE), (OTHER, TWIN, TWIN)]
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda offered: drift.diff(document(ONE), offered),
        lambda offered: drift.diff(HEAD, catalog.scan(offered)),
        lambda offered: healing.plan_changes(HEAD, offered),
        lambda offered: healing.incompatibilities(HEAD, offered),
        lambda offered: healing.heal(HEAD, offered, []),
        lambda offered: catalog.distinct(catalog.scan(offered)),
        lambda offered: catalog.choose(offered, streams=None, destination_sync_modes=MODES),
        lambda offered: catalog.choose(offered, streams=["items"], destination_sync_modes=MODES),
        lambda offered: catalog.validate(catalog.parse(offered)),
    ],
)
def test_duplicate_stream_is_refused(pairs: Any, ask: Any) -> None:
    """By one code, also where the two are alike, and where one of them is known."""
    with pytest.raises(InvalidCatalog, match="items") as refused:
        ask(document(*pairs))
    assert refused.value.code == "duplicate_stream"
    assert "namespace.name" not in str(refused.value)


def test_duplicate_is_found_beside_a_cached_slice() -> None:
    """A cached slice is looked up by its bytes, in any document."""
    for pairs in ((ONE, OTHER), (OTHER, ONE)):
        assert drift.diff(document(ONE, OTHER), document(*pairs)) == []
    with pytest.raises(InvalidCatalog):
        drift.diff(document(ONE, OTHER), document(ONE, OTHER, TWIN))


@pytest.mark.parametrize("pairs", [(ONE, TWIN, OTHER), (TWIN, OTHER, ONE)])
def test_merge_keeps_the_configured_stream(pairs: Any) -> None:
    """The order can be applied, and a note says why the discovery was ignored."""
    merged = catalog.merge(HEAD, document(*pairs), every_stream=True)
    streams = orjson.loads(merged.catalog)["streams"]
    assert [one["stream"]["name"] for one in streams] == ["items", "other"]
    assert streams[0] == ONE
    assert [(note.code, note.stream.name) for note in merged.notes] == [
        ("duplicate_stream", "items")
    ]
    assert (merged.removed, merged.unselected) == ((), 1)
    catalog.validate(catalog.parse(merged.catalog))


def test_same_name_in_two_namespaces_is_two_streams() -> None:
    """The advice says how to write each; without a namespace the name is enough."""
    archive = stream("items", namespace="archive")
    assert [c.kind for c in drift.diff(document(ONE), document(ONE, archive))] == ["stream_added"]
    with pytest.raises(InvalidCatalog, match=r"'shop\.items', 'archive\.items'") as refused:
        catalog.choose(document(ONE, archive), streams=["items"], destination_sync_modes=MODES)
    assert refused.value.code == "ambiguous_stream"

    bare = stream("items")
    chosen = catalog.choose(document(ONE, bare), streams=["items"], destination_sync_modes=MODES)
    assert [one.id.namespace for one in chosen.streams] == [None]

    dotted = (stream("b.c", namespace="a"), stream("c", namespace="a.b"))
    with pytest.raises(InvalidCatalog) as refused:
        catalog.choose(document(*dotted), streams=["a.b.c"], destination_sync_modes=MODES)
    assert refused.value.code in ("ambiguous_stream", "unknown_stream")
    assert "write" not in str(refused.value)


def test_stored_discovery_with_it_can_be_the_old_side() -> None:
    """It was stored before duplicates were refused; what the source offers now is clear."""
    assert drift.diff(document(TWIN, ONE), document(ONE)) == []
    [change] = drift.diff(document(ONE, TWIN), document(TWIN, OTHER))
    assert change.kind == "stream_added"


def test_heal_of_another_stream_is_refused() -> None:
    """The whole discovery is rejected."""
    changes = drift.diff(document(OTHER), document(stream("other", {"id": TEXT, "updated": TEXT})))
    head = catalog.parse(document(OTHER))
    offered = document(stream("other", {"id": TEXT, "updated": TEXT}), ONE, TWIN)
    with pytest.raises(InvalidCatalog) as refused:
        healing.heal(head, offered, [Instruction(change, "apply") for change in changes])
    assert refused.value.code == "duplicate_stream"
