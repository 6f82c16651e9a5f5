"""Exclusions: fields that must never be selected, by the name patterns of a policy.

Airbyte selects only top-level fields, so a field is excluded as a whole if any name in it matches.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Final
from unicodedata import normalize

from shared.domain.catalog._model import (
    PAIR,
    Catalog,
    ConfiguredStream,
    InvalidCatalog,
    Path,
    Problem,
    SelectedField,
    Stream,
    StreamId,
    encode_pair,
    first_byte,
    listed,
    read_stream,
    readable,
    reconfigured,
    shown,
)
from shared.domain.catalog._schema import Schema
from shared.domain.catalog._validation import DEDUP
from shared.domain.cooperative import Steps

NEVER_SELECT: Final = ("*ssn*", "*password*", "*passwd*")
"""The default patterns."""
CODE: Final = "never_selected"

_SHORT: Final = 3
_WORD_STARTS: Final = re.compile(
    r"(?:^|(?<=[^A-Za-z0-9])|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]))(?=[A-Za-z0-9])"
)
_WILDCARDS: Final = re.compile(r"\*|\?|\[.*")
_NONE: Final[frozenset[str]] = frozenset()
_NOTHING: Final[Mapping[StreamId, Stream]] = MappingProxyType({})


class Exclusions:
    """The exclusions of one policy."""

    def __init__(self, patterns: Iterable[str] = NEVER_SELECT) -> None:
        self.patterns = tuple(patterns)
        self._lower = tuple(normalize("NFKC", pattern).lower() for pattern in self.patterns)

    def match(self, name: str) -> bool:
        """Whether a field name is excluded, ignoring case.

        A pattern with three letters or fewer must match from the start of a word or within one
        word: `*ssn*` matches customerSSN, custssn and CUSTSSN__C, but not businessName, where it
        spans the end of one word and the start of the next.
        """
        plain = name if name.isascii() else normalize("NFKC", name)
        return any(_matches(plain, pattern) for pattern in self._lower)

    def hidden(self, stream: Stream) -> frozenset[str]:
        """The excluded top-level fields: those that match, or contain a name that does.

        Raises:
            InvalidCatalog: the jsonSchema is invalid.
        """
        if first_byte(stream.json_schema) != b"{":
            return _NONE
        text = bytes(memoryview(stream.json_schema))
        if not self._may_match(text):
            return _NONE
        with readable(f"jsonSchema of {StreamId(stream.namespace, stream.name)}"):
            return _hidden(self.patterns, text)

    def synced(self, stream: ConfiguredStream, *, offered: Stream | None = None) -> frozenset[str]:
        """The excluded top-level fields that a sync of this stream includes.

        `offered` is the source's current schema of it: a field may contain more there than in the
        catalog, and is synced with all of it. A catalog that declares no fields includes all.
        """
        hidden = self.hidden(stream.stream)
        if offered is not None and (more := self.hidden(offered) - hidden):
            fields = stream.stream.fields()
            hidden |= more if fields is None else more & fields.keys()
        chosen = stream.config.selected_names()
        return hidden if chosen is None else hidden & chosen

    def carried(
        self, catalog: Catalog, *, offered: Mapping[StreamId, Stream] = _NOTHING
    ) -> Steps[dict[StreamId, tuple[str, ...]]]:
        """The excluded fields that selected streams include, by stream.

        Raises:
            InvalidCatalog: a jsonSchema is invalid.
        """
        found: dict[StreamId, tuple[str, ...]] = {}
        for stream in catalog.streams:
            if stream.selected:
                names = self.synced(stream, offered=offered.get(stream.id))
                found |= {stream.id: tuple(sorted(names))} if names else {}
            yield
        return found

    def problems(
        self, catalog: Catalog, *, offered: Mapping[StreamId, Stream] = _NOTHING
    ) -> Steps[list[Problem]]:
        """A problem for each excluded field that a selected stream includes.

        Raises:
            InvalidCatalog: a jsonSchema is invalid.
        """
        carried = yield from self.carried(catalog, offered=offered)
        places = {stream.id: position for position, stream in enumerate(catalog.streams)}
        return [
            Problem(
                stream,
                f"streams[{places[stream]}].config.selectedFields",
                CODE,
                f"{shown(name)} of {stream} is never selected: the connection's policy excludes "
                "its name, or the name of a field inside it.",
            )
            for stream, names in carried.items()
            for name in names
        ]

    def without(
        self,
        stream: ConfiguredStream,
        *,
        keep: Collection[str] = (),
        offered: Stream | None = None,
    ) -> ConfiguredStream:
        """The stream without its excluded fields; unchanged if it has none.

        `keep` are excluded fields that stay anyway; `offered` is as in `synced`. An excluded cursor
        or key is removed from the config if the stream's modes do not need it.

        Raises:
            InvalidCatalog: with the code `never_selected`: the stream needs an excluded field as
                its cursor or key, or Airbyte cannot leave it out.
        """
        hidden = self.synced(stream, offered=offered) - set(keep)
        return without_fields(stream, hidden) if hidden else stream

    def restored(
        self, wanted: Catalog, head: Catalog, *, offered: Mapping[StreamId, Stream] = _NOTHING
    ) -> Catalog:
        """An older catalog without the excluded fields that `head` does not already sync.

        Raises:
            InvalidCatalog: with the code `never_selected`: a stream needs an excluded field.
        """
        now = {
            stream.id: self.synced(stream, offered=offered.get(stream.id))
            for stream in head.streams
            if stream.selected
        }
        return Catalog(
            tuple(
                self.without(stream, keep=now.get(stream.id, ()), offered=offered.get(stream.id))
                if stream.selected
                else stream
                for stream in wanted.streams
            )
        )

    @cached_property
    def _cores(self) -> tuple[str, ...] | None:
        """The longest literal part of each pattern; None if one cannot be searched for in JSON."""
        parts = [max(_WILDCARDS.split(pattern), key=len) for pattern in self._lower]
        if not all(part.isprintable() and part and not set(part) & set('"\\/') for part in parts):
            return None
        return tuple(parts)

    def _may_match(self, text: bytes) -> bool:
        """Whether any name in JSON text may match, without parsing it; False is certain."""
        if self._cores is None or b"\\u" in text:
            return bool(self.patterns)
        plain = text.decode(errors="replace")
        lower = (plain if plain.isascii() else normalize("NFKC", plain)).lower()
        return any(core in lower for core in self._cores)


def without_fields(stream: ConfiguredStream, hidden: Collection[str]) -> ConfiguredStream:
    """The stream with all its selected fields but these.

    Raises:
        InvalidCatalog: with the code `never_selected`: as `remaining`.
    """
    pair = PAIR.decode(stream.raw)
    selected = [SelectedField(field_path=(name,)) for name in remaining(stream, hidden)]
    changes = {"fieldSelectionEnabled": True, "selectedFields": selected}
    config = reconfigured(pair.config, **changes, **_cleared(stream, hidden))
    return read_stream(encode_pair(pair.stream, config))


def remaining(stream: ConfiguredStream, hidden: Collection[str]) -> list[str]:
    """The selected fields of a stream without the `hidden` ones.

    Raises:
        InvalidCatalog: with the code `never_selected`: its cursor or key is hidden, no field is
            left, or a hidden one is not under `properties`, so Airbyte cannot leave it out.
    """
    place = "config.selectedFields"
    needed = [path[0] for path in needs(stream) if path and path[0] in hidden]
    if needed:
        message = (
            f"{listed(needed)} of {stream.id} is never selected, but it is the stream's cursor or "
            "in its key: the stream cannot be synced in this mode without it."
        )
        raise InvalidCatalog.because(CODE, place, message, stream=stream.id)
    selectable = stream.stream.properties() or {}
    chosen = stream.config.selected_names()
    out_of_reach = sorted(set(hidden) - selectable.keys()) if chosen is None else []
    if out_of_reach:
        message = (
            f"{listed(out_of_reach)} of {stream.id} is never selected, but Airbyte cannot exclude "
            "it: it is not declared under `properties` of the stream's schema."
        )
        raise InvalidCatalog.because(CODE, place, message, stream=stream.id)
    names = [
        name for name in selectable if name not in hidden and (chosen is None or name in chosen)
    ]
    if not names:
        message = f"No field of {stream.id} remains that may be selected."
        raise InvalidCatalog.because(CODE, place, message, stream=stream.id)
    return names


def _cleared(stream: ConfiguredStream, hidden: Collection[str]) -> dict[str, tuple[()]]:
    """Changes that clear a hidden cursor or key, which the stream's modes do not need."""
    cursor, key = stream.config.cursor_field or (), stream.config.primary_key or ()
    changes: dict[str, tuple[()]] = {}
    if cursor and cursor[0] in hidden:
        changes["cursorField"] = ()
    if any(path and path[0] in hidden for path in key):
        changes["primaryKey"] = ()
    return changes


