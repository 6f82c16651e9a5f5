"""What a destination does with a change of a source: nothing is lost, ask a person, or refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import msgspec
from msgspec import Raw

from shared.domain.catalog import ConfiguredStream, Stream, StreamId
from shared.domain.catalog._mappers import column_after, effective_mappers
from shared.domain.catalog._model import listed, shown
from shared.domain.catalog._validation import DEDUP
from shared.domain.destination._facts import (
    AMBIGUOUS_IN_DEDUP,
    DELETES_ROWS,
    META_COLUMNS,
    UNKNOWN,
)
from shared.domain.destination._model import Destination, Finding, Judgement, Verdict
from shared.domain.destination._names import Column, columns, compared
from shared.domain.destination._types import COMPLEX, allows_null, column_type, field_type
from shared.domain.drift import Change

_NEARLY: Final = 0.9
_CDC: Final = "_ab_cdc_"
_MADE_AGAIN: Final = frozenset({"overwrite", "overwrite_dedup"})
"""The destination sync modes whose tables are made again by each sync, without former columns."""
_OF_COLUMNS: Final = frozenset({"field_added", "field_removed", "field_retyped"})
_JUDGED: Final = _OF_COLUMNS | {"stream_added", "primary_key_changed", "cursor_changed"}

REMOVED: Final[Mapping[str, tuple[str, str]]] = {
    "keep": ("column_kept", "keeps the column {column}; it is NULL in rows written from now on"),
    "drop": ("column_dropped", "drops the column {column} with its history"),
    "rebuild": (
        "column_rebuilt",
        "rebuilds the table without the column {column}; its values stay in the raw table",
    ),
    UNKNOWN: (
        "column_fate_unknown",
        "may drop the column {column} with its history: what it does is not known",
    ),
}
"""The code and the words for what happens to the column of a removed field."""
RETYPED: Final[Mapping[str, str]] = {
    "alter": "casts the column in place, and the sync fails at a value that cannot be cast",
    "copy": "copies the column into one of the new type, and the sync fails at a value that "
    "cannot be cast",
    "rewrite": "writes the whole table again, and the sync fails at a value that cannot be cast",
    "rebuild": "rebuilds the table from its raw table, with NULL for values that cannot be cast",
    "refuse": "does not change the type of this column, and the sync fails",
    "ignored": "never changes the type of a column",
    UNKNOWN: "may change the column or fail: what it does is not known",
}
"""What happens to a column when the type of its field changes."""
_UNKNOWN: Final = Finding(
    "ask",
    "unknown_destination",
    "AAM does not know this destination's connector, or not this version of it: read its "
    "documentation before the change is applied.",
)
_NULL_KEY: Final[Mapping[str, str]] = {
    "duplicates": "writes a row with a null key again in every sync",
    "sync_fails": "fails at a row with a null key",
    UNKNOWN: "may duplicate rows with a null key: what it does is not known",
}


def judge(
    destination: Destination,
    change: Change,
    *,
    configured: ConfiguredStream | None,
    offered: Stream | None,
) -> Judgement:
    """The judgement of a single change; see `StreamJudge`."""
    return StreamJudge(destination, configured=configured, offered=offered).judge(change)


def judge_stream(
    destination: Destination,
    stream: ConfiguredStream,
    *,
    held: ConfiguredStream | None = None,
    former: Sequence[ConfiguredStream] = (),
) -> Judgement:
    """What a destination does with a stream as it is configured.

    `held` is the stream as the connection syncs it already: what was found of it then is not
    reported again. `former` is the stream as the connection synced it before, newest first.

    Raises:
        InvalidCatalog: a jsonSchema is invalid.
    """
    if destination.is_raw_only:
        return Judgement()
    now = StreamJudge(destination, configured=stream, offered=None)
    before = [] if held is None else StreamJudge(destination, configured=held, offered=None).names
    names, known = now.names, set(before)
    found = [one for name in names if name not in known for one in now.of_field(name, names)]
    if stream.config.destination_sync_mode in _MADE_AGAIN:
        former = ()
    past = StreamJudge(destination, configured=held, offered=stream.stream, former=former)
    mappers = effective_mappers(stream.config)
    for field in _selected(stream) if former else ():
        name = column_after(mappers, field)
        if name is not None and name not in known:
            found += past.of_kept(stream.id, field, name, names)
    if len(names) > len(known):
        found += now.of_count(len(names) + past.kept_beside(names))
    if held is None or held.primary_key != stream.primary_key:
        found += now.of_keys(stream.primary_key)
    if held is None or held.cursor != stream.cursor:
        found += now.of_cursor(stream.cursor)
    if known and known != set(names):
        order = [name for name in names if name in known]
        gone = [name for name in before if name not in set(names)]
        found += _moves(destination, stream.id, [*order, *gone], names)
    return Judgement.of(destination, found)


def unfit_fields(destination: Destination, stream: ConfiguredStream) -> dict[str, Finding]:
    """The fields that a new stream should be synced without unless chosen on purpose, and why.

    They are the second field of each clash, and those whose names are reserved or refused. A field
    whose column only gets a shorter name is not included.
    """
    if destination.is_raw_only:
        return {}
    now = StreamJudge(destination, configured=stream, offered=None)
    names, unfit = now.names, {}
    for field in names:
        for one in Judgement.of(destination, now.of_field(field, names)).findings:
            if one.verdict == "refuse" or one.code in ON_PURPOSE:
                unfit[field] = one
                break
    return unfit


ON_PURPOSE: Final = frozenset({"column_clash", "column_reused", "reserved_name"})
"""Codes of findings about a field that should be selected on purpose only."""


class _Former(msgspec.Struct, frozen=True, gc=False):
    """A field that was synced before; the destination may have kept its column."""

    field: str
    column: str
    schema: Raw


def keeps_columns(destination: Destination) -> bool:
    """Whether the destination keeps the column of a field that is no longer synced."""
    return destination.at(destination.rules.removed) == "keep" and not destination.is_raw_only


class StreamJudge:
    """Judges the changes of one stream: what the destination does if the connection follows them.

    `configured` is the stream as the connection syncs it; None for one that it does not sync.
    `offered` is the stream as the source has it now; None if it is gone. The order of its fields
    decides which of two fields that share a column gets it, so that a change of that order is found
    with any other change of the stream. `former` is the stream as the connection synced it before,
    newest first: where the destination keeps the columns of removed fields, a new field may be
    written into one of them.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        configured: ConfiguredStream | None,
        offered: Stream | None,
        former: Sequence[ConfiguredStream] = (),
    ) -> None:
        self._destination = destination
        self._rules = destination.rules
        self._configured = configured
        self._offered = offered
        self._former = former
        config = None if configured is None else configured.config
        self._mappers = [] if config is None else effective_mappers(config)
        self._is_dedup = config is None or config.destination_sync_mode in DEDUP
        self._keeps_columns = keeps_columns(destination) and (
            config is None or config.destination_sync_mode not in _MADE_AGAIN
        )
        self._columns: dict[tuple[str, ...], dict[str, Column]] = {}

    def judge(self, change: Change) -> Judgement:
        """The judgement of one change; any is `ask` where AAM has no rules for the destination.

        Raises:
            InvalidCatalog: a jsonSchema is invalid.
        """
        if change.kind not in _JUDGED or (
            self._destination.is_raw_only and self._destination.is_known
        ):
            return Judgement()
        found = [] if self._destination.is_known else [_UNKNOWN]
        return Judgement.of(self._destination, [*self._found(change), *found])

    def _found(self, change: Change) -> Iterator[Finding]:
        field = change.path[0] if change.path else ""
        if change.kind == "stream_added":
            yield from self._of_whole(change.stream)
        elif change.kind == "primary_key_changed":
            yield from self.of_keys([tuple(path) for path in change.after or ()])
        elif change.kind == "cursor_changed":
            yield from self.of_cursor(tuple(dict(change.after or {}).get("field") or ()))
        elif len(change.path) > 1:
            return  # the column of an object or array holds whatever is in it
        elif change.kind == "field_retyped":
            yield from self._of_retype(field, change)
        else:
            yield from self._of_column(change.stream, field, is_gone=change.kind == "field_removed")
            if self._has_clashes:
                after = self._names_after(field, is_gone=change.kind == "field_removed")
                yield from _moves(self._destination, change.stream, self.names, after)

    def _of_column(self, stream: StreamId, field: str, *, is_gone: bool) -> Iterator[Finding]:
        """The findings about the column of a new or removed field."""
        if is_gone:
            yield _removed(self._destination, field)
            return
        name, together = column_after(self._mappers, field), self._names_offered(field)
        if name is not None:
            yield from self.of_field(name, together)
            yield from self.of_kept(stream, field, name, together)
            yield from self.of_count(len(together) + self.kept_beside(together))

    def of_kept(
        self, stream: StreamId, field: str, name: str, names: Sequence[str]
    ) -> Iterator[Finding]:
        """The findings about a new field whose column is one of a removed field, or its own.

        `name` is that of the field in the destination, and one of `names`.
        """
        column = self._made(names)[name].name
        writers = self._kept.get(self._key_of(column), ()) if column is not None else ()
        if not writers:
            return
        last = writers[0]
        if all(one.field != field for one in writers):
            yield Finding(
                "ask",
                "column_reused",
                f"{self._destination.title} has kept the column {shown(last.column)} of "
                f"{shown(last.field)}, which is no longer synced: the values of {shown(field)} "
                "would be written into it.",
                (last.field, field),
                (last.column,),
            )
        if field in self._schemas:
            types = (msgspec.json.decode(one) for one in (last.schema, self._schemas[field]))
            yield from self._of_retype(field, Change("field_retyped", stream, (field,), *types))

    @cached_property
    def _kept(self) -> Mapping[str, Sequence[_Former]]:
        """The fields that are no longer synced, by their column as it is compared; newest first.

        Empty where the destination does not keep their columns.
        """
        kept: dict[str, list[_Former]] = {}
        for stream in self._former if self._keeps_columns else ():
            mappers = effective_mappers(stream.config)
            schemas = stream.stream.fields() or {}
            named = {name: column_after(mappers, name) for name in _selected(stream)}
            made = self._made([name for name in named.values() if name is not None])
            for field, name in named.items():
                column = None if name is None else made[name].name
                if column is not None:
                    writers = kept.setdefault(self._key_of(column), [])
                    writers.append(_Former(field, column, schemas[field]))
        for one in self._made(self.names).values():
            if one.name is not None:
                kept.pop(self._key_of(one.name), None)
        return kept

    def kept_beside(self, names: Sequence[str]) -> int:
        """The number of kept columns that none of these fields is written to."""
        used = {self._key_of(one.name) for one in self._made(names).values() if one.name}
        return len(self._kept.keys() - used)

    def _key_of(self, column: str) -> str:
        return compared(self._rules.engine_compare or self._rules.compare, column)

    @property
    def names(self) -> list[str]:
        """The names in which the fields arrive at the destination as it is configured."""
        return self._mapped(self._selected())

    @cached_property
    def _has_clashes(self) -> bool:
        """Whether any two fields that are or could be selected share a column."""
        everything = self._mapped(self._in_order({*self._selected(), *self._schemas}))
        return any(one.clashes_with is not None for one in self._made(everything).values())

    def _names_after(self, field: str, *, is_gone: bool) -> list[str]:
        """The names after this change alone, in the order of the source."""
        selected = set(self._selected()) - {field}
        return self._mapped(self._in_order(selected if is_gone else selected | {field}))

    def _names_offered(self, field: str) -> list[str]:
        """The names after all changes of the stream, in the order of the source."""
        chosen = None if self._configured is None else self._configured.config.selected_names()
        offered = self._schemas if chosen is None else chosen
        return self._mapped(self._in_order({field, *self._selected(), *offered}))

    def _selected(self) -> list[str]:
        return [] if self._configured is None else _selected(self._configured)

    def _in_order(self, fields: set[str]) -> list[str]:
        """Fields as the source orders them, then those that it no longer has."""
        first = [name for name in self._schemas if name in fields]
        others = fields.difference(first)
        return [*first, *(name for name in self._selected() if name in others)]

    def _mapped(self, fields: Sequence[str]) -> list[str]:
        made = (column_after(self._mappers, name) for name in fields)
        return [name for name in made if name is not None]

    def _of_whole(self, stream: StreamId) -> Iterator[Finding]:
        """The findings about a stream that is to be selected with all its fields."""
        fields = list(self._schemas)
        for field in fields:
            yield from self.of_field(field, fields)
            yield from self.of_kept(stream, field, field, fields)
        yield from self.of_count(len(fields) + self.kept_beside(fields))
        if self._offered is not None:
            yield from self.of_keys(self._offered.source_defined_primary_key or ())
            yield from self.of_cursor(self._offered.default_cursor_field or ())

    def of_field(self, name: str, names: Sequence[str]) -> Iterator[Finding]:
        """The findings about one of these fields, by its name in the destination."""
        column = self._made(names)[name]
        title = self._destination.title
        base = column.name or name
        if not base:
            yield Finding("refuse", "no_name", f"{title} has no name for a field without letters.")
            return
        if column.clashes_with is not None:
            yield self._clash(column)
        yield from self._reserved(name, base, names)
        if column.is_long:
            length = self._rules.column_length
            if self._rules.cut == "none":
                message = (
                    f"{shown(name)} has {len(name)} characters; {title} takes columns of "
                    f"{length} at most."
                )
                yield Finding("refuse", "name_too_long", message, (name,))
            else:
                message = f"{title} cuts the name of {shown(name)}: its column is {shown(base)}."
                yield Finding("ask", "name_cut", message, (name,), (base,))
        if self._rules.doubts_mixed_case and name != name.lower():
            message = (
                f"{title} may write NULL into the column of {shown(name)}, whose name is not in "
                "lower case."
            )
            yield Finding("ask", "mixed_case_null", message, (name,))

    def _made(self, names: Sequence[str]) -> dict[str, Column]:
        """The columns of fields in this order, by field."""
        key = tuple(names)
        if key not in self._columns:
            self._columns[key] = {one.field: one for one in columns(self._rules, names)}
        return self._columns[key]

    def _clash(self, column: Column) -> Finding:
        other = column.clashes_with or ""
        both = f"{shown(other)} and {shown(column.field)} are one column in {self._title()}"
        if column.name is not None:
            return Finding(
                "ask",
                "column_clash",
                f"{both}: the latter is written to {shown(column.name)}.",
                (other, column.field),
                (column.name,),
            )
        fails = self._rules.column_clash != UNKNOWN
        result = "its sync fails" if fails else "what it does with them is not known"
        return Finding(
            "refuse" if fails else "ask",
            "column_clash",
            f"{both}, and {result}.",
            (other, column.field),
        )

    def _title(self) -> str:
        title = self._destination.title
        return title if self._destination.is_known else "this destination, as in many others"

    def _reserved(self, name: str, column: str, names: Sequence[str]) -> Iterator[Finding]:
        key = compared(self._rules.engine_compare or self._rules.compare, column)
        title = self._destination.title
        if key == DELETES_ROWS:
            if any(one.startswith(_CDC) for one in names if one != name):
                return  # a source that captures changes means it so
            verdict: Verdict = "refuse" if self._is_dedup else "ask"
            message = (
                f"{title} deletes the rows of a deduplicated table in which {shown(name)} is set."
            )
            yield Finding(verdict, "reserved_name", message, (name,), (column,))
        elif key in self._reserved_names[0]:
            message = f"{shown(column)} is a column of Airbyte's own in {title}."
            verdict = self._rules.reserved_verdict
            yield Finding(verdict, "reserved_name", message, (name,), (column,))
        elif key == AMBIGUOUS_IN_DEDUP and self._is_dedup:
            message = (
                f"{title} has a column {shown(column)} of its own where it deduplicates, so that "
                "the sync may fail."
            )
            verdict = self._rules.reserved_verdict
            yield Finding(verdict, "reserved_name", message, (name,), (column,))
        elif (
            key in self._reserved_names[1]
            or any(column.lower().startswith(one) for one in self._rules.reserved_prefixes)
            or any(one in column for one in self._rules.bad_characters)
        ):
            message = f"{title} takes no column with the name {shown(column)}."
            yield Finding("refuse", "reserved_name", message, (name,), (column,))

    @cached_property
    def _reserved_names(self) -> tuple[frozenset[str], frozenset[str]]:
        """Airbyte's own names and the database's, as they are compared."""
        how = self._rules.engine_compare or self._rules.compare
        own, more = self._rules.reserved, self._rules.reserved_more
        return (
            frozenset(compared(how, one) for one in own),
            frozenset(compared(how, one) for one in more),
        )

    def of_count(self, fields: int) -> Iterator[Finding]:
        """The findings about the number of columns."""
        most, count = self._rules.max_columns, fields + META_COLUMNS
        if not isinstance(most, int) or count <= most * _NEARLY:
            return
        message = (
            f"The table would have {count} columns with Airbyte's own; "
            f"{self._destination.title} takes {most} at most"
        )
        if count > most:
            yield Finding("refuse", "too_many_columns", f"{message}.")
        else:
            message = f"{message}, and columns of removed fields count, too."
            yield Finding("ask", "nearly_too_many_columns", message)

    def _of_retype(self, field: str, change: Change) -> Iterator[Finding]:
        """The findings about another type of a field."""
        old, new = field_type(change.before), field_type(change.after)
        columns_ = column_type(self._rules, change.before), column_type(self._rules, change.after)
        is_key = any(path[:1] == (field,) for path in self._key())
        is_cursor = self._cursor()[:1] == (field,)
        if allows_null(change.after) and not allows_null(change.before):
            yield from self._nullable(field, is_key=is_key, is_cursor=is_cursor)
        if (old == new and old != "union") or (columns_[0] and columns_[0] == columns_[1]):
            return
        name = shown(field)
        what = f"the column of {name} from {columns_[0] or old} to {columns_[1] or new}"
        if is_key or is_cursor:
            role = "key" if is_key else "cursor"
            message = f"{self._destination.title} would change {what}, which is the {role}."
            yield Finding("refuse", f"{role}_retyped", message, (field,))
        elif self._rules.retype == "refuse" or f"{old}>{new}" not in self._rules.safe_types:
            verdict: Verdict = "refuse" if self._rules.retype == "refuse" else "ask"
            does = RETYPED[self._rules.retype]
            message = f"{self._destination.title} would change {what}: it {does}."
            yield Finding(verdict, "column_retyped", message, (field,))

    def _nullable(self, field: str, *, is_key: bool, is_cursor: bool) -> Iterator[Finding]:
        title = self._destination.title
        does = self._destination.at(self._rules.null_key)
        if is_key and does != "matched":
            verdict: Verdict = "ask" if does == UNKNOWN else "refuse"
            message = (
                f"{shown(field)} may be null now and is in the key: {title} {_NULL_KEY[does]}."
            )
            yield Finding(verdict, "null_key", message, (field,))
        if is_cursor and self._destination.at(self._rules.null_cursor) == "sync_fails":
            message = f"{shown(field)}, the cursor, may be null now: {title} fails at such a row."
            yield Finding("refuse", "null_cursor", message, (field,))

    def of_keys(self, paths: Sequence[Sequence[str]]) -> Iterator[Finding]:
        """The findings about a primary key, if the stream is deduplicated by it."""
        if not self._is_dedup:
            return
        for path in paths:
            yield from self._of_path(tuple(path), "key")

    def of_cursor(self, path: Sequence[str]) -> Iterator[Finding]:
        """The findings about a cursor, by which the newest of two rows is chosen."""
        if path and self._is_dedup:
            yield from self._of_path(tuple(path), "cursor")

    def _of_path(self, path: tuple[str, ...], role: str) -> Iterator[Finding]:
        title, name = self._destination.title, listed([".".join(path)])
        if len(path) > 1:
            message = f"{name} is nested; {title} takes top-level fields alone as a {role}."
            yield Finding("refuse", f"nested_{role}", message, (".".join(path),))
            return
        schema = self._schemas.get(path[0]) if path else None
        if schema is None:
            return
        type_ = field_type(msgspec.json.decode(schema))
        if type_ in COMPLEX:
            message = f"{name} is of the type {type_}; {title} compares no such values as a {role}."
            yield Finding("refuse", f"complex_{role}", message, path)
        elif role == "key" and type_ in self._rules.doubtful_keys:
            column = self._rules.types.get(type_, type_)
            message = f"{name} is a key, and {title} compares its column as {column}."
            yield Finding("ask", "doubtful_key", message, path)

    @cached_property
    def _schemas(self) -> Mapping[str, Raw]:
        """The fields that the source offers, else those of the configured stream."""
        known = None if self._configured is None else self._configured.stream
        source = known if self._offered is None else self._offered
        return (None if source is None else source.fields()) or {}

    def _key(self) -> Sequence[tuple[str, ...]]:
        if self._configured is None or not self._is_dedup:
            return ()
        return self._configured.primary_key

    def _cursor(self) -> tuple[str, ...]:
        return () if self._configured is None or not self._is_dedup else self._configured.cursor


