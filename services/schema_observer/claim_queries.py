"""Queries on the schedule: which sources are due, and which replica observes them now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared import registry
from shared.models import Connection, Watch
from shared.registry.connections import LIVE

INTERVAL = f"""
    (SELECT min(coalesce(w.interval_seconds, CAST(:every AS float8)))
     FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
     WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE})
"""  # noqa: S608 - no input


OVERDUE_AT = "(now() + 2 * {} + interval '10 minutes')"
"""SQL for when an observation is overdue; the placeholder is the time until the next one."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A source leased for observation, with the results of its earlier observations."""

    source_id: UUID
    interval: timedelta
    """How often it is observed."""
    outcome: str | None
    code: str | None
    detail: str | None
    failures: int
    snapshot_id: UUID | None
    """The snapshot that was last trusted."""
    raw_hashes: bytes | None
    """The raw hashes of that snapshot."""
    suspicious_since: datetime | None
    suspicious_for: timedelta | None
    accepts_missing: bool
    is_requested: bool
    """Whether a caller requested it, so that it may use the whole daily limit."""
    postponed_for: timedelta | None
    """How long it has been due while waiting for a sync of the source."""


async def enrol_sources(session: AsyncSession, *, every: timedelta) -> None:
    """Schedule every source of a live connection, the first time within its interval.

    A source without any connection is deleted.
    """
    enrolled = await session.scalars(_ENROL, {"every": every.total_seconds()})
    registry.mark_changed(session, enrolled)
    await session.execute(_FORGET)  # of archived connections, whose health it does not change


_ENROL = text(f"""
    WITH enrolled AS (
        INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at, overdue_at)
        SELECT o.airbyte_source_id, o.airbyte_workspace_id,
            now() + make_interval(secs => random() * {INTERVAL}),
            {OVERDUE_AT.format(f"make_interval(secs => {INTERVAL})")}
        FROM (
            SELECT DISTINCT ON (c.airbyte_source_id) c.airbyte_source_id, c.airbyte_workspace_id
            FROM connections c
            WHERE c.airbyte_source_id IS NOT NULL AND {LIVE} AND NOT EXISTS (
                SELECT FROM observations known WHERE known.airbyte_source_id = c.airbyte_source_id
            )
            ORDER BY c.airbyte_source_id, c.airbyte_workspace_id
        ) o
        ON CONFLICT (airbyte_source_id) DO NOTHING
        RETURNING airbyte_source_id
    )
    SELECT c.id FROM enrolled JOIN connections c USING (airbyte_source_id)
    WHERE c.archived_at IS NULL
""")  # noqa: S608 - no input
_FORGET = text("""
    DELETE FROM observations o WHERE NOT EXISTS (
        SELECT FROM connections c
        WHERE c.airbyte_source_id = o.airbyte_source_id AND c.archived_at IS NULL
    )
""")


# Until the transaction ends, rows are read in the order of an index. The planner would rather read
# all rows that are due and sort them, for each claim, since it knows neither how many are due nor
# how many are claimed: statistics are never as fresh as `next_at`.
_ORDERED = """
    set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('enable_sort', 'off', true)
"""
_IN_INDEX_ORDER = text(f"SELECT {_ORDERED}")


async def due_workspaces(
    session: AsyncSession, *, entrypoint: str, at_once: int
) -> list[tuple[UUID | None, int]]:
    """The workspaces with sources that are due, and how many more jobs to enqueue for each.

    A job occupies a slot while it is in the queue, whether it is running or not. Needs a
    transaction.
    """
    await session.execute(_IN_INDEX_ORDER)
    rows = await session.execute(_DUE, {"entrypoint": entrypoint, "at_once": at_once})
    return [(workspace, jobs) for workspace, jobs in rows if jobs > 0]


# Sources beyond `at_once` per workspace need not be counted, so the check for a live connection
# runs only until that many are found.
_DUE = text(f"""
    WITH waiting AS (
        SELECT DISTINCT airbyte_workspace_id AS workspace FROM observations
        WHERE next_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
    ), due AS (
        SELECT w.workspace, count(*) AS sources FROM waiting w CROSS JOIN LATERAL (
            SELECT FROM observations o
            WHERE o.next_at <= now() AND (o.claimed_until IS NULL OR o.claimed_until <= now())
                AND o.airbyte_workspace_id IS NOT DISTINCT FROM w.workspace
                AND (
                    SELECT true FROM connections c
                    WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE} LIMIT 1
                )
            ORDER BY o.next_at LIMIT CAST(:at_once AS bigint)
        ) first GROUP BY w.workspace
    ), jobs AS (
        SELECT convert_from(payload, 'UTF8') AS workspace, count(*) AS slots FROM pgqueuer
        WHERE entrypoint = :entrypoint AND status IN ('queued', 'picked') GROUP BY payload
    )
    SELECT due.workspace, least(due.sources, CAST(:at_once AS bigint) - coalesce(jobs.slots, 0))
    FROM due LEFT JOIN jobs ON jobs.workspace = coalesce(CAST(due.workspace AS text), '')
""")  # noqa: S608 - no input


