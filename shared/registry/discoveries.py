"""The discoveries of each source: how many in a day, which one is under way, which renewed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.models import DiscoveryRow
from shared.registry.connections import LIVE

_DAY = "interval '24 hours'"


@dataclass(frozen=True, slots=True)
class SourceLoad:
    """What is asked of a source at the moment, and how much more may be asked of it."""

    policy_limit: int | None
    """The smallest daily limit of the policies of its connections; None where none sets one."""
    interval_seconds: float | None
    """How often it is observed; None where no live connection stands on it."""
    used: int
    """Discoveries that began in the last 24 hours."""
    running_id: UUID | None
    """The discovery under way."""
    running_purpose: str | None
    recent_snapshot_id: UUID | None
    """What a discovery that was asked for, and began less than `recent` ago, has found."""
    sync_since: datetime | None
    """Since when a sync of the source runs."""
    is_renewing: bool
    """Whether its connector renews its tokens by itself, by its type or as was seen."""


async def lock_discoveries(session: AsyncSession, source_id: UUID) -> None:
    """Have whoever else begins a discovery of the source wait until the transaction ends."""
    await session.execute(_LOCK, {"source": str(source_id)})


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('aam.discovery ' || :source, 0))")


async def source_load(
    session: AsyncSession,
    source_id: UUID,
    *,
    every: timedelta,
    recent: timedelta,
    renewing_types: Collection[str],
) -> SourceLoad:
    """What is asked of a source now; `renewing_types` are source types whose connectors renew."""
    row = (
        await session.execute(
            _LOAD,
            {
                "source": source_id,
                "every": every.total_seconds(),
                "recent": recent,
                "types": list(renewing_types),
            },
        )
    ).one()
    return SourceLoad(*row)


# A sync whose request is on its way has an operation, and no job yet.
_LOAD = text(f"""
    SELECT
        (SELECT min(CAST(own.policy->>'discoveries_per_day' AS int))
         FROM connections c CROSS JOIN LATERAL (  -- as find_policy finds it
            SELECT p.policy FROM policies p JOIN connections one ON one.id = p.connection_id
            WHERE one.id = c.id
                OR c.imported AND one.airbyte_connection_id = c.airbyte_connection_id
                    AND one.archived_at IS NOT NULL
            ORDER BY one.archived_at DESC NULLS FIRST LIMIT 1
         ) own
         WHERE c.airbyte_source_id = :source AND {LIVE}),
        (SELECT min(coalesce(w.interval_seconds, CAST(:every AS float8)))
         FROM connections c LEFT JOIN watches w ON w.connection_id = c.id
         WHERE c.airbyte_source_id = :source AND {LIVE}),
        (SELECT count(*) FROM discoveries d
         WHERE d.airbyte_source_id = :source AND d.began_at > now() - {_DAY}
            AND d.purpose <> 'check'),
        running.id, running.purpose,
        (SELECT d.snapshot_id FROM discoveries d
         WHERE d.airbyte_source_id = :source AND d.purpose = 'discover'
            AND d.began_at > clock_timestamp() - CAST(:recent AS interval)
            AND d.ended_at IS NOT NULL AND d.code IS NULL
         ORDER BY d.began_at DESC LIMIT 1),
        (SELECT min(since) FROM (
            SELECT j.started_at AS since FROM job_history j
            JOIN connections c ON c.id = j.connection_id
            WHERE c.airbyte_source_id = :source AND j.ended_at IS NULL
            UNION ALL
            SELECT o.created_at FROM operations o JOIN connections c ON c.id = o.connection_id
            WHERE c.airbyte_source_id = :source AND o.kind = 'sync'
                AND o.status IN ('running', 'undoing')
         ) syncs),
        EXISTS (
            SELECT FROM connections c
            WHERE c.airbyte_source_id = :source AND c.source_type = ANY(CAST(:types AS text[]))
        ) OR EXISTS (
            SELECT FROM discoveries d WHERE d.airbyte_source_id = :source AND d.is_renewed
        )
    FROM (SELECT 1) one LEFT JOIN (
        SELECT d.id, d.purpose FROM discoveries d
        WHERE d.airbyte_source_id = :source AND d.ended_at IS NULL AND d.expires_at > now()
        ORDER BY d.began_at DESC LIMIT 1
    ) running ON true
