"""Schema discoveries and their limits: each costs API calls, and may renew a token.

Every discovery of a source is started here, and its outcome recorded here.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry, source_types
from shared.airbyte_client import AirbyteClient, Discovered
from shared.config import Settings
from shared.database import Database
from shared.errors import AamError, SyncRunning, TooManyRequests, Upstream, UpstreamTimeout
from shared.observability import logs
from shared.registry import SourceLoad

log = logs.get(__name__)

Purpose = Literal["onboard", "discover", "observe"]

RECENT: Final = timedelta(minutes=1)
"""The result of a requested discovery is reused within this time."""
ON_REQUEST: Final = 50
"""The default daily limit is what the observation interval needs, plus this number."""
_RESERVED_SHARE: Final = 4
_DAY_S: Final = 86_400
OBSERVE_SOURCE: Final = "observe.source"
"""The job that observes a source soon; its payload is the source's id."""
FAILED_DISCOVERY: Final = "failed_discovery"
"""The job that follows up a discovery whose source rejected its configuration; by its id."""
_MARGIN: Final = timedelta(minutes=1)
"""Time to process a discovery after Airbyte's response."""
_FIRST_POLL_S: Final = 0.05
_SLOWEST_POLL_S: Final = 0.5


class Begun(msgspec.Struct, frozen=True):
    """A recorded discovery that is to be requested from Airbyte now."""

    id: UUID
    source_id: UUID
    is_renewing: bool
    """Whether the connector renews its own tokens."""
    pace: timedelta
    """The shortest interval at which scheduled observation stays within an explicit daily limit."""


class Recent(msgspec.Struct, frozen=True):
    """A discovery from the last minute, whose result is reused."""

    snapshot_id: UUID


class UnderWay(msgspec.Struct, frozen=True):
    """Another discovery of the source is running."""

    id: UUID
    purpose: str


class Postponed(msgspec.Struct, frozen=True):
    """Why an observation cannot discover now, and when to retry."""

    code: Literal["sync_running", "discovery_quota", "discovery_running", "credential_rejected"]
    detail: str
    pause: timedelta


