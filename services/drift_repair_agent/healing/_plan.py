"""List the changes to decide for a connection, and why a source cannot serve a catalog."""

from __future__ import annotations

from collections.abc import Iterator

from shared.domain.catalog import (
    Catalog,
    ConfiguredStream,
    Problem,
    StreamId,
    distinct,
    identify,
)
from shared.domain.catalog._mappers import problems_of_mappers
from shared.domain.catalog._model import STREAM, Pair, Path, Stream, readable, shown
from shared.domain.catalog._validation import DEDUP, declared, mode
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.drift import Change, Streams, Verdict, diff, lapses, severity, with_conflicts
from shared.domain.drift._diff import slices_of
from shared.domain.drift._severity import dotted


@Stepwise
def plan_changes(configured: Catalog, discovered: Streams) -> Steps[list[tuple[Change, Verdict]]]:
    """The source's changes against what the connection syncs, with a verdict on each; `diff` order.

    `discovered` is all that the source offers: a stream that it lacks is reported as removed.
    A field that it lacks and that mappers name is also reported as `mapper_lapsed`, and a new field
    whose name a mapper gives another field as `mapping_conflict`. Streams that
    the connection does not sync are reported as added, whether they are new or not; changes within
    them are not reported. Airbyte cuts a hand-picked stream down to its selected fields, so the
    others may be reported as added each time; these do not concern the connection.

    Raises:
        InvalidCatalog: `discovered` is not a catalog, or offers one stream twice.
    """
    head = Catalog(tuple(stream for stream in configured.streams if stream.selected))
    slices = slices_of(discovered)
    changes = yield from diff.steps(head, slices)
    lapsed = yield from lapses.steps(head, slices)
    if lapsed:
        changes = sorted([*changes, *lapsed], key=lambda change: change.stream.order)
    synced = head.by_id()
    changes = with_conflicts(changes, synced)
    return [(change, severity(change, synced.get(change.stream))) for change in changes]


@Stepwise
def incompatibilities(catalog: Catalog, discovered: Streams) -> Steps[list[Problem]]:
    """Why the source cannot serve this catalog now, in the order of its streams; empty if it can.

    The source may lack a stream, a field that it syncs, its cursor, a part of its key, or its sync
    mode. Types are not compared: the older ones may be the better description. A mapper that does
    not fit the catalog's own fields is listed as well, since Airbyte refuses the catalog for it.

    Raises:
        InvalidCatalog: `discovered` is not a catalog, or offers one stream twice.
    """
    wanted = {stream.id for stream in catalog.streams if stream.selected}
    slices = slices_of(discovered)
    ids = yield from distinct.steps(slices)
    offered: dict[StreamId, Pair] = {}
    for position, stream in enumerate(ids):
        if stream in wanted:
            _, offered[stream] = identify(slices[position], position)
            yield
    problems: list[Problem] = []
    for position, configured in enumerate(catalog.streams):
        if configured.selected:
            place = f"streams[{position}]"
            problems += _stream_incompatibilities(configured, place, offered.get(configured.id))
            problems += problems_of_mappers(configured, place)
            yield
    return problems


def _stream_incompatibilities(
    configured: ConfiguredStream, place: str, pair: Pair | None
) -> Iterator[Problem]:
    def problem(code: str, member: str, message: str) -> Problem:
        return Problem(configured.id, f"{place}.{member}", code, message)

    name = configured.id
    if pair is None:
        yield problem("stream_gone", "stream.name", f"The source offers no {name}.")
        return
    with readable(f"stream {name}"):
        source = STREAM.decode(pair.stream)
    fields, before = source.fields(), configured.stream.fields()
    config = configured.config
    for field in _synced(configured):
        if fields is None or field not in fields:
            missing = f"The source has no {shown(field)} in {name}."
            yield problem("field_gone", "config.selectedFields", missing)
    offers = source.supported_sync_modes
    if offers and config.sync_mode is not None and config.sync_mode not in offers:
        only = f"The source does not offer {name} in the mode {mode(config.sync_mode)}."
        yield problem("unsupported_sync_mode", "config.syncMode", only)
    dangling = _dangling_cursor(configured, source)
    if dangling is not None:
        missing = (
            f"The source has no field {shown(dotted(dangling))} in {name}, which is its cursor."
        )
        if not dangling:
            missing = f"The source defines no cursor for {name}, and the catalog sets none."
        yield problem("cursor_gone", "config.cursorField", missing)
    if config.destination_sync_mode in DEDUP:
        for path in configured.primary_key:
            if not declared(fields, path, before=before):
                missing = (
                    f"The source has no {shown(dotted(path))} in {name}, which is part of its "
                    "primary key."
                )
                yield problem("key_gone", "config.primaryKey", missing)


def _synced(configured: ConfiguredStream) -> list[str]:
    """The top-level fields that a sync carries."""
    chosen = configured.config.selected_names()
    return sorted(configured.stream.fields() or ()) if chosen is None else sorted(chosen)


def _dangling_cursor(configured: ConfiguredStream, source: Stream) -> Path | None:
    """The cursor that the stream needs for reading or deduplication and that the source lacks.

    None if the source has it or none is needed; empty if one is needed but not configured.
    """

    def has(path: Path) -> bool:
        return declared(source.fields(), path, before=configured.stream.fields())

    config, cursor = configured.config, configured.cursor
    written = config.cursor_field or ()
    if config.destination_sync_mode in DEDUP and written and not has(written):
        return written
    if config.sync_mode != "incremental":
        return None
    if source.source_defined_cursor and (not cursor or cursor == source.default_cursor_field):
        return None
    return None if cursor and has(cursor) else cursor
