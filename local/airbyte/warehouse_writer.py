# ruff: noqa: S608 - names are quoted by _quote, values travel by COPY or as parameters
"""Writes records into Postgres: each stream into its table, one whole checkpoint at a time.

Rows are copied as text into a temporary stage table and published in one transaction, which also
adapts the target table to the stream: a new field becomes a column, a column whose type cannot hold
the new values is widened, and a removed field keeps its column, which is NULL in the rows written.
Unpublished rows of a failed sync never become visible: temporary tables end with their connection.

Streams that overwrite, and full refreshes that append, are published when the sync has succeeded;
incremental streams whenever the source emits a state. The state may be saved only after that.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import asyncpg
import orjson

from local.airbyte.catalog import properties
from local.airbyte.errors import Refusal

IDENTIFIER_BYTES = 63
STAGE_BYTES = 4 * 1024 * 1024
"""Buffer size in memory, after which rows are copied to the stage."""

RAW_ID = "_airbyte_raw_id"
EXTRACTED_AT = "_airbyte_extracted_at"
METADATA = {RAW_ID: "text", EXTRACTED_AT: "timestamp with time zone"}

WIDER: dict[tuple[str, str], str] = {
    ("bigint", "numeric"): "numeric",
    ("numeric", "bigint"): "numeric",
    ("date", "timestamp without time zone"): "timestamp without time zone",
    ("timestamp without time zone", "date"): "timestamp without time zone",
}
"""(column type, incoming type) → type that holds both; for every other pair it is text."""

DESTINATION_SYNC_MODES = ("overwrite", "append", "append_dedup", "overwrite_dedup")
"""The supported sync modes, as `supportedDestinationSyncModes` lists them."""

Key = tuple[str | None, str]


class NotWritable(Refusal):
    """The writer cannot write this catalog, or would mix up streams or columns."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


def refuse_unwritable(streams: Iterable[Mapping[str, Any]]) -> None:
    """Refuse streams with a sync mode or a primary key that the writer does not support.

    Raises:
        NotWritable: with the stream's name.
    """
    for pair in streams:
        name, config = pair["stream"]["name"], pair["config"]
        mode, key = config["destinationSyncMode"], config["primaryKey"]
        if mode not in DESTINATION_SYNC_MODES:
            raise NotWritable(f"Stream {name}: the local writer has no such destinationSyncMode.")
        if mode.endswith("dedup") and not all(key or [[]]):
            raise NotWritable(f"Stream {name}: {mode} needs a primary key.")
        if any(len(path) > 1 for path in key):
            raise NotWritable(f"Stream {name}: the local writer has no nested primary keys.")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a connection's streams are written."""

    schema: str
    """Default schema of the destination."""

    definition: str = "source"
    """namespaceDefinition: `source`, `destination` or `customformat`."""

    format: str = "${SOURCE_NAMESPACE}"
    prefix: str = ""

    def table(self, stream: Mapping[str, Any]) -> tuple[str, str]:
        """Return schema and table of a stream, with names as Postgres stores them."""
        namespace = stream.get("namespace") or self.schema
        if self.definition == "destination":
            namespace = self.schema
        elif self.definition == "customformat":
            namespace = self.format.replace("${SOURCE_NAMESPACE}", namespace) or self.schema
        return identifier(namespace), identifier(self.prefix + stream["name"])

    def refuse_collisions(self, streams: Iterable[Mapping[str, Any]]) -> None:
        """Refuse streams that would share a table, and fields that would share a column.

        Raises:
            NotWritable: with both names.
        """
        tables: dict[tuple[str, str], str] = {}
        for pair in streams:
            stream = pair["stream"]
            schema, table = self.table(stream)
            place = (schema.casefold(), table.casefold())
            if place in tables:
                raise NotWritable(f"Streams {tables[place]} and {stream['name']} share one table.")
            tables[place] = stream["name"]
            columns: dict[str, str] = {name: name for name in METADATA}
            for name in properties(stream):
                column = identifier(name).casefold()
                if column in columns:
                    raise NotWritable(
                        f"Stream {stream['name']}: {columns[column]} and {name} share one column."
                    )
                columns[column] = name


