"""Queries on observations: which sources are due, what was found, how far each is compared."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import NotFound
from shared.models import Connection, ConnectionStatus, Snapshot, StreamSchema, Watch
from shared.registry.connections import LIVE
from shared.registry.paging import stamp
from shared.registry.snapshots import latest_snapshot

_INTERVAL = f"""
    (SELECT min(coalesce(w.interval_seconds, CAST(:every AS float8)))
     FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
     WHERE c.airbyte_source_id = o.airbyte_source_id AND {LIVE})
"""  # noqa: S608 - no input


@dataclass(frozen=True, slots=True)
class Claim:
    """A source leased for observation, with the results of its earlier observations."""

    source_id: UUID
    interval: timedelta
    """How often it is observed."""
    outcome: str | None
    code: str | None
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


@dataclass(frozen=True, slots=True)
class Unchanged:
    """An observation that seems to have found no change."""

    source_id: UUID
    snapshot_id: UUID | None
    """The snapshot that was last trusted."""
    raw_hashes: bytes
    """The hashes of what the source offers now."""
    catalog_id: UUID | None
    pause: timedelta
    """Time until the next observation."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of one observation of a source."""

    outcome: str
    pause: timedelta
    """Time until the next observation."""
    code: str | None = None
    detail: str | None = None
    failures: int = 0
    snapshot_id: UUID | None = None
    suspicious_since: datetime | None = None
    is_newly_suspicious: bool = False
    """Whether `suspicious_since` is set to now instead."""
    uses_acceptance: bool = False
    """Whether it was trusted because a person requested so."""
    cause: str | None = None
    """The known cause of a failure."""
    explanation: str | None = None
    log_reference: str | None = None
    """The Airbyte job whose log has the details."""
    is_postponed: bool = False
    """Whether the source was not discovered, and the observation is still waiting."""


@dataclass(frozen=True, slots=True)
class Uncompared:
    """A connection that has not been compared with its source's newest snapshot."""

    connection_id: UUID
    status: ConnectionStatus
    catalog_version: int
    compared_snapshot_id: UUID | None
    before_snapshot_id: UUID | None
    """The snapshot to compare with; None where its source was never observed before."""


# Scheduling


async def enrol_sources(session: AsyncSession, *, every: timedelta) -> None:
    """Schedule every source of a live connection, the first time within its interval.

    A source without any connection is deleted.
    """
    await session.execute(_ENROL, {"every": every.total_seconds()})
    await session.execute(_FORGET)


_ENROL = text(f"""
    INSERT INTO observations (airbyte_source_id, airbyte_workspace_id, next_at)
    SELECT o.airbyte_source_id, o.airbyte_workspace_id,
        now() + make_interval(secs => random() * {_INTERVAL})
    FROM (
        SELECT DISTINCT ON (c.airbyte_source_id) c.airbyte_source_id, c.airbyte_workspace_id
        FROM connections c
        WHERE c.airbyte_source_id IS NOT NULL AND {LIVE} AND NOT EXISTS (
            SELECT FROM observations known WHERE known.airbyte_source_id = c.airbyte_source_id
        )
        ORDER BY c.airbyte_source_id, c.airbyte_workspace_id
    ) o
    ON CONFLICT (airbyte_source_id) DO NOTHING
""")  # noqa: S608 - no input
_FORGET = text("""
    DELETE FROM observations o WHERE NOT EXISTS (
        SELECT FROM connections c
        WHERE c.airbyte_source_id = o.airbyte_source_id AND c.archived_at IS NULL
    )
""")


async def due_workspaces(
    session: AsyncSession, *, entrypoint: str, at_once: int
) -> list[tuple[UUID | None, int]]:
    """The workspaces with sources that are due, and how many more jobs to enqueue for each.

    A job occupies a slot while it is in the queue, whether it is running or not.
    """
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


_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('aam.observe ' || :workspace, 0))")
# Takes the first rows in index order and then checks whether they are due: a plan that starts from
# the due rows sorts all of them each time, since statistics are never as fresh as `next_at`.
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
    RETURNING o.airbyte_source_id, {interval}, o.outcome, o.code, o.failures, o.snapshot_id,
        (SELECT s.raw_hashes FROM snapshots s WHERE s.id = o.snapshot_id), o.suspicious_since,
        now() - o.suspicious_since, o.accepts_missing, o.next_at = to_timestamp(1),
        now() - o.postponed_since
