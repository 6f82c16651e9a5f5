"""Queries take lists of any length: a statement has at most 32,767 parameters."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from services.orchestrator import reconciliation_queries
from services.schema_observer import comparison_queries
from shared import registry
from shared.database import Database
from shared.models import JobHistory, Snapshot, StreamSchema
from tests import factories

MANY = 33_000


@pytest.fixture
async def connection_id(db: Database) -> UUID:
    """A connection with the Airbyte job 7."""
    connection = factories.connection()
    async with db.transaction() as session:
        session.add(connection)
    async with db.transaction() as session:
        session.add(
            JobHistory(
                connection_id=connection.id, airbyte_job_id=7, status="running", catalog_version=1
            )
        )
    return connection.id


async def test_one_job_is_found_among_many(db: Database, connection_id: UUID) -> None:
    """Of our connections, in an Airbyte that has mostly others."""
    async with db.read() as session:
        known = await reconciliation_queries.known_jobs(session, range(MANY))

    assert known == {(7, connection_id)}


async def test_one_connection_is_found_among_many(db: Database, connection_id: UUID) -> None:
    others = [uuid4() for _ in range(MANY)]
    async with db.read() as session:
        row = await registry.find_connection(session, connection_id)
        assert row.airbyte_connection_id is not None
        ours = await reconciliation_queries.connections_in_airbyte(
            session, [*others, row.airbyte_connection_id]
        )
        names = await registry.connection_names(session, [*others, connection_id])

    assert ours == {row.airbyte_connection_id: connection_id}
    assert names == {connection_id: row.name}


async def test_streams_of_a_large_source_are_read(db: Database) -> None:
    """However many streams it has; here they are all the same."""
    hash_, body = b"h" * 16, '{"name": "orders"}'
    async with db.transaction() as session:
        session.add(StreamSchema(hash=hash_, name="orders", namespace="shop", body=body))
    hashes = [hash_] * MANY
    snapshot = Snapshot(
        id=uuid4(),
        airbyte_source_id=uuid4(),
        raw_hashes=b"".join(hashes),
        stream_hashes=b"".join(hashes),
    )

    async with db.read() as session:
        streams = await registry.snapshot_streams(session, snapshot)
        schemas = await comparison_queries.stream_schemas(
            session, hashes, names=["orders", *map(str, range(MANY))]
        )
        names = await comparison_queries.stream_names(session, hashes)

    assert streams == [body.encode()] * MANY
    assert [one.hash for one in schemas] == [hash_]
    assert names == {("shop", "orders")}