@dataclass
class Table:
    """The stage and the target of one stream."""

    key: Key
    schema: str
    name: str
    columns: dict[str, str]
    """Field → its Postgres type, from the catalog's declared schema."""

    overwrites: bool
    waits: bool
    """Whether it is published only when the sync has succeeded."""

    primary_key: list[str]
    cursor: str | None
    stage: str
    lines: list[str] = field(default_factory=list)
    buffered: int = 0
    staged: int = 0
    """Number of rows in the stage or in the buffer."""

    widen: set[str] = field(default_factory=set)
    """Fields with a value that their declared type cannot hold: their columns become text."""

    @classmethod
    def of(
        cls, number: int, pair: Mapping[str, Any], target: Target, replaced: Collection[Key]
    ) -> Self:
        """Build the table of a configured stream; a replaced one overwrites, whatever its mode."""
        stream, config = pair["stream"], pair["config"]
        schema, name = target.table(stream)
        columns = {name: column_type(schema) for name, schema in properties(stream).items()}
        mode = config["destinationSyncMode"]
        dedups = mode.endswith("dedup")
        key = (stream.get("namespace") or None, stream["name"])
        overwrites = mode.startswith("overwrite") or key in replaced
        cursor = config["cursorField"] if len(config["cursorField"]) == 1 else [None]
        return cls(
            key=key,
            schema=schema,
            name=name,
            columns=columns,
            overwrites=overwrites,
            waits=overwrites or config["syncMode"] == "full_refresh",
            primary_key=[path[0] for path in config["primaryKey"]] if dedups else [],
            cursor=cursor[0] if cursor[0] in columns else None,
            stage=f"stage_{number}",
        )

    def add(self, record: Mapping[str, Any], emitted_at: float) -> int:
        """Buffer one record and return its size in bytes. Undeclared fields are dropped."""
        cells = [f"{uuid4()},{_moment(emitted_at)},{self.staged}"]
        cells += [_cell(record.get(name), kind) for name, kind in self.columns.items()]
        line = ",".join(cells) + "\n"
        self.lines.append(line)
        self.staged += 1
        self.buffered += len(line)
        return len(line)

    def staged_as(self, name: str) -> str:
        """Return a field's column in the stage: numbered, so that names cannot collide."""
        return f"c{list(self.columns).index(name)}"


def _cell(value: Any, kind: str) -> str:
    """Format one value as CSV; NULL is empty. For types other than text, "" becomes NULL."""
    if value is None:
        return ""
    if kind == "jsonb":
        return _quoted(_json(value))
    if isinstance(value, str):
        return _quoted(value.replace("\0", "")) if value or kind == "text" else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if kind == "bigint" and value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else _quoted(_json(value))


def column_type(schema: Any) -> str:
    """Map a field's JSON schema to a Postgres type; several types become jsonb or text."""
    if not isinstance(schema, Mapping):
        return "jsonb"
    declared = schema.get("type")
    kinds = {declared} if isinstance(declared, str) else set(declared or ())
    kinds -= {"null"}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) != 1:
        return "jsonb"
    kind = kinds.pop()
    if kind == "string":
        return _text_type(schema)
    simple = {"integer": "bigint", "number": "numeric", "boolean": "boolean"}
    if kind == "number" and schema.get("airbyte_type") == "integer":
        return "bigint"
    return simple.get(kind, "jsonb")


def _text_type(schema: Mapping[str, Any]) -> str:
    zoned = schema.get("airbyte_type", "").endswith("without_timezone") is False
    match schema.get("format"):
        case "date-time":
            return "timestamp with time zone" if zoned else "timestamp without time zone"
        case "date":
            return "date"
        case "time":
            return "time with time zone" if zoned else "time without time zone"
    return "text"