async def claim_sources(
    session: AsyncSession,
    workspace: UUID | None,
    *,
    slot: UUID,
    at_once: int,
    lease: timedelta,
    every: timedelta,
    limit: int,
    source_id: UUID | None = None,
    unanswered_since: datetime | None = None,
) -> list[Claim]:
    """Claim due sources of a workspace, or the one source `source_id`, for one slot.

    The one source is claimed unless an observation that began at `unanswered_since` or later has
    ended: a caller that waits for that observation may request a claim just after its end.

    Empty where none is due, or `at_once` other slots are in use. Needs a transaction: claims of one
    workspace are serialized, so that no two take the same last slot.
    """
    await session.execute(_ALONE, {"workspace": str(workspace or "")})
    parameters = {
        "workspace": workspace,
        "slot": slot,
        "at_once": at_once,
        "lease": lease,
        "every": every.total_seconds(),
        "limit": limit,
    }
    if source_id is None:
        rows = await session.execute(_CLAIM_DUE, parameters)
    else:
        named = {"source": source_id, "since": unanswered_since}
        rows = await session.execute(_CLAIM_ONE, parameters | named)
    return [Claim(row[0], timedelta(seconds=row[1]), *row[2:]) for row in rows]


_ALONE = text(f"""
    SELECT pg_advisory_xact_lock(hashtextextended('aam.observe ' || :workspace, 0)), {_ORDERED}
""")
# Takes the first rows and then checks whether they are due, so that few rows are read.
_CLAIM = """
    WITH used AS (
        SELECT count(DISTINCT claimed_by) AS slots FROM observations
        WHERE claimed_until > now() AND claimed_by <> CAST(:slot AS uuid)
            AND airbyte_workspace_id IS NOT DISTINCT FROM CAST(:workspace AS uuid)
    ), first AS (
        SELECT o.airbyte_source_id, o.next_at FROM observations o
        WHERE (SELECT slots FROM used) < CAST(:at_once AS bigint) AND {which}
            AND o.airbyte_workspace_id IS NOT DISTINCT FROM CAST(:workspace AS uuid)
            AND (o.claimed_until IS NULL OR o.claimed_until <= now())
            AND (
                SELECT true FROM connections c
                WHERE c.airbyte_source_id = o.airbyte_source_id AND {live} LIMIT 1
            )
        ORDER BY o.next_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE observations o
    SET claimed_by = CAST(:slot AS uuid), claimed_until = now() + CAST(:lease AS interval),
        started_at = clock_timestamp(), next_at = greatest(o.next_at, to_timestamp(1))
    FROM first WHERE first.airbyte_source_id = o.airbyte_source_id AND {due}
    RETURNING o.airbyte_source_id, {interval}, o.outcome, o.code, o.detail, o.failures,
        o.snapshot_id,
        (SELECT s.raw_hashes FROM snapshots s WHERE s.id = o.snapshot_id), o.suspicious_since,
        now() - o.suspicious_since, o.accepts_missing, o.next_at = to_timestamp(1),
        now() - o.postponed_since
"""
_CLAIM_DUE = text(
    _CLAIM.format(which="true", due="first.next_at <= now()", live=LIVE, interval=INTERVAL)
)
_CLAIM_ONE = text(
    _CLAIM.format(
        which="o.airbyte_source_id = :source",
        due="(o.started_at >= CAST(:since AS timestamptz) AND o.observed_at >= o.started_at)"
        " IS NOT TRUE",
        live=LIVE,
        interval=INTERVAL,
    )
)


async def release_sources(session: AsyncSession, slot: UUID, source_ids: Collection[UUID]) -> None:
    """Release those claims of a slot that were not ended; their sources are as due as before."""
    await session.execute(_GIVE_BACK, {"slot": slot, "sources": list(source_ids)})


_GIVE_BACK = text("""
    UPDATE observations SET claimed_by = NULL, claimed_until = NULL
    WHERE airbyte_source_id = ANY(CAST(:sources AS uuid[])) AND claimed_by = :slot
""")


@dataclass(frozen=True, slots=True)
class Asked:
    """A source whose observation was requested."""

    workspace_id: UUID | None
    since: datetime
    """An observation that began then or later satisfies the request."""


