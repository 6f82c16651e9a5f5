"""Whether Airbyte holds what the registry says it does."""

from __future__ import annotations

from shared.airbyte_client import AirbyteConnection
from shared.domain import catalog as catalogs
from shared.domain.steps import in_slices


async def means(held: AirbyteConnection, fingerprint: str) -> bool:
    """Whether Airbyte's catalog means the wanted one, both cut to their selected fields."""
    try:
        return await in_slices(catalogs.meaning_of.steps(held.sync_catalog)) == fingerprint
    except catalogs.InvalidCatalog:
        return False
