"""Check that each mapper of a connection still finds its field in what the source offers.

At a sync Airbyte drops an invalid mapper silently, so that values which were hashed or encrypted
arrive in plain.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from services.schema_observer import comparison_queries, mapper_queries
from shared import registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain import drift
from shared.domain.cooperative import run_cooperatively
from shared.domain.drift import MAPPER_LAPSED, Change, Severity, Verdict
from shared.models import Snapshot


class Lapses(msgspec.Struct, frozen=True):
    """The lapsed mappers of a connection, with their severity for it."""

    judged: tuple[tuple[Change, Verdict], ...] = ()

    @property
    def stored(self) -> str:
        """Which fields they are about, as JSON text: `[[namespace, stream, field], …]`."""
        places = [
            (change.stream.namespace, change.stream.name, change.path[0])
            for change, _ in self.judged
        ]
        # Postgres cannot store a NUL character in JSON; a field's name may contain one.
        return msgspec.json.encode(places).decode().replace("\\u0000", "\\ufffd")

    def new(self, reported: str) -> list[tuple[Change, Verdict]]:
        """Those that are not among the `stored` ones of an earlier check."""
        known = {tuple(place) for place in msgspec.json.decode(reported)}
        return [
            one
            for one, place in zip(self.judged, msgspec.json.decode(self.stored), strict=True)
            if tuple(place) not in known
        ]


async def find_lapses(
    db: Database, connection_id: UUID, catalog_version: int, after: Snapshot
) -> Lapses:
    """The mappers of a connection's head whose field the snapshot lacks or that is not selected.

    Only streams with mappers are read.
    """
    async with db.read() as session:
        slices = await mapper_queries.mapped_streams(session, connection_id, catalog_version)
    if not slices:
        return Lapses()
    head = await run_cooperatively(catalogs.parse.steps(catalogs.join(slices)))
    hashes = list(registry.split_hashes(after.stream_hashes))
    async with db.read() as session:
        rows = await comparison_queries.stream_schemas(
            session, hashes, names={stream.id.name for stream in head.streams}
        )
    changes = await run_cooperatively(drift.lapses.steps(head, [row.body.encode() for row in rows]))
    streams = head.by_id()
    return Lapses(
        tuple((change, drift.severity(change, streams[change.stream])) for change in changes)
    )


def severity_of_lapses(judged: Iterable[tuple[Change, Verdict]]) -> Severity | None:
    """The highest severity of the lapsed mappers among changes; None without any."""
    found = [verdict.severity for change, verdict in judged if change.kind == MAPPER_LAPSED]
    return drift.worst(found) if found else None
