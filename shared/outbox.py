"""Transactional outbox: lifecycle events, published to the Redis stream `aam.events`.

An event row is written in the transaction that changes the state and relayed afterwards, so an
outage of Redis affects no request. Delivery is at least once, in order per connection; consumers
deduplicate by `event_id`. Events have ids, status, version and code only, no catalogs or free text.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared import failpoints
from shared.config import Settings
from shared.database import Database
from shared.errors import Unavailable, UpstreamUnknown
from shared.models import Connection, EventRow, TimelineEvent
from shared.observability import logs, metrics, tracing

log = logs.get(__name__)

STREAM = "aam.events"
KEEP = 100_000
"""The approximate length of the stream; older events are trimmed."""
_BATCH = 500
_REDIS_WITHIN_S = 3.0
_TIMEOUT_S = 5
_RELAY_LOCK = int.from_bytes(b"aamrelay", "big", signed=True)
_IS_PENDING = text("SELECT EXISTS (SELECT FROM events WHERE published_at IS NULL)")


class EventType(StrEnum):
    """The events of a connection."""

    CONNECTION_ONBOARDED = "connection.onboarded"
    CONNECTION_FAILED = "connection.failed"
    CONNECTION_ARCHIVED = "connection.archived"
    CONNECTION_IMPORTED = "connection.imported"
    CONNECTION_DRIFTED = "connection.drifted_upstream"
    """Airbyte's connection differs from the registry; `code` says how. Sent again if it changes."""
    CONNECTION_IN_STEP = "connection.in_step"
    """Airbyte's connection matches the registry again."""
    CREDENTIAL_ROTATED = "credential.rotated"
    """A changed credential was sent to its source; `ref` is the operation."""
    CREDENTIAL_CHANGED = "credential.changed"
    """The store has another credential than the source, which AAM does not send; `code` is
    `proposed` (by policy) or why the new one was refused, such as `check_failed`."""
    CREDENTIAL_REJECTED = "credential.rejected"
    """A run failed, and the source rejects the credential that it has; `code` is the known cause.
    Once until it is accepted again."""
    CREDENTIAL_EXPIRING = "credential.expiring"
    """The credential expires soon; `code` is when. Once for each expiry."""
    SYNC_TRIGGERED = "sync.triggered"
    SYNC_FINISHED = "sync.finished"
    SYNC_VOLUME_SUSPICIOUS = "sync.volume_suspicious"
    """A stream had no rows (`no_rows`) or far fewer than usual (`fewer_rows`); `ref` is the job,
    whose view lists such streams. Again for a stream only after a sync with its usual rows."""
    CATALOG_HEALING = "catalog.healing"
    CATALOG_APPLIED = "catalog.applied"
    CATALOG_REFUSED = "catalog.refused"
    CONNECTION_EDITED = "connection.edited"
    """Its settings were changed by request; `ref` is the operation."""
    CONNECTION_PAUSED = "connection.paused"
    """A repair, `ref`, paused it in Airbyte until it is decided. With the code `requested`, a
    person did, and `ref` is the operation."""
    CONNECTION_RESUMED = "connection.resumed"
    """It may sync again; `ref` and `code` as for `connection.paused`."""
    DRIFT_DETECTED = "drift.detected"
    """The source's schema changed; `ref` is the drift, `code` its severity."""
    MAPPER_LAPSED = "mapper.lapsed"
    """The source no longer offers the field of a mapper; `ref` is the drift, `code` its severity.
    The webhook message is about the repair that waits for a choice."""
    CONNECTOR_CHANGED = "connector.changed"
    """The drift that follows came with another version of the source's connector; `ref` is the
    drift, `code` both versions, such as `2.10.3 → 3.0.0`."""
    CONNECTOR_UPGRADE_DUE = "connector.upgrade_due"
    """A breaking change of the source's connector takes effect soon; `code` is its deadline. Once
    for each deadline."""
    CONNECTOR_UPGRADED = "connector.upgraded"
    """The source was upgraded to its connector's newest version; `ref` is the operation, `code`
    both versions."""
    OBSERVATION_SUSPICIOUS = "observation.suspicious"
    """A discovery failed the plausibility check; `code` says why. It triggers no repair."""
    OBSERVATION_RECOVERED = "observation.recovered"
    REPAIR_PROPOSED = "repair.proposed"
    """It waits for approval; `ref` is the repair, as in all repair events."""
    REPAIR_APPLIED = "repair.applied"
    REPAIR_REJECTED = "repair.rejected"
    REPAIR_EXPIRED = "repair.expired"
    REPAIR_SUPERSEDED = "repair.superseded"
    REPAIR_FAILED = "repair.failed"
    REPAIR_ROLLED_BACK = "repair.rolled_back"


BY_REQUEST: Final = "requested"
"""The code of a pause or its end by a person, which `setting_changes` records, too."""
ON_TIMELINE: Final = frozenset(
    {
        EventType.CONNECTION_DRIFTED,
        EventType.CONNECTION_IN_STEP,
        EventType.CONNECTION_PAUSED,
        EventType.CONNECTION_RESUMED,
        EventType.CREDENTIAL_ROTATED,
        EventType.CREDENTIAL_CHANGED,
        EventType.CREDENTIAL_REJECTED,
        EventType.CREDENTIAL_EXPIRING,
        EventType.CONNECTOR_CHANGED,
        EventType.CONNECTOR_UPGRADE_DUE,
        EventType.CONNECTOR_UPGRADED,
        EventType.OBSERVATION_SUSPICIOUS,
        EventType.OBSERVATION_RECOVERED,
        EventType.SYNC_VOLUME_SUSPICIOUS,
    }
)
"""Events that are recorded as history, too, since no other table has what they report."""
NOTIFIED: Final = frozenset(
    {
        EventType.CREDENTIAL_ROTATED,
        EventType.CREDENTIAL_CHANGED,
        EventType.CREDENTIAL_REJECTED,
        EventType.CREDENTIAL_EXPIRING,
        EventType.SYNC_VOLUME_SUSPICIOUS,
    }
)
"""Events of ON_TIMELINE that the drift_repair_agent sends to webhooks, whoever recorded them."""