async def ask_for_source(
    session: AsyncSession, connection: Connection, *, accepts_missing: bool, joins_within: timedelta
) -> Asked:
    """Request an observation of a connection's source, ahead of all others.

    An observation that began less than `joins_within` ago and is still running is joined, unless
    `accepts_missing`: the running one does not know that its result is to be trusted.
    """
    rows = await session.execute(
        _ASK,
        {
            "source": connection.airbyte_source_id,
            "workspace": connection.airbyte_workspace_id,
            "accept_missing": accepts_missing,
            "within": joins_within,
        },
    )
    asked = Asked(*rows.one())
    if connection.airbyte_source_id is not None:
        await registry.mark_source_changed(session, connection.airbyte_source_id)
    return asked


# `next_at` 0 means that an observation was requested, which goes before all that is due; 1 means
# that it has begun, so that a new request sets 0 again and is served after the running one ends.
_ASK = text("""
    INSERT INTO observations AS o
        (airbyte_source_id, airbyte_workspace_id, next_at, accepts_missing)
    VALUES (:source, :workspace, to_timestamp(0), :accept_missing)
    ON CONFLICT (airbyte_source_id) DO UPDATE
    SET accepts_missing = o.accepts_missing OR excluded.accepts_missing,
        next_at = CASE WHEN (
            o.claimed_until > now() AND o.started_at > now() - CAST(:within AS interval)
            AND NOT CAST(:accept_missing AS boolean)
        ) THEN o.next_at ELSE to_timestamp(0) END
    RETURNING o.airbyte_workspace_id, CASE WHEN (
            o.claimed_until > now() AND o.started_at > now() - CAST(:within AS interval)
            AND NOT CAST(:accept_missing AS boolean)
        ) THEN o.started_at ELSE now() END
""")


@dataclass(frozen=True, slots=True)
class Due:
    """A source that is due now."""

    workspace_id: UUID | None


async def bring_forward(session: AsyncSession, source_id: UUID) -> Due | None:
    """Make a source due now; None if no live connection uses it."""
    row = (await session.execute(_BRING_FORWARD, {"source": source_id})).one_or_none()
    await registry.mark_source_changed(session, source_id)  # it may be a new row
    return None if row is None else Due(*row)


_BRING_FORWARD = text(f"""
    INSERT INTO observations AS o (airbyte_source_id, airbyte_workspace_id)
    SELECT c.airbyte_source_id, c.airbyte_workspace_id FROM connections c
    WHERE c.airbyte_source_id = :source AND {LIVE} ORDER BY c.created_at LIMIT 1
    ON CONFLICT (airbyte_source_id) DO UPDATE SET next_at = least(o.next_at, now())
    RETURNING o.airbyte_workspace_id
""")  # noqa: S608 - no input


async def answered_since(session: AsyncSession, source_id: UUID, since: datetime) -> bool:
    """Whether an observation that began then or later has ended."""
    return bool(await session.scalar(_ANSWERED, {"source": source_id, "since": since}))


_ANSWERED = text("""
    SELECT started_at >= :since AND observed_at >= started_at FROM observations
    WHERE airbyte_source_id = :source
""")


# Results


async def postpone_source(
    session: AsyncSession, source_id: UUID, pause: timedelta, *, slot: UUID
) -> None:
    """Postpone the observation of a claimed source that was not discovered; releases the claim."""
    await session.execute(_POSTPONE, {"source": source_id, "slot": slot, "pause": pause})


_POSTPONE = text("""
    UPDATE observations
    SET next_at = CASE WHEN next_at = to_timestamp(0) THEN next_at
            ELSE now() + CAST(:pause AS interval) END,
        postponed_since = coalesce(postponed_since, now()),
        claimed_by = NULL, claimed_until = NULL
    WHERE airbyte_source_id = :source AND claimed_by = :slot
""")


async def watch(session: AsyncSession, connection_id: UUID, interval: timedelta | None) -> None:
    """Set how often a connection's source is observed; None for the installation's default."""
    seconds = None if interval is None else int(interval.total_seconds())
    await session.execute(
        insert(Watch)
        .values(connection_id=connection_id, interval_seconds=seconds)
        .on_conflict_do_update(
            index_elements=[Watch.connection_id], set_={"interval_seconds": seconds}
        )
    )


async def advance_source(session: AsyncSession, source_id: UUID, *, every: timedelta) -> None:
    """Bring the next observation forward if the current interval requires it."""
    await session.execute(_HURRY, {"source": source_id, "every": every.total_seconds()})
    await registry.mark_source_changed(session, source_id)


_HURRY = text(f"""
    UPDATE observations o SET next_at = least(
        o.next_at, coalesce(o.observed_at, now()) + make_interval(secs => {INTERVAL})
    ), overdue_at = least(
        o.overdue_at, {OVERDUE_AT.format(f"make_interval(secs => {INTERVAL})")}
    )
    WHERE o.airbyte_source_id = :source
""")  # noqa: S608 - no input


# Views
