"""The parts of a catalog, and how they are parsed from bytes and encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeAlias, TypeVar

import msgspec
import xxhash
from msgspec import Raw

from shared.domain.catalog._schema import Schema, may_refer
from shared.domain.cooperative import Steps, Stepwise
from shared.domain.storable_text import holds_unstorable, without_escaped_backslashes

Document: TypeAlias = bytes | bytearray | memoryview
Path: TypeAlias = tuple[str, ...]

MAX_PROBLEMS = 50
_MOST_REMEMBERED = 20_000
_SHOWN = 80
_MOST_LISTED = 5


class StreamId(msgspec.Struct, frozen=True):
    """The identity of a stream within its source."""

    namespace: str | None
    name: str

    def __str__(self) -> str:
        """The name for an error message: printable and truncated."""
        return shown(self.full_name)

    @property
    def full_name(self) -> str:
        """The name with its namespace, in dotted notation; not necessarily unique."""
        return self.name if self.namespace is None else f"{self.namespace}.{self.name}"

    @property
    def order(self) -> tuple[str, str]:
        """A sort key across namespaces."""
        return (self.namespace or "", self.name)


class Stream(msgspec.Struct, frozen=True, rename="camel", kw_only=True, eq=False, gc=False):
    """What the source offers for one stream."""

    name: str
    namespace: str | None = None
    json_schema: Raw = Raw()
    supported_sync_modes: tuple[str, ...] | None = None
    source_defined_cursor: bool | None = None
    default_cursor_field: Path | None = None
    source_defined_primary_key: tuple[Path, ...] | None = None
    is_resumable: bool | None = None
    is_file_based: bool | None = None

    def fields(self) -> dict[str, Raw] | None:
        """The schema of each top-level field; None if the jsonSchema declares none.

        This includes fields that are only declared in branches or references of the whole schema.
        References in a field's schema are inlined as far as possible.

        Raises:
            InvalidCatalog: the jsonSchema is invalid, as opposed to one without fields.
        """
        with self._readable():
            schema = self._members()
            if schema is None:
                return None
            text = bytes(memoryview(self.json_schema))
            if schema.is_branched or may_refer(text):
                return _declared(text)
            return schema.properties

    def properties(self) -> dict[str, Raw] | None:
        """The fields that Airbyte can select: those in `properties` of the schema itself.

        Their schemas are unchanged. None if the schema has no `properties`.

        Raises:
            InvalidCatalog: the jsonSchema is invalid.
        """
        with self._readable():
            schema = self._members()
            return None if schema is None else schema.properties

    def _members(self) -> _Schema | None:
        if first_byte(self.json_schema) != b"{":
            return None
        try:
            return _SCHEMA.decode(self.json_schema)
        except msgspec.ValidationError:
            return None

    @contextmanager
    def _readable(self) -> Iterator[None]:
        with readable(f"jsonSchema of {StreamId(self.namespace, self.name)}"):
            yield


class SelectedField(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One selected field of a stream."""

    field_path: Path | None = None


class Config(msgspec.Struct, frozen=True, rename="camel", kw_only=True, eq=False, gc=False):
    """How one stream is synced. Unknown modes of a newer Airbyte are preserved."""

    sync_mode: str | None = None
    destination_sync_mode: str | None = None
    cursor_field: Path | None = None
    primary_key: tuple[Path, ...] | None = None
    namespace: str | None = None
    alias_name: str | None = None
    selected: bool | None = None
    suggested: bool | None = None
    destination_object_name: str | None = None
    include_files: bool | None = None
    field_selection_enabled: bool | None = None
    selected_fields: tuple[SelectedField, ...] | None = None
    hashed_fields: tuple[SelectedField, ...] | None = None
    mappers: tuple[Raw, ...] | None = None

    def selected_names(self) -> frozenset[str] | None:
        """The selected top-level fields; None if field selection is off."""
        if not self.field_selection_enabled:
            return None
        chosen = self.selected_fields or ()
        return frozenset(field.field_path[0] for field in chosen if field.field_path)


