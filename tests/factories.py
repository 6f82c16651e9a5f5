"""Rows of the registry as tests need them: valid, and the least that is."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from shared.models import Connection, ConnectionStatus


def connection(**changes: Any) -> Connection:
    """A live connection at version 1, unlike any other."""
    told: dict[str, Any] = {
        "id": uuid4(),
        "name": f"connection {uuid4()}",
        "source_type": "Salesforce",
        "airbyte_source_id": uuid4(),
        "airbyte_connection_id": uuid4(),
        "airbyte_destination_id": uuid4(),
        "status": ConnectionStatus.ACTIVE,
        "catalog_version": 1,
    }
    return Connection(**(told | changes))
