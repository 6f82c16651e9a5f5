"""Observation of one source: discover, check plausibility, store, compare, schedule the next."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from services.schema_observer import (
    claim_queries,
    comparison_queries,
    observation_queries,
    plausibility,
)
from services.schema_observer.claim_queries import Claim
from services.schema_observer.drift_detection import Comparison
from services.schema_observer.observation_queries import Seen
from services.schema_observer.plausibility import Suspicion
from shared import batches, failpoints, outbox, registry, snapshots
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.connectors import Connectors
from shared.database import Database
from shared.discoveries import FAILED_DISCOVERY, Begun, Discoveries, Postponed
from shared.domain.catalog import InvalidCatalog, StreamId, identify
from shared.domain.cooperative import Steps, run_cooperatively
from shared.errors import (
    AamError,
    ConnectorFailed,
    DiscoverFailed,
    Unavailable,
    Upstream,
    UpstreamMissing,
    UpstreamTimeout,
)
from shared.failure_causes import Cause
from shared.job_queue import Jobs
from shared.observability import logs
from shared.outbox import EventType
from shared.snapshots import DUPLICATE_STREAM, Offered

log = logs.get(__name__)

_FIRST_PAUSE: Final = timedelta(minutes=1)
"""The first pause after an untrusted observation; doubled each time, up to the interval."""
_MOST_DOUBLED: Final = 20
_LONGEST_PAUSE: Final = timedelta(hours=6)
"""Maximum pause between failing discoveries, or twice the source's interval if that is longer."""
_LONGEST_POSTPONED: Final = timedelta(hours=6)
"""An observation that a sync postpones for this long is reported as failed."""
_JITTER: Final = 0.1
_SMALL_BYTES: Final = 64 * 1024
"""A larger catalog is scanned in slices, and its discovery is recorded as ended before that."""


class Observed(msgspec.Struct, frozen=True, eq=False):
    """An observation whose discovery has ended and whose result is not judged yet."""

    claim: Claim
    offered: Offered
    pace: timedelta
    """The shortest pause that the source's daily limit allows."""
    open_discovery: UUID | None
    """Its discovery, which `record` ends; None if it has been recorded as ended."""

    @property
    def pause(self) -> timedelta:
        """Time until the next observation."""
        return max(self.claim.interval, self.pace)


class _Failed(NamedTuple):
    """How a connector failed in a discovery."""

    error: ConnectorFailed
    discovery_id: UUID

    @property
    def is_of_configuration(self) -> bool:
        """Whether the source rejected its configuration, such as the credential in it."""
        return self.error.members.get("failure_type") == "config_error"


