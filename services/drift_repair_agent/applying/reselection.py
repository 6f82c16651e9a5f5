"""Streams that a catalog selects again: the decision about a gap, and the effects to show.

With a state per stream, such a stream resumes and catches up. With a global (CDC) state it is
refreshed, or the gap is accepted; AAM never decides silently. See `shared.kept_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from services.drift_repair_agent.healing import Effect
from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import AWAY, nothing_recorded
from shared.domain.catalog import Catalog, StreamId
from shared.errors import Conflict, Invalid, UpstreamRefused
from shared.kept_state import (
    Reselection,
    added_streams,
    held_catalog,
    with_state,
)
from shared.models import Connection, ConnectionStatus

OnGlobalState: TypeAlias = Literal["refresh", "accept_gap"]
"""What to do about streams that are selected again while the connection's state is global.

`refresh` reads them from their start again and merges the rows; `accept_gap` resumes them, without
the changes that were made while they were not selected.
"""

_MOST_NAMED = 50
_NONE_CHOSEN: Mapping[StreamId, OnGlobalState] = MappingProxyType({})


class GlobalStateUndecided(Conflict):
    """Streams are selected again, and the connection's state in Airbyte is global (CDC).

    A sync would not read what changed while they were not selected. Send the request again with
    `on_global_state`, one of `choices`.
    """

    code = "global_state"


async def find(
    airbyte: AirbyteClient, row: Connection, wanted: Catalog, head: Catalog
) -> Reselection:
    """The streams that the connection would resume after not having synced them.

    Compares with the head. If Airbyte may hold another catalog, a stream must be selected in both
    to count as synced all the time.

    Raises:
        Unavailable: Airbyte cannot be queried now; nothing was recorded.
        UpstreamRefused: Airbyte does not return the state.
    """
    if row.airbyte_connection_id is None:
        return Reselection()
    may_differ = row.drifted_upstream_at is not None or row.status is ConnectionStatus.FAILED
    added = added_streams(wanted, head)
    suspects = added_streams(wanted, Catalog(())) if may_differ else added
    found = await with_state(airbyte, row.airbyte_connection_id, suspects)
    if not may_differ:
        return found
    if found.gapped:
        added |= added_streams(wanted, await held_catalog(airbyte, row.airbyte_connection_id))
    return Reselection(
        resumed=tuple(stream for stream in found.resumed if stream in added),
        gapped=tuple(stream for stream in found.gapped if stream in added),
    )


async def to_refresh(
    airbyte: AirbyteClient,
    row: Connection,
    found: Reselection,
    choice: OnGlobalState | None,
    *,
    chosen: Mapping[StreamId, OnGlobalState] = _NONE_CHOSEN,
) -> tuple[StreamId, ...]:
    """The streams to refresh after the catalog is applied.

    `chosen` has the choices for single streams; `choice` is for the others.

    Raises:
        GlobalStateUndecided: there is a gap, and no choice was made.
        Invalid: `refresh` was chosen, but the destination does not support refreshes.
        Unavailable: Airbyte cannot be queried now; nothing was recorded.
    """
    choices = {stream: chosen.get(stream, choice) for stream in found.gapped}
    undecided = tuple(stream for stream, made in choices.items() if made is None)
    refreshed = tuple(stream for stream, made in choices.items() if made == "refresh")
    if not undecided and not refreshed:
        return ()
    supported = await _supports_refreshes(airbyte, row.airbyte_destination_id)
    if undecided:
        raise GlobalStateUndecided(
            f"The state of connection {row.id} in Airbyte is global (CDC), so a sync would not "
            f"read what changed in {_listed(undecided)} while it was not selected: choose "
            "on_global_state.",
            streams=msgspec.to_builtins(undecided[:_MOST_NAMED]),
            choices=["refresh", "accept_gap"] if supported else ["accept_gap"],
        )
    if not supported:
        raise Invalid(
            f"The destination of connection {row.id} does not support refreshes. Clear "
            f"{_listed(refreshed)} in Airbyte afterwards, or accept the gap.",
            code="refresh_unsupported",
            streams=msgspec.to_builtins(refreshed[:_MOST_NAMED]),
        )
    return refreshed


def effects(found: Reselection) -> Iterator[Effect]:
    """What a person should know before these streams are selected again."""
    for stream in found.resumed:
        yield Effect(
            stream,
            "stream_resumed",
            f"Airbyte still has the sync state of {stream}: it resumes from its old cursor and "
            "catches up.",
        )
    for stream in found.gapped:
        yield Effect(
            stream,
            "global_state",
            f"Airbyte still has the state of {stream} within a global (CDC) state: a sync would "
            "not read what changed while it was not selected. With on_global_state `refresh` all "
            "of it is read again and merged (rows that the source has deleted stay, and a stream "
            "without deduplication gets its rows twice); with `accept_gap` it resumes without "
            "these changes.",
        )


def unknown_effects(streams: Iterable[StreamId]) -> Iterator[Effect]:
    """The effects where Airbyte does not return its state now."""
    for stream in sorted(streams, key=lambda one: one.order):
        yield Effect(
            stream,
            "state_unknown",
            f"Whether {stream} resumes from an earlier sync state is unknown: Airbyte did not "
            "return the state.",
        )


async def _supports_refreshes(airbyte: AirbyteClient, destination_id: UUID) -> bool:
    try:
        return await airbyte.supports_refreshes(destination_id)
    except UpstreamRefused:
        return False
    except AWAY as error:
        raise nothing_recorded(error) from None


def _listed(streams: tuple[StreamId, ...]) -> str:
    named = ", ".join(map(str, streams[:3]))
    return named if len(streams) <= 3 else f"{named} and {len(streams) - 3} more"
