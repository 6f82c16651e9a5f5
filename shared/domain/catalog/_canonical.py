"""Canonical forms and fingerprints, to compare streams and catalogs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Context, Decimal, DecimalException
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from shared.domain.catalog._mappers import HASHED_SUFFIX, hashing
from shared.domain.catalog._model import (
    MEMBERS,
    PAIR,
    STREAM,
    Catalog,
    Config,
    ConfiguredStream,
    Document,
    Path,
    Stream,
    StreamId,
    digest_of,
    first_byte,
    read_stream,
    readable,
    remember,
    scan,
)
from shared.domain.cooperative import Steps, Stepwise

_ENCODER = msgspec.json.Encoder(order="sorted")
# Deeper schemas are compared as written, except for the order of keys.
_DEPTH = 60
_SMALL_BYTES = 1024
_REMEMBERED = 4096

_OF_NAMES = frozenset({"properties", "patternProperties", "definitions", "$defs"})
_OF_SCHEMAS = frozenset({"oneOf", "anyOf", "allOf"})
_OF_ONE = frozenset({"items", "additionalProperties", "additionalItems", "contains", "not"})
_OF_VALUES = frozenset({"type", "required", "enum"})
_STREAM_MEMBERS = frozenset(field.encode_name for field in msgspec.structs.fields(Stream))


def canonical_hash(slice_: Document) -> bytes:
    """A 16-byte hash of what the source offers for one stream, independent of notation.

    It ignores the order of keys and sets, members that are null or have Airbyte's default, and the
    stream's config. It includes unknown members of the stream.
    """
    with readable("stream"):
        definition = PAIR.decode(slice_).stream
        stream = STREAM.decode(definition)
        form = _offer(stream, canonical_schema(stream.json_schema))
        for member, value in MEMBERS.decode(definition).items():
            if member not in _STREAM_MEMBERS and first_byte(value) != b"n":
                form[member] = canonical(value)
        return _digest(form)


def fingerprint(stream: ConfiguredStream) -> bytes:
    """A 16-byte hash that is equal for streams that Airbyte stores as the same.

    Airbyte reduces the jsonSchema to the selected fields, fills in defaults, drops nulls, and
    numbers syncs and mappers; the hash is independent of all that.

    Fingerprints are cached by the stream's bytes, since most streams are the same as in the
    previous catalog: a known stream costs a hash and no parsing.
    """
    known = _fingerprints.get(stream.digest)
    if known is None:
        with readable(f"jsonSchema of {stream.id}"):
            keep = stream.config.selected_names()
            form = _kept(stream, canonical_schema(stream.stream.json_schema, keep=keep))
        known = _digest(form)
        remember(_fingerprints, stream.digest, known)
    return known


_fingerprints: dict[bytes, bytes] = {}


def _kept(stream: ConfiguredStream, schema: Raw | None) -> dict[str, Any]:
    """Everything that Airbyte stores of a stream, with its canonical jsonSchema."""
    config = stream.config
    form = _offer(stream.stream, schema)
    form["config"] = _filled(
        syncMode=(config.sync_mode or "").lower(),
        destinationSyncMode=(config.destination_sync_mode or "").lower(),
        cursorField=stream.cursor,
        primaryKey=set_of_paths(stream.primary_key),
        namespace=config.namespace,
        aliasName=_alias(config.alias_name, stream.id),
        destinationObjectName=config.destination_object_name,
        includeFiles=config.include_files,
        fieldSelectionEnabled=config.field_selection_enabled,
        mappers=mappers(config),
    )
    return form


@Stepwise
def fingerprint_of(catalog: Catalog) -> Steps[str]:
    """The fingerprint of a catalog's selected streams, in any order: 32 hexadecimal digits."""
    prints = []
    for stream in catalog.streams:
        if stream.selected:
            prints.append(fingerprint(stream))
            yield
    return _together(prints)


@Stepwise
def document_fingerprint(document: Document) -> Steps[str]:
    """The `fingerprint_of` a document, which only parses streams that are not cached.

    Raises:
        InvalidCatalog: the document is not a catalog.
    """
    prints = []
    for position, slice_ in enumerate(scan(document)):
        known = _fingerprints.get(digest_of(slice_))
        if known is None:
            stream = read_stream(slice_, position)
            known = fingerprint(stream) if stream.selected else None
        if known is not None:
            prints.append(known)
        yield
    return _together(prints)


def _together(prints: list[bytes]) -> str:
    return blake2b(b"".join(sorted(prints)), digest_size=16).hexdigest()


def canonical(value: Document) -> Raw:
    """Canonical JSON: sorted keys, and numbers in one notation."""
    return Raw(_ENCODER.encode(decode(value)))


def canonical_schema(schema: Raw, *, keep: Collection[str] | None = None) -> Raw | None:
    """A stream's jsonSchema in canonical form, reduced to the fields in `keep`."""
    return _schema_text(_cut(schema, keep=keep))


class _Schema(msgspec.Struct, frozen=True, gc=False):
    """A jsonSchema parsed down to its fields; `other` if it is not an object."""

    members: dict[str, Raw]
    fields: dict[str, Raw] | None = None
    other: Raw | None = None