""")  # noqa: S608 - no input


async def limit_frees_at(session: AsyncSession, source_id: UUID, *, allowed: int) -> datetime:
    """When fewer than `allowed` discoveries of a source will lie in the last 24 hours."""
    found: datetime = await session.scalar(
        _FREES_AT, {"source": source_id, "offset": max(allowed, 1) - 1}
    )
    return found


_FREES_AT = text(f"""
    SELECT coalesce(
        (SELECT d.began_at + {_DAY} FROM discoveries d
         WHERE d.airbyte_source_id = :source AND d.began_at > now() - {_DAY}
            AND d.purpose <> 'check'
         ORDER BY d.began_at DESC OFFSET :offset LIMIT 1),
        now()
    )
""")  # noqa: S608 - no input


def begin_discovery(
    session: AsyncSession, discovery_id: UUID, source_id: UUID, purpose: str, expires_at: datetime
) -> None:
    """Record a discovery before it is asked for."""
    session.add(
        DiscoveryRow(
            id=discovery_id,
            airbyte_source_id=source_id,
            purpose=purpose,
            expires_at=expires_at,
        )
    )


def record_discovery(
    session: AsyncSession, source_id: UUID, purpose: str, *, is_renewed: bool
) -> None:
    """Record a discovery that is over."""
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
    """Record how a discovery ended; whether it renewed the configuration.

    Also where the configuration that Airbyte shows is not what it was after the discovery before.
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
            ORDER BY p.began_at DESC LIMIT 1
        ), false)
    WHERE d.id = :id
    RETURNING d.is_renewed
""")


async def is_discovery_over(session: AsyncSession, discovery_id: UUID) -> bool:
    """Whether a discovery has ended, or its process has not said so in time."""
    over = await session.scalar(_IS_OVER, {"id": discovery_id})
    return over is not False


_IS_OVER = text("""
    SELECT ended_at IS NOT NULL OR expires_at <= now() FROM discoveries WHERE id = :id
""")


async def forget_renewals(session: AsyncSession, source_id: UUID) -> None:
    """Note that a source was given its credential anew: what was renewed before is gone.

    The next discovery has no configuration to compare with, since AAM itself has changed it.
    """
    await session.execute(_FORGET_RENEWALS, {"source": source_id})


_FORGET_RENEWALS = text("""
    UPDATE discoveries SET is_renewed = false, configuration_digest = NULL
    WHERE airbyte_source_id = :source AND (is_renewed OR configuration_digest IS NOT NULL)
""")


async def renewed_sources(session: AsyncSession, source_ids: Collection[UUID]) -> set[UUID]:
    """Which of these sources were seen to have renewed their tokens since they were given them."""
    return set(await session.scalars(_RENEWED, {"sources": list(source_ids)}))


_RENEWED = text("""
    SELECT DISTINCT airbyte_source_id FROM discoveries
    WHERE airbyte_source_id = ANY(CAST(:sources AS uuid[])) AND is_renewed
""")


async def prune_discoveries(session: AsyncSession, *, limit: int = 5_000) -> None:
    """Delete what no limit counts any more; the newest of a source stays, and its newest renewal.

    Of a source that no connection stands on, nothing stays.
    """
    await session.execute(_PRUNE, {"limit": limit})


_PRUNE = text("""
    DELETE FROM discoveries WHERE id IN (
        SELECT d.id FROM discoveries d
        WHERE d.began_at < now() - interval '48 hours' AND (
            NOT EXISTS (
                SELECT FROM connections c
                WHERE c.airbyte_source_id = d.airbyte_source_id AND c.archived_at IS NULL
            ) OR EXISTS (
                SELECT FROM discoveries newer
                WHERE newer.airbyte_source_id = d.airbyte_source_id
                    AND newer.began_at > d.began_at AND newer.is_renewed >= d.is_renewed
                    AND (newer.configuration_digest IS NOT NULL OR d.configuration_digest IS NULL)
            )
        )
        ORDER BY d.began_at LIMIT :limit
    )
""")