class Writer:
    """Writes one sync to the warehouse: add records, publish, finish. Uses one connection."""

    def __init__(
        self, connection: asyncpg.Connection[asyncpg.Record], tables: Sequence[Table]
    ) -> None:
        self._db = connection
        self._tables = {table.key: table for table in tables}

    @classmethod
    async def open(
        cls,
        url: str,
        streams: Iterable[Mapping[str, Any]],
        target: Target,
        *,
        replaced: Collection[Key] = (),
    ) -> Self:
        """Connect and create an empty stage for each stream; does not change the warehouse.

        The tables of the `replaced` streams lose their older rows at the end.
        """
        tables = [Table.of(number, pair, target, replaced) for number, pair in enumerate(streams)]
        connection = await asyncpg.connect(url, timeout=30, command_timeout=3600)
        for table in tables:
            columns = "".join(f", {table.staged_as(name)} text" for name in table.columns)
            await connection.execute(
                f"CREATE TEMPORARY TABLE {table.stage}"
                f" (raw_id text, extracted_at timestamptz, place bigint{columns})"
            )
        return cls(connection, tables)

    async def __aenter__(self) -> Self:
        """Return the writer, which is already open."""
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Close the connection, discarding unpublished rows."""
        self._db.terminate()

    def accepts(self, key: Key) -> bool:
        """Whether this stream is part of the sync."""
        return key in self._tables

    def is_published_at_end(self, key: Key) -> bool:
        """Whether this stream is published only at the end, so that its states are ignored."""
        return self._tables[key].waits

    async def add(self, key: Key, record: Mapping[str, Any], emitted_at: float) -> int:
        """Stage one record and return its size in bytes."""
        table = self._tables[key]
        size = table.add(record, emitted_at)
        if table.buffered >= STAGE_BYTES:
            await self._copy(table)
        return size

    async def _copy(self, table: Table) -> None:
        if not table.lines:
            return
        content = io.BytesIO("".join(table.lines).encode("utf-8", "replace"))
        table.lines, table.buffered = [], 0
        await self._db.copy_to_table(table.stage, source=content, format="csv")

    async def publish(self, keys: Iterable[Key] | None = None) -> dict[Key, int]:
        """Publish the staged rows of these streams; None means all that need not wait for the end.

        Returns the number of rows published per stream.
        """
        chosen = set(self._tables if keys is None else keys)
        tables = [
            table
            for key, table in self._tables.items()
            if key in chosen and table.staged and not table.waits
        ]
        return await self._publish(tables)

    async def finish(self) -> dict[Key, int]:
        """Publish all remaining rows at the end of the source, replacing overwritten streams."""
        return await self._publish(list(self._tables.values()))

    async def _publish(self, tables: Sequence[Table]) -> dict[Key, int]:
        for table in tables:
            await self._copy(table)
            await self._judge(table)
        async with self._db.transaction():
            for table in tables:
                await self._publish_one(table)
            published = {table.key: table.staged for table in tables}
            for table in tables:
                await self._db.execute(f"TRUNCATE {table.stage}")
        for table in tables:
            table.staged = 0
        return published

    async def _judge(self, table: Table) -> None:
        """Find the fields whose declared type cannot hold a staged value: they become text.

        Uses a Postgres function that exists since version 16; before, such a value fails the sync.
        """
        typed = [
            (name, kind)
            for name, kind in table.columns.items()
            if kind not in {"text", "jsonb"} and name not in table.widen
        ]
        if not typed or not table.staged or self._db.get_server_version().major < 16:
            return
        tests = ", ".join(
            f"bool_or(NOT pg_input_is_valid({table.staged_as(name)}, '{kind}'))"
            for name, kind in typed
        )
        verdict = await self._db.fetchrow(f"SELECT {tests} FROM {table.stage}")
        assert verdict is not None  # noqa: S101 - an aggregate always returns a row
        table.widen.update(name for (name, _), bad in zip(typed, verdict, strict=True) if bad)

    async def _publish_one(self, table: Table) -> None:
        place = f"{_quote(table.schema)}.{_quote(table.name)}"
        await self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", place)
        await self._ensure_schema(table.schema)
        if table.overwrites:
            await self._db.execute(f"DROP TABLE IF EXISTS {place}")
        existing = await self._fit(table, place)
        if not table.staged:
            return
        cast = {
            name: f"{table.staged_as(name)}::{existing[identifier(name)]}" for name in table.columns
        }
        columns = ", ".join([RAW_ID, EXTRACTED_AT, *map(_name, cast)])
        rows = f"SELECT {', '.join(['raw_id', 'extracted_at', *cast.values()])} FROM {table.stage}"
        if table.primary_key:
            rows += f" WHERE place IN ({_latest(table, cast)}) {_replacing(table, existing)}"
        await self._db.execute(f"INSERT INTO {place} AS held ({columns}) {rows}")

    async def _ensure_schema(self, schema: str) -> None:
        known = await self._db.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema)
        if not known:
            await self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", schema)
            await self._db.execute(f"CREATE SCHEMA IF NOT EXISTS {_quote(schema)}")

    async def _fit(self, table: Table, place: str) -> dict[str, str]:
        """Adapt the target table to the stream; return its columns with their types."""
        coming = METADATA | {
            identifier(name): "text" if name in table.widen and kind != "jsonb" else kind
            for name, kind in table.columns.items()
        }
        existing = await self._columns(place)
        if not existing:
            columns = ", ".join(f"{_quote(name)} {kind}" for name, kind in coming.items())
            await self._db.execute(f"CREATE TABLE {place} ({columns})")
            existing = dict(coming)
        changes = []
        for name, kind in coming.items():
            if name not in existing:
                changes.append(f"ADD COLUMN {_quote(name)} {kind}")
                existing[name] = kind
            elif (wider := _wider(existing[name], kind)) != existing[name]:
                changes.append(
                    f"ALTER COLUMN {_quote(name)} TYPE {wider} USING {_quote(name)}::{wider}"
                )
                existing[name] = wider
        if changes:
            await self._db.execute(f"ALTER TABLE {place} {', '.join(changes)}")
        await self._fit_key(table, place)
        return existing

    async def _columns(self, place: str) -> dict[str, str]:
        rows = await self._db.fetch(
            "SELECT attname, format_type(atttypid, NULL) AS kind FROM pg_attribute"
            " WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            place,
        )
        return {row["attname"]: row["kind"] for row in rows}

    async def _fit_key(self, table: Table, place: str) -> None:
        """Create this writer's unique index on the key, and drop its indexes on former keys."""
        identity = orjson.dumps([table.schema, table.name, table.primary_key])
        wanted = f"_airbyte_key_{hashlib.blake2b(identity, digest_size=8).hexdigest()}"
        rows = await self._db.fetch(
            "SELECT relname FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE indrelid = to_regclass($1) AND relname LIKE '\\_airbyte\\_key\\_%'",
            place,
        )
        found = {row["relname"] for row in rows}
        for name in found - ({wanted} if table.primary_key else set()):
            await self._db.execute(f"DROP INDEX {_quote(table.schema)}.{_quote(name)}")
        if not table.primary_key or wanted in found:
            return
        key = ", ".join(map(_name, table.primary_key))
        whole = " AND ".join(f"{_name(name)} IS NOT NULL" for name in table.primary_key)
        by_cursor = f"{_name(table.cursor)} DESC NULLS LAST, " if table.cursor else ""
        await self._db.execute(
            f"DELETE FROM {place} WHERE ctid IN (SELECT ctid FROM (SELECT ctid, row_number() OVER"
            f" (PARTITION BY {key} ORDER BY {by_cursor}{EXTRACTED_AT} DESC) AS place FROM {place}"
            f" WHERE {whole}) AS ranked WHERE place > 1)"
        )
        await self._db.execute(f"CREATE UNIQUE INDEX {_quote(wanted)} ON {place} ({key})")


