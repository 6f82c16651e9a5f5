"""Whether Airbyte holds what the registry says it does."""

from __future__ import annotations

from typing import Literal

from shared.airbyte_client import AirbyteConnection
from shared.domain import catalog as catalogs
from shared.domain.steps import run_cooperatively


async def means(held: AirbyteConnection, fingerprint: str) -> bool:
    """Whether Airbyte's catalog means the wanted one, both cut to their selected fields."""
    try:
        return await run_cooperatively(catalogs.meaning_of.steps(held.sync_catalog)) == fingerprint
    except catalogs.InvalidCatalog:
        return False


def foreign_code(status: str) -> Literal["locked", "upstream_missing", "status_unknown"]:
    """What a connection's status in Airbyte is called where it is neither active nor inactive."""
    if status == "deprecated":
        return "upstream_missing"  # Airbyte goes on showing a connection that was deleted
    return "locked" if status == "locked" else "status_unknown"
