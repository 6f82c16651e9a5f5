"""Compares Airbyte's state of a connection with the registry's."""

from __future__ import annotations

from typing import Literal

from shared.airbyte_client import AirbyteConnection
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively


async def matches(held: AirbyteConnection, fingerprint: str) -> bool:
    """Whether the catalog in Airbyte has this fingerprint, reduced to its selected fields."""
    try:
        return (
            await run_cooperatively(catalogs.document_fingerprint.steps(held.sync_catalog))
            == fingerprint
        )
    except catalogs.InvalidCatalog:
        return False


def foreign_code(status: str) -> Literal["locked", "upstream_missing", "status_unknown"]:
    """The code for a connection's status in Airbyte that is neither active nor inactive."""
    if status == "deprecated":
        return "upstream_missing"  # Airbyte still returns deleted connections
    return "locked" if status == "locked" else "status_unknown"
