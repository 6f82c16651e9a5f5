"""The discoveries of each source: the daily count, the running one, and renewed tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import DiscoveryRow
from shared.registry.connections import LIVE
from shared.registry.job_kinds import is_sync
from shared.registry.policies import layers_of

_DAY = "interval '24 hours'"
_REJECTED_EVERY = "interval '1 hour'"
"""How often a source that rejects its credential is discovered."""
_RUNNING = "d.ended_at IS NULL AND d.expires_at > now()"


@dataclass(frozen=True, slots=True)
class SourceLoad:
    """The current load on a source, and its limits."""

    policy_limit: int | None
    """The smallest daily limit in its connections' policies; None if no policy sets one."""
    interval_seconds: float | None
    """The interval between its observations; None if no live connection uses it."""
    used: int
    """Discoveries started in the last 24 hours, without connection checks."""
    running_id: UUID | None
    """The running discovery, if any."""
    running_purpose: str | None
    recent_snapshot_id: UUID | None
    """The snapshot of the newest requested discovery, if it started less than `recent` ago."""
    sync_since: datetime | None
    """When the oldest running sync of the source started; None if none is running."""
    is_renewing: bool
    """Whether its connector renews its own tokens, by its type or by earlier discoveries."""
    rejected_for: timedelta | None
    """How long a source that rejects its credential is not to be discovered; None if it may be."""


async def lock_discoveries(session: AsyncSession, source_ids: Collection[UUID]) -> None:
    """Lock until the transaction ends, so that discoveries of a source start one at a time.

    The locks are taken in the order of the ids, so that two callers cannot wait for each other.
    """
    await session.execute(_LOCK, {"sources": sorted(str(source) for source in source_ids)})


_LOCK = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('aam.discovery ' || source, 0))
    FROM unnest(CAST(:sources AS text[])) source
""")


async def source_loads(
    session: AsyncSession,
    source_ids: Collection[UUID],
    *,
    every: timedelta,
    recent: timedelta,
    renewing_types: Collection[str],
) -> dict[UUID, SourceLoad]:
    """Each source's load; `renewing_types` are source types whose connectors renew their tokens."""
    rows = await session.execute(
        _LOADS,
        {
            "sources": list(source_ids),
            "every": every.total_seconds(),
            "recent": recent,
            "types": list(renewing_types),
        },
    )
    return {source_id: SourceLoad(*load) for source_id, *load in rows}


