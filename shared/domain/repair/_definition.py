"""A stream's definition with some of the source's changes taken, and the others left."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec import Raw

from shared.domain.catalog._model import MEMBERS, Path, first_byte
from shared.domain.drift import ITEM, Change, Kind

_MEMBERS: dict[Kind, tuple[str, ...]] = {
    "primary_key_changed": ("sourceDefinedPrimaryKey",),
    "cursor_changed": ("sourceDefinedCursor", "defaultCursorField"),
    "sync_modes_changed": ("supportedSyncModes",),
}
_BRANCHING = ("oneOf", "anyOf", "allOf")
_NOTHING = Raw(b"{}")


class Blend:
    """`definition` is the old one with `taken` of the `changes` that lead to the new one.

    A change inside a field is taken alone wherever plain objects and arrays lead there. Where a
    union does, the field stays as it was until all that changed in it is taken: it is in `whole`.
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
        """The jsonSchema, of which only the declared fields are told as changes."""
        if len(self._taken) == len(self._fields):
            return new if self._fields else old
        if not self._taken:
            return old
        base = old if first_byte(old) == b"{" else new
        ours, theirs = _properties(_object(old)), _properties(_object(new))
        members = _object(base)
        members["properties"] = _encoded(self._children((), ours, theirs, followed=False))
        return _encoded(members)

    def _node(self, path: Path, old: Raw, new: Raw) -> Raw:
        within = [place for place in self._fields if place[: len(path)] == path]
        taken = [place for place in within if place in self._taken]
        if len(taken) == len(within):
            return new if within else old
        if not taken:
            return old
        ours, theirs = _object(old), _object(new)
        if not (_is_plain(ours) and _is_plain(theirs)):
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
        """The fields of both; of those that one side has, what was told apart or came with a type.

        `followed` says that the type around them is the new one already.
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


def _object(schema: Raw) -> dict[str, Raw]:
    return MEMBERS.decode(schema) if first_byte(schema) == b"{" else {}


def _properties(members: dict[str, Raw]) -> dict[str, Raw]:
    return _object(members.get("properties", _NOTHING))


def _children(members: dict[str, Raw]) -> dict[str, Raw]:
    """The fields of an object, and under `[]` what an array holds."""
    children = _properties(members)
    items = members.get("items", Raw())
    if first_byte(items) not in (b"", b"n"):
        children[ITEM] = items
    elif b'"array"' in bytes(memoryview(members.get("type", Raw()))):
        children[ITEM] = _NOTHING
    return children


def _is_plain(members: dict[str, Raw]) -> bool:
    """Whether one schema alone describes each field in it."""
    branches = any(first_byte(members.get(keyword, Raw())) == b"[" for keyword in _BRANCHING)
    listed = first_byte(members.get("items", Raw())) == b"["
    return not (branches or listed or ITEM in _properties(members))


def _encoded(members: dict[str, Raw]) -> Raw:
    return Raw(msgspec.json.encode(members))
