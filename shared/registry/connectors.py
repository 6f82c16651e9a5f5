"""The versions of the connectors that sources run, and of snapshots and drifts.

A snapshot's version is that of the last discovery that is known to have found its schema. While an
unchanged source is observed, the version is not requested from Airbyte: `source_connectors` has it,
as it was checked last. It is written into the snapshot when the next version is found.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import msgspec
from sqlalchemy import func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.connector_versions import ConnectorVersion, Guide, Step, passed, remembered
from shared.models import SourceConnector
from shared.registry.paging import stamp

_GUIDES = msgspec.json.Decoder(list[Guide])
_STEP = msgspec.json.Decoder(Step)
VERSION = "CASE WHEN k.known_since <= s.seen_at THEN k.version ELSE s.connector_version END"
"""SQL of a snapshot's connector version; `s` is the snapshot, `k` its source's connector."""
MANIFEST = (
    "CASE WHEN k.known_since <= s.seen_at THEN k.manifest_version ELSE s.manifest_version END"
)
"""The same of its manifest."""


async def record_connector(
    session: AsyncSession,
    source_id: UUID,
    found: ConnectorVersion,
    *,
    check_again_after: timedelta,
) -> None:
    """Record the version that a source runs now.

    If it is another one than before, the source's newest snapshot keeps the version before.
    """
    row = await _lock(session, source_id)
    if (row.version, row.manifest_version) != (found.tag, found.manifest):
        if row.version is not None:
            await session.execute(_SETTLE, {"source": source_id})
        row.known_since = func.now()
    row.repository, row.version = found.repository, found.tag
    row.manifest_version = found.manifest
    row.support_state, row.is_pinned = found.support_state, found.is_pinned
    row.upcoming = msgspec.json.encode(found.upcoming).decode()
    known = _GUIDES.decode(row.guides)
    row.guides = msgspec.json.encode(
        remembered(known, [Guide(one.version, one.guide) for one in found.upcoming])
    ).decode()
    row.deadline = found.deadline
    row.checked_at = func.now()
    row.next_at = func.now() + check_again_after


_SETTLE = text("""
    UPDATE snapshots s
    SET connector_version = k.version, manifest_version = k.manifest_version
    FROM source_connectors k
    WHERE k.airbyte_source_id = :source AND k.known_since <= s.seen_at AND s.id = (
        SELECT newest.id FROM snapshots newest WHERE newest.airbyte_source_id = :source
        ORDER BY newest.taken_at DESC LIMIT 1
    )
""")


async def _lock(session: AsyncSession, source_id: UUID) -> SourceConnector:
    await session.execute(
        insert(SourceConnector).values(airbyte_source_id=source_id).on_conflict_do_nothing()
    )
    return await session.get_one(
        SourceConnector, source_id, with_for_update=True, populate_existing=True
    )


async def find_connector(session: AsyncSession, source_id: UUID) -> SourceConnector | None:
    """The connector of a source, as it was checked last; None if it never was."""
    row = await session.get(SourceConnector, source_id, populate_existing=True)
    return None if row is None or row.version is None else row


async def connector_step(session: AsyncSession, before_id: UUID, after_id: UUID) -> Step | None:
    """The change of a source's connector between two of its snapshots; None without, or unknown."""
    row = (await session.execute(_VERSIONS, {"before": before_id, "after": after_id})).one_or_none()
    if row is None or row.before is None or row.after is None:
        return None
    if (row.before, row.before_manifest) == (row.after, row.after_manifest):
        return None
    return Step(
        from_version=row.before,
        to_version=row.after,
        from_manifest=row.before_manifest,
        to_manifest=row.after_manifest,
        breaking_changes=passed(_GUIDES.decode(row.guides), row.before, row.after),
    )


_VERSIONS = text(f"""
    WITH versions AS (
        SELECT s.id, {VERSION} AS version, {MANIFEST} AS manifest
        FROM snapshots s
        LEFT JOIN source_connectors k ON k.airbyte_source_id = s.airbyte_source_id
        WHERE s.id IN (:before, :after)
    )
    SELECT b.version AS before, b.manifest AS before_manifest,
        a.version AS after, a.manifest AS after_manifest,
        coalesce(CAST(k.guides AS text), '[]') AS guides
    FROM versions b JOIN versions a ON b.id = :before AND a.id = :after
    JOIN snapshots s ON s.id = a.id
    LEFT JOIN source_connectors k ON k.airbyte_source_id = s.airbyte_source_id
""")  # noqa: S608 - no input


def read_step(stored: str | None) -> Step | None:
    """Decode the step of a drift's or a repair's row."""
    return None if stored is None else _STEP.decode(stored)


def write_step(step: Step | None) -> str | None:
    """Encode a step for a row, as responses show it."""
    return None if step is None else msgspec.json.encode(step).decode()


CONNECTOR_JSON = f"""
    json_build_object(
        'source_id', k.airbyte_source_id, 'repository', k.repository, 'version', k.version,
        'manifest_version', k.manifest_version, 'known_since', {stamp("k.known_since")},
        'support_state', k.support_state, 'pinned', k.is_pinned,
        'upcoming_breaking_changes', k.upcoming, 'deadline', k.deadline,
        'checked_at', {stamp("k.checked_at")}
    )
"""
"""SQL of a connector as JSON; `k` is the row of `source_connectors`."""
