"""Connections and the versions of their catalogs."""

from __future__ import annotations

import base64
import binascii
import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import TextClause, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from shared.errors import Invalid, NameTaken, NotActive, NotFound, StaleCatalog
from shared.models import Connection, ConnectionStatus, SyncCatalogVersion, VersionOrigin


async def insert_pending(session: AsyncSession, connection: Connection) -> bool:
    """Record that a connection is about to be made, before anything is; twice is once.

    Returns whether another live connection uses its credential.

    Raises:
        NameTaken: a live connection has this name.
    """
    other = aliased(Connection)
    shares = (
        select(other.id)
        .where(
            other.credential_id == connection.credential_id,
            other.archived_at.is_(None),
            other.airbyte_source_id.is_not(None),
        )
        .exists()
    )
    inserted = await session.execute(
        insert(Connection)
        .values(
            id=connection.id,
            name=connection.name,
            source_type=connection.source_type,
            credential_id=connection.credential_id,
            airbyte_destination_id=connection.airbyte_destination_id,
            status=ConnectionStatus.PENDING,
        )
        .on_conflict_do_nothing()
        .returning(shares)
    )
    row = inserted.one_or_none()
    if row is None and await session.get(Connection, connection.id) is None:
        raise NameTaken("A live connection has this name already.")
    return row is not None and bool(row[0])


async def find_connection(session: AsyncSession, connection_id: UUID) -> Connection:
    """A connection by id, archived or not.

    Raises:
        NotFound: there is none.
    """
    connection = await session.get(Connection, connection_id)
    if connection is None:
        raise NotFound(f"No connection {connection_id}.")
    return connection


async def lock_connection(
    session: AsyncSession, connection_id: UUID, *, even_archived: bool = False
) -> Connection:
    """A live connection, its row locked until the transaction ends.

    Raises:
        NotFound: there is none.
        NotActive: it is archived.
    """
    connection = await session.get(
        Connection, connection_id, with_for_update=True, populate_existing=True
    )
    if connection is None:
        raise NotFound(f"No connection {connection_id}.")
    if connection.archived_at is not None and not even_archived:
        raise NotActive(f"Connection {connection_id} is archived.")
    return connection


def begin_heal(connection: Connection, heal_id: UUID) -> None:
    """Give the locked connection to one repair: HEALING, until that repair ends it."""
    connection.status = ConnectionStatus.HEALING
    connection.heal_id = heal_id
    connection.healing_since = func.now()


def end_heal(connection: Connection, heal_id: UUID, *, status: ConnectionStatus) -> None:
    """Take the locked connection back from its repair.

    Raises:
        NotActive: another repair has it, or none; the caller's was superseded.
    """
    if connection.heal_id != heal_id:
        raise NotActive(
            f"Connection {connection.id} is no longer held by this repair.", code="superseded"
        )
    connection.status = status
    connection.heal_id = connection.healing_since = None


def append_version(
    session: AsyncSession,
    connection: Connection,
    sync_catalog: bytes,
    *,
    expected_version: int,
    fingerprint: str,
    origin: VersionOrigin,
    snapshot_id: UUID | None,
    asked_by: str | None,
) -> SyncCatalogVersion:
    """Add the next catalog version, unless somebody else was faster.

    The connection's row must be locked by this transaction.

    Raises:
        StaleCatalog: the newest version is no longer `expected_version`.
    """
    if connection.catalog_version != expected_version:
        raise StaleCatalog(
            connection.id, expected=expected_version, current=connection.catalog_version
        )
    connection.catalog_version = expected_version + 1
    version = SyncCatalogVersion(
        connection_id=connection.id,
        version_number=connection.catalog_version,
        sync_catalog=sync_catalog.decode(),
        fingerprint=fingerprint,
        origin=origin,
        snapshot_id=snapshot_id,
        asked_by=asked_by,
    )
    session.add(version)
    return version


# Pages: the JSON is built by Postgres, which is twice as fast as rows through an ORM.

_CONNECTION_JSON = """
    json_build_object(
        'id', c.id, 'name', c.name, 'source_type', c.source_type, 'status', c.status,
        'credential_id', c.credential_id, 'airbyte_source_id', c.airbyte_source_id,
        'airbyte_connection_id', c.airbyte_connection_id,
        'airbyte_destination_id', c.airbyte_destination_id, 'catalog_version', c.catalog_version,
        'failure_code', c.failure_code, 'failure_detail', c.failure_detail,
        'imported', c.imported, 'drifted_upstream_at', c.drifted_upstream_at,
        'upstream_code', c.upstream_code, 'paused_by', c.paused_by,
        'created_at', c.created_at, 'updated_at', c.updated_at, 'archived_at', c.archived_at
    )
"""

