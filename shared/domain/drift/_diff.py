"""Differences between two discoveries of a source, and between two catalogs of a connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw

from shared.domain.catalog import (
    Catalog,
    ConfiguredStream,
    StreamId,
    distinct,
    raw_hash,
    scan,
)
from shared.domain.catalog._canonical import (
    canonical,
    canonical_field,
    canonical_fields,
    decode,
    mappers,
    set_of_paths,
)
from shared.domain.catalog._model import PAIR, STREAM, Document, Path, Stream, name_of, readable
from shared.domain.catalog._schema import BRANCHES, CONDITIONAL, OF_ITEMS, OF_VALUES, conditional
from shared.domain.cooperative import Steps, Stepwise

ITEM = "[]"
"""The path step from an array to its items."""
VALUE = "{}"
"""The path step from an object to its undeclared fields; `{pattern}` if they have a pattern."""

# Deeper schemas are only compared as a whole.
_DEPTH = 32

Streams: TypeAlias = Document | Catalog | Iterable[Document]
Kind: TypeAlias = Literal[
    "stream_added",
    "stream_removed",
    "field_added",
    "field_removed",
    "field_retyped",
    "primary_key_changed",
    "cursor_changed",
    "sync_modes_changed",
    "mapper_lapsed",
    "mapping_conflict",
]
ConfigKind: TypeAlias = Literal[
    "stream_selected",
    "stream_deselected",
    "sync_mode_changed",
    "destination_sync_mode_changed",
    "cursor_changed",
    "primary_key_changed",
    "field_selection_changed",
    "field_selected",
    "field_deselected",
    "mappers_changed",
    "alias_changed",
    "destination_object_changed",
    "include_files_changed",
]


class Change(msgspec.Struct, frozen=True):
    """One schema change of a source.

    `path` is empty for the stream itself. Types are JSON Schema's `type`, sorted, with the `format`
    and `airbyte_type` that modify it.

    `mapper_lapsed` is a change of the source for a connection: the source no longer offers the
    field at `path`, or it is not selected, but mappers of the connection name it; see `lapses`.
    `mapping_conflict` is one, too: a new field has the name that a mapper gives another field; see
    `with_conflicts`.
    """

    kind: Kind
    stream: StreamId
    path: Path = ()
    before: Any = None
    after: Any = None


class ConfigChange(msgspec.Struct, frozen=True):
    """One change of a stream's configuration by a person or a repair."""

    kind: ConfigKind
    stream: StreamId
    path: Path = ()
    before: Any = None
    after: Any = None


@Stepwise
def diff(before: Streams, after: Streams) -> Steps[list[Change]]:
    """Schema changes of a source: streams, fields at any depth, types, keys, cursors, sync modes.

    Each side is a document, its slices, or a catalog. The order of keys, streams and sets does not
    matter, nor do descriptions. An added or removed element is reported once, without its contents.
    Streams with equal bytes are never decoded. Changes are sorted by stream, then by path.

    Raises:
        InvalidCatalog: a side is not a catalog, or `after` is a discovery with a stream twice.
    """
    ours = yield from _by_id(slices_of(before), is_discovery=False)
    theirs = yield from _by_id(slices_of(after), is_discovery=not isinstance(after, Catalog))
    different = {
        stream
        for stream in ours.keys() | theirs.keys()
        if stream not in ours or stream not in theirs or ours[stream][0] != theirs[stream][0]
    }
    changes: list[Change] = []
    for stream in sorted(different, key=lambda stream: stream.order):
        if stream not in theirs:
            changes.append(Change("stream_removed", stream))
        elif stream not in ours:
            changes.append(Change("stream_added", stream))
        else:
            with readable(f"stream {stream}"):
                old, new = (PAIR.decode(side[stream][1]).stream for side in (ours, theirs))
                if memoryview(old) != memoryview(new):
                    changes += changes_of(stream, STREAM.decode(old), STREAM.decode(new))
        yield
    return changes


