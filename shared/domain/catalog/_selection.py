"""Chooses which streams a new connection syncs, and how."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Raw

from shared.domain.catalog._exclusions import CODE, Exclusions
from shared.domain.catalog._model import (
    CONFIG,
    MAX_PROBLEMS,
    PAIR,
    UNREADABLE,
    Catalog,
    ConfiguredStream,
    Document,
    InvalidCatalog,
    Note,
    Path,
    Problem,
    SelectedField,
    StreamId,
    distinct,
    encode_pair,
    identify,
    listed,
    read_stream,
    scan,
    shown,
)
from shared.domain.catalog._validation import (
    DEDUP,
    SYNC_MODES,
    declared,
    is_compound,
    validate,
)
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.did_you_mean import did_you_mean

_DEFAULT = Exclusions()
_HINTED = 5
"""How many unknown names get suggestions, since each takes milliseconds."""


class _Written(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A config as AAM writes it: complete, with members that every Airbyte since 0.63 knows."""

    sync_mode: str
    destination_sync_mode: str
    cursor_field: Path
    primary_key: tuple[Path, ...]
    alias_name: str
    selected: bool = True
    suggested: bool = False
    field_selection_enabled: bool = False
    selected_fields: tuple[SelectedField, ...] = ()


class Chosen(msgspec.Struct, frozen=True):
    """The catalog of a new connection, with notes for the person who requested it."""

    catalog: Catalog
    notes: tuple[Note, ...]


@Stepwise
def choose(
    discovered: Document | Catalog,
    *,
    streams: Sequence[str] | None,
    destination_sync_modes: Collection[str],
    exclusions: Exclusions = _DEFAULT,
) -> Steps[Catalog]:
    """The same as `choose_with_notes`, without the notes."""
    chosen = yield from choose_with_notes.steps(
        discovered,
        streams=streams,
        destination_sync_modes=destination_sync_modes,
        exclusions=exclusions,
    )
    return chosen.catalog


@Stepwise
def choose_with_notes(
    discovered: Document | Catalog,
    *,
    streams: Sequence[str] | None,
    destination_sync_modes: Collection[str],
    exclusions: Exclusions = _DEFAULT,
) -> Steps[Chosen]:
    """Build a new connection's catalog: valid, only selected streams, in the source's order.

    `streams` are names, as `namespace.name` if ambiguous. None chooses the streams that Airbyte
    suggests for this source, or else all. A stream is synced incrementally with deduplication if it
    has a cursor and a key and the destination supports it, else preferably by full refresh.

    Fields that match `exclusions` are not selected. A stream that cannot be synced without them is
    left out unless it was requested by name. Notes report both.

    Raises:
        InvalidCatalog: a name is unknown or ambiguous; the source has no stream, or one twice; a
            requested stream fits no mode of the destination, or needs an excluded field; or the
            catalog is larger than Airbyte accepts.
    """
    if isinstance(discovered, Catalog):
        slices: list[Document] = [stream.raw for stream in discovered.streams]
    else:
        slices = list(scan(discovered))
    if not slices:
        message = "The source offers no streams."
        raise InvalidCatalog.because("empty_catalog", "streams", message)

    ids = yield from distinct.steps(slices)
    suggested: list[int] = []
    if streams is None:
        for position, slice_ in enumerate(slices):
            if _is_suggested(identify(slice_, position)[1].config):
                suggested.append(position)
            yield
    everything = suggested or list(range(len(slices)))
    wanted = everything if streams is None else _named(streams, ids)

    chosen, notes = yield from _each_chosen(
        {position: slices[position] for position in wanted},
        destination_sync_modes,
        exclusions,
        is_named=streams is not None,
    )
    catalog = Catalog(tuple(chosen))
    yield from validate.steps(
        catalog,
        destination_sync_modes=destination_sync_modes,
    )
    return Chosen(catalog, tuple(notes))


def _each_chosen(
    slices: Mapping[int, Document],
    destination_sync_modes: Collection[str],
    exclusions: Exclusions,
    *,
    is_named: bool,
) -> Steps[tuple[list[ConfiguredStream], list[Note]]]:
    """Configure the streams at these positions; ones not requested by name may be left out."""
    chosen: list[ConfiguredStream] = []
    notes: list[Note] = []
    problems: list[Problem] = []
    for position, slice_ in slices.items():
        offered = read_stream(slice_, position)
        try:
            stream, note = _chosen(offered, position, destination_sync_modes, exclusions)
        except InvalidCatalog as error:
            if not is_named and (error.code == CODE or _is_newer(offered)):
                notes.append(Note(offered.id, error.code, f"{offered.id} is excluded. {error}"))
            else:
                problems += error.problems
        else:
            chosen.append(stream)
            notes += [] if note is None else [note]
        yield
    if not problems and not chosen:
        message = f"No stream is left. {notes[0].message}"
        problems.append(Problem(notes[0].stream, "streams", notes[0].code, message))
    if problems:
        raise InvalidCatalog(problems[:MAX_PROBLEMS])
    return chosen, notes