class ConfiguredStream(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One stream of a catalog: its original bytes, and their parsed content."""

    raw: bytes
    id: StreamId
    stream: Stream
    config: Config

    def unknown_settings(self) -> list[str]:
        """Members of the config that Airbyte does not know, and would drop silently."""
        config = PAIR.decode(self.raw).config
        if first_byte(config) != b"{":
            return []
        return [name for name in MEMBERS.decode(config) if name not in SETTINGS]

    def unknown_members(self) -> list[str]:
        """Members other than `stream` and `config`, which Airbyte would drop silently, too."""
        return [name for name in MEMBERS.decode(self.raw) if name not in Pair.__struct_fields__]

    @property
    def digest(self) -> bytes:
        """A 16-byte hash of the bytes, used as a cache key."""
        return digest_of(self.raw)

    @property
    def selected(self) -> bool:
        """Whether Airbyte should sync it; true unless `selected` is explicitly false."""
        return self.config.selected is not False

    @property
    def cursor(self) -> Path:
        """The effective cursor: the configured one, else the source-defined one."""
        if self.config.cursor_field:
            return self.config.cursor_field
        return (self.stream.source_defined_cursor and self.stream.default_cursor_field) or ()

    @property
    def primary_key(self) -> tuple[Path, ...]:
        """The effective key: the configured one, else the source-defined one."""
        return self.config.primary_key or self.stream.source_defined_primary_key or ()


class Catalog(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The streams of a syncCatalog, in the order of the document."""

    streams: tuple[ConfiguredStream, ...]

    def selected(self) -> Catalog:
        """Only the selected streams, which are all that Airbyte stores, each with `selected` true.

        Airbyte's server fails on a stream without `selected`.
        """
        return Catalog(
            tuple(_with_explicit_selected(stream) for stream in self.streams if stream.selected)
        )

    def by_id(self) -> dict[StreamId, ConfiguredStream]:
        """The streams by id; the last one of duplicates, which `validate` rejects."""
        return {stream.id: stream for stream in self.streams}


class Problem(msgspec.Struct, frozen=True):
    """One reason why a catalog is invalid; `field` is its location in the document."""

    stream: StreamId | None
    field: str
    code: str
    message: str


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """A note about a stream for a person; `fields` are the fields that it concerns."""

    stream: StreamId
    code: str
    message: str
    fields: tuple[str, ...] = ()


class InvalidCatalog(Exception):
    """The catalog is invalid; `problems` has every reason found, `code` is the first one's."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, *others = self.problems
        self.code = first.code
        super().__init__(first.message + (f" ({len(others)} more problems.)" if others else ""))

    @classmethod
    def because(
        cls, code: str, field: str, message: str, *, stream: StreamId | None = None
    ) -> InvalidCatalog:
        """An error with a single problem."""
        return cls([Problem(stream, field, code, message)])


class Pair(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One element of `streams`, its two members undecoded."""

    stream: Raw
    config: Raw = Raw(b"{}")


class Named(msgspec.Struct, frozen=True, gc=False):
    """The part of a stream that identifies it."""

    name: str
    namespace: str | None = None


class _Schema(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The parts of a jsonSchema that may declare fields."""

    properties: dict[str, Raw] | None = None
    reference: Raw = msgspec.field(name="$ref", default=Raw())
    all_of: Raw = msgspec.field(name="allOf", default=Raw())
    any_of: Raw = msgspec.field(name="anyOf", default=Raw())
    one_of: Raw = msgspec.field(name="oneOf", default=Raw())
    then: Raw = Raw()
    otherwise: Raw = msgspec.field(name="else", default=Raw())
    dependent: Raw = msgspec.field(name="dependentSchemas", default=Raw())
    dependencies: Raw = Raw()

    @property
    def is_branched(self) -> bool:
        """Whether fields may be declared outside of `properties`."""
        elsewhere = (
            self.reference,
            self.all_of,
            self.any_of,
            self.one_of,
            self.then,
            self.otherwise,
            self.dependent,
            self.dependencies,
        )
        return any(map(first_byte, elsewhere))


class _Envelope(msgspec.Struct, frozen=True, eq=False, gc=False):
    streams: list[Raw]


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_SCHEMA = msgspec.json.Decoder(_Schema)
PAIR = msgspec.json.Decoder(Pair)
NAMED = msgspec.json.Decoder(Named)
STREAM = msgspec.json.Decoder(Stream)
CONFIG = msgspec.json.Decoder(Config)
MEMBERS = msgspec.json.Decoder(dict[str, Raw])
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@lru_cache(maxsize=64)
def _declared(text: bytes) -> dict[str, Raw] | None:
    """The fields of a schema with branches or references. Cached: do not modify the result."""
    schema = Schema.read(text)
    declared = schema.fields()
    plain = _SCHEMA.decode(text).properties
    if not declared:
        return plain
    direct = plain or {}
    made = {name: _in_place(schema, declared[name], direct.get(name)) for name in sorted(declared)}
    return {name: made[name] for name in declared}


def _in_place(schema: Schema, declared: list[Any], plain: Raw | None) -> Raw:
    """The schema of one field, unchanged if it is complete by itself."""
    if plain is not None and len(declared) == 1 and not may_refer(bytes(memoryview(plain))):
        return plain
    forms = {msgspec.json.encode(schema.inlined(one)): None for one in declared}
    if len(forms) > 1:
        forms.pop(b"{}", None)
    first, *others = map(Raw, forms)
    return Raw(msgspec.json.encode({"anyOf": [first, *others]})) if others else first


def _with_explicit_selected(stream: ConfiguredStream) -> ConfiguredStream:
    if stream.config.selected:
        return stream
    pair = PAIR.decode(stream.raw)
    return read_stream(encode_pair(pair.stream, reconfigured(pair.config, selected=True)))


def digest_of(slice_: Document) -> bytes:
    """A 16-byte cryptographic hash, which resists deliberate collisions."""
    return blake2b(slice_, digest_size=16).digest()


SETTINGS = frozenset(Config.__struct_encode_fields__) | {
    "minimumGenerationId",
    "generationId",
    "syncId",
}
K = TypeVar("K")
V = TypeVar("V")


def remember(findings: dict[K, V], key: K, found: V) -> None:
    """Add a result to a cache, which is cleared when it is full."""
    if len(findings) >= _MOST_REMEMBERED:
        findings.clear()
    findings[key] = found


def shown(name: str) -> str:
    """A name for an error message: printable, on one line, truncated."""
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "…")


def plain(name: str) -> str:
    """A name for a list: unchanged if short and printable, else as `shown`."""
    return name if name.isprintable() and len(name) <= _SHOWN else shown(name)


def listed(names: Iterable[str]) -> str:
    """Names for an error message: the first ones, and the number of others."""
    first: list[str] = []
    others = 0
    for name in names:
        if len(first) < _MOST_LISTED:
            first.append(shown(name))
        else:
            others += 1
    return ", ".join(first) + (f" and {others} more" if others else "")


def first_byte(raw: Raw) -> bytes:
    """The first byte, which shows the JSON type: `{`, `[`, `"`, `n` of null; empty if absent."""
    return memoryview(raw)[:1].tobytes()


def scan(document: Document) -> list[memoryview]:
    """The bytes of each stream, as views into the document, without decoding them.

    A view keeps the whole document in memory; copy it with `bytes(view)` to store it.

    Raises:
        InvalidCatalog: the document is not a JSON object with a list of `streams`.
    """
    try:
        envelope = _ENVELOPE.decode(document)
    except UNREADABLE as error:
        raise _unreadable("", error) from None
    return [memoryview(raw) for raw in envelope.streams]


def identify(slice_: Document, position: int) -> tuple[StreamId, Pair]:
    """The id of a slice's stream, and its two undecoded members.

    Raises:
        InvalidCatalog: the slice is not a stream with a name.
    """
    try:
        pair = PAIR.decode(slice_)
        named = NAMED.decode(pair.stream)
    except UNREADABLE as error:
        raise _unreadable(f"streams[{position}]", error) from None
    if "\x00" in named.name or "\x00" in (named.namespace or ""):
        place = f"streams[{position}].stream.name"
        message = f"{place} contains a NUL character, which Postgres cannot store."
        raise InvalidCatalog.because("invalid_catalog", place, message)
    return StreamId(named.namespace or None, named.name), pair


@Stepwise
def distinct(
    slices: Sequence[Document], *, digests: Sequence[bytes] | None = None
) -> Steps[list[StreamId]]:
    """The id of each slice's stream in a discovery, which must all be distinct.

    Ids are cached, so a known slice costs a hash and no parsing. `digests` are the `raw_hash` of
    each slice, if already known.

    Raises:
        InvalidCatalog: with the code `duplicate_stream`: a stream occurs twice; or a slice is not a
            stream with a name.
    """
    ids: list[StreamId] = []
    first: dict[StreamId, int] = {}
    problems: list[Problem] = []
    for position, slice_ in enumerate(slices):
        digest = None if digests is None else digests[position]
        stream = name_of(slice_, position, digest=digest)
        earlier = first.setdefault(stream, position)
        if earlier != position and len(problems) < MAX_PROBLEMS:
            problems.append(duplicate(stream, earlier, position))
        ids.append(stream)
        yield
    if problems:
        raise InvalidCatalog(problems)
    return ids


def duplicate(stream: StreamId, earlier: int, position: int) -> Problem:
    """The problem of a source that offers a stream twice."""
    message = (
        f"The source offers {stream} twice, as streams[{earlier}] and streams[{position}]: a "
        "reference to it is ambiguous. Give one of them another name or namespace in the source."
    )
    return Problem(stream, f"streams[{position}].stream.name", "duplicate_stream", message)


def raw_hash(slice_: Document) -> bytes:
    """A fast 16-byte hash of the bytes, to detect changes cheaply."""
    return xxhash.xxh3_128_digest(slice_)


def name_of(slice_: Document, position: int = 0, *, digest: bytes | None = None) -> StreamId:
    """The id of a slice's stream, cached by its `raw_hash`, which can be given as `digest`.

    Raises:
        InvalidCatalog: the slice is not a stream with a name.
    """
    if digest is None:
        digest = raw_hash(slice_)
    known = _names.get(digest)
    if known is None:
        known, _ = identify(slice_, position)
        remember(_names, digest, known)
    return known


_names: dict[bytes, StreamId] = {}


def read_stream(slice_: Document, position: int = 0) -> ConfiguredStream:
    """Parse one stream of a document, as sliced by `scan`; `position` is for messages.

    Raises:
        InvalidCatalog: a member has the wrong type, or contains text that JSONB cannot store.
    """
    raw = bytes(slice_)
    place = f"streams[{position}]"
    try:
        pair = PAIR.decode(raw)
        place += ".stream"
        stream = STREAM.decode(pair.stream)
        place = f"streams[{position}].config"
        config = CONFIG.decode(b"{}" if first_byte(pair.config) == b"n" else pair.config)
        place = f"streams[{position}]"
        if not raw.isascii():
            raw.decode()
    except UNREADABLE as error:
        raise _unreadable(place, error) from None
    if b"\\u" in raw and holds_unstorable(without_escaped_backslashes(raw)):
        message = (
            f"{place} contains a NUL or half a surrogate pair, which Postgres cannot store in JSON."
        )
        raise InvalidCatalog.because("invalid_catalog", place, message)
    return ConfiguredStream(raw, StreamId(stream.namespace or None, stream.name), stream, config)


@Stepwise
def parse(document: Document, *, max_streams: int | None = None) -> Steps[Catalog]:
    """Parse a document, tolerantly; `validate` checks the rules.

    `max_streams` limits the work for a document from a caller.

    Raises:
        InvalidCatalog: the document is not a catalog; the problems name streams and members.
    """
    streams: list[ConfiguredStream] = []
    problems: list[Problem] = []
    slices = scan(document)
    if max_streams is not None and len(slices) > max_streams:
        message = f"The catalog has {len(slices)} streams, but AAM accepts at most {max_streams}."
        raise InvalidCatalog.because("catalog_too_large", "streams", message)
    for position, slice_ in enumerate(slices):
        try:
            streams.append(read_stream(slice_, position))
        except InvalidCatalog as error:
            problems += error.problems
            if len(problems) >= MAX_PROBLEMS:
                break
        yield
    if problems:
        raise InvalidCatalog(problems)
    return Catalog(tuple(streams))


def dump(catalog: Catalog) -> bytes:
    """The document of a catalog, with each stream byte for byte as received or built."""
    return join(stream.raw for stream in catalog.streams)


def join(slices: Iterable[Document]) -> bytes:
    """A document of streams that are already encoded."""
    return b"".join((b'{"streams":[', b",".join(slices), b"]}"))


def encode_pair(definition: Raw, config: Raw | dict[str, Any]) -> bytes:
    """Encode one stream, with its definition unchanged."""
    return msgspec.json.encode({"stream": definition, "config": config})


def reconfigured(config: Raw, **changes: Any) -> dict[str, Any]:
    """A stream's config with some members replaced; all others, even unknown ones, stay."""
    members: dict[str, Any] = {}
    if first_byte(config) == b"{":
        members |= MEMBERS.decode(config)
    return members | changes


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Convert decoding errors to InvalidCatalog."""
    try:
        yield
    except UNREADABLE as error:
        raise _unreadable(place, error) from None


def _unreadable(place: str, error: Exception) -> InvalidCatalog:
    """A decoding error as InvalidCatalog, which only quotes types and declared members."""
    if isinstance(error, RecursionError):
        what, field = "is nested too deeply", place
    elif isinstance(error, UnicodeDecodeError):
        what, field = "is not valid UTF-8", place
    elif isinstance(error, msgspec.ValidationError):
        reason, _, path = str(error).partition(" - at `$")
        field = place + path.rstrip("`")
        what = f"cannot be read: {reason[0].lower()}{reason[1:]}"
    else:
        what, field = "is not valid JSON", place
    field = field.removeprefix(".")
    message = f"{field or 'The catalog'} {what}."
    return InvalidCatalog.because("invalid_catalog", field, message)
