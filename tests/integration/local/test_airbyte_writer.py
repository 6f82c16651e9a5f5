"""The writer fits tables to streams and rows to tables, on a real Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from local.airbyte.warehouse_writer import NotWritable, Target, Writer, column_type, identifier
from tests.integration.local.airbyte_stage import INTEGER, NUMBER, TEXT, TIME, Json, stream
from tests.pools import Sql

OVERWRITE = ("full_refresh", "overwrite")
FULL_APPEND = ("full_refresh", "append")
APPEND = ("incremental", "append")
UPSERT = ("incremental", "append_dedup")
NOW = 1_700_000_000_000.0


class Warehouse:
    """One schema of a test's own, and short words for what is done to it."""

    def __init__(self, url: str, db: Sql, schema: str) -> None:
        self.url = url
        self.db = db
        self.schema = schema

    async def sync(self, pair: Json, records: Iterable[Json], *, finish: bool = True) -> None:
        """Write records of one stream and, by default, publish them."""
        target = Target(schema=self.schema)
        async with await Writer.open(self.url, [pair], target) as writer:
            key = (pair["stream"].get("namespace"), pair["stream"]["name"])
            for record in records:
                await writer.add(key, record, NOW)
            if finish:
                await writer.finish()

    async def rows(self, table: str = "t", *, by: str = "id") -> list[Json]:
        """Every row without the columns of Airbyte's own."""
        found = await self.db.fetch(f'SELECT * FROM "{self.schema}"."{table}" ORDER BY "{by}"')  # noqa: S608 - ours
        return [
            {key: value for key, value in row.items() if not key.startswith("_airbyte")}
            for row in found
        ]

    async def types(self, table: str = "t") -> Json:
        """The types of the columns."""
        found = await self.db.fetch(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = $1 AND table_name = $2",
            self.schema,
            table,
        )
        return dict(map(tuple, found))


@pytest.fixture
async def warehouse(warehouse_url: str) -> AsyncIterator[Warehouse]:
    """A schema that is gone after the test."""
    db = await asyncpg.connect(warehouse_url)
    schema = f"w{uuid4().hex[:12]}"
    yield Warehouse(warehouse_url, db, schema)
    await db.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    await db.close()


async def test_overwrite_keeps_only_the_last_sync(warehouse: Warehouse) -> None:
    """Deselected columns are gone, too."""
    await warehouse.sync(stream("t", {"id": INTEGER, "x": TEXT}), [{"id": 1, "x": "a"}])
    await warehouse.sync(stream("t", {"id": INTEGER}), [{"id": 2, "x": "b"}, {"id": 3}])
    assert await warehouse.rows() == [{"id": 2}, {"id": 3}]
    await warehouse.sync(stream("t", {"id": INTEGER}), [])
    assert await warehouse.rows() == []


async def test_unfinished_sync_is_not_visible(warehouse: Warehouse) -> None:
    """Neither new rows nor a new table."""
    await warehouse.sync(stream("t", {"id": INTEGER}), [{"id": 1}])
    for modes in (OVERWRITE, FULL_APPEND, APPEND):
        await warehouse.sync(stream("t", {"id": INTEGER}, modes=modes), [{"id": 2}], finish=False)
        await warehouse.sync(stream("u", {"id": INTEGER}, modes=modes), [{"id": 2}], finish=False)
    assert await warehouse.rows() == [{"id": 1}]
    assert await warehouse.types("u") == {}


@pytest.mark.parametrize("modes", [FULL_APPEND, APPEND])
async def test_append_keeps_the_rows_of_every_sync(
    warehouse: Warehouse, modes: tuple[str, str]
) -> None:
    """Equal ones, too."""
    pair = stream("t", {"id": INTEGER}, modes=modes)
    await warehouse.sync(pair, [{"id": 1}])
    await warehouse.sync(pair, [{"id": 1}, {"id": 2}])
    assert await warehouse.rows() == [{"id": 1}, {"id": 1}, {"id": 2}]