def _cut(schema: Raw, *, keep: Collection[str] | None) -> _Schema | None:
    if first_byte(schema) in (b"", b"n"):
        return None
    if first_byte(schema) != b"{":
        return _Schema({}, other=schema)
    members = MEMBERS.decode(schema)
    properties = members.get("properties")
    if properties is None or first_byte(properties) != b"{":
        return _Schema(members)
    del members["properties"]
    fields = MEMBERS.decode(properties)
    if keep is not None:
        fields = {name: field for name, field in fields.items() if name in keep}
    return _Schema(members, fields)


def _schema_text(schema: _Schema | None) -> Raw | None:
    if schema is None:
        return None
    if schema.other is not None:
        return canonical(schema.other)
    form = {
        keyword: _keyword(keyword, decode(value), depth=1)
        for keyword, value in schema.members.items()
    }
    if schema.fields is not None:
        form["properties"] = Raw(msgspec.json.encode(canonical_fields(schema.fields)))
    return Raw(_ENCODER.encode(form))


def canonical_fields(fields: dict[str, Raw]) -> dict[str, Raw]:
    """Fields sorted by name, each in canonical form."""
    if not fields:
        return {}
    # Joining and splitting converts all of them to bytes at once; JSON text never contains NUL.
    texts = b"\0".join(fields.values()).split(b"\0")
    return dict(sorted(zip(fields, map(_FORMS.__getitem__, texts), strict=True)))


def _offer(stream: Stream, schema: Raw | None) -> dict[str, Any]:
    return _filled(
        name=stream.name,
        namespace=stream.namespace,
        jsonSchema=schema,
        supportedSyncModes=sorted({mode.lower() for mode in stream.supported_sync_modes or ()}),
        sourceDefinedCursor=stream.source_defined_cursor,
        defaultCursorField=stream.default_cursor_field,
        sourceDefinedPrimaryKey=set_of_paths(stream.source_defined_primary_key or ()),
        isResumable=stream.is_resumable,
        isFileBased=stream.is_file_based,
    )


def _filled(**members: Any) -> dict[str, Any]:
    """Only the members that are not null, empty or false."""
    return {name: value for name, value in members.items() if _is_meaningful(value)}


def _is_meaningful(value: Any) -> bool:
    return isinstance(value, Raw) or bool(value)


def _digest(form: dict[str, Any]) -> bytes:
    return blake2b(_ENCODER.encode(form), digest_size=16).digest()


def canonical_field(schema: Raw) -> Raw:
    """One field's schema in canonical form."""
    return _FORMS[bytes(memoryview(schema))]


class _Forms(dict[bytes, Raw]):
    """A cache of canonical schemas by their bytes: 450,000 fields share a few dozen."""

    def __missing__(self, schema: bytes) -> Raw:
        form = Raw(_ENCODER.encode(_form(decode(schema), depth=1)))
        if len(schema) <= _SMALL_BYTES:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[schema] = form
        return form


_FORMS = _Forms()


def _form(schema: Any, *, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEPTH:
        return schema
    return {key: _keyword(key, value, depth=depth + 1) for key, value in schema.items()}


def _keyword(keyword: str, value: Any, *, depth: int) -> Any:
    if keyword in _OF_VALUES and isinstance(value, list):
        values = _set(value)
        return values[0] if keyword == "type" and len(values) == 1 else values
    if keyword in _OF_SCHEMAS and isinstance(value, list):
        return _set(_form(schema, depth=depth) for schema in value)
    if keyword in _OF_NAMES and isinstance(value, dict):
        return {name: _form(schema, depth=depth) for name, schema in value.items()}
    if keyword in _OF_ONE:
        if isinstance(value, list):
            return [_form(schema, depth=depth) for schema in value]
        return _form(value, depth=depth)
    return value


def _set(values: Iterable[Any]) -> list[Raw]:
    return [Raw(form) for form in sorted({_ENCODER.encode(value) for value in values})]


def set_of_paths(paths: Iterable[Path]) -> list[Path]:
    return sorted(set(paths))


def _alias(alias: str | None, stream: StreamId) -> str | None:
    """The alias, or None if it is Airbyte's default: the stream's name or its sanitized form."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in stream.name)
    return None if alias in (stream.name, plain) else alias


def mappers(config: Config) -> list[Raw]:
    """The mappers in order, without ids.

    Hashed fields are converted to hashing mappers if there are no mappers: Airbyte derives them
    from the mappers when it returns a catalog, and ignores them beside mappers in a request.
    """
    forms = []
    for mapper in config.mappers or ():
        members = decode(mapper)
        if isinstance(members, dict):
            members = _without_nulls(members)
            members.pop("id", None)
            made = members.get("mapperConfiguration")
            if members.get("type") == "hashing" and isinstance(made, dict):
                made.setdefault("fieldNameSuffix", HASHED_SUFFIX)
        forms.append(_ENCODER.encode(members))
    if not forms:
        forms = [_ENCODER.encode(hashing(field)) for field in config.hashed_fields or ()]
    return [Raw(form) for form in forms]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _number(text: str) -> int | Raw:
    """A number in one notation, without rounding: 1.0, 1 and 1e0 are equal, as in JSONB."""
    try:
        number = Decimal(text).normalize(Context(prec=len(text) + 1))
        whole = 0 <= number.as_tuple().exponent <= _LONGEST  # type: ignore[operator]  # finite
        return int(number) if whole else Raw(str(number).encode())
    except (DecimalException, TypeError):
        return Raw(text.encode())


_LONGEST = 400
decode = msgspec.json.Decoder(float_hook=_number).decode
