"""Validates a catalog before it is sent to Airbyte, and reports all problems at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw

from shared.domain.catalog._mappers import problems_of_mappers
from shared.domain.catalog._model import (
    MAX_PROBLEMS,
    SETTINGS,
    Catalog,
    ConfiguredStream,
    InvalidCatalog,
    Path,
    Problem,
    Stream,
    StreamId,
    first_byte,
    remember,
    shown,
)
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.did_you_mean import did_you_mean

MAX_BYTES = 10 * 1024 * 1024
"""Airbyte's server refuses larger request bodies."""

MAX_FIELDS = 20_000
"""Airbyte's default MAX_FIELDS_PER_CONNECTION: selected top-level fields of all streams."""

MAX_STREAMS = 10_000
"""Streams of a catalog from a caller, selected or not."""

MAX_NAME = 512
"""Characters in a stream's name."""

_WITHOUT_FIELDS: Final = frozenset({"string", "integer", "number", "boolean", "null", "array"})

SYNC_MODES = frozenset({"full_refresh", "incremental"})
DESTINATION_SYNC_MODES = frozenset(
    {"append", "overwrite", "append_dedup", "overwrite_dedup", "update", "soft_delete"}
)
DEDUP = frozenset({"append_dedup", "overwrite_dedup"})
# Airbyte does not support these: a partial read cannot replace everything, and vice versa.
_CONTRADICTIONS = frozenset(
    {
        ("incremental", "overwrite"),
        ("incremental", "overwrite_dedup"),
        ("full_refresh", "append_dedup"),
    }
)


class ToleratedSettings(msgspec.Struct, frozen=True):
    """Settings and modes that AAM does not know but accepts, since Airbyte itself uses them.

    A newer Airbyte may have settings and sync modes that are unknown to this code.
    """

    settings: frozenset[str] = frozenset()
    sync_modes: frozenset[str] = frozenset()
    destination_sync_modes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, streams: Iterable[ConfiguredStream]) -> ToleratedSettings:
        """The settings and modes of streams that Airbyte has stored or discovered."""
        settings: set[str] = set()
        reads: set[str] = set()
        writes: set[str] = set()
        for stream in streams:
            settings.update(stream.unknown_settings(), stream.unknown_members())
            reads |= {stream.config.sync_mode or "", *(stream.stream.supported_sync_modes or ())}
            writes.add(stream.config.destination_sync_mode or "")
        return cls(frozenset(settings), frozenset(reads - {""}), frozenset(writes - {""}))


FORWARD: Final = frozenset({"unknown_setting", "unsupported_sync_mode"})
"""Codes of problems that may only mean that Airbyte is newer than AAM; see `ToleratedSettings`."""
COMPOUND_KEY: Final = "compound_key"
COMPOUND_CURSOR: Final = "compound_cursor"
COMPOUND: Final = frozenset({COMPOUND_KEY, COMPOUND_CURSOR})
"""Codes of a key or cursor that is an object or an array."""
_NOTHING: Final = ToleratedSettings()

# A cache of valid streams: the number of selected fields, by digest, modes and `familiar`.
_sound: dict[tuple[bytes, frozenset[str] | None, ToleratedSettings], int] = {}
_REMEDY = "Select fewer streams, or fewer fields of them."


@Stepwise
def validate(
    catalog: Catalog,
    *,
    destination_sync_modes: Collection[str] | None = None,
    familiar: ToleratedSettings = _NOTHING,
    held: Collection[bytes] = (),
) -> Steps[None]:
    """Reject a catalog that Airbyte would refuse, or accept and then fail to sync.

    Unselected streams only need distinct names, since they are not sent to Airbyte.
    `destination_sync_modes` is what the destination supports; None if unknown. `familiar` lists
    unknown settings and modes to accept. `held` are digests of streams that Airbyte already has:
    their problems are ignored, so that they do not block changes of other streams, except those of
    mappers, for which Airbyte refuses the whole catalog.

    Raises:
        InvalidCatalog: with at most 50 problems, in the order of streams.
    """
    if not catalog.streams:
        message = "streams is empty: a catalog needs at least one stream."
        raise InvalidCatalog.because("empty_catalog", "streams", message)
    if not any(stream.selected for stream in catalog.streams):
        message = f"None of the {len(catalog.streams)} streams is selected."
        raise InvalidCatalog.because("no_selected_stream", "streams", message)

    modes = destination_sync_modes
    problems: list[Problem] = []
    first_seen: dict[StreamId, int] = {}
    fields = size = 0
    for position, stream in enumerate(catalog.streams):
        earlier = first_seen.setdefault(stream.id, position)
        if earlier != position:
            message = f"streams[{position}] repeats {stream.id}, which is also streams[{earlier}]."
            place = f"streams[{position}].stream.name"
            problems.append(Problem(stream.id, place, "duplicate_stream", message))
        if stream.selected:
            digest = stream.digest
            key = (digest, None if modes is None else frozenset(modes), familiar)
            known = _sound.get(key)
            if known is None:
                check = _Check(stream, position, familiar)
                known = check.field_count
                found: list[Problem] = []
                if digest not in held:
                    found = list(islice(check.problems(modes), MAX_PROBLEMS))
                    problems += found
                if not found and digest not in held:
                    remember(_sound, key, known)
            problems += problems_of_mappers(stream, f"streams[{position}]")
            fields += known
            size += len(stream.raw) + 1
            yield
        if len(problems) >= MAX_PROBLEMS:
            raise InvalidCatalog(problems[:MAX_PROBLEMS])
    if fields > MAX_FIELDS:
        message = (
            f"{fields} fields are selected, but Airbyte accepts at most {MAX_FIELDS}. {_REMEDY}"
        )
        problems.append(Problem(None, "streams", "catalog_too_large", message))
    if size > MAX_BYTES:
        message = (
            f"The selected streams are {size} bytes, but Airbyte accepts at most {MAX_BYTES}. "
            f"{_REMEDY}"
        )
        problems.append(Problem(None, "streams", "catalog_too_large", message))
    if problems:
        raise InvalidCatalog(problems)


