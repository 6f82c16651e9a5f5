"""The registry's own rules, by the database that enforces them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.exc import IntegrityError

from shared import registry
from shared.database import Database
from shared.errors import Invalid, NameTaken, NotActive, NotFound, StaleCatalog
from shared.models import Connection, ConnectionStatus, SyncCatalogVersion, VersionOrigin
from tests import factories
from tests.pools import Sql

NAME = "Salesforce production"
ARCHIVED = datetime(2026, 1, 1, tzinfo=UTC)


async def add(db: Database, *rows: object) -> None:
    """Commit the rows."""
    async with db.transaction() as session:
        session.add_all(rows)


async def append(db: Database, connection: Connection, *, expected_version: int) -> None:
    """The next version, by one who read `expected_version`."""
    async with db.transaction() as session:
        locked = await registry.lock_connection(session, connection.id)
        registry.append_version(
            session,
            locked,
            b'{"streams": []}',
            expected_version=expected_version,
            fingerprint="f",
            origin=VersionOrigin.REPAIR,
            snapshot_id=None,
            requested_by=None,
        )


@pytest.mark.parametrize(
    "holder, is_free",
    [
        ({}, False),
        ({"status": ConnectionStatus.PENDING, "airbyte_connection_id": None}, False),
        ({"status": ConnectionStatus.HEALING, "heal_id": uuid4()}, False),
        ({"status": ConnectionStatus.FAILED}, False),  # a repair's: Airbyte still has it
        ({"status": ConnectionStatus.FAILED, "airbyte_connection_id": None}, True),
        ({"archived_at": ARCHIVED}, True),
    ],
)
async def test_name_is_unique_among_live_connections(
    db: Database, holder: dict[str, Any], is_free: bool
) -> None:
    """Failed and archived connections free theirs."""
    await add(db, factories.connection(name=NAME, **holder))

    async def take() -> None:
        async with db.transaction() as session:
            await registry.insert_pending(session, factories.connection(name=NAME))

    if is_free:
        await take()
    with pytest.raises(NameTaken):
        await take()


async def test_one_of_many_concurrent_connections_gets_the_name(db: Database) -> None:
    async def take() -> None:
        async with db.transaction() as session:
            await registry.insert_pending(session, factories.connection(name=NAME))

    ends = await asyncio.gather(*(take() for _ in range(10)), return_exceptions=True)

    assert [type(end) for end in ends].count(NameTaken) == 9
    assert ends.count(None) == 1


async def test_duplicate_version_number_is_refused(db: Database) -> None:
    """Even for code that forgot the lock."""
    connection = factories.connection()
    version: dict[str, Any] = {
        "connection_id": connection.id, "version_number": 2, "sync_catalog": "{}",
        "fingerprint": "f", "origin": VersionOrigin.REPAIR,
    }  # fmt: skip
    await add(db, connection)
    await add(db, SyncCatalogVersion(**version))

    with pytest.raises(IntegrityError, match="uq_sync_catalog_versions_connection_id_version"):
        await add(db, SyncCatalogVersion(**version))


async def test_one_of_many_writers_appends(db: Database, sql: Sql) -> None:
    """The others get the connection's current version."""
    connection = factories.connection()
    await add(db, connection)

    ends = await asyncio.gather(
        *(append(db, connection, expected_version=1) for _ in range(8)), return_exceptions=True
    )

    stale = [end for end in ends if isinstance(end, StaleCatalog)]
    assert (len(stale), ends.count(None)) == (7, 1)
    assert {tuple(end.members.values()) for end in stale} == {(1, 2)}
    assert await sql.fetchval("SELECT array_agg(version_number) FROM sync_catalog_versions") == [2]
    assert await sql.fetchval("SELECT catalog_version FROM connections") == 2


async def test_superseded_repair_does_not_release_the_connection(db: Database) -> None:
    """Only the repair that holds it does."""
    connection, mine = factories.connection(), uuid4()
    await add(db, connection)
    async with db.transaction() as session:
        locked = await registry.lock_connection(session, connection.id)
        registry.begin_heal(locked, mine)

    async def end(heal_id: Any) -> None:
        async with db.transaction() as session:
            locked = await registry.lock_connection(session, connection.id)
            registry.end_heal(locked, heal_id, status=ConnectionStatus.ACTIVE)

    with pytest.raises(NotActive):
        await end(uuid4())
    await end(mine)
    with pytest.raises(NotActive):
        await end(mine)


async def test_missing_rows_are_not_found(db: Database) -> None:
    """Unknown ids, and archived connections that cannot be locked."""
    archived = factories.connection(archived_at=ARCHIVED)
    await add(db, archived)
    async with db.read() as session:
        for missing in (
            registry.find_connection(session, uuid4()),
            registry.lock_connection(session, uuid4()),
            registry.connection_json(session, uuid4()),
            registry.read_version(session, archived.id, 7),
            registry.find_snapshot(session, uuid4()),
        ):
            with pytest.raises(NotFound):
                await missing
        with pytest.raises(NotActive):
            await registry.lock_connection(session, archived.id)


@pytest.mark.parametrize("cursor", ["", "x", "%%%", "ä", "MjAyNi0wMS0wMSB4", "A" * 5000])
def test_invalid_cursor_is_refused_in_one_sentence(cursor: str) -> None:
    with pytest.raises(Invalid):
        registry.read_cursor(cursor)