async def test_full_refreshes_are_published_at_the_end(warehouse: Warehouse) -> None:
    """A checkpoint publishes incremental streams only."""
    pairs = [
        stream("inc", {"id": INTEGER}, modes=APPEND),
        stream("full", {"id": INTEGER}, modes=FULL_APPEND),
    ]
    async with await Writer.open(warehouse.url, pairs, Target(schema=warehouse.schema)) as writer:
        await writer.add((None, "inc"), {"id": 1}, NOW)
        await writer.add((None, "full"), {"id": 1}, NOW)
        assert await writer.publish() == {(None, "inc"): 1}
        assert await warehouse.rows("inc") == [{"id": 1}]
        assert await warehouse.types("full") == {}
        await writer.add((None, "inc"), {"id": 2}, NOW)
        await writer.finish()
    assert len(await warehouse.rows("inc")) == 2
    assert len(await warehouse.rows("full")) == 1


async def test_dedup_keeps_the_row_with_the_latest_cursor(warehouse: Warehouse) -> None:
    """Inside one sync and across syncs; without a cursor the last one wins."""
    pair = stream(
        "t", {"id": INTEGER, "at": TIME, "x": TEXT}, modes=UPSERT, key=["id"], cursor="at"
    )
    await warehouse.sync(
        pair,
        [
            {"id": 1, "at": "2024-01-02T00:00:00Z", "x": "new"},
            {"id": 1, "at": "2024-01-01T00:00:00Z", "x": "old"},
            {"id": 2, "at": None, "x": "no cursor"},
        ],
    )
    await warehouse.sync(
        pair,
        [
            {"id": 1, "at": "2024-01-01T12:00:00Z", "x": "late arrival"},
            {"id": 2, "at": "2024-01-01T00:00:00Z", "x": "cursor"},
            {"id": 3, "at": "2024-01-01T00:00:00Z", "x": "first"},
            {"id": 3, "at": "2024-01-01T00:00:00Z", "x": "second"},
        ],
    )
    assert [row["x"] for row in await warehouse.rows()] == ["new", "cursor", "second"]

    pair = stream("u", {"id": INTEGER, "x": TEXT}, modes=UPSERT, key=["id"])
    await warehouse.sync(pair, [{"id": 1, "x": "a"}, {"id": 1, "x": "b"}])
    await warehouse.sync(pair, [{"id": 1, "x": "c"}])
    assert await warehouse.rows("u") == [{"id": 1, "x": "c"}]


async def test_dedup_by_more_than_one_column(warehouse: Warehouse) -> None:
    """A key that lacks a part cannot be compared, so its rows all stay."""
    pair = stream("t", {"a": INTEGER, "b": TEXT, "id": TEXT}, modes=UPSERT, key=["a", "b"])
    await warehouse.sync(pair, [{"a": 1, "b": "x", "id": "1"}, {"a": 1, "b": "y", "id": "2"}])
    await warehouse.sync(pair, [{"a": 1, "b": "x", "id": "3"}, {"a": None, "b": "x", "id": "4"}])
    await warehouse.sync(pair, [{"a": None, "b": "x", "id": "5"}])
    assert [row["id"] for row in await warehouse.rows()] == ["2", "3", "4", "5"]


async def test_table_follows_a_change_of_deduplication(
    warehouse: Warehouse,
) -> None:
    """Rows that were appended are deduplicated first; later appends may repeat a key again."""
    fields = {"id": INTEGER, "x": TEXT}
    append = stream("t", fields, modes=APPEND)
    await warehouse.sync(append, [{"id": 1, "x": "a"}])
    await warehouse.sync(append, [{"id": 1, "x": "b"}, {"id": 2, "x": "c"}])
    upsert = stream("t", fields, modes=UPSERT, key=["id"])
    await warehouse.sync(upsert, [{"id": 2, "x": "d"}])
    assert [row["id"] for row in await warehouse.rows()] == [1, 2]
    await warehouse.sync(stream("t", fields, modes=UPSERT, key=["id", "x"]), [{"id": 2, "x": "e"}])
    await warehouse.sync(append, [{"id": 2, "x": "e"}])
    assert [row["x"] for row in await warehouse.rows(by="x")][1:] == ["d", "e", "e"]