class _Check:
    """Validation of one selected stream."""

    def __init__(
        self, stream: ConfiguredStream, position: int, familiar: ToleratedSettings
    ) -> None:
        self._stream = stream
        self._familiar = familiar
        self._place = f"streams[{position}]"
        self._fields = stream.stream.fields()
        self._chosen = stream.config.selected_names()
        self.field_count = len(self._fields or () if self._chosen is None else self._chosen)

    def problems(self, destination_sync_modes: Collection[str] | None) -> Iterator[Problem]:
        if not self._stream.stream.name:
            yield self._problem("invalid_catalog", "stream.name", "needs a name")
        if len(self._stream.stream.name) > MAX_NAME:
            longest = f"has more than {MAX_NAME} characters"
            yield self._problem("invalid_catalog", "stream.name", longest)
        if first_byte(self._stream.stream.json_schema) != b"{":
            yield self._problem("invalid_catalog", "stream.jsonSchema", "must be an object")
        for setting in self._stream.unknown_settings():
            if setting in self._familiar.settings:
                continue
            place = f"config.{shown(setting)}"
            meant = did_you_mean(setting, SETTINGS).rstrip(".")
            what = f"is not a setting that Airbyte knows{meant}"
            yield self._problem("unknown_setting", place, what)
        for member in self._stream.unknown_members():
            if member not in self._familiar.settings:
                belongs = "belongs in `config`" if member in SETTINGS else "is not a known member"
                yield self._problem("unknown_setting", shown(member), belongs)
        yield from self._modes(destination_sync_modes)
        yield from self._cursor()
        yield from self._key()
        if self._chosen is not None:
            yield from self._selection(self._chosen)

    def _modes(self, destination_sync_modes: Collection[str] | None) -> Iterator[Problem]:
        config = self._stream.config
        reads, writes = config.sync_mode, config.destination_sync_mode
        offered = self._stream.stream.supported_sync_modes or SYNC_MODES
        if reads not in SYNC_MODES | self._familiar.sync_modes:
            allowed = f"must be one of {_listed(SYNC_MODES)}"
            yield self._problem("unsupported_sync_mode", "config.syncMode", allowed)
        elif reads not in offered:
            only = f"is {mode(reads)}, but the source offers only {_listed(offered)}"
            yield self._problem("unsupported_sync_mode", "config.syncMode", only)
        place = "config.destinationSyncMode"
        if writes not in DESTINATION_SYNC_MODES | self._familiar.destination_sync_modes:
            allowed = f"must be one of {_listed(DESTINATION_SYNC_MODES)}"
            yield self._problem("unsupported_sync_mode", place, allowed)
        elif destination_sync_modes is not None and writes not in destination_sync_modes:
            known = _listed(destination_sync_modes)
            only = f"is {mode(writes)}, but the destination supports only {known}"
            yield self._problem("unsupported_sync_mode", place, only)
        elif (reads, writes) in _CONTRADICTIONS:
            yield self._problem("unsupported_sync_mode", place, f"cannot be {writes} with {reads}")

    def _cursor(self) -> Iterator[Problem]:
        """Check the cursor; destinations reject a deduplicated stream whose cursor is not a column.

        This applies even in full refresh, where the cursor has no other use.
        """
        stream, place = self._stream, "config.cursorField"
        is_read_by_it = stream.config.sync_mode == "incremental"
        is_deduplicated = stream.config.destination_sync_mode in DEDUP
        is_defined = bool(stream.stream.source_defined_cursor)
        configured = stream.config.cursor_field or ()
        cursor = stream.cursor if is_read_by_it else configured
        if not (is_read_by_it or is_deduplicated):
            return
        if not cursor:
            if is_read_by_it and not is_defined:
                need = "needs a cursor, since syncMode is incremental"
                yield self._problem("missing_cursor", place, need)
            return
        is_field = declared(self._fields, cursor)
        is_the_source_s = is_defined and cursor == stream.stream.default_cursor_field
        if (
            len(cursor) == 1
            and not is_the_source_s
            and is_compound((self._fields or {}).get(cursor[0]))
        ):
            yield self._problem(COMPOUND_CURSOR, place, "is an object or array, which has no order")
        if not is_field and (not is_the_source_s or (is_deduplicated and configured)):
            yield self._problem("unknown_field", place, "is not a field of the stream")
        if self._chosen and cursor[0] not in self._chosen and (is_field or configured):
            yield self._problem("cursor_not_selected", place, "is not among the selected fields")

    def _key(self) -> Iterator[Problem]:
        stream, place = self._stream, "config.primaryKey"
        if stream.config.destination_sync_mode not in DEDUP:
            return
        if not stream.primary_key:
            mode = stream.config.destination_sync_mode
            need = f"needs a key, since destinationSyncMode is {mode}"
            yield self._problem("missing_primary_key", place, need)
        for index, path in enumerate(stream.primary_key):
            part = f"{place}[{index}]"
            if not path:
                yield self._problem("missing_primary_key", part, "is an empty path")
            elif not declared(self._fields, path):
                yield self._problem("unknown_field", part, "is not a field of the stream")
            elif self._chosen and path[0] not in self._chosen:
                yield self._problem("key_not_selected", part, "is not among the selected fields")
            elif len(path) == 1 and is_compound((self._fields or {}).get(path[0])):
                what = "is an object or array, by which no destination deduplicates"
                yield self._problem(COMPOUND_KEY, part, what)

    def _selection(self, chosen: frozenset[str]) -> Iterator[Problem]:
        place, schema = "config.selectedFields", "stream.jsonSchema"
        fields = self._stream.config.selected_fields
        if fields is None:
            need = "is needed, since fieldSelectionEnabled is true"
            yield self._problem("missing_selected_fields", place, need)
            return
        if not chosen:
            yield self._problem("missing_selected_fields", place, "selects no field")
        selectable = self._stream.stream.properties()
        if selectable is None:
            need = "needs properties, since fieldSelectionEnabled is true"
            yield self._problem("invalid_catalog", schema, need)
        for index, field in enumerate(fields):
            part = f"{place}[{index}].fieldPath"
            if not field.field_path:
                yield self._problem("invalid_selected_field", part, "is an empty path")
            elif len(field.field_path) > 1:
                only = "is nested, and Airbyte selects top-level fields only"
                yield self._problem("nested_selected_field", part, only)
            elif selectable is not None and field.field_path[0] not in selectable:
                yield self._problem("unknown_field", part, "is not a field of the stream")

    def _problem(self, code: str, field: str, what: str) -> Problem:
        place = f"{self._place}.{field}"
        message = f"{place} of {self._stream.id} {what}.".replace("?.", "?")
        return Problem(self._stream.id, place, code, message)