class Discoveries:
    """Starts discoveries within the limits of their source, and records how they ended."""

    def __init__(self, settings: Settings, db: Database, airbyte: AirbyteClient) -> None:
        self._every = settings.observe_interval
        self._limit = settings.discoveries_per_day
        self._within = settings.discover_timeout
        self._db = db
        self._airbyte = airbyte

    async def record_renewal(self, source_id: UUID) -> None:
        """Record that a connector renewed its source's token in the first discovery.

        The discovery of an onboarding has no limits, and is recorded by its operation.
        """
        async with self._db.transaction() as session:
            registry.record_discovery(session, source_id, "onboard", is_renewed=True)
        log.info("configuration_renewed", source=str(source_id))

    async def begin(self, source_id: UUID, *, is_fresh: bool) -> Begun | Recent | UnderWay:
        """Record a requested discovery, unless another one is running or recent.

        With `is_fresh`, a recent one is not reused.

        Raises:
            SyncRunning: a sync of the source is running, and its connector renews tokens.
            TooManyRequests: `discovery_quota`, the daily limit is reached.
        """
        async with self._db.transaction() as session:
            await registry.lock_discoveries(session, [source_id])
            load = await self._load(session, source_id)
            if load.running_id is not None:
                return UnderWay(load.running_id, load.running_purpose or "observe")
            if load.recent_snapshot_id is not None and not is_fresh:
                return Recent(load.recent_snapshot_id)
            _expect_no_sync(source_id, load)
            await self._expect_below_limit(session, source_id, load)
            return (await self._begin(session, "discover", {source_id: load}))[source_id]

    async def begin_observation(
        self, source_id: UUID, *, is_requested: bool, beside_sync: bool
    ) -> Begun | Postponed:
        """Record an observation's discovery, or return why it has to wait.

        Scheduled observations leave a part of the daily limit to requests, and discover a source
        that rejects its credential once an hour. With `beside_sync`, the
        requester accepts the risk that it invalidates the token of a running sync.
        """
        async with self._db.transaction() as session:
            await registry.lock_discoveries(session, [source_id])
            load = await self._load(session, source_id)
            if load.running_id is not None and load.is_renewing:
                detail = f"Another discovery of source {source_id} is running."
                return Postponed("discovery_running", detail, timedelta(seconds=15))
            if load.sync_since is not None and load.is_renewing and not beside_sync:
                return Postponed(
                    "sync_running", _sync_detail(source_id, load), timedelta(minutes=1)
                )
            if load.rejected_for is not None and not is_requested:
                detail = f"Source {source_id} rejects its credential."
                return Postponed("credential_rejected", detail, load.rejected_for)
            allowed = self._limit_of(load) if is_requested else self._scheduled_limit_of(load)
            if load.used >= allowed:
                frees_at = await registry.limit_frees_at(session, source_id, allowed=allowed)
                pause = max(frees_at - datetime.now(UTC), timedelta(seconds=1))
                detail = _limit_detail(source_id, self._limit_of(load))
                return Postponed("discovery_quota", detail, pause)
            return (await self._begin(session, "observe", {source_id: load}))[source_id]

    async def begin_observations(self, source_ids: Collection[UUID]) -> dict[UUID, Begun]:
        """Record the discoveries of scheduled observations that will follow one another at once.

        Sources that are at a limit or whose connectors renew tokens are left out: call
        `begin_observation` for each, just before its discovery. Those that are not requested after
        all have to be withdrawn.
        """
        async with self._db.transaction() as session:
            await registry.lock_discoveries(session, source_ids)
            loads = await self._loads(session, source_ids)
            ready = {
                source_id: load
                for source_id, load in loads.items()
                if not load.is_renewing
                and load.rejected_for is None
                and load.used < self._scheduled_limit_of(load)
            }
            return await self._begin(session, "observe", ready)

    async def expect_observable(self, source_id: UUID, *, beside_sync: bool) -> None:
        """Check that a requested observation could discover now.

        Raises:
            SyncRunning, TooManyRequests: as in `begin`.
        """
        async with self._db.read() as session:
            load = await self._load(session, source_id)
            if not beside_sync:
                _expect_no_sync(source_id, load)
            await self._expect_below_limit(session, source_id, load)

    async def run(self, begun: Begun) -> Discovered:
        """Request the discovery from Airbyte; a failure is recorded before it is raised.

        Raises:
            AamError: as in `AirbyteClient.discover_schema`.
        """
        try:
            return await self._airbyte.discover_schema(begun.source_id)
        except AamError as error:
            await self.fail(begun, error.code)
            raise
        except asyncio.CancelledError:
            await self.fail(begun, "cancelled")
            raise

    async def fail(self, begun: Begun, code: str) -> None:
        """Record that a discovery failed."""
        async with self._db.transaction() as session:
            await registry.end_discovery(session, begun.id, code=code)

    async def end(self, begun: Begun, discovered: Discovered, *, snapshot_id: UUID | None) -> None:
        """Record a successful discovery, and whether it renewed a token.

        Some versions of Airbyte report a renewal. Otherwise the source's configuration is compared
        with the previous one: Airbyte masks secrets, but shows a token's expiry date.
        """
        digest = None
        if begun.is_renewing and not discovered.configuration_updated:
            digest = await self._configuration_digest(begun.source_id)
        async with self._db.transaction() as session:
            is_renewed = await registry.end_discovery(
                session,
                begun.id,
                snapshot_id=snapshot_id,
                is_renewed=discovered.configuration_updated,
                configuration_digest=digest,
            )
        if is_renewed:
            log.info("configuration_renewed", source=str(begun.source_id))

    async def wait_for(self, under_way: UnderWay) -> None:
        """Wait until another process's discovery has ended.

        Raises:
            UpstreamTimeout: it takes longer than a discovery may.
        """
        clock = asyncio.get_running_loop().time
        until, pause = clock() + (self._within + _MARGIN).total_seconds(), _FIRST_POLL_S
        while True:
            async with self._db.read() as session:
                if await registry.is_discovery_over(session, under_way.id):
                    return
            if clock() > until:
                raise UpstreamTimeout("Another discovery of the source has not ended in time.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _SLOWEST_POLL_S)

    async def _load(self, session: AsyncSession, source_id: UUID) -> SourceLoad:
        return (await self._loads(session, [source_id]))[source_id]

    async def _loads(
        self, session: AsyncSession, source_ids: Collection[UUID]
    ) -> dict[UUID, SourceLoad]:
        return await registry.source_loads(
            session,
            source_ids,
            every=self._every,
            recent=RECENT,
            renewing_types=source_types.RENEWING,
        )

    def _limit_of(self, load: SourceLoad) -> int:
        if load.policy_limit is not None:
            return load.policy_limit
        if self._limit is not None:
            return self._limit
        interval_s = load.interval_seconds or self._every.total_seconds()
        return math.ceil(_DAY_S / interval_s) + ON_REQUEST

    def _scheduled_limit_of(self, load: SourceLoad) -> int:
        limit = self._limit_of(load)
        return limit - _reserved(limit)

    async def _expect_below_limit(
        self, session: AsyncSession, source_id: UUID, load: SourceLoad
    ) -> None:
        limit = self._limit_of(load)
        if load.used < limit:
            return
        frees_at = await registry.limit_frees_at(session, source_id, allowed=limit)
        wait_s = max((frees_at - datetime.now(UTC)).total_seconds(), 1)
        raise TooManyRequests(
            _limit_detail(source_id, limit),
            code="discovery_quota",
            limit=limit,
            wait_s=math.ceil(wait_s),
        )

    async def _begin(
        self, session: AsyncSession, purpose: Purpose, loads: Mapping[UUID, SourceLoad]
    ) -> dict[UUID, Begun]:
        begun = {
            source_id: Begun(uuid4(), source_id, load.is_renewing, self._pace(load))
            for source_id, load in loads.items()
        }
        if begun:
            await registry.begin_discoveries(
                session,
                {one.id: source_id for source_id, one in begun.items()},
                purpose,
                datetime.now(UTC) + self._within + _MARGIN,
            )
        return begun

    def _pace(self, load: SourceLoad) -> timedelta:
        if load.policy_limit is None and self._limit is None:
            return timedelta(0)
        return timedelta(seconds=_DAY_S / max(self._scheduled_limit_of(load), 1))

    async def _configuration_digest(self, source_id: UUID) -> str | None:
        try:
            source = await self._airbyte.get_configured_source(source_id)
        except Upstream as error:
            log.warning("configuration_unreadable", source=str(source_id), code=error.code)
            return None
        shown = msgspec.json.encode(source.connection_configuration, order="deterministic")
        return hashlib.sha256(shown).hexdigest()


def _reserved(limit: int) -> int:
    """The part of the daily limit that scheduled observation leaves to requests."""
    return min(limit // _RESERVED_SHARE, ON_REQUEST)


def _expect_no_sync(source_id: UUID, load: SourceLoad) -> None:
    if load.sync_since is not None and load.is_renewing:
        raise SyncRunning(f"{_sync_detail(source_id, load)} Try again when it has ended.")


def _sync_detail(source_id: UUID, load: SourceLoad) -> str:
    since = "" if load.sync_since is None else f" since {load.sync_since:%Y-%m-%d %H:%M} UTC"
    return (
        f"A sync of source {source_id} has run{since}, and its connector renews tokens: a "
        "discovery at the same time could invalidate the sync's token."
    )


def _limit_detail(source_id: UUID, limit: int) -> str:
    return f"Source {source_id} has reached the limit of discoveries in 24 hours, {limit}."
