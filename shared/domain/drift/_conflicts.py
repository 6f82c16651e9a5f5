"""Fields that come back while a renaming writes another field into the column of their name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from shared.domain.catalog import ConfiguredStream, StreamId
from shared.domain.catalog._mappers import FIELD_RENAMING, effective_mappers, source_fields
from shared.domain.drift._diff import Change, Kind

MAPPING_CONFLICT: Final[Kind] = "mapping_conflict"


def with_conflicts(
    changes: Iterable[Change], streams: Mapping[StreamId, ConfiguredStream]
) -> list[Change]:
    """The changes, of which a new field with a renamed field's name is a `mapping_conflict`.

    `before` is `{"field": name}`, the field that is written under this name. A stream whose fields
    are hand-picked has no conflict, since the new field is not selected. Neither is there one if
    the renamed field is gone in turn.
    """
    listed = list(changes)
    gone = {(one.stream, one.path) for one in listed if one.kind == "field_removed"}
    found = []
    for change in listed:
        field = _writing(change, streams.get(change.stream))
        if field is None or (change.stream, (field,)) in gone:
            found.append(change)
        else:
            found.append(replace(change, kind=MAPPING_CONFLICT, before={"field": field}))
    return found


def _writing(change: Change, stream: ConfiguredStream | None) -> str | None:
    """The field that is written under the name of a new one."""
    is_new = change.kind == "field_added" and len(change.path) == 1
    if not is_new or stream is None or not stream.selected:
        return None
    if stream.config.selected_names() is not None:
        return None
    mappers = effective_mappers(stream.config)
    for mapper, fields in zip(mappers, source_fields(mappers), strict=True):
        if mapper.type == FIELD_RENAMING:
            written = {mapper.output(name) for name in mapper.names}
            if change.path[0] in written - fields:
                return next(iter(fields))
    return None