_PAGE = """
    WITH page AS (
        SELECT * FROM connections c
        WHERE {conditions}
        ORDER BY c.created_at DESC, c.id DESC
        LIMIT :limit + 1
    ), kept AS (
        SELECT * FROM page c ORDER BY c.created_at DESC, c.id DESC LIMIT :limit
    )
    SELECT json_build_object(
        'items', coalesce((SELECT json_agg({connection}) FROM kept c), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
            SELECT translate(encode(convert_to(concat_ws(' ',
                to_char(c.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), c.id
            ), 'UTF8'), 'base64'), E'+/=\\n', '-_')
            FROM kept c ORDER BY c.created_at, c.id LIMIT 1) END
    )::text
"""


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Which connections a list shows."""

    status: ConnectionStatus | None = None
    name: str | None = None
    """A part of the name, in any case."""
    archived: bool = False
    after: tuple[datetime, UUID] | None = None
    """Where the previous page ended."""


async def page_of_connections(session: AsyncSession, shown: ConnectionFilter, *, limit: int) -> str:
    """A page as JSON text, newest first: `{"items": […], "next": cursor or null}`."""
    conditions = ["c.archived_at IS NOT NULL" if shown.archived else "c.archived_at IS NULL"]
    parameters: dict[str, object] = {"limit": limit}
    if shown.status is not None:
        conditions.append("c.status = CAST(:status AS connection_status)")
        parameters["status"] = shown.status.value
    if shown.name is not None:
        conditions.append("c.name ILIKE :name")
        parameters["name"] = f"%{_escape_like(shown.name)}%"
    if shown.after is not None:
        conditions.append("(c.created_at, c.id) < (:after_at, :after_id)")
        parameters["after_at"], parameters["after_id"] = shown.after
    statement = _page_statement(" AND ".join(conditions))
    page: str | None = await session.scalar(statement, parameters)
    return page or '{"items": [], "next": null}'


@functools.cache
def _page_statement(conditions: str) -> TextClause:
    # nosemgrep: built-sql - conditions of ours, values are parameters
    return text(_PAGE.format(conditions=conditions, connection=_CONNECTION_JSON))


def _escape_like(part: str) -> str:
    return part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def cursor_of(at: datetime, id_: UUID) -> str:
    """The cursor of the page that begins after this position."""
    position = f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')} {id_}"
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, UUID]:
    """The position that a page's `next` names.

    Raises:
        Invalid: it is no cursor of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, id_ = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        return datetime.fromisoformat(at + "+00:00"), UUID(id_)
    except (ValueError, binascii.Error):
        raise Invalid("`after` is not a cursor of this list.", code="bad_cursor") from None


async def connection_json(session: AsyncSession, connection_id: UUID) -> str:
    """One connection as JSON text.

    Raises:
        NotFound: there is none.
    """
    found: str | None = await session.scalar(_CONNECTION, {"id": connection_id})
    if found is None:
        raise NotFound(f"No connection {connection_id}.")
    return found


_CONNECTION = text(f"SELECT {_CONNECTION_JSON}::text FROM connections c WHERE c.id = :id")  # noqa: S608 - no input

_VERSIONS = text("""
    SELECT coalesce(json_agg(json_build_object(
        'version_number', v.version_number, 'origin', v.origin, 'fingerprint', v.fingerprint,
        'snapshot_id', v.snapshot_id, 'streams', jsonb_array_length(v.sync_catalog->'streams'),
        'repair_id', v.repair_id, 'decided_by', v.decided_by, 'policy_set_by', v.policy_set_by,
        'asked_by', v.asked_by, 'created_at', v.created_at
    ) ORDER BY v.version_number DESC), '[]')::text
    FROM sync_catalog_versions v WHERE v.connection_id = :id
""")

_JOBS = text("""
    SELECT coalesce(json_agg(json_build_object(
        'job_id', j.id, 'airbyte_job_id', j.airbyte_job_id, 'status', j.status,
        'started_by', j.started_by, 'asked_by', j.asked_by, 'catalog_version', j.catalog_version,
        'attempts', j.attempts, 'records', j.records, 'bytes', j.bytes,
        'failure_code', j.failure_code, 'failure_cause', j.failure_cause,
        'failure_explanation',
            CASE WHEN CAST(:explained AS boolean) THEN j.failure_explanation END,
        'started_at', j.started_at, 'ended_at', j.ended_at,
        'duration_seconds', extract(epoch FROM coalesce(j.ended_at, now()) - j.started_at)
    ) ORDER BY j.started_at DESC, j.id DESC), '[]')::text
    FROM (
        SELECT * FROM job_history WHERE connection_id = :id
        ORDER BY started_at DESC, id DESC LIMIT :limit
    ) j
""")


async def versions_json(session: AsyncSession, connection_id: UUID) -> str:
    """A connection's catalog versions without the catalogs, newest first: a JSON array."""
    found: str = await session.scalar(_VERSIONS, {"id": connection_id})
    return found


async def jobs_json(
    session: AsyncSession, connection_id: UUID, *, limit: int, is_explained: bool
) -> str:
    """A connection's newest jobs, newest first: a JSON array; why they failed if `is_explained`."""
    found: str = await session.scalar(
        _JOBS, {"id": connection_id, "limit": limit, "explained": is_explained}
    )
    return found


async def read_version(
    session: AsyncSession, connection_id: UUID, version_number: int
) -> SyncCatalogVersion:
    """One catalog version, its catalog as JSON text.

    Raises:
        NotFound: the connection has no such version.
    """
    version = await session.scalar(
        select(SyncCatalogVersion).where(
            SyncCatalogVersion.connection_id == connection_id,
            SyncCatalogVersion.version_number == version_number,
        )
    )
    if version is None:
        raise NotFound(f"Connection {connection_id} has no catalog version {version_number}.")
    return version


async def head_fingerprint(session: AsyncSession, connection: Connection) -> str | None:
    """What the head catalog means; None before the first version."""
    found: str | None = await session.scalar(
        select(SyncCatalogVersion.fingerprint).where(
            SyncCatalogVersion.connection_id == connection.id,
            SyncCatalogVersion.version_number == connection.catalog_version,
        )
    )
    return found
