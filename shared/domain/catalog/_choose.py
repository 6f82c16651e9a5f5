"""Which streams a new connection syncs, and how."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from shared.domain.catalog._model import (
    CONFIG,
    MAX_PROBLEMS,
    PAIR,
    UNREADABLE,
    Catalog,
    ConfiguredStream,
    Document,
    InvalidCatalog,
    Path,
    Problem,
    StreamId,
    encode_pair,
    identify,
    read_stream,
    scan,
    shown,
)
from shared.domain.catalog._rules import MAX_BYTES, MAX_FIELDS, declared, validate
from shared.domain.nearest import did_you_mean
from shared.domain.steps import Steps, Stepwise

_HINTED = 5
"""Unknown names for which the nearest known ones are looked up: each takes milliseconds."""


class _Written(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A config as we write it: whole, and of members that every Airbyte since 0.63 knows."""

    sync_mode: str
    destination_sync_mode: str
    cursor_field: Path
    primary_key: tuple[Path, ...]
    alias_name: str
    selected: bool = True
    suggested: bool = False
    field_selection_enabled: bool = False
    selected_fields: tuple[()] = ()


@Stepwise
def choose(
    discovered: Document | Catalog,
    *,
    streams: Sequence[str] | None,
    destination_sync_modes: Collection[str],
    max_fields: int = MAX_FIELDS,
    max_bytes: int = MAX_BYTES,
) -> Steps[Catalog]:
    """The catalog of a new connection: valid, only selected streams, in the source's order.

    `streams` are names, written `namespace.name` where two namespaces have the same one. None
    takes what Airbyte suggests for this source, else all it has. A stream is synced incrementally
    and deduplicated where it has a cursor and a key and the destination can, else read anew.

    Raises:
        InvalidCatalog: a name is unknown or ambiguous, the source has no stream, a stream fits no
            mode of the destination, or the choice is more than Airbyte takes.
    """
    if isinstance(discovered, Catalog):
        slices: list[Document] = [stream.raw for stream in discovered.streams]
    else:
        slices = list(scan(discovered))
    if not slices:
        message = "The source offers no stream."
        raise InvalidCatalog.because("empty_catalog", "streams", message)

    ids: list[StreamId] = []
    suggested: list[int] = []
    for position, slice_ in enumerate(slices):
        stream, pair = identify(slice_, position)
        ids.append(stream)
        if streams is None and _is_suggested(pair.config):
            suggested.append(position)
        yield
    everything = suggested or list(range(len(slices)))
    wanted = everything if streams is None else _named(streams, ids)

    chosen: list[ConfiguredStream] = []
    problems: list[Problem] = []
    for position in wanted:
        offered = read_stream(slices[position], position)
        config = config_for(offered, destination_sync_modes)
        if config is None:
            place = f"streams[{position}].stream.supportedSyncModes"
            message = f"No sync mode of {offered.id} fits what the destination supports."
            problems.append(Problem(offered.id, place, "unsupported_sync_mode", message))
        else:
            definition = PAIR.decode(offered.raw).stream
            written = encode_pair(definition, msgspec.Raw(msgspec.json.encode(config)))
            chosen.append(read_stream(written, position))
        yield
    if problems:
        raise InvalidCatalog(problems[:MAX_PROBLEMS])
    catalog = Catalog(tuple(chosen))
    yield from validate.steps(
        catalog,
        destination_sync_modes=destination_sync_modes,
        max_fields=max_fields,
        max_bytes=max_bytes,
    )
    return catalog


def _named(names: Sequence[str], ids: Sequence[StreamId]) -> list[int]:
    places: dict[str, list[int]] = {}
    for position, stream in enumerate(ids):
        places.setdefault(stream.name, []).append(position)
        if stream.namespace is not None:
            places.setdefault(f"{stream.namespace}.{stream.name}", []).append(position)
    problems: list[Problem] = []
    wanted: set[int] = set()
    for index, name in enumerate(names):
        found = places.get(name, [])
        if len(found) == 1:
            wanted.add(found[0])
            continue
        if found:
            several = f"{shown(name)} names {len(found)} streams: write namespace.name."
            problems.append(Problem(None, f"streams[{index}]", "ambiguous_stream", several))
        else:
            meant = did_you_mean(name, places, limit=3) if len(problems) < _HINTED else "."
            unknown = f"The source offers no stream {shown(name)}{meant}"
            problems.append(Problem(None, f"streams[{index}]", "unknown_stream", unknown))
    if problems:
        raise InvalidCatalog(problems[:MAX_PROBLEMS])
    if not wanted:
        message = "No stream is named."
        raise InvalidCatalog.because("no_selected_stream", "streams", message)
    return sorted(wanted)


def _is_suggested(raw: msgspec.Raw) -> bool:
    try:
        config = CONFIG.decode(raw)
    except UNREADABLE:
        return False
    return bool(config.suggested or config.selected)


def config_for(offered: ConfiguredStream, destination: Collection[str]) -> _Written | None:
    """How a stream is best synced into a destination with these modes; None where it cannot be."""
    stream = offered.stream
    fields = stream.fields()
    cursor = stream.default_cursor_field or ()
    if not stream.source_defined_cursor and not declared(fields, cursor):
        cursor = ()
    key = stream.source_defined_primary_key or ()
    if not all(path and declared(fields, path) for path in key):
        key = ()

    reads = stream.supported_sync_modes or ("full_refresh",)
    resumes = "incremental" in reads and bool(cursor or stream.source_defined_cursor)
    possible = []
    if resumes and key:
        possible.append(("incremental", "append_dedup"))
    if "full_refresh" in reads:
        possible.append(("full_refresh", "overwrite"))
    if resumes:
        possible.append(("incremental", "append"))
    if "full_refresh" in reads:
        possible.append(("full_refresh", "append"))
    for sync_mode, destination_sync_mode in possible:
        if destination_sync_mode in destination:
            return _Written(
                sync_mode=sync_mode,
                destination_sync_mode=destination_sync_mode,
                cursor_field=cursor,
                primary_key=key,
                alias_name=offered.config.alias_name or stream.name,
                suggested=bool(offered.config.suggested),
            )
    return None