def record(
    session: AsyncSession,
    event: EventType,
    connection: Connection,
    *,
    status: str | None = None,
    ref: UUID | None = None,
    code: str | None = None,
) -> None:
    """Add an event to the outbox, in the transaction that has locked and changed the connection.

    `status` is the connection's, unless the event is about a job. The sequence number is assigned
    under the row's lock, since ids alone are not in commit order. An event of ON_TIMELINE is added
    to the connection's history, too, from which webhooks are notified of those in NOTIFIED.
    """
    connection.event_seq += 1
    session.add(
        EventRow(
            connection_id=connection.id,
            seq=connection.event_seq,
            type=event,
            ref=ref,
            status=status or connection.status,
            version=connection.catalog_version,
            code=code,
        )
    )
    if event in ON_TIMELINE and code != BY_REQUEST:
        session.add(
            TimelineEvent(
                connection_id=connection.id,
                type=event,
                ref=ref,
                code=code,
                to_notify=event in NOTIFIED,
            )
        )


def open_redis(settings: Settings) -> Redis:
    """A client that connects on first use, with RESP3."""
    redis: Redis = Redis.from_url(
        str(settings.redis_url.get_secret_value()),
        protocol=3,
        decode_responses=True,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    tracing.trace_redis(redis)
    return redis


def open_reader(settings: Settings) -> Redis:
    """A client to read the stream with; not traced, since it reads all the time.

    A read is repeated once and at once, for a connection that Redis has closed meanwhile.
    """
    redis: Redis = Redis.from_url(
        str(settings.redis_url.get_secret_value()),
        protocol=3,
        decode_responses=True,
        socket_timeout=5,
        socket_connect_timeout=3,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return redis


class Relay:
    """Publishes the outbox; only one replica does so at a time."""

    def __init__(self, db: Database, redis: Redis) -> None:
        self._db = db
        self._redis = redis
        self._away = False

    async def publish(self) -> None:
        """Publish all pending events; if that fails, the next run continues."""
        try:
            while await self.publish_pending() == _BATCH:
                pass
        except (RedisError, OSError, TimeoutError, Unavailable, UpstreamUnknown) as error:
            if not self._away:
                log.warning("relay_paused", cause=type(error).__name__)
            self._away = True
            return
        if self._away:
            log.info("relay_resumed")
        self._away = False

    async def publish_pending(self) -> int:
        """Publish the oldest events of the outbox, and return how many.

        Event ids of one connection are assigned under its row's lock, so they are in the order of
        `seq`, and an event is never visible before its predecessors. A lower id of another
        connection may still appear later.

        The transaction deliberately stays open during the write to Redis: its lock excludes other
        relays, and both sides have deadlines of seconds.
        """
        async with self._db.read() as session:
            if not await session.scalar(_IS_PENDING):
                return 0
        async with self._db.transaction() as session:
            alone = await session.scalar(select(func.pg_try_advisory_xact_lock(_RELAY_LOCK)))
            if not alone:
                return 0
            rows = (
                await session.scalars(
                    select(EventRow)
                    .where(EventRow.published_at.is_(None))
                    .order_by(EventRow.id)
                    .limit(_BATCH)
                )
            ).all()
            if not rows:
                return 0
            # In a MULTI, since Redis at its memory limit may refuse one event and accept the next.
            pipeline = self._redis.pipeline(transaction=True)
            for row in rows:
                pipeline.xadd(STREAM, fields(row), maxlen=KEEP, approximate=True)
            # A partial success is sent again from its first event: consumers may see duplicates,
            # but never a gap.
            with tracing.span("relay events"):
                async with asyncio.timeout(_REDIS_WITHIN_S):
                    await pipeline.execute()
            failpoints.at("relay.added")
            await session.execute(
                update(EventRow)
                .where(EventRow.id.in_([row.id for row in rows]))
                .values(published_at=text("now()"))
                .execution_options(synchronize_session=False)
            )
        # Counted once: the transaction is committed, and no other relay ran.
        for row in rows:
            _count(row)
        return len(rows)


def _count(row: EventRow) -> None:
    """Count an event in the metrics."""
    if row.type == EventType.SYNC_FINISHED:
        metrics.SYNCS.labels(outcome=row.status).inc()
    elif row.type == EventType.DRIFT_DETECTED:
        metrics.DRIFTS.labels(severity=row.code or metrics.OTHER).inc()
    elif row.type in (EventType.CATALOG_APPLIED, EventType.CATALOG_REFUSED):
        metrics.HEALS.labels(outcome=row.type.partition(".")[2]).inc()
    elif row.type.startswith("repair."):
        metrics.REPAIRS.labels(outcome=row.type.partition(".")[2]).inc()


def fields(row: EventRow) -> dict[Any, Any]:
    """An event as stream fields: all text, empty for an absent value."""
    at: datetime = row.at.astimezone(UTC)
    return {
        "event_id": str(row.event_id),
        "seq": str(row.seq),
        "type": row.type,
        "connection_id": str(row.connection_id),
        "ref": str(row.ref or ""),
        "status": row.status,
        "version": str(row.version),
        "code": row.code or "",
        "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
