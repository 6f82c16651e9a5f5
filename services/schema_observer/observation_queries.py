"""Queries on the results of observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.schema_observer.claim_queries import INTERVAL, OVERDUE_AT, Claim
from services.schema_observer.mapper_queries import UNCHECKED
from shared.errors import NotFound
from shared.models import Snapshot
from shared.registry.connections import LIVE
from shared.registry.health import mark_source_changed
from shared.registry.paging import stamp
from shared.registry.snapshots import latest_snapshot


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


# Of what health is derived from, only `overdue_at` changes: the last observation was trusted, too.
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
                    AND (w.compared_snapshot_id IS DISTINCT FROM look.snapshot OR {UNCHECKED})
            )
        RETURNING look.source, look.pause
    ), ended AS (
        UPDATE observations o
        SET outcome = 'unchanged', observed_at = clock_timestamp(), postponed_since = NULL,
            overdue_at = {OVERDUE_AT.format("make_interval(secs => same.pause)")},
            next_at = CASE WHEN o.next_at = to_timestamp(0) THEN o.next_at
                ELSE now() + make_interval(secs => same.pause) END,
            claimed_by = NULL, claimed_until = NULL
        FROM same
        WHERE o.airbyte_source_id = same.source AND o.claimed_by = :slot
        RETURNING o.airbyte_source_id, o.overdue_at
    ), healths AS (
        SELECT h.connection_id, ended.overdue_at
        FROM ended JOIN connections c ON c.airbyte_source_id = ended.airbyte_source_id AND {LIVE}
        JOIN connection_health h ON h.connection_id = c.id
        WHERE h.health NOT IN ('failed', 'archived')  -- checked again once the row is locked
        ORDER BY h.connection_id FOR UPDATE OF h
    ), moved AS (
        UPDATE connection_health h SET overdue_at = healths.overdue_at
        FROM healths WHERE h.connection_id = healths.connection_id
    )
    SELECT airbyte_source_id FROM ended
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
    if found is None:
        return False
    await mark_source_changed(session, claim.source_id)
    return True


# After an observation that is not trusted, the next trusted one is due no later than before.
_END = text(f"""
    UPDATE observations
    SET outcome = :outcome, code = :code, detail = :detail, failures = :failures,
        cause = :cause, explanation = :explanation, log_reference = :log,
        postponed_since = CASE WHEN CAST(:postponed AS boolean) THEN postponed_since END,
        snapshot_id = :snapshot,
        accepts_missing = accepts_missing AND NOT CAST(:uses_acceptance AS boolean),
        suspicious_since = CASE WHEN CAST(:newly AS boolean) THEN now()
            ELSE CAST(:since AS timestamptz) END,
        observed_at = clock_timestamp(),
        overdue_at = CASE WHEN :outcome IN ('suspicious', 'failed') THEN overdue_at
            ELSE {OVERDUE_AT.format("CAST(:pause AS interval)")} END,
        next_at = CASE WHEN next_at = to_timestamp(0) THEN next_at
            ELSE now() + CAST(:pause AS interval) END,
        claimed_by = NULL, claimed_until = NULL
    WHERE airbyte_source_id = :source AND claimed_by = :slot
    RETURNING airbyte_source_id
""")  # noqa: S608 - no input


async def trusted_snapshot(session: AsyncSession, claim: Claim) -> Snapshot | None:
    """The snapshot that was last trusted; before the first observation, the source's newest."""
    if claim.snapshot_id is None:
        return await latest_snapshot(session, claim.source_id)
    return await session.get(Snapshot, claim.snapshot_id)


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
        'interval_seconds', n.interval_seconds, 'effective_interval_seconds', {INTERVAL},
        'next_at', {stamp("greatest(o.next_at, o.observed_at)")},
        'observing', coalesce(o.claimed_until > now(), false),
        'observed_at', {stamp("o.observed_at")},
        'outcome', {_outcome("k", "n")}, 'code', o.code, 'detail', o.detail,
        'failures', coalesce(o.failures, 0),
        'suspicious_since', {stamp("o.suspicious_since")},
        'snapshot_id', o.snapshot_id, 'compared_snapshot_id', n.compared_snapshot_id,
        'connector_version', v.version, 'manifest_version', v.manifest_version,
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
    LEFT JOIN source_connectors v ON v.airbyte_source_id = k.airbyte_source_id
    WHERE k.id = :id
