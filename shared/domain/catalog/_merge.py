"""A connection's catalog brought up to what its source offers now."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.domain.catalog._model import (
    CONFIG,
    PAIR,
    UNREADABLE,
    Catalog,
    ConfiguredStream,
    Document,
    Pair,
    StreamId,
    encode_pair,
    identify,
    join,
    read_stream,
    reconfigured,
    scan,
)
from shared.domain.catalog._rules import DEDUP, declared
from shared.domain.steps import Steps, Stepwise


class Note(msgspec.Struct, frozen=True):
    """Something about a stream that a person should look at before applying."""

    stream: StreamId
    code: str
    message: str


class Merged(msgspec.Struct, frozen=True):
    """The document to edit and apply, and how the source differs from what is configured.

    `removed` streams stand at the end of the document, not selected, since the source no longer has
    them. `unselected` counts streams of the source that the connection does not sync.
    """

    catalog: bytes
    removed: tuple[StreamId, ...]
    notes: tuple[Note, ...]
    unselected: int


@Stepwise
def merge(configured: Catalog, discovered: Document, *, every_stream: bool) -> Steps[Merged]:
    """The configured streams as the source offers them now, with their config kept.

    A key that the source defines replaces the configured one. A hand-picked list of fields never
    grows, and loses what is gone. A sync mode that is no longer offered becomes one that is. A
    config that nothing of this concerns stays byte for byte. `every_stream` adds what the source
    offers beside, not selected, so that a person can select it.

    Raises:
        InvalidCatalog: `discovered` is not a catalog.
    """
    waiting = configured.selected().by_id()
    slices: list[Document] = []
    notes: list[Note] = []
    unselected = 0
    for position, slice_ in enumerate(scan(discovered)):
        stream, pair = identify(slice_, position)
        current = waiting.pop(stream, None)
        if current is not None:
            merged, found = _renewed(current, read_stream(slice_, position))
            slices.append(merged)
            notes += found
        else:
            unselected += 1
            if every_stream:
                slices.append(_unselected(slice_, pair))
        yield
    for gone in waiting.values():
        slices.append(_unselected(gone.raw, PAIR.decode(gone.raw)))
        yield
    return Merged(join(slices), tuple(waiting), tuple(notes), unselected)


def _unselected(slice_: Document, pair: Pair) -> Document:
    """The stream, said not to be selected; as it is where it says so already."""
    try:
        selected = CONFIG.decode(pair.config).selected
    except UNREADABLE:
        selected = None
    if selected is False:
        return slice_
    return encode_pair(pair.stream, reconfigured(pair.config, selected=False))


def _renewed(current: ConfiguredStream, offered: ConfiguredStream) -> tuple[bytes, list[Note]]:
    stream, config = offered.stream, current.config
    fields = stream.fields()
    changes: dict[str, Any] = {}
    notes: list[Note] = []

    def note(code: str, message: str) -> None:
        notes.append(Note(current.id, code, message))

    if config.selected is None:
        changes["selected"] = True

    key = stream.source_defined_primary_key or current.primary_key
    if set(key) != set(current.primary_key):
        note("primary_key_replaced", "The source defines another primary key.")
    if stream.source_defined_primary_key and set(key) != set(config.primary_key or ()):
        changes["primaryKey"] = key

    offers = stream.supported_sync_modes
    reads, writes = config.sync_mode, config.destination_sync_mode
    if offers and reads is not None and reads not in offers:
        reads, writes = _fallback(offered, destination_sync_mode=writes, keyed=bool(key))
        changes |= {"syncMode": reads, "destinationSyncMode": writes}
        note(
            "sync_mode_replaced",
            f"The source no longer offers {config.sync_mode}: {reads} with {writes} instead of "
            f"{config.destination_sync_mode}.",
        )

    cursor = config.cursor_field or ()
    if stream.source_defined_cursor:
        defined = stream.default_cursor_field or cursor
        if cursor and defined != cursor:
            changes["cursorField"] = cursor = defined
            note("cursor_replaced", "The source defines another cursor.")
    elif reads == "incremental" and not (cursor and declared(fields, cursor)):
        if stream.default_cursor_field and not cursor:
            changes["cursorField"] = cursor = stream.default_cursor_field
        else:
            note("cursor_gone", "The cursor is no longer a field of the stream: name another.")
    if writes in DEDUP and not all(path and declared(fields, path) for path in key):
        note("key_gone", "The primary key is no longer a field of the stream: name another.")

    chosen = config.selected_names()
    if chosen is not None and fields is not None:
        kept = [
            field
            for field in config.selected_fields or ()
            if not field.field_path or field.field_path[0] in fields
        ]
        lost = len(config.selected_fields or ()) - len(kept)
        if lost:
            changes["selectedFields"] = kept
            note("selected_fields_gone", f"{lost} of the selected fields are gone from the source.")
        needed = {path[0] for path in key if path} if writes in DEDUP else set()
        if reads == "incremental" and cursor:
            needed.add(cursor[0])
        if needed - chosen:
            note("key_not_selected", "The cursor or primary key is not among the selected fields.")

    kept_config = PAIR.decode(current.raw).config
    renewed = reconfigured(kept_config, **changes) if changes else kept_config
    return encode_pair(PAIR.decode(offered.raw).stream, renewed), notes


def _fallback(
    offered: ConfiguredStream, *, destination_sync_mode: str | None, keyed: bool
) -> tuple[str, str]:
    """What Airbyte itself would configure for the stream now, else the nearest that is offered."""
    own = offered.config
    offers = offered.stream.supported_sync_modes or ()
    if own.sync_mode in offers and own.destination_sync_mode is not None:
        return str(own.sync_mode), own.destination_sync_mode
    if "full_refresh" in offers:
        appends = destination_sync_mode == "append"
        return "full_refresh", "append" if appends else "overwrite"
    return "incremental", "append_dedup" if keyed else "append"
