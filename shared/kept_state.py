"""The sync state that Airbyte keeps of deselected streams, and what it means if they come back.

Airbyte does not delete the state of a deselected stream. With a state per stream, the stream
resumes from its old cursor and catches up. With a global (CDC) state it does not: the position that
all streams share has moved on, so no sync reads what changed while the stream was not selected
(airbytehq/airbyte#32699). Source: FlagDefinitions (reset-stream-state-on-disable),
ConnectionsHandler and StatePersistence, airbyte-platform 0.63.19 to 310e6cb6ac.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

import msgspec

from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import READ_FAILURES, nothing_recorded
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, InvalidCatalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import UpstreamMissing


class Reselection(msgspec.Struct, frozen=True):
    """The streams that are selected again and still have state in Airbyte."""

    resumed: tuple[StreamId, ...] = ()
    """These have a state of their own: they resume from it and miss nothing."""
    gapped: tuple[StreamId, ...] = ()
    """These depend on a global state, or on one of a type without a state per stream."""


def added_streams(wanted: Catalog, before: Catalog) -> set[StreamId]:
    """The incremental streams that one catalog selects and the other does not."""
    known = {stream.id for stream in before.streams if stream.selected}
    return {
        stream.id
        for stream in wanted.streams
        if stream.selected and stream.config.sync_mode == "incremental" and stream.id not in known
    }


async def with_state(
    airbyte: AirbyteClient, airbyte_connection_id: UUID, streams: Collection[StreamId]
) -> Reselection:
    """Which of these streams still have state in Airbyte, by its type.

    Raises:
        Unavailable: Airbyte cannot be queried now; nothing was recorded.
        UpstreamRefused: Airbyte does not return the state.
    """
    if not streams:
        return Reselection()
    try:
        state = await airbyte.connection_state(airbyte_connection_id)
    except UpstreamMissing:
        return Reselection()  # a missing connection is reported by what follows
    except READ_FAILURES as error:
        raise nothing_recorded(error) from None
    if state.type == "not_set":
        return Reselection()
    is_per_stream = state.type in ("stream", "global")
    known = tuple(
        stream
        for stream in sorted(streams, key=lambda one: one.order)
        # A type that AAM does not know may hide a state of each stream.
        if not is_per_stream or state.streams.get(stream, b"null") != b"null"
    )
    return Reselection(resumed=known) if state.type == "stream" else Reselection(gapped=known)


async def held_catalog(airbyte: AirbyteClient, airbyte_connection_id: UUID) -> Catalog:
    """The catalog that Airbyte holds; empty if it cannot be read.

    Raises:
        Unavailable: Airbyte cannot be queried now; nothing was recorded.
    """
    try:
        held = await airbyte.get_connection(airbyte_connection_id)
        return await run_cooperatively(catalogs.parse.steps(held.sync_catalog))
    except READ_FAILURES as error:
        raise nothing_recorded(error) from None
    except (UpstreamMissing, InvalidCatalog):
        return Catalog(())
