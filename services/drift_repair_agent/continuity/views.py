"""The SQL of a view that has a renamed field's values under both names; AAM does not run it."""

from __future__ import annotations

from shared import airbyte_reads, registry
from shared.destinations import DestinationReader
from shared.domain.catalog import ConfiguredStream
from shared.domain.destination import compatibility_view
from shared.models import Connection


async def view_of(
    destinations: DestinationReader,
    row: Connection,
    configured: ConfiguredStream,
    offered: ConfiguredStream,
    old: str,
    new: str,
) -> str | None:
    """The statement for a connection's destination; None if its dialect or table is unknown."""
    try:
        destination = await destinations.read(row.airbyte_destination_id)
    except airbyte_reads.READ_FAILURES:
        return None
    return compatibility_view(
        destination,
        configured.id,
        registry.naming_of(row),
        before=configured.stream,
        after=offered.stream,
        selected=configured.config.selected_names(),
        renamed=(old, new),
    )
