"""Updates a connection's catalog to what its source offers now."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from shared.domain.catalog._exclusions import CODE, Exclusions
from shared.domain.catalog._mappers import lapsed
from shared.domain.catalog._model import (
    CONFIG,
    PAIR,
    UNREADABLE,
    Catalog,
    ConfiguredStream,
    Document,
    InvalidCatalog,
    Note,
    Pair,
    Path,
    StreamId,
    encode_pair,
    join,
    listed,
    name_of,
    read_stream,
    reconfigured,
    scan,
)
from shared.domain.catalog._validation import DEDUP, declared, mode
from shared.domain.cooperative import Steps, Stepwise


class Merged(msgspec.Struct, frozen=True):
    """The merged document to edit and apply, and the differences from the configured catalog.

    `removed` streams are at the end of the document, deselected, since the source no longer has
    them. `unselected` counts the source's streams that the connection does not sync.
    """

    catalog: bytes
    removed: tuple[StreamId, ...]
    notes: tuple[Note, ...]
    unselected: int


@Stepwise
def merge(
    configured: Catalog,
    discovered: Document,
    *,
    every_stream: bool,
    exclusions: Exclusions | None = None,
) -> Steps[Merged]:
    """Update the configured streams to the source's current schema, and preserve their config.

    A source-defined key replaces the configured one. A list of selected fields never grows, and
    loses removed fields. A sync mode that is no longer supported is replaced. Any other config
    stays byte for byte, even a mapper whose field is gone, which a note reports. `every_stream`
    adds the source's other streams, deselected, so that a person can select them.

    Fields that match `exclusions` are deselected, even if the connection syncs them now. A stream
    that the source offers twice stays as configured. Notes report both.

    Raises:
        InvalidCatalog: `discovered` is not a catalog.
    """
    waiting = configured.selected().by_id()
    slices: list[Document] = []
    notes: list[Note] = []
    unselected = 0
    offers = scan(discovered)
    ids: list[StreamId] = []
    for position, slice_ in enumerate(offers):
        ids.append(name_of(slice_, position))
        yield
    counts = Counter(ids)
    doubled = {stream for stream, count in counts.items() if count > 1}
    for stream in dict.fromkeys(one for one in ids if one in doubled):
        message = "The source offers it more than once: its configuration stays unchanged."
        notes.append(Note(stream, "duplicate_stream", message))
        current = waiting.pop(stream, None)
        slices += [] if current is None else [current.raw]
    for position, (stream, slice_) in enumerate(zip(ids, offers, strict=True)):
        current = waiting.pop(stream, None)
        if stream in doubled:
            continue
        if current is not None:
            offered = read_stream(slice_, position)
            renewal = _Renewal(current, offered)
            renewed = renewal.encoded()
            if exclusions is not None and exclusions.hidden(offered.stream):
                renewed, excluded = _without(renewed, position, exclusions)
                renewal.notes += excluded
            slices.append(renewed)
            notes += renewal.notes
        else:
            unselected += 1
            if every_stream:
                slices.append(deselected(slice_, PAIR.decode(slice_)))
        yield
    for gone in waiting.values():
        slices.append(deselected(gone.raw, PAIR.decode(gone.raw)))
        yield
    return Merged(join(slices), tuple(waiting), tuple(notes), unselected)


def _without(renewed: bytes, position: int, exclusions: Exclusions) -> tuple[bytes, list[Note]]:
    """A stream without its excluded fields; unchanged, with a note, if that is impossible."""
    stream = read_stream(renewed, position)
    hidden = tuple(sorted(exclusions.synced(stream)))
    if not hidden:
        return renewed, []
    try:
        cut = exclusions.without(stream)
    except InvalidCatalog as error:
        return renewed, [Note(stream.id, CODE, str(error), hidden)]
    message = f"{listed(hidden)} is not selected: the policy never selects it."
    return cut.raw, [Note(stream.id, CODE, message, hidden)]


def deselected(slice_: Document, pair: Pair) -> Document:
    """The stream with `selected` false; unchanged if it already is."""
    try:
        selected = CONFIG.decode(pair.config).selected
    except UNREADABLE:
        selected = None
    if selected is False:
        return slice_
    return encode_pair(pair.stream, reconfigured(pair.config, selected=False))


class _Renewal:
    """One configured stream with its new definition, and the resulting changes of its config."""

    def __init__(self, current: ConfiguredStream, offered: ConfiguredStream) -> None:
        self._current = current
        self._offered = offered
        self._fields = offered.stream.fields()
        self._before = current.stream.fields()
        self._changes: dict[str, Any] = {}
        self.notes: list[Note] = []

        if current.config.selected is None:
            self._changes["selected"] = True
        key = self._key()
        reads, writes = self._modes(keyed=bool(key))
        cursor = self._cursor(reads)
        if writes in DEDUP:
            cursor = self._column(reads, cursor)
        if writes in DEDUP and not all(path and self._has(path) for path in key):
            self._note(
                "key_gone", "The primary key is no longer a field of the stream: choose another."
            )
        needed = {path[0] for path in key if path} if writes in DEDUP else set()
        if reads == "incremental" and cursor:
            needed.add(cursor[0])
        self._selection(needed)
        lost = lapsed(current, offered.stream)
        if lost:
            self._note(
                "mapper_without_field",
                f"A mapper names {listed(sorted(lost))}, which is gone: remove the mapper, or let "
                "it name another field.",
            )

    def encoded(self) -> bytes:
        config = PAIR.decode(self._current.raw).config
        renewed = reconfigured(config, **self._changes) if self._changes else config
        return encode_pair(PAIR.decode(self._offered.raw).stream, renewed)

    def _key(self) -> tuple[Path, ...]:
        defined = self._offered.stream.source_defined_primary_key
        current = self._current.primary_key
        if not defined:
            return current
        if set(defined) != set(current):
            self._note("primary_key_replaced", "The source defines another primary key.")
        if set(defined) != set(self._current.config.primary_key or ()):
            self._changes["primaryKey"] = defined
        return defined

    def _modes(self, *, keyed: bool) -> tuple[str | None, str | None]:
        config = self._current.config
        offers = self._offered.stream.supported_sync_modes
        if not offers or config.sync_mode is None or config.sync_mode in offers:
            return config.sync_mode, config.destination_sync_mode
        before = config.destination_sync_mode
        reads, writes = fallback(self._offered, destination_sync_mode=before, keyed=keyed)
        self._changes |= {"syncMode": reads, "destinationSyncMode": writes}
        self._note(
            "sync_mode_replaced",
            f"The source offers {mode(reads)} only: the stream is now written by {mode(writes)}.",
        )
        return reads, writes

    def _cursor(self, reads: str | None) -> Path:
        stream = self._offered.stream
        default, current = stream.default_cursor_field or (), self._current.config.cursor_field
        if stream.source_defined_cursor:
            if not (current and default) or current == default:
                return current or default
            self._note("cursor_replaced", "The source defines another cursor.")
            self._changes["cursorField"] = default
            return default
        if reads != "incremental":
            return current or ()
        if default and not current:
            self._changes["cursorField"] = default
            return default
        if not current or not self._has(current):
            self._note(
                "cursor_gone", "The cursor is no longer a field of the stream: choose another."
            )
        return current or ()

    def _column(self, reads: str | None, cursor: Path) -> Path:
        """The cursor of a deduplicated stream, which must be a column in the destination.

        A cursor that is not a field is dropped if the stream can be read without naming it.
        """
        is_needed = reads == "incremental" and not self._offered.stream.source_defined_cursor
        written = self._changes.get("cursorField", self._current.config.cursor_field)
        if is_needed or not written or self._has(written):
            return cursor
        self._changes["cursorField"] = ()
        self._note("cursor_dropped", "Its cursor is not a field of the stream, and none is needed.")
        return ()

    def _selection(self, needed: set[str]) -> None:
        config = self._current.config
        chosen = config.selected_names()
        selectable = self._offered.stream.properties()
        if chosen is None or selectable is None:
            return
        listed = config.selected_fields or ()
        remaining = [
            field for field in listed if not field.field_path or field.field_path[0] in selectable
        ]
        if len(remaining) < len(listed):
            self._changes["selectedFields"] = remaining
            lost = len(listed) - len(remaining)
            self._note("selected_fields_gone", f"{lost} of the selected fields are gone.")
        if needed - chosen:
            self._note("key_not_selected", "The cursor or primary key is not a selected field.")

    def _has(self, path: Path) -> bool:
        return declared(self._fields, path, before=self._before)

    def _note(self, code: str, message: str) -> None:
        self.notes.append(Note(self._current.id, code, message))


def fallback(
    offered: ConfiguredStream, *, destination_sync_mode: str | None, keyed: bool
) -> tuple[str, str]:
    """The modes that Airbyte suggests for the stream now, else the closest supported ones."""
    own = offered.config
    offers = offered.stream.supported_sync_modes or ()
    if own.sync_mode in offers and own.destination_sync_mode is not None:
        return str(own.sync_mode), own.destination_sync_mode
    if "full_refresh" in offers:
        return in_full(destination_sync_mode)
    return "incremental", "append_dedup" if keyed else "append"


def in_full(destination_sync_mode: str | None) -> tuple[str, str]:
    """Full refresh: append if the stream already appends, else overwrite."""
    return "full_refresh", "append" if destination_sync_mode == "append" else "overwrite"
