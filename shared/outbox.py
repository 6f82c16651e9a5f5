"""Lifecycle events: facts already true in the registry, told on the Redis stream `aam.events`.

An event row is written in the transaction that changes the state and relayed afterwards, so Redis
being away changes no answer. Delivery is at least once, in order per connection; consumers tell
doubles by `event_id`. Ids, status, version and code only: no catalog, no text of anybody's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared import failpoints
from shared.config import Settings
from shared.database import Database
from shared.errors import Unavailable, UpstreamUnknown
from shared.models import Connection, EventRow
from shared.observability import logs, metrics, tracing

log = logs.get(__name__)

STREAM = "aam.events"
KEEP = 100_000
"""About how many events the stream keeps; older ones are trimmed."""
_BATCH = 500
_REDIS_WITHIN_S = 3.0
_RELAY_LOCK = int.from_bytes(b"aamrelay", "big", signed=True)


class EventType(StrEnum):
    """What can have happened to a connection."""

    CONNECTION_ONBOARDED = "connection.onboarded"
    CONNECTION_FAILED = "connection.failed"
    CONNECTION_ARCHIVED = "connection.archived"
    CONNECTION_IMPORTED = "connection.imported"
    CONNECTION_DRIFTED = "connection.drifted_upstream"
    """Airbyte holds it otherwise than the registry; `code` says how; another code is told, too."""
    CONNECTION_IN_STEP = "connection.in_step"
    """Airbyte holds it as the registry says again."""
    CREDENTIAL_ROTATED = "credential.rotated"
    """Its source was given what changed in the store; `ref` is the operation."""
    SYNC_TRIGGERED = "sync.triggered"
    SYNC_FINISHED = "sync.finished"
    CATALOG_HEALING = "catalog.healing"
    CATALOG_APPLIED = "catalog.applied"
    CATALOG_REFUSED = "catalog.refused"
    CONNECTION_PAUSED = "connection.paused"
    """A repair paused it in Airbyte until somebody decides."""
    CONNECTION_RESUMED = "connection.resumed"
    DRIFT_DETECTED = "drift.detected"
    """The source offers something else; `ref` is the drift, `code` its severity."""
    OBSERVATION_SUSPICIOUS = "observation.suspicious"
    """What was discovered is not believed; `code` says why. Nothing is repaired by it."""
    OBSERVATION_RECOVERED = "observation.recovered"
    REPAIR_PROPOSED = "repair.proposed"
    """It waits for a person; `ref` is the repair, as in all that follow."""
    REPAIR_APPLIED = "repair.applied"
    REPAIR_REJECTED = "repair.rejected"
    REPAIR_EXPIRED = "repair.expired"
    REPAIR_SUPERSEDED = "repair.superseded"
    REPAIR_FAILED = "repair.failed"
    REPAIR_ROLLED_BACK = "repair.rolled_back"


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

    `status` is the connection's, unless the event is about a job. The sequence number is drawn
    under the row's lock: ids alone are not in commit order.
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


def open_redis(settings: Settings) -> Redis:
    """A client that connects when it is first used. Its answers follow RESP3."""
    redis: Redis = Redis.from_url(
        str(settings.redis_url.get_secret_value()),
        protocol=3,
        decode_responses=True,
        socket_timeout=5,
        socket_connect_timeout=5,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    tracing.trace_redis(redis)
    return redis


class Relay:
    """Publishes the outbox, one relay at a time however many replicas run."""

    def __init__(self, db: Database, redis: Redis) -> None:
        self._db = db
        self._redis = redis
        self._away = False

    async def look(self) -> None:
        """Publish what waits; what cannot be published now is published at a later look."""
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

        Ids of one connection are drawn under its row's lock, so they are in the order of `seq`, and
        who sees one sees those before it. A lower id of another connection may still come later.

        The transaction stays open while Redis is written, on purpose: its lock is what makes this
        relay the only one, and both sides of it have deadlines of seconds.
        """
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
            # In a MULTI: at the limit of its memory Redis may refuse one event and take the next.
            pipeline = self._redis.pipeline(transaction=True)
            for row in rows:
                pipeline.xadd(STREAM, fields(row), maxlen=KEEP, approximate=True)
            # A partial success is sent again from its first event on: consumers see an order with
            # doubles in it, never one with a gap.
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
        # Each is counted here, once: it is committed, and this relay was the only one.
        for row in rows:
            _count(row)
        return len(rows)


def _count(row: EventRow) -> None:
    """Have the metrics know what has happened."""
    if row.type == EventType.SYNC_FINISHED:
        metrics.SYNCS.add(outcome=row.status)
    elif row.type == EventType.DRIFT_DETECTED:
        metrics.DRIFTS.add(severity=row.code or metrics.OTHER)
    elif row.type in (EventType.CATALOG_APPLIED, EventType.CATALOG_REFUSED):
        metrics.HEALS.add(outcome=row.type.partition(".")[2])
    elif row.type.startswith("repair."):
        metrics.REPAIRS.add(outcome=row.type.partition(".")[2])


def fields(row: EventRow) -> dict[Any, Any]:
    """An event as the stream holds it: all text, an absent value as an empty one."""
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