"""
_CLAIM_DUE = text(
    _CLAIM.format(which="true", due="first.next_at <= now()", live=LIVE, interval=_INTERVAL)
)
_CLAIM_ONE = text(
    _CLAIM.format(
        which="o.airbyte_source_id = :source",
        due="(o.started_at >= CAST(:since AS timestamptz) AND o.observed_at >= o.started_at)"
        " IS NOT TRUE",
        live=LIVE,
        interval=_INTERVAL,
    )
)


async def release_sources(session: AsyncSession, slot: UUID) -> None:
    """Release the claims of a slot that were not ended; their sources are as due as before."""
    await session.execute(_GIVE_BACK, {"slot": slot})


_GIVE_BACK = text("""
    UPDATE observations SET claimed_by = NULL, claimed_until = NULL WHERE claimed_by = :slot
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
    return Asked(*rows.one())


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


async def answered_since(session: AsyncSession, source_id: UUID, since: datetime) -> bool:
    """Whether an observation that began then or later has ended."""
    return bool(await session.scalar(_ANSWERED, {"source": source_id, "since": since}))


_ANSWERED = text("""
    SELECT started_at >= :since AND observed_at >= started_at FROM observations
    WHERE airbyte_source_id = :source
""")


# Results


async def record_unchanged(
    session: AsyncSession, observations: Sequence[Unchanged], *, slot: UUID
) -> set[UUID]:
    """End the observations whose sources offer, byte for byte, the last trusted snapshot.

    Returns those sources. The others are left unchanged, and so is a source with a connection that
    is not yet compared with the snapshot.
    """
    return set(
        await session.scalars(
            _UNCHANGED,
            {
                "slot": slot,
                "sources": [observed.source_id for observed in observations],
                "snapshots": [observed.snapshot_id for observed in observations],
                "raws": [observed.raw_hashes for observed in observations],
                "catalogs": [observed.catalog_id for observed in observations],
                "pauses": [observed.pause.total_seconds() for observed in observations],
            },
        )
    )


_UNCHANGED = text(f"""
    WITH look AS (
        SELECT * FROM unnest(
            CAST(:sources AS uuid[]), CAST(:snapshots AS uuid[]), CAST(:raws AS bytea[]),
            CAST(:catalogs AS uuid[]), CAST(:pauses AS float8[])
        ) AS look (source, snapshot, raw, catalog, pause)
    ), same AS (
        UPDATE snapshots s SET seen_at = now(),
            airbyte_catalog_id = coalesce(look.catalog, s.airbyte_catalog_id)
        FROM look
        WHERE s.id = look.snapshot AND s.raw_hashes = look.raw
            AND s.id = (
                SELECT newest.id FROM snapshots newest WHERE newest.airbyte_source_id = look.source
                ORDER BY newest.taken_at DESC LIMIT 1
            )
            AND NOT EXISTS (
                SELECT FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
                WHERE c.airbyte_source_id = look.source AND {LIVE}
                    AND w.compared_snapshot_id IS DISTINCT FROM look.snapshot
            )
        RETURNING look.source, look.pause
    )
    UPDATE observations o
    SET outcome = 'unchanged', observed_at = clock_timestamp(), postponed_since = NULL,
        next_at = CASE WHEN o.next_at = to_timestamp(0) THEN o.next_at
            ELSE now() + make_interval(secs => same.pause) END,
        claimed_by = NULL, claimed_until = NULL
    FROM same
    WHERE o.airbyte_source_id = same.source AND o.claimed_by = :slot
    RETURNING o.airbyte_source_id
""")  # noqa: S608 - no input


async def end_observation(session: AsyncSession, claim: Claim, seen: Seen, *, slot: UUID) -> bool:
    """Record the result of an observation; False, with no effect, where its claim has expired."""
    found = await session.scalar(
        _END,
        {
            "source": claim.source_id,
            "slot": slot,
            "outcome": seen.outcome,
            "code": seen.code,
            "detail": seen.detail,
            "failures": seen.failures,
            "snapshot": seen.snapshot_id,
            "since": seen.suspicious_since,
            "newly": seen.is_newly_suspicious,
            "uses_acceptance": seen.uses_acceptance,
            "pause": seen.pause,
            "cause": seen.cause,
            "explanation": seen.explanation,
            "log": seen.log_reference,
            "postponed": seen.is_postponed,
        },
    )
    return found is not None


_END = text("""
    UPDATE observations
    SET outcome = :outcome, code = :code, detail = :detail, failures = :failures,
        cause = :cause, explanation = :explanation, log_reference = :log,
        postponed_since = CASE WHEN CAST(:postponed AS boolean) THEN postponed_since END,
        snapshot_id = :snapshot,
        accepts_missing = accepts_missing AND NOT CAST(:uses_acceptance AS boolean),
        suspicious_since = CASE WHEN CAST(:newly AS boolean) THEN now()
            ELSE CAST(:since AS timestamptz) END,
        observed_at = clock_timestamp(),
        next_at = CASE WHEN next_at = to_timestamp(0) THEN next_at
            ELSE now() + CAST(:pause AS interval) END,
        claimed_by = NULL, claimed_until = NULL
    WHERE airbyte_source_id = :source AND claimed_by = :slot
    RETURNING airbyte_source_id
""")


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


