"""The append-only history of settings: policies, observations, webhooks and connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.auth import scopes
from shared.models import SettingChange
from shared.registry.paging import stamp

SettingSubject: TypeAlias = Literal[
    "policy", "policy_layer", "observation", "webhook", "connection"
]
"""The kind of setting: a connection's own, its policy or observation, a policy above connections,
or a webhook."""
POLICY_LAYERS: Final = UUID("2b0a6c3e-5d7f-4e1a-9c48-7f6e5d4c3b2a")
"""The subject's id of changes of the policies above connections, which share one history."""

SAME = """
    SELECT one.id, NULL::timestamptz AS archived_at FROM connections one WHERE one.id = :id
    UNION ALL
    SELECT earlier.id, earlier.archived_at FROM connections one
    JOIN connections earlier ON earlier.airbyte_connection_id = one.airbyte_connection_id
    WHERE one.id = :id AND one.imported AND earlier.id <> one.id
        AND earlier.archived_at IS NOT NULL
"""
"""A connection, and the archived connections from which it was imported again."""


async def record_setting_change(
    session: AsyncSession,
    subject: SettingSubject,
    subject_id: UUID,
    change: Mapping[str, Any],
    *,
    by: str | None = None,
    requested_by: str | None = None,
) -> None:
    """Add a change to the history, with the person it is for and the caller.

    `subject_id` is the id of the connection or webhook, or POLICY_LAYERS. `by` is the person on
    whose behalf the caller acts; None for the caller. `requested_by` is the caller of an operation,
    which may run in another process; None for the caller of the current request.
    """
    caller = requested_by or scopes.requested_by()
    await session.execute(
        insert(SettingChange).values(
            subject=subject,
            subject_id=subject_id,
            change=msgspec.json.encode(change, enc_hook=str).decode(),
            changed_by=by or caller or scopes.named(None),
            requested_by=caller,
        )
    )


async def setting_history_json(
    session: AsyncSession,
    subject: SettingSubject,
    subject_id: UUID,
    *,
    limit: int,
    after: int | None,
) -> str:
    """A page of changes as JSON text, newest first: `{"items": […], "next": cursor or null}`.

    `after` is the `next` of the previous page. A policy's history includes the time before the
    connection was archived and imported again, as the policy does.
    """
    parameters = {"subject": subject, "id": subject_id, "limit": limit, "after": after}
    found: str = (await session.execute(_PAGE, parameters)).scalar_one()
    return found


_PAGE = text(f"""
    WITH page AS (
        SELECT * FROM setting_changes
        WHERE subject = :subject AND subject_id = ANY (ARRAY(
                SELECT CAST(:id AS uuid) UNION
                SELECT same.id FROM ({SAME}) same WHERE CAST(:subject AS text) = 'policy'
            ))
            AND (CAST(:after AS bigint) IS NULL OR id < CAST(:after AS bigint))
        ORDER BY id DESC LIMIT :limit + 1
    ), kept AS (SELECT * FROM page ORDER BY id DESC LIMIT :limit)
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(json_build_object(
                'at', {stamp("k.at")}, 'by', k.changed_by,
                'requested_by', k.requested_by, 'change', k.change
            ) ORDER BY k.id DESC) FROM kept k
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit
            THEN (SELECT min(id)::text FROM kept) END
    )::text
""")  # noqa: S608 - no input
