"""One look at one source: discover, doubt, keep, compare, and say when the next one is due."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from services.schema_observer import trust
from services.schema_observer.comparing import Comparing
from services.schema_observer.trust import Doubt
from shared import events, failpoints, logs, registry, snapshots
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.database import Database
from shared.domain.catalog import InvalidCatalog, StreamId, identify
from shared.errors import DiscoverFailed, Upstream, UpstreamMissing
from shared.events import EventType
from shared.jobs import Jobs
from shared.registry import Claim, Seen
from shared.snapshots import Offered

log = logs.get(__name__)

_FIRST_PAUSE: Final = timedelta(minutes=1)
"""After a look that found nothing to trust; doubled each time, up to the source's interval."""
_MOST_DOUBLED: Final = 20
_JITTER: Final = 0.1


class Look(msgspec.Struct, frozen=True, eq=False):
    """A look whose discovery is over: what the source offers, not judged yet."""

    claim: Claim
    offered: Offered


class Observing:
    """Looks at sources; what a look found is recorded in the end, whatever it is."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, jobs: Jobs
    ) -> None:
        self._suspicion_time = settings.suspicion_time
        self._db = db
        self._airbyte = airbyte
        self._comparing = Comparing(db, jobs)

    async def discover(self, claim: Claim, slot: UUID) -> Look | None:
        """Ask a source what it offers now; None where it does not say, which is recorded.

        The discovery goes past Airbyte's cache and names no connection, so that Airbyte disables
        none: see `AirbyteClient.discover_schema`. While it runs, no transaction is open.

        Raises:
            Unavailable: the registry is away; the claim is to be given back.
        """
        try:
            discovered = await self._airbyte.discover_schema(claim.source_id)
            return Look(claim, await snapshots.offered(discovered))
        except InvalidCatalog as error:
            await self._unreadable(claim, slot, error)
        except Upstream as error:
            # Airbyte being away says nothing about the source.
            is_told = isinstance(error, DiscoverFailed | UpstreamMissing)
            await self._distrust(claim, slot, "failed", error.code, error.detail, is_told=is_told)
        return None

    async def take(self, looks: Sequence[Look], slot: UUID) -> None:
        """Record what the discoveries of one slot mean for the connections.

        Of sources that offer the same as before, byte for byte, by one statement for all of them.

        Raises:
            Unavailable: the registry is away; the claims are to be given back.
        """
        ended: set[UUID] = set()
        same = [
            look
            for look in looks
            if look.claim.raw_hashes == look.offered.raw_hashes
            and not look.claim.failures
            and not look.claim.is_believed
        ]
        if same:
            async with self._db.read() as session:
                ended = await registry.see_unchanged(
                    session,
                    [
                        registry.Unchanged(
                            look.claim.source_id,
                            look.claim.snapshot_id,
                            look.offered.raw_hashes,
                            look.offered.catalog_id,
                            _about(look.claim.interval),
                        )
                        for look in same
                    ],
                    slot=slot,
                )
        for look in looks:
            if look.claim.source_id not in ended:
                try:
                    await self._judge(look.claim, slot, look.offered)
                except InvalidCatalog as error:
                    await self._unreadable(look.claim, slot, error)

    async def _judge(self, claim: Claim, slot: UUID, offered: Offered) -> None:
        doubt = None if claim.is_believed else await self._doubt(claim, offered)
        if doubt is not None and not self._is_believed_by_now(claim, doubt):
            await self._distrust(claim, slot, "suspicious", doubt.code, doubt.detail, is_told=True)
            return
        snapshot_id = await snapshots.keep_offered(self._db, claim.source_id, offered)
        failpoints.at("observe.kept")
        compared = await self._comparing.compare(claim.source_id, snapshot_id)
        seen = Seen(
            "changed" if compared.drifts else "unchanged",
            _about(claim.interval if compared.is_complete else _again(claim, 1)),
            snapshot_id=snapshot_id,
            uses_belief=claim.is_believed,
        )
        recovered = None if claim.suspicious_since is None else EventType.OBSERVATION_RECOVERED
        await self._end(claim, slot, seen, recovered)

    async def _doubt(self, claim: Claim, offered: Offered) -> Doubt | None:
        """Compare which streams there are, by the names of those only that differ."""
        now = list(registry.split_hashes(offered.raw_hashes))
        async with self._db.read() as session:
            last = await registry.trusted_snapshot(session, claim)
            if last is None:
                was: dict[bytes, bytes] = {}
                before = _ids(await registry.synced_streams(session, claim.source_id))
            else:
                raws, hashes = map(registry.split_hashes, (last.raw_hashes, last.stream_hashes))
                was = dict(zip(raws, hashes, strict=True))
                left = [was[raw] for raw in was.keys() - set(now)]
                before = _ids(await registry.stream_names(session, left)) if left else set()
        fresh = {
            identify(stream, position)[0]
            for position, (raw, stream) in enumerate(zip(now, offered.streams, strict=True))
            if raw not in was
        }
        gone = before - fresh
        if now and not gone:
            return None
        async with self._db.read() as session:
            synced = _ids(await registry.synced_streams(session, claim.source_id))
        return trust.doubt(before=len(was or before), now=len(now), gone=gone, synced=synced)

    def _is_believed_by_now(self, claim: Claim, doubt: Doubt) -> bool:
        """Whether every look has found the same, and nothing else, for long enough."""
        return (
            (claim.outcome, claim.code) == ("suspicious", doubt.code)
            and claim.suspicious_for is not None
            and claim.suspicious_for >= self._suspicion_time
        )

    async def _unreadable(self, claim: Claim, slot: UUID, error: InvalidCatalog) -> None:
        told = f"What the source offers cannot be read: {error}"
        await self._distrust(claim, slot, "failed", "unreadable_catalog", told, is_told=True)

    async def _distrust(
        self, claim: Claim, slot: UUID, outcome: str, code: str, detail: str, *, is_told: bool
    ) -> None:
        """Keep what was trusted before; each reason is told to each connection, once in a row."""
        is_new = is_told and (claim.suspicious_since is None or claim.code != code)
        failures = claim.failures + 1
        log.warning("source_not_trusted", source=str(claim.source_id), code=code, looks=failures)
        seen = Seen(
            outcome,
            _about(_again(claim, failures)),
            code=code,
            detail=detail,
            failures=failures,
            snapshot_id=claim.snapshot_id,
            suspicious_since=claim.suspicious_since,
            is_newly_suspicious=is_new,
        )
        await self._end(claim, slot, seen, EventType.OBSERVATION_SUSPICIOUS if is_new else None)

    async def _end(self, claim: Claim, slot: UUID, seen: Seen, told: EventType | None) -> None:
        async with self._db.transaction() as session:
            if not await registry.end_look(session, claim, seen, slot=slot):
                log.warning("claim_lost", source=str(claim.source_id))
                return
            if told is None:
                return
            for connection_id in await registry.connections_of_source(session, claim.source_id):
                row = await registry.lock_connection(session, connection_id, even_archived=True)
                events.record(session, told, row, ref=seen.snapshot_id, code=seen.code)


def _again(claim: Claim, failures: int) -> timedelta:
    """The pause after so many looks in a row that found nothing to trust."""
    doubled: timedelta = _FIRST_PAUSE * 2 ** min(failures - 1, _MOST_DOUBLED)
    return min(doubled, claim.interval)


def _about(pause: timedelta) -> timedelta:
    """Some time close to it, so that looks spread out."""
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


def _ids(names: set[tuple[str | None, str]]) -> set[StreamId]:
    return {StreamId(namespace, name) for namespace, name in names}
