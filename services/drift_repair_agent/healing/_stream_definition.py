"""A stream definition with some of the source's changes applied and the others left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from shared.domain.catalog._canonical import decode
from shared.domain.catalog._model import MEMBERS, Path, first_byte
from shared.domain.catalog._schema import (
    BRANCHES,
    CONDITIONAL,
    OF_ITEMS,
    OF_VALUES,
    REFERENCES,
    Schema,
    may_refer,
)
from shared.domain.drift import ITEM, Change, Kind

_MEMBERS: dict[Kind, tuple[str, ...]] = {
    "primary_key_changed": ("sourceDefinedPrimaryKey",),
    "cursor_changed": ("sourceDefinedCursor", "defaultCursorField"),
    "sync_modes_changed": ("supportedSyncModes",),
}
_HOLDING = (*REFERENCES, *CONDITIONAL, "dependentSchemas", "dependencies")
_KEPT = tuple({*OF_VALUES, *OF_ITEMS, "patternProperties"} - {"items"})
"""Other keywords that hold fields; if they differ, a field is changed as a whole or not at all."""
_NOTHING = Raw(b"{}")


class Blend:
    """Applies `taken`, a subset of the `changes` from `old` to `new`; the result is `definition`.

    A change inside a field is applied on its own if only plain objects and arrays lead to it. If a
    union does, the field stays as it was until every change in it is taken; `whole` lists these.
    """

    def __init__(
        self, old: Raw, new: Raw, *, changes: Sequence[Change], taken: Collection[Change]
    ) -> None:
        self.whole: list[Path] = []
        self._fields = {change.path: change for change in changes if change.path}
        self._taken = {change.path for change in taken if change.path}
        if len(taken) == len(changes):
            self.definition = new if changes else old
        elif not taken:
            self.definition = old
        else:
            self.definition = self._members(old, new, taken)

    def _members(self, old: Raw, new: Raw, taken: Collection[Change]) -> Raw:
        members, offered = MEMBERS.decode(old), MEMBERS.decode(new)
        for change in taken:
            for member in _MEMBERS.get(change.kind, ()):
                members.pop(member, None)
                if member in offered:
                    members[member] = offered[member]
        schemas = (members.get("jsonSchema", Raw()), offered.get("jsonSchema", Raw()))
        blended = self._schema(*schemas)
        if first_byte(blended):
            members["jsonSchema"] = blended
        return Raw(msgspec.json.encode(members))

    def _schema(self, old: Raw, new: Raw) -> Raw:
        """Blend the jsonSchema; only its declared fields are reported as changes.

        Everything but `properties` stays as it was. References in new fields are therefore inlined,
        unless they resolve to the same schema on the old side. Fields that are declared in branches
        of the schema or behind its references stay as they were, too.
        """
        if len(self._taken) == len(self._fields):
            return new if self._fields else old
        if not self._taken:
            return old
        ours, theirs = _Side(old), _Side(new)
        base = ours if first_byte(old) == b"{" else theirs
        children: dict[str, Raw] = {}
        for name in ours.written | theirs.written:
            if name in ours.elsewhere | theirs.elsewhere:
                if name in ours.written:
                    children[name] = ours.written[name]
            else:
                child = self._field(name, ours, theirs)
                if child is not None:
                    children[name] = child
        self.whole += [
            (name,)
            for name in sorted(ours.elsewhere | theirs.elsewhere)
            if any(place[0] == name for place in self._taken)
        ]
        members = dict(base.members)
        if base is theirs:
            for keyword in (*BRANCHES, *_HOLDING):
                members.pop(keyword, None)
        if children or "properties" in members:
            members["properties"] = _encoded(children)
        return _encoded(members)

    def _field(self, name: str, ours: _Side, theirs: _Side) -> Raw | None:
        """Blend one top-level field; None if the result does not have it."""
        path = (name,)
        old, new = ours.written.get(name), theirs.written.get(name)
        within = [place for place in self._fields if place[0] == name]
        taken = [place for place in within if place in self._taken]
        if not taken:
            return old
        if new is None:
            return None
        made: Raw | None = None
        if len(taken) == len(within):
            is_same_here = not may_refer(_text(new)) or ours.resolves_alike(new, theirs)
            made = new if is_same_here else theirs.inlined(name)
        else:
            before, after = ours.inlined(name), theirs.inlined(name)
            if before is not None and after is not None:
                made = self._node(path, before, after)
                return old if path in self.whole else made
        if made is None:
            self.whole.append(path)
        return old if made is None else made

    def _node(self, path: Path, old: Raw, new: Raw) -> Raw:
        within = [place for place in self._fields if place[: len(path)] == path]
        taken = [place for place in within if place in self._taken]
        if len(taken) == len(within):
            return new if within else old
        if not taken:
            return old
        ours, theirs = _object(old), _object(new)
        if not _are_plain(ours, theirs):
            self.whole.append(path)
            return old
        followed = path in self._taken
        members = dict(theirs if followed else ours)
        children = self._children(path, _children(ours), _children(theirs), followed=followed)
        items = children.pop(ITEM, None)
        if items is not None and ("items" in members or items != _NOTHING):
            members["items"] = items
        if children or "properties" in members:
            members["properties"] = _encoded(children)
        return _encoded(members)

    def _children(
        self, path: Path, ours: dict[str, Raw], theirs: dict[str, Raw], *, followed: bool
    ) -> dict[str, Raw]:
        """Blend the fields of an object or the items of an array.

        A field that only one side has follows its own change, if one is reported, or else the
        change of the enclosing type; `followed` is whether that one is taken.
        """
        children: dict[str, Raw] = {}
        for name in ours | theirs:
            here = (*path, name)
            if name in ours and name in theirs:
                children[name] = self._node(here, ours[name], theirs[name])
                continue
            follow = here in self._taken if here in self._fields else followed
            if follow == (name in theirs):
                children[name] = theirs[name] if follow else ours[name]
        return children


class _Side:
    """One side's jsonSchema: its fields declared in place (`written`) and those that are not."""

    def __init__(self, schema: Raw) -> None:
        self.members = _object(schema)
        self.written = _properties(self.members)
        self._schema = Schema.read(_text(schema) or b"{}")
        self._declared = self._schema.fields()
        self.elsewhere = {
            name
            for name, schemas in self._declared.items()
            if name not in self.written or len(schemas) > 1
        }

    def inlined(self, name: str) -> Raw | None:
        """A field with its references inlined; None if they cannot all be."""
        if name not in self.written:
            return None
        if not may_refer(_text(self.written[name])):
            return self.written[name]
        made = self._schema.inlined(self._declared[name][0])
        return None if self._schema.is_cut else _encoded(made)

    def resolves_alike(self, field: Raw, other: _Side) -> bool:
        """Whether the references in a field of the other side resolve to the same schema here."""
        schema = decode(field)
        return self._schema.digest(schema) == other._schema.digest(schema)


