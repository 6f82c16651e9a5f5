"""Mappers of a connection that no longer find their field in what the source offers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from shared.domain.catalog import Catalog, ConfiguredStream, effective_mappers, identify
from shared.domain.catalog._mappers import ROW_FILTERING, Mapper, column_after, lapsed
from shared.domain.catalog._model import STREAM, Document, StreamId, readable
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.drift._diff import Change, Kind

MAPPER_LAPSED: Final[Kind] = "mapper_lapsed"


def has_mappers(stream: ConfiguredStream) -> bool:
    """Whether Airbyte applies mappers to the stream."""
    return stream.selected and bool(effective_mappers(stream.config))


@Stepwise
def lapses(configured: Catalog, offered: Iterable[Document]) -> Steps[list[Change]]:
    """A `mapper_lapsed` change for each field that mappers name and the source no longer offers.

    `before` lists these mappers, `{"mappers": [{"type", "id", "column"}]}`, with the column that
    each field had in the destination; a mapper's configuration is not included, since it may
    contain an encryption key. A stream that the source does not offer has no lapses: it is removed.

    Only streams with mappers are parsed. Sorted by stream, then by field.

    Raises:
        InvalidCatalog: `offered` is not a list of streams.
    """
    mapped = {stream.id: stream for stream in configured.streams if has_mappers(stream)}
    changes: list[Change] = []
    if not mapped:
        return changes
    for position, slice_ in enumerate(offered):
        stream_id, pair = identify(slice_, position)
        stream = mapped.get(stream_id)
        if stream is not None:
            with readable(f"stream {stream_id}"):
                found = lapsed(stream, STREAM.decode(pair.stream))
            changes += [_change(stream, field, found[field]) for field in sorted(found)]
        yield
    return sorted(changes, key=lambda change: (change.stream.order, change.path))


def _change(stream: ConfiguredStream, field: str, mappers: list[Mapper]) -> Change:
    column = column_after(effective_mappers(stream.config), field)
    listed = [{"type": one.type, "id": one.id, "column": column} for one in mappers]
    return Change(MAPPER_LAPSED, stream.id, (field,), before={"mappers": listed})


def lapsed_types(change: Change) -> frozenset[str]:
    """The types of the mappers that a `mapper_lapsed` change is about."""
    before: Any = change.before
    return frozenset(str(one["type"]) for one in before["mappers"])


def is_tolerated(change: Change) -> bool:
    """Whether Airbyte accepts these mappers without their field: row filters alone."""
    return lapsed_types(change) <= {ROW_FILTERING}


def lapsed_places(changes: Iterable[Change]) -> set[tuple[StreamId, str]]:
    """The streams and fields of the lapsed mappers among the changes."""
    return {(one.stream, one.path[0]) for one in changes if one.kind == MAPPER_LAPSED}