async def trusted_snapshot(session: AsyncSession, claim: Claim) -> Snapshot | None:
    """The snapshot that was last trusted; before the first observation, the source's newest."""
    if claim.snapshot_id is None:
        return await latest_snapshot(session, claim.source_id)
    return await session.get(Snapshot, claim.snapshot_id)


async def connections_of_source(session: AsyncSession, source_id: UUID) -> Sequence[UUID]:
    """The live connections of a source, by id."""
    return (await session.scalars(_OF_SOURCE, {"source": source_id})).all()


_OF_SOURCE = text(f"""
    SELECT c.id FROM connections c WHERE c.airbyte_source_id = :source AND {LIVE} ORDER BY c.id
""")  # noqa: S608 - no input


async def synced_streams(session: AsyncSession, source_id: UUID) -> set[tuple[str | None, str]]:
    """The streams that live connections sync from a source, by namespace and name."""
    rows = await session.execute(_SYNCED, {"source": source_id})
    return {(namespace, name) for namespace, name in rows}


_SYNCED = text(f"""
    SELECT DISTINCT nullif(s->'stream'->>'namespace', ''), s->'stream'->>'name'
    FROM connections c
    JOIN sync_catalog_versions v
        ON v.connection_id = c.id AND v.version_number = c.catalog_version
    CROSS JOIN jsonb_array_elements(v.sync_catalog->'streams') s
    WHERE c.airbyte_source_id = :source AND {LIVE}
""")  # noqa: S608 - no input


async def configured_streams(
    session: AsyncSession,
    connection_id: UUID,
    version_number: int,
    *,
    names: Collection[str] | None = None,
) -> list[bytes]:
    """The streams of a catalog version as JSON; only of these names where given."""
    rows = await session.scalars(
        _CONFIGURED,
        {
            "id": connection_id,
            "version": version_number,
            "names": None if names is None else list(names),
        },
    )
    return [stream.encode() for stream in rows]


_CONFIGURED = text("""
    SELECT stream::text FROM sync_catalog_versions v
    CROSS JOIN jsonb_array_elements(v.sync_catalog->'streams') stream
    WHERE v.connection_id = :id AND v.version_number = :version AND (
        CAST(:names AS text[]) IS NULL
        OR stream->'stream'->>'name' = ANY(CAST(:names AS text[]))
    )
""")


async def uncompared(
    session: AsyncSession, source_id: UUID, snapshot_id: UUID
) -> Sequence[Uncompared]:
    """The live connections of a source that are not yet compared with a snapshot, by id.

    One that was never compared is compared with the snapshot of its newest version.
    """
    rows = await session.execute(_UNCOMPARED, {"source": source_id, "snapshot": snapshot_id})
    return [Uncompared(id_, ConnectionStatus(status), *rest) for id_, status, *rest in rows]


_UNCOMPARED = text(f"""
    SELECT c.id, c.status, c.catalog_version, w.compared_snapshot_id,
        coalesce(w.compared_snapshot_id, (
            SELECT v.snapshot_id FROM sync_catalog_versions v
            JOIN snapshots s ON s.id = v.snapshot_id AND s.airbyte_source_id = c.airbyte_source_id
            WHERE v.connection_id = c.id ORDER BY v.version_number DESC LIMIT 1
        ))
    FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
    WHERE c.airbyte_source_id = :source AND {LIVE}
        AND w.compared_snapshot_id IS DISTINCT FROM CAST(:snapshot AS uuid)
    ORDER BY c.id
""")  # noqa: S608 - no input


async def compared_snapshot(session: AsyncSession, connection_id: UUID) -> UUID | None:
    """The snapshot that a connection was last compared with; None before the first comparison."""
    return await session.scalar(
        select(Watch.compared_snapshot_id).where(Watch.connection_id == connection_id)
    )


async def record_compared(session: AsyncSession, connection_id: UUID, snapshot_id: UUID) -> None:
    """Record the snapshot that a connection was last compared with."""
    await session.execute(
        insert(Watch)
        .values(connection_id=connection_id, compared_snapshot_id=snapshot_id)
        .on_conflict_do_update(
            index_elements=[Watch.connection_id], set_={"compared_snapshot_id": snapshot_id}
        )
    )


async def stream_schemas(
    session: AsyncSession, hashes: Collection[bytes], *, names: Collection[str] | None = None
) -> Sequence[StreamSchema]:
    """These stream schemas, unordered; only of streams with these names where given."""
    found = select(StreamSchema).where(StreamSchema.hash.in_(hashes))
    if names is not None:
        found = found.where(StreamSchema.name.in_(names))
    return (await session.scalars(found)).all()