@Stepwise
def diff_config(before: Catalog, after: Catalog) -> Steps[list[ConfigChange]]:
    """Changes of configuration: selected streams and fields, modes, cursor, key, mappers.

    Effective cursors and keys are compared, so configuring the source's own is not a change. Only
    the types of mappers are reported, since their configuration may contain an encryption key.
    """
    ours, theirs = before.selected().by_id(), after.selected().by_id()
    changes: list[ConfigChange] = []
    for stream in sorted(ours.keys() | theirs.keys(), key=lambda stream: stream.order):
        if stream not in theirs:
            changes.append(ConfigChange("stream_deselected", stream))
        elif stream not in ours:
            changes.append(ConfigChange("stream_selected", stream))
        else:
            with readable(f"config of {stream}"):
                changes += _config(ours[stream], theirs[stream])
        yield
    return changes


def slices_of(streams: Streams) -> list[Document]:
    """The bytes of each stream of a document, slices or catalog."""
    if isinstance(streams, Catalog):
        return [stream.raw for stream in streams.streams]
    if isinstance(streams, bytes | bytearray | memoryview):
        return list(scan(streams))
    return list(streams)


def _by_id(
    slices: list[Document], *, is_discovery: bool
) -> Steps[dict[StreamId, tuple[bytes, Document]]]:
    """Each stream with a hash of its bytes; a discovery must not contain a stream twice."""
    hashes = []
    for slice_ in slices:
        hashes.append(raw_hash(slice_))
        yield
    if is_discovery:
        ids = yield from distinct.steps(slices, digests=hashes)
    else:
        ids = []
        for position, (slice_, digest) in enumerate(zip(slices, hashes, strict=True)):
            ids.append(name_of(slice_, position, digest=digest))
            yield
    return dict(zip(ids, zip(hashes, slices, strict=True), strict=True))


def changes_of(id_: StreamId, old: Stream, new: Stream) -> Iterator[Change]:
    """The changes of one stream, as in `diff`."""
    keys = [sorted(set_of_paths(s.source_defined_primary_key or ())) for s in (old, new)]
    if keys[0] != keys[1]:
        yield Change("primary_key_changed", id_, before=keys[0], after=keys[1])
    cursors = [_offered_cursor(old), _offered_cursor(new)]
    if cursors[0] != cursors[1]:
        yield Change("cursor_changed", id_, before=cursors[0], after=cursors[1])
    modes = [sorted(set(s.supported_sync_modes or ())) for s in (old, new)]
    if modes[0] != modes[1]:
        yield Change("sync_modes_changed", id_, before=modes[0], after=modes[1])
    yield from _fields(id_, old.fields() or {}, new.fields() or {})


def type_of(schema: Raw) -> dict[str, Any]:
    """The type of a field by its schema, as `diff` reports it."""
    return _node(schema).type


def has_field(stream: Stream, path: Path) -> bool:
    """Whether `diff` could report a change at this path of the stream."""
    fields = stream.fields() or {}
    if not path or path[0] not in fields:
        return False
    node = _node(fields[path[0]])
    for name in path[1:]:
        if name not in node.children:
            return False
        node = _Node(*node.children[name])
    return True


def _offered_cursor(stream: Stream) -> dict[str, Any]:
    return {
        "field": stream.default_cursor_field or (),
        "source_defined": bool(stream.source_defined_cursor),
    }


def _fields(id_: StreamId, old: dict[str, Raw], new: dict[str, Raw]) -> Iterator[Change]:
    """Compare the top level, where nearly all fields are equal."""
    if old == new:
        return
    old_forms, new_forms = canonical_fields(old), canonical_fields(new)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield Change("field_removed", id_, (name,), before=_node(old[name]).type)
        elif name not in old:
            yield Change("field_added", id_, (name,), after=_node(new[name]).type)
        elif old_forms[name] != new_forms[name]:
            yield from _nodes(id_, (name,), _node(old[name]), _node(new[name]))