async def test_added_and_dropped_fields(warehouse: Warehouse) -> None:
    """A new column is NULL in old rows; a dropped one is NULL in the rows written later."""
    upsert: Any = {"modes": UPSERT, "key": ["id"]}
    before: list[Json] = [{"id": 1, "a": "x"}, {"id": 2, "a": "y"}]
    await warehouse.sync(stream("t", {"id": INTEGER, "a": TEXT}, **upsert), before)
    after: list[Json] = [{"id": 2, "b": 7, "a": "not selected"}, {"id": 3, "b": 8}]
    await warehouse.sync(stream("t", {"id": INTEGER, "b": INTEGER}, **upsert), after)
    assert await warehouse.rows() == [
        {"id": 1, "a": "x", "b": None},
        {"id": 2, "a": None, "b": 7},
        {"id": 3, "a": None, "b": 8},
    ]


async def test_retyped_fields_widen_their_column(warehouse: Warehouse) -> None:
    """To numeric where that is enough, else to text; it never narrows again."""
    await warehouse.sync(
        stream("t", {"id": INTEGER, "n": INTEGER, "d": TIME}, modes=APPEND),
        [{"id": 1, "n": 5, "d": "2024-01-01T00:00:00Z"}],
    )
    await warehouse.sync(
        stream("t", {"id": INTEGER, "n": NUMBER, "d": TEXT}, modes=APPEND),
        [{"id": 2, "n": 5.5, "d": "soon"}],
    )
    await warehouse.sync(
        stream("t", {"id": TEXT, "n": INTEGER, "d": TIME}, modes=APPEND),
        [{"id": "3a", "n": 6, "d": "2024-01-01T00:00:00Z"}],
    )
    rows = await warehouse.rows()
    assert [row["id"] for row in rows] == ["1", "2", "3a"]
    assert [row["n"] for row in rows] == [5, Decimal("5.5"), 6]
    assert [row["d"][:4] for row in rows] == ["2024", "soon", "2024"]
    types = await warehouse.types()
    assert (types["id"], types["n"], types["d"]) == ("text", "numeric", "text")


async def test_key_column_can_be_retyped(warehouse: Warehouse) -> None:
    """The index on it follows."""
    await warehouse.sync(
        stream("t", {"id": INTEGER, "x": TEXT}, modes=UPSERT, key=["id"]), [{"id": 1, "x": "a"}]
    )
    await warehouse.sync(
        stream("t", {"id": TEXT, "x": TEXT}, modes=UPSERT, key=["id"]),
        [{"id": "1", "x": "b"}, {"id": "one", "x": "c"}],
    )
    assert [row["x"] for row in await warehouse.rows()] == ["b", "c"]


async def test_values_of_another_type_widen_their_column(warehouse: Warehouse) -> None:
    """No row or value is lost when a source violates its own schema."""
    await warehouse.sync(
        stream("t", {"id": INTEGER, "n": INTEGER, "d": TIME, "b": {"type": "boolean"}}),
        [
            {"id": 1, "n": "seven", "d": "someday", "b": True},
            {"id": 2, "n": 2**70, "d": "", "b": "maybe"},
            {"id": 3, "n": {"x": 1}, "d": "2024-01-01T00:00:00Z"},
        ],
    )
    rows = await warehouse.rows()
    assert [row["n"] for row in rows] == ["seven", str(2**70), '{"x":1}']
    assert [row["b"] for row in rows] == ["true", "maybe", None]
    assert rows[0]["d"] == "someday"