def _latest(table: Table, cast: Mapping[str, str]) -> str:
    """Select the newest staged row per key; rows with a NULL in the key are all selected."""
    key = [cast[name] for name in table.primary_key]
    whole = " AND ".join(f"{each} IS NOT NULL" for each in key)
    order = [
        *key,
        *([f"{cast[table.cursor]} DESC NULLS LAST"] if table.cursor else []),
        "place DESC",
    ]
    return (
        f"SELECT * FROM (SELECT DISTINCT ON ({', '.join(key)}) place FROM {table.stage}"
        f" WHERE {whole} ORDER BY {', '.join(order)}) AS won"
        f" UNION ALL SELECT place FROM {table.stage} WHERE NOT ({whole})"
    )


def _replacing(table: Table, existing: Mapping[str, str]) -> str:
    """Replace an older row as a whole: columns that are not in the stream become NULL."""
    key = {identifier(name) for name in table.primary_key}
    coming = {identifier(name) for name in table.columns} | METADATA.keys()
    sets = ", ".join(
        f"{_quote(column)} = {f'EXCLUDED.{_quote(column)}' if column in coming else 'NULL'}"
        for column in existing
        if column not in key
    )
    newer = ""
    if table.cursor:
        held, comes = f"held.{_name(table.cursor)}", f"EXCLUDED.{_name(table.cursor)}"
        newer = f" WHERE {held} IS NULL OR {comes} IS NULL OR {comes} >= {held}"
    return f"ON CONFLICT ({', '.join(map(_name, table.primary_key))}) DO UPDATE SET {sets}{newer}"


def identifier(name: str) -> str:
    """Return the name as Postgres stores it: at most 63 bytes, whole characters, no NUL."""
    return name.replace("\0", "").encode()[:IDENTIFIER_BYTES].decode(errors="ignore")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _name(name: str) -> str:
    return _quote(identifier(name))


def _wider(held: str, comes: str) -> str:
    if held in (comes, "text"):
        return held
    return WIDER.get((held, comes), "text")


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _json(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return orjson.dumps(_without_nul(value)).decode() if "\\u0000" in text else text


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "")
        case dict():
            return {_without_nul(key): _without_nul(each) for key, each in value.items()}
        case list():
            return [_without_nul(each) for each in value]
    return value


def _moment(emitted_at: float) -> str:
    return datetime.fromtimestamp(emitted_at / 1000, UTC).isoformat()