def _nodes(id_: StreamId, path: Path, old: _Node, new: _Node) -> Iterator[Change]:
    if old.type != new.type:
        yield Change("field_retyped", id_, path, before=old.type, after=new.type)
    if len(path) >= _DEPTH:
        if old.type == new.type and old.deep_form() != new.deep_form():
            yield Change("field_retyped", id_, path, before=old.type, after=new.type)
        return
    # If a field changes between object, array and neither, its new type says enough.
    names = old.children.keys() | new.children.keys()
    if old.holds != new.holds:
        names = old.children.keys() & new.children.keys()
    for name in sorted(names):
        here = (*path, name)
        if name not in new.children:
            yield Change("field_removed", id_, here, before=_Node(*old.children[name]).type)
        elif name not in old.children:
            yield Change("field_added", id_, here, after=_Node(*new.children[name]).type)
        else:
            yield from _nodes(id_, here, _Node(*old.children[name]), _Node(*new.children[name]))


_OF_OBJECTS = ("properties", "patternProperties", *OF_VALUES)
_OF_FIELDS = frozenset({*_OF_OBJECTS, *OF_ITEMS, *CONDITIONAL, *BRANCHES})
_FACETS = ("format", "airbyte_type", "$ref", "contentEncoding", "contentMediaType")


