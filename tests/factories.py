"""Factories of valid, minimal registry rows."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from shared.models import Connection, ConnectionStatus
from tests.pools import Sql


def connection(**changes: Any) -> Connection:
    """Build a live connection at version 1, with unique ids and name."""
    columns: dict[str, Any] = {
        "id": uuid4(),
        "name": f"connection {uuid4()}",
        "source_type": "Salesforce",
        "airbyte_source_id": uuid4(),
        "airbyte_connection_id": uuid4(),
        "airbyte_destination_id": uuid4(),
        "status": ConnectionStatus.ACTIVE,
        "catalog_version": 1,
    }
    return Connection(**(columns | changes))


async def open_operation(sql: Sql, connection_id: UUID | str, kind: str = "sync") -> None:
    """Insert a running operation of a connection, with a lease of one hour."""
    await sql.execute(
        "INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,"
        " deadline, request_id) VALUES (gen_random_uuid(), $1, $2, 'running', '{}', 'step',"
        " now() + interval '1 hour', now() + interval '1 hour', '')",
        kind,
        UUID(str(connection_id)),
    )