# A sync that is being requested has an operation, but no job yet.
_LOADS = text(f"""
    SELECT source.id,
        (SELECT min((
            SELECT CAST(layer.policy->>'discoveries_per_day' AS int)
            FROM ({layers_of("c", "policy")}) layer
            WHERE layer.policy->>'discoveries_per_day' IS NOT NULL
            ORDER BY layer.distance, layer.name LIMIT 1
         )) FROM connections c WHERE c.airbyte_source_id = source.id AND {LIVE}),
        (SELECT min(coalesce(w.interval_seconds, CAST(:every AS float8)))
         FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
         WHERE c.airbyte_source_id = source.id AND {LIVE}),
        past.used, past.running_id, past.running_purpose, past.recent_snapshot_id,
        (SELECT min(since) FROM (
            SELECT j.started_at AS since FROM job_history j
            JOIN connections c ON c.id = j.connection_id
            WHERE c.airbyte_source_id = source.id AND j.ended_at IS NULL AND {is_sync("j")}
            UNION ALL
            SELECT o.created_at FROM operations o JOIN connections c ON c.id = o.connection_id
            WHERE c.airbyte_source_id = source.id AND o.kind = 'sync'
                AND o.status IN ('running', 'undoing')
         ) syncs),
        coalesce(past.is_renewed, false) OR coalesce((
            SELECT bool_or(c.source_type = ANY(CAST(:types AS text[]))) FROM connections c
            WHERE c.airbyte_source_id = source.id
        ), false),
        CASE WHEN past.newest_at > now() - {_REJECTED_EVERY} AND EXISTS (
            SELECT FROM connections c
            WHERE c.airbyte_source_id = source.id AND c.credential_rejected_since IS NOT NULL
                AND {LIVE}
        ) THEN past.newest_at + {_REJECTED_EVERY} - now() END
    FROM unnest(CAST(:sources AS uuid[])) source (id)
    CROSS JOIN LATERAL (
        SELECT
            count(*) FILTER (
                WHERE d.started_at > now() - {_DAY} AND d.purpose <> 'check'
            ) AS used,
            (array_agg(d.id ORDER BY d.started_at DESC) FILTER (WHERE {_RUNNING}))[1]
                AS running_id,
            (array_agg(d.purpose ORDER BY d.started_at DESC) FILTER (WHERE {_RUNNING}))[1]
                AS running_purpose,
            (array_agg(d.snapshot_id ORDER BY d.started_at DESC) FILTER (
                WHERE d.purpose = 'discover' AND d.ended_at IS NOT NULL AND d.code IS NULL
                    AND d.started_at > clock_timestamp() - CAST(:recent AS interval)
            ))[1] AS recent_snapshot_id,
            bool_or(d.is_renewed) AS is_renewed,
            max(d.started_at) FILTER (WHERE d.purpose <> 'check') AS newest_at
        FROM discoveries d WHERE d.airbyte_source_id = source.id
    ) past
""")  # noqa: S608 - no input


async def limit_frees_at(session: AsyncSession, source_id: UUID, *, allowed: int) -> datetime:
    """When a source will have fewer than `allowed` discoveries in the preceding 24 hours."""
    found: datetime = await session.scalar(
        _FREES_AT, {"source": source_id, "offset": max(allowed, 1) - 1}
    )
    return found


_FREES_AT = text(f"""
    SELECT coalesce(
        (SELECT d.started_at + {_DAY} FROM discoveries d
         WHERE d.airbyte_source_id = :source AND d.started_at > now() - {_DAY}
            AND d.purpose <> 'check'
         ORDER BY d.started_at DESC OFFSET :offset LIMIT 1),
        now()
    )
""")  # noqa: S608 - no input


async def begin_discoveries(
    session: AsyncSession, sources: Mapping[UUID, UUID], purpose: str, expires_at: datetime
) -> None:
    """Record discoveries before they are requested; `sources` by discovery id."""
    await session.execute(
        _BEGIN,
        {
            "ids": list(sources),
            "sources": list(sources.values()),
            "purpose": purpose,
            "expires_at": expires_at,
        },
    )


_BEGIN = text("""
    INSERT INTO discoveries (id, airbyte_source_id, purpose, expires_at)
    SELECT begun.id, begun.source, :purpose, :expires_at
    FROM unnest(CAST(:ids AS uuid[]), CAST(:sources AS uuid[])) begun (id, source)
""")


async def withdraw_discoveries(session: AsyncSession, discovery_ids: Collection[UUID]) -> None:
    """Delete the records of discoveries that will not be requested."""
    await session.execute(_WITHDRAW, {"ids": list(discovery_ids)})


_WITHDRAW = text("DELETE FROM discoveries WHERE id = ANY(CAST(:ids AS uuid[]))")


def record_discovery(
    session: AsyncSession, source_id: UUID, purpose: str, *, is_renewed: bool
) -> None:
    """Record a discovery that has ended."""
    now = datetime.now(UTC)
    session.add(
        DiscoveryRow(
            airbyte_source_id=source_id,
            purpose=purpose,
            expires_at=now,
            ended_at=now,
            is_renewed=is_renewed,
        )
    )