""")  # noqa: S608 - no input


@dataclass(frozen=True, slots=True)
class ObservationFilter:
    """Filters of a list of sources by their observation."""

    outcome: str | None = None
    is_overdue: bool | None = None
    is_suspicious: bool | None = None
    after: UUID | None = None
    """The last source of the previous page."""


async def page_of_observations(
    session: AsyncSession, shown: ObservationFilter, *, every: timedelta, limit: int
) -> str:
    """A page of the sources of live connections as JSON text, by id: `{"items": […], "next": …}`.

    Without explanations of failures. `every` is the interval where none is set.
    """
    conditions = ["EXISTS (SELECT FROM connections c WHERE " + _LIVE_OF_SOURCE + ")"]
    parameters: dict[str, object] = {"every": every.total_seconds(), "limit": limit}
    if shown.outcome is not None:
        conditions.append("o.outcome = :outcome")
        parameters["outcome"] = shown.outcome
    if shown.outcome in ("suspicious", "failed"):
        # As the condition of an index, since few sources have these outcomes.
        conditions.append("o.outcome IN ('suspicious', 'failed')")
    if shown.is_overdue is not None:
        conditions.append(_OVERDUE if shown.is_overdue else f"NOT {_OVERDUE}")
    if shown.is_suspicious is not None:
        conditions.append(f"o.suspicious_since IS {'NOT NULL' if shown.is_suspicious else 'NULL'}")
    if shown.after is not None:
        conditions.append("o.airbyte_source_id > :after")
        parameters["after"] = shown.after
    # nosemgrep: built-sql - all of it is ours, values are parameters
    statement = text(_OBSERVATIONS.format(conditions=" AND ".join(conditions)))
    found: str = (await session.execute(statement, parameters)).scalar_one()
    return found


_LIVE_OF_SOURCE = f"c.airbyte_source_id = o.airbyte_source_id AND {LIVE}"
# A requested observation has a `next_at` in the distant past.
_OVERDUE = """(
    o.next_at < now() - interval '1 minute' AND coalesce(o.claimed_until <= now(), true)
    AND o.postponed_since IS NULL
)"""
_MOST_CONNECTIONS = 20
_OBSERVATIONS = f"""
    WITH page AS (
        SELECT * FROM observations o WHERE {{conditions}}
        ORDER BY o.airbyte_source_id LIMIT :limit + 1
    ), kept AS (SELECT * FROM page o ORDER BY o.airbyte_source_id LIMIT :limit)
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(json_build_object(
                'source_id', o.airbyte_source_id, 'workspace_id', o.airbyte_workspace_id,
                'effective_interval_seconds', {INTERVAL},
                'next_at', {stamp("greatest(o.next_at, o.observed_at)")},
                'overdue', {_OVERDUE}, 'observing', coalesce(o.claimed_until > now(), false),
                'postponed_since', {stamp("o.postponed_since")},
                'observed_at', {stamp("o.observed_at")},
                'outcome', o.outcome, 'code', o.code, 'detail', o.detail, 'cause', o.cause,
                'failures', o.failures, 'suspicious_since', {stamp("o.suspicious_since")},
                'snapshot_id', o.snapshot_id,
                'connector_version', v.version, 'manifest_version', v.manifest_version,
                'connection_count', (
                    SELECT count(*) FROM connections c WHERE {_LIVE_OF_SOURCE}
                ),
                'connections', (
                    SELECT json_agg(json_build_object(
                        'connection_id', c.id, 'name', c.name, 'source_type', c.source_type
                    ) ORDER BY c.name, c.id)
                    FROM (
                        SELECT c.* FROM connections c WHERE {_LIVE_OF_SOURCE}
                        ORDER BY c.name, c.id LIMIT {_MOST_CONNECTIONS}
                    ) c
                )
            ) ORDER BY o.airbyte_source_id)
            FROM kept o LEFT JOIN source_connectors v ON v.airbyte_source_id = o.airbyte_source_id
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
            SELECT o.airbyte_source_id FROM kept o ORDER BY o.airbyte_source_id DESC LIMIT 1
        ) END
    )::text
"""  # noqa: S608 - no input


async def result_json(session: AsyncSession, connection_id: UUID) -> str:
    """The result of the newest observation of a connection's source, with its drift, if any."""
    found: str = (await session.execute(_LOOK, {"id": connection_id})).scalar_one()
    return found


_LOOK = text(f"""
    SELECT json_build_object(
        'connection_id', c.id, 'source_id', c.airbyte_source_id, 'outcome', {_outcome("c", "w")},
        'snapshot_id', o.snapshot_id, 'drift_id', d.id, 'changes', coalesce(d.changes, '[]'),
        'connector_step', d.connector_step,
        'code', o.code, 'detail', o.detail, 'cause', o.cause, 'explanation', o.explanation,
        'log', o.log_reference
    )::text
    FROM connections c
    JOIN observations o ON o.airbyte_source_id = c.airbyte_source_id
    LEFT JOIN watches w ON w.connection_id = c.id
    LEFT JOIN LATERAL (
        SELECT id, changes, connector_step FROM drifts
        WHERE connection_id = c.id AND after_snapshot_id = o.snapshot_id AND o.outcome = 'changed'
        ORDER BY first_seen_at DESC LIMIT 1
    ) d ON true
    WHERE c.id = :id
""")  # noqa: S608 - no input
