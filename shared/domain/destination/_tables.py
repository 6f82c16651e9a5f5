"""The tables of a destination's streams, within a connection and across connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from shared.domain.catalog import StreamId
from shared.domain.destination._facts import UNKNOWN, Rules
from shared.domain.destination._model import Destination, Finding, Judgement
from shared.domain.destination._names import compared, schema_name, second_table, table_name

_SOURCE_NAMESPACE: Final = "${SOURCE_NAMESPACE}"


class Naming(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a connection names the tables of its streams; None where Airbyte's default holds."""

    definition: str | None = None
    """`source`, `destination` or `customformat`; None means `source`."""
    format: str | None = None
    """The schema of `customformat`, which may contain `${SOURCE_NAMESPACE}`."""
    prefix: str | None = None

    def namespace(self, stream: StreamId) -> str | None:
        """The namespace that a stream has for the destination; None for its default one.

        Source: airbyte-platform 310e6cb6, NamespacingMapper; CDK NamespaceMapper@15027277.
        """
        if self.definition == "destination":
            return None
        if self.definition == "customformat":
            made = (self.format or "").replace(_SOURCE_NAMESPACE, stream.namespace or "")
            return made if made.strip() else None
        return stream.namespace

    def name(self, stream: StreamId) -> str:
        """The name that a stream has for the destination."""
        prefix = self.prefix or ""
        return f"{prefix}{stream.name}" if prefix.strip() else stream.name


class Table(msgspec.Struct, frozen=True):
    """The table that a stream is written to."""

    stream: StreamId
    schema: str | None
    """None for the destination's default one, if that is not known."""
    name: str
    twin: StreamId | None = None
    """The earlier stream of the connection that has the table which this one would have."""
    is_same_stream: bool = False
    """Whether the two already have the same namespace and name for the destination."""

    @property
    def place(self) -> tuple[str | None, str]:
        """Schema and name."""
        return self.schema, self.name

    def __str__(self) -> str:
        """`schema.name`, or the name alone."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


def tables(destination: Destination, streams: Iterable[StreamId], naming: Naming) -> list[Table]:
    """The tables of a connection's streams, in the order of its catalog.

    Source: CDK schema/TableNameResolver@9089d14d, command/DestinationCatalog@00261a2b.
    """
    rules = destination.rules
    places: dict[tuple[str | None, str], StreamId] = {}
    descriptors: dict[tuple[str | None, str], StreamId] = {}
    found: list[Table] = []
    for stream in streams:
        namespace, name = naming.namespace(stream), naming.name(stream)
        if not rules.has_namespaces:
            namespace = None
        given = namespace or destination.default_schema
        schema = None if given is None else schema_name(rules, given)
        table = table_name(rules, name)
        same = descriptors.setdefault((given, name), stream)
        first = places.get(_place(rules, schema, table))
        if first is not None and rules.table_clash == "suffix_in_order":
            table = second_table(schema, table)
        places.setdefault(_place(rules, schema, table), stream)
        found.append(Table(stream, schema, table, first, same != stream))
    return found


def judge_tables(destination: Destination, made: Sequence[Table]) -> dict[StreamId, Judgement]:
    """The streams of a connection that share a table with an earlier one, by id."""
    return {
        table.stream: Judgement.of(destination, [_within(destination, table, table.twin)])
        for table in made
        if table.twin is not None
    }


def shared_tables(
    destination: Destination, ours: Iterable[Table], theirs: Iterable[Table], *, connection: str
) -> Iterator[tuple[StreamId, Judgement]]:
    """The streams whose table another connection of the destination writes, too.

    `connection` is the other one's name, or empty where it must not be named. Nothing in Airbyte
    refuses this: #21343, #16173.
    """
    name = f"the connection {connection!r}" if connection else "another connection"
    rules = destination.rules
    taken = {_place(rules, *table.place): table.stream for table in theirs}
    for table in ours:
        other = taken.get(_place(rules, *table.place))
        if other is None:
            continue
        message = (
            f"{table.stream} and {other} of {name} are both written to the "
            f"table {table}: {_title(destination)} mixes or overwrites their rows."
        )
        names = (str(table.stream), str(other))
        finding = Finding("refuse", "table_shared", message, names, (str(table),))
        yield table.stream, Judgement.of(destination, [finding])


def _place(rules: Rules, schema: str | None, table: str) -> tuple[str | None, str]:
    """A key that is equal for one table."""
    how = rules.table_compare
    return None if schema is None else compared(how, schema), compared(how, table)


def _within(destination: Destination, table: Table, twin: StreamId) -> Finding:
    rules, title = destination.rules, _title(destination)
    names = (str(twin), str(table.stream))
    both = f"{twin} and {table.stream} have one table in {title}"
    if table.is_same_stream and rules.same_table in ("sync_fails", "rows_mixed"):
        fails = rules.same_table == "sync_fails"
        result = "the sync of the whole connection fails" if fails else "their rows are mixed"
        return Finding("refuse", "table_clash", f"{both}: {result}.", names, (str(table),))
    if rules.table_clash == UNKNOWN:
        message = f"{both}; what it does with them is not known."
        return Finding("ask", "table_clash", message, names, (str(table),))
    message = f"{both}: the latter is written to {table}."
    return Finding("ask", "table_clash", message, names, (str(table),))


def _title(destination: Destination) -> str:
    return destination.title if destination.is_known else "this destination, as in many others,"