def declared(
    fields: Mapping[str, Raw] | None, path: Path, *, before: Mapping[str, Raw] | None = None
) -> bool:
    """Whether a schema may have a field at this path; undeclared levels may have any field.

    If `before` declared a field there, and `fields` declare nothing at that level, it is gone.
    """
    found = _declares(fields, path)
    return not _declares(before, path) if found is None else found


def _declares(fields: Mapping[str, Raw] | None, path: Path) -> bool | None:
    """Whether fields declare one at this path; None if nothing is declared at that level."""
    for name in path:
        if fields is None:
            return None
        if name not in fields:
            return False
        schema = fields[name]
        fields = {} if _holds_no_field(schema) else Stream(name=name, json_schema=schema).fields()
    return True


def is_compound(schema: Raw | None) -> bool:
    """Whether a field is declared as an object or an array, and as nothing else but null."""
    types = None if schema is None else _types(schema)
    basics = (types or set()) - {"null"}
    return bool(basics) and basics <= {"object", "array"}


class _Typed(msgspec.Struct, frozen=True):
    type: str | tuple[str, ...] = ()


def _holds_no_field(schema: Raw) -> bool:
    """Whether a field's type excludes nested fields."""
    types = _types(schema)
    return types is not None and types <= _WITHOUT_FIELDS


def _types(schema: Raw) -> set[str] | None:
    """The declared types of a field; None if none are."""
    try:
        named = msgspec.json.decode(schema, type=_Typed).type
    except msgspec.DecodeError:
        return None
    return ({named} if isinstance(named, str) else set(named)) or None


def mode(name: str | None) -> str:
    """A sync mode for a message: plain if known, else quoted and truncated."""
    known = name in SYNC_MODES or name in DESTINATION_SYNC_MODES
    return str(name) if known or name is None else shown(name)


def _listed(modes: Collection[str]) -> str:
    return ", ".join(map(mode, sorted(modes))) or "none"