def _text(schema: Raw) -> bytes:
    return bytes(memoryview(schema))


def _object(schema: Raw) -> dict[str, Raw]:
    return MEMBERS.decode(schema) if first_byte(schema) == b"{" else {}


def _properties(members: dict[str, Raw]) -> dict[str, Raw]:
    return _object(members.get("properties", _NOTHING))


def _children(members: dict[str, Raw]) -> dict[str, Raw]:
    """The fields of an object, and the items of an array under the name `[]`."""
    children = _properties(members)
    items = members.get("items", Raw())
    if first_byte(items) not in (b"", b"n"):
        children[ITEM] = items
    elif b'"array"' in bytes(memoryview(members.get("type", Raw()))):
        children[ITEM] = _NOTHING
    return children


def _are_plain(ours: dict[str, Raw], theirs: dict[str, Raw]) -> bool:
    """Whether a single schema describes each field, so that changes can be applied separately."""
    for members in (ours, theirs):
        branches = any(first_byte(members.get(keyword, Raw())) == b"[" for keyword in BRANCHES)
        conditional = any(first_byte(members.get(keyword, Raw())) != b"" for keyword in _HOLDING)
        listed = first_byte(members.get("items", Raw())) == b"["
        if branches or conditional or listed or ITEM in _properties(members):
            return False
    return all(ours.get(keyword) == theirs.get(keyword) for keyword in _KEPT)


def _encoded(members: Any) -> Raw:
    return Raw(msgspec.json.encode(members))