class Observer:
    """Observes sources; the result of every observation is recorded."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, jobs: Jobs
    ) -> None:
        self._suspicion_time = settings.suspicion_time
        self._db = db
        self._discoveries = Discoveries(settings, db, airbyte)
        self._connectors = Connectors(settings, db, airbyte)
        self._comparing = Comparison(db, jobs)
        self._jobs = jobs

    async def begin(self, claims: Sequence[Claim]) -> dict[UUID, Begun]:
        """Record the discoveries of claims that will be discovered one after the other.

        Claims that need checks of their own are left out, which `discover` makes. A discovery that
        is not requested after all has to be withdrawn.

        Raises:
            Unavailable: the registry is unavailable; nothing was recorded.
        """
        scheduled = [
            claim.source_id
            for claim in claims
            if not claim.is_requested and not claim.accepts_missing
        ]
        return await self._discoveries.begin_observations(scheduled) if scheduled else {}

    async def discover(
        self, claim: Claim, slot: UUID, begun: Begun | None = None
    ) -> Observed | None:
        """Discover what a source offers now; None if it fails or is postponed, which is recorded.

        The discovery bypasses Airbyte's cache and names no connection, so that Airbyte disables
        none: see `AirbyteClient.discover_schema`. While it runs, no transaction is open. It is
        postponed if the connector renews tokens and a sync is running, or over the daily limit.
        `begun` is the discovery if `begin` has recorded it.

        Raises:
            Unavailable: the registry is unavailable; the claim must be released.
        """
        if begun is None:
            ready = await self._discoveries.begin_observation(
                claim.source_id, is_requested=claim.is_requested, beside_sync=claim.accepts_missing
            )
            if isinstance(ready, Postponed):
                await self._postpone(claim, slot, ready)
                return None
            begun = ready
        try:
            discovered = await self._discoveries.run(begun)
        except Unavailable:
            raise
        except AamError as error:
            await self._failed(claim, slot, error, begun)
            return None
        is_open = len(discovered.catalog) <= _SMALL_BYTES and not (
            begun.is_renewing or discovered.configuration_updated
        )
        if not is_open:
            await self._discoveries.end(begun, discovered, snapshot_id=None)
        try:
            offered = await snapshots.offered(discovered)
        except InvalidCatalog as error:
            if is_open:
                await self._discoveries.end(begun, discovered, snapshot_id=None)
            await self._unreadable(claim, slot, error)
            return None
        return Observed(claim, offered, begun.pace, begun.id if is_open else None)

    async def _postpone(self, claim: Claim, slot: UUID, why: Postponed) -> None:
        """Postpone the observation; report it, once, where a sync has delayed it for hours."""
        log.info("observation_postponed", source=str(claim.source_id), code=why.code)
        is_long = claim.postponed_for is not None and claim.postponed_for >= _LONGEST_POSTPONED
        if is_long and why.code not in (
            *("discovery_quota", "credential_rejected"),
            claim.code,
        ):
            await self._record_untrusted(
                claim, slot, "failed", why.code, why.detail, is_reported=True, is_postponed=True
            )
            return
        async with self._db.transaction() as session:
            await claim_queries.postpone_source(
                session, claim.source_id, _with_jitter(why.pause), slot=slot
            )

    async def _failed(self, claim: Claim, slot: UUID, error: AamError, begun: Begun) -> None:
        # An unavailable Airbyte says nothing about the source, and costs it nothing.
        is_reported = isinstance(error, DiscoverFailed | UpstreamMissing)
        may_have_run = isinstance(error, Upstream) and error.has_run
        has_run = is_reported or may_have_run or isinstance(error, UpstreamTimeout)
        await self._record_untrusted(
            claim,
            slot,
            "failed",
            error.code,
            error.detail,
            is_reported=is_reported,
            is_costly=has_run,
            failed=_Failed(error, begun.id) if isinstance(error, ConnectorFailed) else None,
        )

    async def record(self, observations: Sequence[Observed], slot: UUID) -> None:
        """Record the results of one slot's discoveries, and compare the connections.

        One statement ends the discoveries, and another records all sources that are unchanged,
        byte for byte. If judging a discovery fails because of a bug, its source stays claimed
        until the lease ends.

        Raises:
            Unavailable: the registry is unavailable; the remaining claims must be released.
        """
        ended: set[UUID] = set()
        same = [
            observed
            for observed in observations
            if observed.claim.raw_hashes == observed.offered.raw_hashes
            and not observed.claim.failures
            and not observed.claim.accepts_missing
        ]
        async with self._db.read() as session:
            if succeeded := open_discoveries(observations):
                await registry.end_discoveries(session, succeeded)
            if same:
                ended = await observation_queries.record_unchanged(
                    session,
                    [
                        observation_queries.Unchanged(
                            observed.claim.source_id,
                            observed.claim.snapshot_id,
                            observed.offered.raw_hashes,
                            observed.offered.catalog_id,
                            _with_jitter(observed.pause),
                        )
                        for observed in same
                    ],
                    slot=slot,
                )
        outcomes = await batches.each(
            [observed for observed in observations if observed.claim.source_id not in ended],
            lambda observed: self._judge_or_report(observed, slot),
            log_event="discovery_not_recorded",
            fields=lambda observed: {"source": str(observed.claim.source_id)},
        )
        batches.raise_if_unavailable(outcomes)

    async def _judge_or_report(self, observed: Observed, slot: UUID) -> None:
        try:
            await self._judge(observed, slot)
        except InvalidCatalog as error:
            await self._unreadable(observed.claim, slot, error)

    async def _judge(self, observed: Observed, slot: UUID) -> None:
        claim, offered = observed.claim, observed.offered
        await snapshots.expect_distinct(offered)
        suspicion = None if claim.accepts_missing else await self._check_plausible(claim, offered)
        if suspicion is not None and not self._has_persisted(claim, suspicion):
            await self._record_untrusted(
                claim, slot, "suspicious", suspicion.code, suspicion.detail, is_reported=True
            )
            return
        snapshot_id = await snapshots.store_offered(
            self._db, claim.source_id, offered, read_connector=self._connectors.try_read
        )
        failpoints.at("observe.stored")
        compared = await self._comparing.compare(claim.source_id, snapshot_id)
        seen = Seen(
            "changed" if compared.drifts else "unchanged",
            _with_jitter(observed.pause if compared.is_complete else _retry_pause(claim, 1)),
            snapshot_id=snapshot_id,
            uses_acceptance=claim.accepts_missing,
        )
        recovered = None if claim.suspicious_since is None else EventType.OBSERVATION_RECOVERED
        await self._end(claim, slot, seen, recovered)

    async def _check_plausible(self, claim: Claim, offered: Offered) -> Suspicion | None:
        """Check plausibility: compare the sets of streams, then the fields of those that differ."""
        now = list(registry.split_hashes(offered.raw_hashes))
        async with self._db.read() as session:
            last = await observation_queries.trusted_snapshot(session, claim)
            if last is None:
                was: dict[bytes, bytes] = {}
                left: list[bytes] = []
                before = _ids(await comparison_queries.synced_streams(session, claim.source_id))
            else:
                raws, hashes = map(registry.split_hashes, (last.raw_hashes, last.stream_hashes))
                was = dict(zip(raws, hashes, strict=True))
                left = [was[raw] for raw in was.keys() - set(now)]
                before = (
                    _ids(await comparison_queries.stream_names(session, left)) if left else set()
                )
        fresh = {
            identify(stream, position)[0]: stream
            for position, (raw, stream) in enumerate(zip(now, offered.streams, strict=True))
            if raw not in was
        }
        gone = before - fresh.keys()
        if now and not before:
            return None
        async with self._db.read() as session:
            synced = _ids(await comparison_queries.synced_streams(session, claim.source_id))
        suspicion = None
        if gone or not now:
            suspicion = plausibility.check_streams(
                before=len(was or before), now=len(now), gone=gone, synced=synced
            )
        differing = {one: fresh[one] for one in (before & synced) - gone}
        if suspicion is not None or not differing:
            return suspicion
        had = await self._streams_before(claim.source_id, left, differing, is_first=last is None)
        return await run_cooperatively(_compare_fields(had, differing, is_first=last is None))

    async def _streams_before(
        self,
        source_id: UUID,
        hashes: Sequence[bytes],
        streams: Collection[StreamId],
        *,
        is_first: bool,
    ) -> list[bytes]:
        """These streams in the snapshot with these hashes, or in the catalogs if `is_first`."""
        names = {stream.name for stream in streams}
        async with self._db.read() as session:
            if not is_first:
                rows = await comparison_queries.stream_schemas(session, hashes, names=names)
                return [row.body.encode() for row in rows]
            found: list[bytes] = []
            for connection_id in await comparison_queries.connections_of_source(session, source_id):
                version = (await registry.find_connection(session, connection_id)).catalog_version
                found += await comparison_queries.configured_streams(
                    session, connection_id, version, names=names
                )
        return found

    def _has_persisted(self, claim: Claim, suspicion: Suspicion) -> bool:
        """Whether every observation has had the same result for long enough."""
        return (
            (claim.outcome, claim.code, claim.detail)
            == ("suspicious", suspicion.code, suspicion.detail)
            and claim.suspicious_for is not None
            and claim.suspicious_for >= self._suspicion_time
        )

    async def _unreadable(self, claim: Claim, slot: UUID, error: InvalidCatalog) -> None:
        detail = f"The discovered catalog is invalid: {error}"
        code = error.code if error.code == DUPLICATE_STREAM else "unreadable_catalog"
        await self._record_untrusted(
            claim, slot, "failed", code, detail, is_reported=True, is_costly=True
        )

    async def _record_untrusted(
        self,
        claim: Claim,
        slot: UUID,
        outcome: str,
        code: str,
        detail: str,
        *,
        is_reported: bool,
        is_costly: bool = False,
        is_postponed: bool = False,
        failed: _Failed | None = None,
    ) -> None:
        """Keep the last trusted snapshot; notify each connection once per new reason.

        `is_costly` means that the source was called: the pause then grows beyond the interval.
        """
        # What is missing differs, although the code is the same: more may have gone.
        is_other = outcome == "suspicious" and claim.detail != detail
        is_new = is_reported and (claim.suspicious_since is None or claim.code != code or is_other)
        failures = claim.failures + 1
        log.warning(
            "observation_not_trusted", source=str(claim.source_id), code=code, failures=failures
        )
        seen = Seen(
            outcome,
            _with_jitter(
                _growing_pause(claim, failures, failed)
                if is_costly
                else _retry_pause(claim, failures)
            ),
            code=code,
            detail=detail,
            failures=failures,
            snapshot_id=claim.snapshot_id,
            suspicious_since=claim.suspicious_since,
            is_newly_suspicious=is_new,
            is_postponed=is_postponed,
            cause=None if failed is None else failed.error.cause,
            explanation=None if failed is None else failed.error.explanation,
            log_reference=None if failed is None else failed.error.log,
        )
        event = EventType.OBSERVATION_SUSPICIOUS if is_new else None
        await self._end(claim, slot, seen, event, failed)

    async def _end(
        self,
        claim: Claim,
        slot: UUID,
        seen: Seen,
        event: EventType | None,
        failed: _Failed | None = None,
    ) -> None:
        async with self._db.transaction() as session:
            if not await observation_queries.end_observation(session, claim, seen, slot=slot):
                log.warning("claim_lost", source=str(claim.source_id))
                return
            if failed is not None and failed.is_of_configuration:
                payload = str(failed.discovery_id)
                await self._jobs.enqueue(session, FAILED_DISCOVERY, payload, after=timedelta(0))
            if event is None:
                return
            for connection_id in await comparison_queries.connections_of_source(
                session, claim.source_id
            ):
                row = await registry.lock_connection(session, connection_id, even_archived=True)
                outbox.record(session, event, row, ref=seen.snapshot_id, code=seen.code)


def open_discoveries(observations: Sequence[Observed]) -> list[UUID]:
    """The discoveries that have succeeded and are not recorded as ended yet."""
    return [one.open_discovery for one in observations if one.open_discovery is not None]


def _retry_pause(claim: Claim, failures: int) -> timedelta:
    """The pause after so many consecutive untrusted observations."""
    doubled: timedelta = _FIRST_PAUSE * 2 ** min(failures - 1, _MOST_DOUBLED)
    return min(doubled, claim.interval)


def _growing_pause(claim: Claim, failures: int, failed: _Failed | None) -> timedelta:
    """The pause after so many consecutive failed discoveries, which may exceed the interval.

    After an exhausted API quota, the first pause is a whole interval.
    """
    is_used_up = failed is not None and failed.error.cause == Cause.QUOTA_EXCEEDED
    first = claim.interval if is_used_up else _FIRST_PAUSE
    doubled: timedelta = first * 2 ** min(failures - 1, _MOST_DOUBLED)
    return min(doubled, max(_LONGEST_PAUSE, 2 * claim.interval))


def _with_jitter(pause: timedelta) -> timedelta:
    """The pause with random jitter, so that observations spread out."""
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret


def _compare_fields(
    before: Sequence[bytes], now: Mapping[StreamId, memoryview], *, is_first: bool
) -> Steps[Suspicion | None]:
    """Compare the streams' fields; a catalog has only selected ones, so no others can be lost."""
    had, has = dict[StreamId, set[plausibility.Field]](), dict[StreamId, set[plausibility.Field]]()
    for position, slice_ in enumerate(before):
        stream, _ = identify(slice_, position)
        if stream in now:
            had.setdefault(stream, set()).update(_fields_of(slice_))
        yield
    for stream in had:
        has[stream] = _fields_of(now[stream])
        if is_first:
            has[stream] &= had[stream]
        yield
    return plausibility.check_fields(had, has)


def _fields_of(slice_: bytes | memoryview) -> set[plausibility.Field]:
    """The fields of a discovered stream; empty where its jsonSchema is malformed."""
    try:
        stream = msgspec.json.decode(slice_, type=_Slice).stream
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return set()
    return plausibility.fields_of(stream.get("jsonSchema"))


class _Slice(msgspec.Struct, frozen=True):
    stream: dict[str, Any]


def _ids(names: set[tuple[str | None, str]]) -> set[StreamId]:
    return {StreamId(namespace, name) for namespace, name in names}