def _is_newer(offered: ConfiguredStream) -> bool:
    """Whether a stream supports only sync modes that AAM does not know."""
    return SYNC_MODES.isdisjoint(offered.stream.supported_sync_modes or SYNC_MODES)


def _chosen(
    offered: ConfiguredStream,
    position: int,
    destination_sync_modes: Collection[str],
    exclusions: Exclusions,
) -> tuple[ConfiguredStream, Note | None]:
    """Configure one stream, with a note about its excluded fields.

    Raises:
        InvalidCatalog: it fits no mode of the destination, or needs an excluded field.
    """
    config = config_for(offered, destination_sync_modes)
    if config is None:
        place = f"streams[{position}].stream.supportedSyncModes"
        message = f"The destination supports no sync mode of {offered.id}."
        raise InvalidCatalog.because("unsupported_sync_mode", place, message, stream=offered.id)
    definition = PAIR.decode(offered.raw).stream
    stream = read_stream(encode_pair(definition, Raw(msgspec.json.encode(config))), position)
    hidden = exclusions.hidden(stream.stream)
    if not hidden:
        return stream, None
    message = f"{listed(sorted(hidden))} of {stream.id} is excluded: the policy never selects it."
    note = Note(stream.id, CODE, message, tuple(sorted(hidden)))
    return exclusions.without(stream), note


def _named(names: Sequence[str], ids: Sequence[StreamId]) -> list[int]:
    by_name: dict[str, list[int]] = {}
    by_full_name: dict[str, list[int]] = {}
    for position, stream in enumerate(ids):
        by_name.setdefault(stream.name, []).append(position)
        by_full_name.setdefault(stream.full_name, []).append(position)
    problems: list[Problem] = []
    wanted: set[int] = set()
    for index, name in enumerate(names):
        found = by_full_name.get(name) or by_name.get(name, [])
        if len(found) == 1:
            wanted.add(found[0])
            continue
        if found:
            message = (
                f"{shown(name)} names {len(found)} streams: {_advice([ids[p] for p in found])}"
            )
            problems.append(Problem(None, f"streams[{index}]", "ambiguous_stream", message))
        else:
            hint = did_you_mean(name, by_name, limit=3) if len(problems) < _HINTED else "."
            message = f"The source offers no stream {shown(name)}{hint}"
            problems.append(Problem(None, f"streams[{index}]", "unknown_stream", message))
    if problems:
        raise InvalidCatalog(problems[:MAX_PROBLEMS])
    if not wanted:
        message = "No stream is selected."
        raise InvalidCatalog.because("no_selected_stream", "streams", message)
    return sorted(wanted)


def _advice(several: Sequence[StreamId]) -> str:
    """How to distinguish streams with the same name."""
    if len({stream.full_name for stream in several}) == len(several):
        names = listed(stream.full_name for stream in several)
        return f"add the namespace, as in {names}."
    return "they are the same even with their namespaces; rename one of them in the source."


def _is_suggested(raw: Raw) -> bool:
    try:
        config = CONFIG.decode(raw)
    except UNREADABLE:
        return False
    return bool(config.suggested or config.selected)


def config_for(offered: ConfiguredStream, destination: Collection[str]) -> _Written | None:
    """The best config of a stream for a destination with these modes, or None."""
    stream = offered.stream
    fields = stream.fields()
    cursor = stream.default_cursor_field or ()
    if not stream.source_defined_cursor and not declared(fields, cursor):
        cursor = ()
    key = stream.source_defined_primary_key or ()
    if not all(len(path) == 1 and declared(fields, path) for path in key):
        key = ()
    if any(is_compound((fields or {}).get(path[0])) for path in key):
        key = ()  # no destination deduplicates by it

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
            is_column = destination_sync_mode not in DEDUP or declared(fields, cursor)
            return _Written(
                sync_mode=sync_mode,
                destination_sync_mode=destination_sync_mode,
                cursor_field=cursor if is_column else (),
                primary_key=key,
                alias_name=offered.config.alias_name or stream.name,
                suggested=bool(offered.config.suggested),
            )
    return None