def _removed(destination: Destination, field: str) -> Finding:
    fate = destination.at(destination.rules.removed)
    code, words = REMOVED[fate]
    column = columns(destination.rules, [field])[0].name or field
    message = f"{destination.title} {words.format(column=shown(column))}."
    later = next((v for v, value in destination.rules.removed.values if value == "keep"), None)
    if fate == "drop" and later is not None:
        message = f"{message[:-1]}; {later} keeps it."
    return Finding(
        "safe" if fate == "keep" else "ask", code, message, names=(field,), columns=(column,)
    )


def _moves(
    destination: Destination, stream: StreamId, before: Sequence[str], after: Sequence[str]
) -> Iterator[Finding]:
    """Fields that would be written to another column than now."""
    were = {one.field: one.name for one in columns(destination.rules, before)}
    made = columns(destination.rules, after)
    now_in = {one.name: one.field for one in made if one.name is not None}
    for one in made:
        old = were.get(one.field)
        if old is None or one.name == old:
            continue
        by = one.clashes_with or now_in.get(old)
        goes = "would no longer be written" if one.name is None else f"moves to {shown(one.name)}"
        taker = "" if by is None else f", since {shown(by)} takes its place"
        mixed = "values of two fields are mixed" if old in now_in else "nothing is written any more"
        yield Finding(
            "refuse",
            "column_moves",
            f"{shown(one.field)} of {stream} is written to the column {shown(old)} and {goes}"
            f"{taker}; in the old column {mixed}.",
            names=(one.field,) if by is None else (one.field, by),
            columns=(old,) if one.name is None else (old, one.name),
        )


def _selected(stream: ConfiguredStream) -> list[str]:
    """The selected fields, in the order of the schema."""
    chosen = stream.config.selected_names()
    return [name for name in stream.stream.fields() or () if chosen is None or name in chosen]
