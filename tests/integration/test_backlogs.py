"""How often the backlogs of the metrics are read from the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from shared.backlogs import Gauges
from shared.database import Database
from tests.pools import Sql


@pytest.fixture
async def sequences(sql: Sql) -> AsyncIterator[None]:
    """Two sequences that count how often a statement was read."""
    names = ("slow", "quick")
    for name in names:
        await sql.execute(f"CREATE SEQUENCE {name}")
        await sql.execute(f"GRANT ALL ON SEQUENCE {name} TO PUBLIC")
    yield
    for name in names:
        await sql.execute(f"DROP SEQUENCE {name}")


@pytest.mark.usefixtures("sequences")
async def test_slow_statement_is_read_less_often(db: Database, sql: Sql) -> None:
    """Its neighbours are read each time."""
    gauges = Gauges(
        db,
        {
            "sources": text("SELECT '', nextval('slow'), 0::float8 FROM pg_sleep(0.4)"),
            "drifts": text("SELECT 'harmless', nextval('quick'), 0::float8"),
        },
    )

    for _ in range(3):
        await gauges.read()

    (row,) = await sql.fetch("SELECT slow.last_value, quick.last_value FROM slow, quick")
    assert tuple(row) == (1, 3)