def needs(stream: ConfiguredStream) -> tuple[Path, ...]:
    """The paths of the cursor and key that a stream's modes need."""
    config = stream.config
    cursor = (stream.cursor,) if config.sync_mode == "incremental" and stream.cursor else ()
    return (*cursor, *(stream.primary_key if config.destination_sync_mode in DEDUP else ()))


def _matches(name: str, pattern: str) -> bool:
    whole = name.lower()
    if not fnmatchcase(whole, pattern):
        return False
    starts = [start.start() for start in _WORD_STARTS.finditer(name)]
    if len(pattern.strip("*")) > _SHORT or not pattern.startswith("*") or len(starts) < 2:
        return True
    if any(fnmatchcase(whole[start:], pattern.lstrip("*")) for start in starts):
        return True
    words = [whole[start:end] for start, end in pairwise(sorted({0, *starts, len(whole)}))]
    within = words if pattern.endswith("*") else words[-1:]
    return any(fnmatchcase(word, pattern) for word in within)


@lru_cache(maxsize=256)
def _hidden(patterns: tuple[str, ...], text: bytes) -> frozenset[str]:
    """The top-level fields of a schema that match, or contain a name that does."""
    schema, exclusions = Schema.read(text), Exclusions(patterns)
    match = lru_cache(maxsize=None)(exclusions.match)
    found = {name for name in schema.top_level_names() if match(name)}
    declared = schema.declared()
    every = [one for schemas in declared.values() for one in schemas]
    marked = schema.marked(every, lambda names: any(map(match, names)))
    found |= {name for name, schemas in declared.items() if marked & set(map(id, schemas))}
    return frozenset(found)