class _Node:
    """A field: its type, and the fields in it.

    Several schemas may describe a field, since each branch of a `oneOf` or `anyOf` may declare it:
    its type is then any of theirs, and it contains the fields of all of them.
    """

    def __init__(self, *schemas: Any) -> None:
        self._schemas = schemas
        self.children: dict[str, list[Any]] = {}
        self._alternatives: dict[bytes, dict[str, Any]] = {}
        for schema in schemas:
            self._take(schema, depth=0)
        if any(form.get("type") == "array" for form in self._alternatives.values()):
            self.children.setdefault(ITEM, [{}])

    @property
    def holds(self) -> frozenset[str]:
        """Whether this is an object, an array, both or neither."""
        basic = {str(form.get("type")) for form in self._alternatives.values()}
        return frozenset(basic & {"object", "array"})

    @property
    def type(self) -> dict[str, Any]:
        """The type as one schema if possible, else as `anyOf` its alternatives."""
        forms = [self._alternatives[key] for key in sorted(self._alternatives)]
        named = [form for form in forms if form.get("type") != "null"]
        facets = [{k: v for k, v in form.items() if k != "type"} for form in named]
        if not named or all(
            facet == facets[0] and "type" in form for facet, form in zip(facets, named, strict=True)
        ):
            types = sorted(form["type"] for form in forms)
            shared = facets[0] if facets else {}
            return ({"type": types[0] if len(types) == 1 else types} if types else {}) | shared
        if len(forms) == 1:
            return dict(forms[0])
        return {"anyOf": [dict(form) for form in forms]}

    def deep_form(self) -> list[bytes]:
        """A form that is equal for equivalent schemas, at any depth."""
        return sorted(_text(canonical_field(Raw(msgspec.json.encode(s)))) for s in self._schemas)

    def _take(
        self,
        schema: Any,
        *,
        depth: int,
        types: tuple[str, ...] = (),
        facets: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Add the types that a schema allows; `types` and `facets` are those of its parent."""
        if not isinstance(schema, dict) or depth > _DEPTH:
            self._alternative({})
            return
        branches: list[Any] = []
        for part in _together(schema, depth=depth):
            self._hold(part)
            types = _types(part) or types
            facets = {**facets, **_facets(part)}
            branches += _list(part.get("oneOf")) + _list(part.get("anyOf"))
        for branch in branches:
            self._take(branch, depth=depth + 1, types=types, facets=facets)
        if branches:
            return
        for basic in types:
            self._alternative({"type": basic, **({} if basic == "null" else facets)})
        if not types:
            self._alternative(dict(facets))

    def _hold(self, schema: Mapping[str, Any]) -> None:
        properties = schema.get("properties")
        if isinstance(properties, dict):
            for name, inner in properties.items():
                self.children.setdefault(name, []).append(inner)
        patterns = schema.get("patternProperties")
        if isinstance(patterns, dict):
            for pattern, inner in patterns.items():
                self.children.setdefault(f"{{{pattern}}}", []).append(inner)
        for keyword in OF_VALUES:
            if isinstance(schema.get(keyword), dict) and schema[keyword]:
                self.children.setdefault(VALUE, []).append(schema[keyword])
        for keyword in OF_ITEMS:
            items = schema.get(keyword)
            if isinstance(items, dict | list) or (items is not None and keyword == "items"):
                listed = items if isinstance(items, list) else [items]
                self.children.setdefault(ITEM, []).extend(listed)

    def _alternative(self, form: dict[str, Any]) -> None:
        self._alternatives[_text(canonical(msgspec.json.encode(form)))] = form


@lru_cache(maxsize=2048)
def _remembered(schema: bytes) -> _Node:
    return _Node(decode(schema))


def _node(schema: Raw) -> _Node:
    return _remembered(_text(schema))


def _text(raw: Raw) -> bytes:
    return bytes(memoryview(raw))


def _together(schema: dict[str, Any], *, depth: int) -> Iterator[dict[str, Any]]:
    """The schemas that together describe one value; the outermost last, which takes precedence."""
    if depth > _DEPTH:
        return
    for one in conditional(schema):
        fields = {keyword: one[keyword] for keyword in _OF_FIELDS & one.keys()}
        yield from _together(fields, depth=depth + 1)
    for part in _list(schema.get("allOf")):
        if isinstance(part, dict):
            yield from _together(part, depth=depth + 1)
    yield schema


def _facets(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {facet: schema[facet] for facet in _FACETS if schema.get(facet) is not None}


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    stated = schema.get("type")
    if isinstance(stated, str):
        return (stated,)
    if isinstance(stated, list):
        return tuple(basic for basic in stated if isinstance(basic, str))
    if any(isinstance(schema.get(keyword), dict) for keyword in _OF_OBJECTS):
        return ("object",)
    is_array = schema.get("items") is not None or isinstance(schema.get("prefixItems"), list)
    return ("array",) if is_array else ()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _config(old: ConfiguredStream, new: ConfiguredStream) -> Iterator[ConfigChange]:
    a, b = old.config, new.config
    compared: tuple[tuple[ConfigKind, Any, Any], ...] = (
        ("sync_mode_changed", a.sync_mode, b.sync_mode),
        ("destination_sync_mode_changed", a.destination_sync_mode, b.destination_sync_mode),
        ("cursor_changed", old.cursor, new.cursor),
        ("primary_key_changed", set_of_paths(old.primary_key), set_of_paths(new.primary_key)),
        ("alias_changed", a.alias_name or old.id.name, b.alias_name or new.id.name),
        ("destination_object_changed", a.destination_object_name, b.destination_object_name),
        ("include_files_changed", bool(a.include_files), bool(b.include_files)),
        (
            "field_selection_changed",
            bool(a.field_selection_enabled),
            bool(b.field_selection_enabled),
        ),
    )
    for kind, before, after in compared:
        if before != after:
            yield ConfigChange(kind, old.id, before=before, after=after)
    if list(map(_text, mappers(a))) != list(map(_text, mappers(b))):
        types = [_mapper_types(a.mappers), _mapper_types(b.mappers)]
        yield ConfigChange("mappers_changed", old.id, before=types[0], after=types[1])
    if a.field_selection_enabled or b.field_selection_enabled:
        ours, theirs = _synced(old), _synced(new)
        for name in sorted(ours ^ theirs):
            kind = "field_selected" if name in theirs else "field_deselected"
            yield ConfigChange(kind, old.id, (name,))


def _synced(stream: ConfiguredStream) -> frozenset[str]:
    """The top-level fields that a sync includes."""
    chosen = stream.config.selected_names()
    return frozenset(stream.stream.fields() or ()) if chosen is None else chosen


def _mapper_types(raws: Iterable[Raw] | None) -> list[Any]:
    members = [decode(raw) for raw in raws or ()]
    return [mapper.get("type") if isinstance(mapper, dict) else None for mapper in members]