async def end_discovery(
    session: AsyncSession,
    discovery_id: UUID,
    *,
    code: str | None = None,
    snapshot_id: UUID | None = None,
    is_renewed: bool = False,
    configuration_digest: str | None = None,
) -> bool:
    """Record how a discovery ended; return whether the connector renewed its configuration.

    This is also true if the configuration's digest differs from that of the previous discovery.
    """
    return bool(
        await session.scalar(
            _END,
            {
                "id": discovery_id,
                "code": code,
                "snapshot": snapshot_id,
                "renewed": is_renewed,
                "digest": configuration_digest,
            },
        )
    )


_END = text("""
    UPDATE discoveries d SET ended_at = clock_timestamp(), code = :code,
        snapshot_id = CAST(:snapshot AS uuid),
        configuration_digest = CAST(:digest AS text),
        is_renewed = CAST(:renewed AS boolean) OR coalesce((
            SELECT p.configuration_digest <> CAST(:digest AS text) FROM discoveries p
            WHERE p.airbyte_source_id = d.airbyte_source_id AND p.id <> d.id
                AND p.configuration_digest IS NOT NULL
            ORDER BY p.started_at DESC LIMIT 1
        ), false)
    WHERE d.id = :id
    RETURNING d.is_renewed
""")


async def end_discoveries(session: AsyncSession, discovery_ids: Collection[UUID]) -> None:
    """Record that discoveries have succeeded, of which none can have renewed a configuration."""
    await session.execute(_END_ALL, {"ids": list(discovery_ids)})


_END_ALL = text("""
    UPDATE discoveries SET ended_at = clock_timestamp() WHERE id = ANY(CAST(:ids AS uuid[]))
""")


async def is_discovery_over(session: AsyncSession, discovery_id: UUID) -> bool:
    """Whether a discovery has ended or expired."""
    over = await session.scalar(_IS_OVER, {"id": discovery_id})
    return over is not False


_IS_OVER = text("""
    SELECT ended_at IS NOT NULL OR expires_at <= now() FROM discoveries WHERE id = :id
""")


async def forget_renewals(session: AsyncSession, source_id: UUID) -> None:
    """Clear the recorded renewals of a source, after AAM has replaced its credential.

    The stored digests are cleared as well, since AAM itself changed the configuration.
    """
    await session.execute(_FORGET_RENEWALS, {"source": source_id})


_FORGET_RENEWALS = text("""
    UPDATE discoveries SET is_renewed = false, configuration_digest = NULL
    WHERE airbyte_source_id = :source AND (is_renewed OR configuration_digest IS NOT NULL)
""")


async def renewed_sources(session: AsyncSession, source_ids: Collection[UUID]) -> set[UUID]:
    """Those sources whose connector has renewed its tokens since AAM last set the credential."""
    return set(await session.scalars(_RENEWED, {"sources": list(source_ids)}))


_RENEWED = text("""
    SELECT DISTINCT airbyte_source_id FROM discoveries
    WHERE airbyte_source_id = ANY(CAST(:sources AS uuid[])) AND is_renewed
""")


async def prune_discoveries(session: AsyncSession) -> None:
    """Delete discoveries older than any limit, except a source's newest and its newest renewal.

    A source without a live connection keeps none.
    """
    await session.execute(_PRUNE, {"limit": 5_000})


_PRUNE = text("""
    DELETE FROM discoveries WHERE id IN (
        SELECT d.id FROM discoveries d
        WHERE d.started_at < now() - interval '48 hours' AND (
            NOT EXISTS (
                SELECT FROM connections c
                WHERE c.airbyte_source_id = d.airbyte_source_id AND c.archived_at IS NULL
            ) OR EXISTS (
                SELECT FROM discoveries newer
                WHERE newer.airbyte_source_id = d.airbyte_source_id
                    AND newer.started_at > d.started_at AND newer.is_renewed >= d.is_renewed
                    AND (newer.configuration_digest IS NOT NULL OR d.configuration_digest IS NULL)
            )
        )
        ORDER BY d.started_at LIMIT :limit
    )
""")