async def test_every_type_is_written(warehouse: Warehouse) -> None:
    """Typed columns, JSON for what is nested; undeclared fields are dropped."""
    zoneless = {**TIME, "airbyte_type": "timestamp_without_timezone"}
    fields = {
        "id": INTEGER,
        "number": NUMBER,
        "truth": {"type": ["null", "boolean"]},
        "text": TEXT,
        "moment": TIME,
        "wall": zoneless,
        "day": {"type": "string", "format": "date"},
        "object": {"type": ["null", "object"], "properties": {"a": TEXT}},
        "either": {"type": ["string", "integer"]},
    }
    nasty = 'quote " comma , newline \n tab \t \\N \\. NUL \0 end 🜁'
    await warehouse.sync(
        stream("t", fields),
        [
            {
                "id": 5.0,
                "number": 0.1,
                "truth": False,
                "text": nasty,
                "moment": "2024-02-03T04:05:06.789+02:00",
                "wall": "2024-02-03T04:05:06",
                "day": "2024-02-03",
                "object": {"a": nasty},
                "either": "x",
                "attributes": {"type": "Account"},
            },
            {"id": 6, "text": "", "either": 7},
        ],
    )
    first, second = await warehouse.rows()
    clean = nasty.replace("\0", "")
    assert first["text"] == clean
    assert (first["id"], first["number"], first["truth"]) == (5, Decimal("0.1"), False)
    assert first["moment"] == datetime(2024, 2, 3, 2, 5, 6, 789_000, tzinfo=UTC)
    assert first["wall"] == datetime(2024, 2, 3, 4, 5, 6)  # noqa: DTZ001 - it has no zone
    assert first["day"] == date(2024, 2, 3)
    assert "🜁" in first["object"]
    assert "\\u0000" not in first["object"]
    assert (first["either"], second["either"]) == ('"x"', "7")
    assert (second["text"], second["moment"]) == ("", None)
    assert "attributes" not in first


async def test_names_are_kept_as_they_are(warehouse: Warehouse) -> None:
    """Capitals, quotes, blanks; and cut at 63 bytes where a name is longer."""
    name = 'Odd "Name" ' + "ü" * 40
    await warehouse.sync(
        stream(name, {"id": INTEGER, "Sel ect": TEXT}), [{"id": 1, "Sel ect": "x"}]
    )
    table = identifier(name)
    assert len(table.encode()) <= 63
    quoted = table.replace('"', '""')
    found = await warehouse.db.fetchrow(f'SELECT * FROM "{warehouse.schema}"."{quoted}"')  # noqa: S608 - ours
    assert found is not None
    assert found["Sel ect"] == "x"
    assert found["_airbyte_extracted_at"] == datetime.fromtimestamp(NOW / 1000, UTC)


async def test_many_rows_are_staged_in_parts(warehouse: Warehouse) -> None:
    """More than is held in memory at once."""
    pair = stream("t", {"id": INTEGER, "x": TEXT}, modes=UPSERT, key=["id"])
    await warehouse.sync(pair, ({"id": number % 7000, "x": "y" * 400} for number in range(20_000)))
    assert len(await warehouse.rows()) == 7000


def test_namespace_and_prefix_determine_the_table() -> None:
    """By the source's namespace, the destination's, or a format; with a prefix."""
    described = {"name": "Account", "namespace": "prod"}
    assert Target(schema="public").table(described) == ("prod", "Account")
    assert Target(schema="public").table({"name": "A"}) == ("public", "A")
    assert Target(schema="public", definition="destination").table(described) == (
        "public",
        "Account",
    )
    custom = Target(
        schema="p", definition="customformat", format="x_${SOURCE_NAMESPACE}", prefix="y_"
    )
    assert custom.table(described) == ("x_prod", "y_Account")


def test_colliding_names_are_refused() -> None:
    """Names that differ in case only, or beyond 63 bytes."""
    target = Target(schema="public")
    target.refuse_collisions([stream("a", {"id": TEXT}), stream("a", {"id": TEXT}, namespace="n")])
    for pair in (("a", "A"), ("x" * 63, "x" * 64)):
        with pytest.raises(NotWritable):
            target.refuse_collisions([stream(name, {"id": TEXT}) for name in pair])
        with pytest.raises(NotWritable):
            target.refuse_collisions([stream("s", dict.fromkeys(pair, TEXT))])


@pytest.mark.parametrize(
    "schema, expected",
    [
        ({"type": ["null", "integer"]}, "bigint"),
        ({"type": ["integer", "number"]}, "numeric"),
        ({"type": "number", "airbyte_type": "integer"}, "bigint"),
        ({"type": "string", "format": "date-time"}, "timestamp with time zone"),
        ({"type": "string", "format": "time"}, "time with time zone"),
        ({"type": ["null", "array"]}, "jsonb"),
        ({}, "jsonb"),
        (True, "jsonb"),
    ],
)
def test_column_types(schema: Any, expected: str) -> None:
    """A union that fits no one type is kept as JSON."""
    assert column_type(schema) == expected