async def stream_names(
    session: AsyncSession, hashes: Collection[bytes]
) -> set[tuple[str | None, str]]:
    """The streams that these schemas belong to, by namespace and name."""
    rows = await session.execute(
        select(StreamSchema.namespace, StreamSchema.name).where(StreamSchema.hash.in_(hashes))
    )
    return {(namespace, name) for namespace, name in rows}


# Intervals


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


_HURRY = text(f"""
    UPDATE observations o SET next_at = least(
        o.next_at, coalesce(o.observed_at, now()) + make_interval(secs => {_INTERVAL})
    )
    WHERE o.airbyte_source_id = :source
""")  # noqa: S608 - no input


# Views


def _outcome(connection: str, watch: str) -> str:
    """SQL for the outcome of a connection's newest observation; `pending` until it is compared.

    While `pending`, the source was read but the connection is HEALING or new, or its comparison
    failed and will be repeated.
    """
    return f"""CASE
        WHEN o.outcome IN ('unchanged', 'changed') AND {connection}.archived_at IS NULL
            AND {watch}.compared_snapshot_id IS DISTINCT FROM o.snapshot_id
        THEN 'pending' ELSE o.outcome
    END"""


async def observation_json(
    session: AsyncSession, connection_id: UUID, *, every: timedelta, is_explained: bool
) -> str:
    """A connection's observation status, as JSON text; with failure details if `is_explained`.

    Raises:
        NotFound: there is no such connection.
    """
    found: str | None = await session.scalar(
        _OBSERVATION,
        {"id": connection_id, "every": every.total_seconds(), "explained": is_explained},
    )
    if found is None:
        raise NotFound(f"No connection {connection_id}.")
    return found


# A requested observation has a `next_at` in the distant past; show `observed_at` instead.
_OBSERVATION = text(f"""
    SELECT json_build_object(
        'connection_id', k.id, 'source_id', k.airbyte_source_id,
        'interval_seconds', n.interval_seconds, 'effective_interval_seconds', {_INTERVAL},
        'next_at', {stamp("greatest(o.next_at, o.observed_at)")},
        'observing', coalesce(o.claimed_until > now(), false),
        'observed_at', {stamp("o.observed_at")},
        'outcome', {_outcome("k", "n")}, 'code', o.code, 'detail', o.detail,
        'failures', coalesce(o.failures, 0),
        'suspicious_since', {stamp("o.suspicious_since")},
        'snapshot_id', o.snapshot_id, 'compared_snapshot_id', n.compared_snapshot_id,
        'cause', o.cause,
        'explanation', CASE WHEN CAST(:explained AS boolean) THEN o.explanation END,
        'log', CASE WHEN CAST(:explained AS boolean) THEN o.log_reference END,
        'postponed_since', {stamp("o.postponed_since")},
        'discoveries_in_24_hours', (
            SELECT count(*) FROM discoveries d
            WHERE d.airbyte_source_id = k.airbyte_source_id
                AND d.started_at > now() - interval '24 hours' AND d.purpose <> 'check'
        ),
        'configuration_renewed_at', {
    stamp('''(
            SELECT max(d.ended_at) FROM discoveries d
            WHERE d.airbyte_source_id = k.airbyte_source_id AND d.is_renewed
        )''')
}
    )::text
    FROM connections k
    LEFT JOIN watches n ON n.connection_id = k.id
    LEFT JOIN observations o ON o.airbyte_source_id = k.airbyte_source_id
    WHERE k.id = :id
""")  # noqa: S608 - no input


async def result_json(session: AsyncSession, connection_id: UUID) -> str:
    """The result of the newest observation of a connection's source, with its drift, if any."""
    found: str = (await session.execute(_LOOK, {"id": connection_id})).scalar_one()
    return found


_LOOK = text(f"""
    SELECT json_build_object(
        'connection_id', c.id, 'source_id', c.airbyte_source_id, 'outcome', {_outcome("c", "w")},
        'snapshot_id', o.snapshot_id, 'drift_id', d.id, 'changes', coalesce(d.changes, '[]'),
        'code', o.code, 'detail', o.detail, 'cause', o.cause, 'explanation', o.explanation,
        'log', o.log_reference
    )::text
    FROM connections c
    JOIN observations o ON o.airbyte_source_id = c.airbyte_source_id
    LEFT JOIN watches w ON w.connection_id = c.id
    LEFT JOIN drifts d ON d.connection_id = c.id AND d.after_snapshot_id = o.snapshot_id
        AND o.outcome = 'changed'
    WHERE c.id = :id
""")  # noqa: S608 - no input
