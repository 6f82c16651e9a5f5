"""Connections and the versions of their catalogs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from shared.auth import label_limits
from shared.auth.scopes import LabelLimited
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.errors import NameTaken, NotActive, NotFound, StaleCatalog
from shared.models import (
    Connection,
    ConnectionStatus,
    SyncCatalogVersion,
    VersionOrigin,
)
from shared.registry.arrays import one_of
from shared.registry.health import mark_changed
from shared.registry.paging import Cursor, after_cursor, page, stamp

ARCHIVED = "ARCHIVED"
"""The status of an archived connection in responses; no row has it."""


async def insert_pending(session: AsyncSession, connection: Connection) -> bool:
    """Idempotently record a connection before it is created in Airbyte.

    Returns whether another live connection has a source with the same credential.

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
            source_definition_id=connection.source_definition_id,
            source_configuration=connection.source_configuration,
            credential_id=connection.credential_id,
            airbyte_destination_id=connection.airbyte_destination_id,
            airbyte_workspace_id=connection.airbyte_workspace_id,
            labels=connection.labels or "{}",  # an import sets them afterwards
            status=ConnectionStatus.PENDING,
        )
        .on_conflict_do_nothing()
        .returning(shares)
    )
    row = inserted.one_or_none()
    mark_changed(session, [connection.id])
    if row is None and await session.get(Connection, connection.id) is None:
        raise NameTaken("Another connection already has this name.")
    return row is not None and bool(row[0])


async def expect_free_name(session: AsyncSession, name: str) -> None:
    """Check that no live connection has a name; `insert_pending` decides for good.

    Raises:
        NameTaken: one has it.
    """
    taken = select(Connection.id).where(
        Connection.name == name,
        Connection.archived_at.is_(None),
        (Connection.status != ConnectionStatus.FAILED)
        | Connection.airbyte_connection_id.is_not(None),
    )
    if await session.scalar(taken.limit(1)) is not None:
        raise NameTaken("Another connection already has this name.")


async def find_connection(session: AsyncSession, connection_id: UUID) -> Connection:
    """A connection by id, archived or not.

    Raises:
        NotFound: there is no such connection.
    """
    connection = await session.get(Connection, connection_id)
    if connection is None:
        raise NotFound(f"No connection {connection_id}.")
    return connection


async def connection_names(
    session: AsyncSession, connection_ids: Collection[UUID]
) -> dict[UUID, str]:
    """The names of connections by their ids, archived or not."""
    if not connection_ids:
        return {}
    rows = await session.execute(
        select(Connection.id, Connection.name).where(one_of(Connection.id, connection_ids))
    )
    return {row.id: row.name for row in rows}


async def lock_connection(
    session: AsyncSession, connection_id: UUID, *, even_archived: bool = False
) -> Connection:
    """A live connection, its row locked until the transaction ends.

    Raises:
        NotFound: there is no such connection.
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


async def expect_no_hidden_connection(db: Database, source_id: UUID) -> None:
    """Check that the current caller sees every live connection of a source, before it is changed.

    Raises:
        LabelLimited: it is limited by labels, and one of them lacks a label.
    """
    labels = label_limits.current()
    if not labels:
        return
    with label_limits.registry_wide():
        async with db.read() as session:
            parameters = {"source": source_id, "labels": label_limits.to_json(labels)}
            if await session.scalar(_HAS_HIDDEN, parameters):
                raise LabelLimited(
                    "The source has other connections, and the API key is limited by label."
                )


_HAS_HIDDEN = text("""
    SELECT EXISTS (
        SELECT FROM connections WHERE airbyte_source_id = :source AND archived_at IS NULL
            AND NOT labels @> CAST(:labels AS jsonb)
    )
""")


def begin_heal(connection: Connection, heal_id: UUID) -> None:
    """Set the locked connection to HEALING; only this repair can end that."""
    connection.status = ConnectionStatus.HEALING
    connection.heal_id = heal_id
    connection.healing_since = func.now()


def end_heal(connection: Connection, heal_id: UUID, *, status: ConnectionStatus) -> None:
    """End the repair's hold on the locked connection, and set its status.

    Raises:
        NotActive: another repair holds it, or none; the caller's was superseded.
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
    requested_by: str | None,
) -> SyncCatalogVersion:
    """Add the next catalog version, unless another transaction has added one.

    This transaction must have locked the connection's row.

    Raises:
        StaleCatalog: the newest version is no longer `expected_version`.
    """
    if connection.catalog_version != expected_version:
        raise StaleCatalog(
            connection.id, expected=expected_version, current=connection.catalog_version
        )
    connection.catalog_version = expected_version + 1
    connection.has_mappers = catalogs.may_have_mappers(sync_catalog)
    version = SyncCatalogVersion(
        connection_id=connection.id,
        version_number=connection.catalog_version,
        sync_catalog=sync_catalog.decode(),
        fingerprint=fingerprint,
        origin=origin,
        snapshot_id=snapshot_id,
        requested_by=requested_by,
    )
    session.add(version)
    return version


# Postgres builds the JSON of pages: docs/decisions/0075-json-of-answers.md has the measurements.

CONNECTION_FIELDS = f"""
        'id', t.id, 'name', t.name, 'source_type', t.source_type,
        'status', CASE WHEN t.archived_at IS NULL THEN t.status::text ELSE '{ARCHIVED}' END,
        'credential_id', t.credential_id, 'airbyte_source_id', t.airbyte_source_id,
        'airbyte_connection_id', t.airbyte_connection_id,
        'airbyte_destination_id', t.airbyte_destination_id,
        'airbyte_workspace_id', t.airbyte_workspace_id, 'catalog_version', t.catalog_version,
        'failure_code', t.failure_code, 'failure_detail', t.failure_detail,
        'imported', t.imported, 'drifted_upstream_at', {stamp("t.drifted_upstream_at")},
        'upstream_code', t.upstream_code, 'paused_by', t.paused_by,
        'pause_requested_by', t.pause_requested_by, 'description', t.description,
        'credential_changed_at', {stamp("t.credential_changed_at")},
        'credential_rejected_since', {stamp("t.credential_rejected_since")},
        'credential_rejected_cause', t.credential_rejected_cause,
        'labels', t.labels,
        'created_at', {stamp("t.created_at")}, 'updated_at', {stamp("t.updated_at")},
        'archived_at', {stamp("t.archived_at")}
"""
"""SQL for the fields of a row of `connections` with the alias `t`, for json_build_object."""


async def connection_json(session: AsyncSession, connection_id: UUID) -> str:
    """One connection as JSON text.

    Raises:
        NotFound: there is no such connection.
    """
    found: str | None = await session.scalar(_CONNECTION, {"id": connection_id})
    if found is None:
        raise NotFound(f"No connection {connection_id}.")
    return found


_CONNECTION = text(
    f"SELECT json_build_object({CONNECTION_FIELDS})::text FROM connections t WHERE t.id = :id"  # noqa: S608 - no input
)

_VERSIONS = text(f"""
    WITH page AS (
        SELECT version_number, origin, fingerprint, snapshot_id, stream_count, repair_id,
            decided_by, policy_set_by, requested_by, created_at
        FROM sync_catalog_versions
        WHERE connection_id = :id AND version_number < :before
        ORDER BY version_number DESC LIMIT :limit + 1
    ), kept AS (SELECT * FROM page ORDER BY version_number DESC LIMIT :limit)
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(json_build_object(
                'version_number', v.version_number, 'origin', v.origin,
                'fingerprint', v.fingerprint, 'snapshot_id', v.snapshot_id,
                'streams', v.stream_count, 'repair_id', v.repair_id, 'decided_by', v.decided_by,
                'policy_set_by', v.policy_set_by, 'requested_by', v.requested_by,
                'created_at', {stamp("v.created_at")}
            ) ORDER BY v.version_number DESC) FROM kept v
        ), '[]'),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit
            THEN (SELECT CAST(min(version_number) AS text) FROM kept) END
    )::text
""")  # noqa: S608 - no input
_NO_VERSION_IS_LATER = 2**31 - 1

_JOB_JSON = f"""
    json_build_object(
        'job_id', t.id, 'connection_id', t.connection_id,
        'connection_name', (SELECT c.name FROM connections c WHERE c.id = t.connection_id),
        'airbyte_job_id', t.airbyte_job_id, 'kind', t.kind, 'status', t.status,
        'started_by', t.started_by, 'requested_by', t.requested_by,
        'catalog_version', t.catalog_version, 'attempts', t.attempts,
        'records', t.records, 'bytes', t.bytes,
        'failure_code', t.failure_code, 'failure_cause', t.failure_cause,
        'failure_explanation',
            CASE WHEN CAST(:explained AS boolean) THEN t.failure_explanation END,
        'follow_up', t.follow_up,
        'started_at', {stamp("t.started_at")}, 'ended_at', {stamp("t.ended_at")},
        'duration_seconds', extract(epoch FROM coalesce(t.ended_at, now()) - t.started_at),
        'suspicious_streams', (
            SELECT coalesce(json_agg(json_build_object(
                'stream', of -> 'stream', 'namespace', of -> 'namespace', 'rows', of -> 'rows',
                'usual_low', of -> 'usual_low', 'usual_high', of -> 'usual_high',
                'suspicious_since', {stamp("CAST(of ->> 'suspicious_since' AS timestamptz)")}
            ) ORDER BY position), '[]')
            FROM jsonb_array_elements(t.suspicious_streams) WITH ORDINALITY s(of, position)
            WHERE position <= 20
        )
    )
"""  # noqa: S608 - no input


async def page_of_versions(
    session: AsyncSession, connection_id: UUID, *, after: int | None, limit: int
) -> str:
    """A page of catalog versions, without the catalogs, as JSON text, newest first.

    `after` is the last version number of the previous page; None for the first page.
    """
    before = _NO_VERSION_IS_LATER if after is None else after
    parameters = {"id": connection_id, "before": before, "limit": limit}
    found: str = await session.scalar(_VERSIONS, parameters)
    return found


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Filter of a list of jobs."""

    connection_id: UUID | None = None
    status: str | None = None
    started_by: str | None = None
    since: datetime | None = None
    """Only jobs that started then or later."""
    after: Cursor | None = None
    """Where the previous page ended."""


async def page_of_jobs(
    session: AsyncSession, shown: JobFilter, *, limit: int, is_explained: bool
) -> str:
    """A page of jobs as JSON text, newest first; with failure explanations if `is_explained`."""
    conditions, parameters = after_cursor(shown.after, "started_at")
    given = {
        "connection_id": shown.connection_id,
        "status": shown.status,
        "started_by": shown.started_by,
    }
    for name, value in given.items():
        if value is not None:
            conditions.append(f"t.{name} = :{name}")
            parameters[name] = value
    if shown.since is not None:
        conditions.append("t.started_at >= :since")
        parameters["since"] = shown.since
    statement = page("job_history", _JOB_JSON, " AND ".join(conditions) or "true", at="started_at")
    parameters |= {"limit": limit, "explained": is_explained}
    found: str = await session.scalar(statement, parameters)
    return found


async def read_version(
    session: AsyncSession, connection_id: UUID, version_number: int
) -> SyncCatalogVersion:
    """One catalog version, with its catalog as JSON text.

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
    """The fingerprint of the newest catalog version; None before the first version."""
    found: str | None = await session.scalar(
        select(SyncCatalogVersion.fingerprint).where(
            SyncCatalogVersion.connection_id == connection.id,
            SyncCatalogVersion.version_number == connection.catalog_version,
        )
    )
    return found


async def is_busy(session: AsyncSession, connection_id: UUID) -> bool:
    """Whether a connection has an open operation."""
    return bool(await session.scalar(_IS_BUSY, {"id": connection_id}))


_IS_BUSY = text("""
    SELECT EXISTS (
        SELECT FROM operations WHERE connection_id = :id AND status IN ('running', 'undoing')
    )
""")


# Connections whose source is observed. One that is HEALING is compared once it is ACTIVE again.
LIVE = "c.archived_at IS NULL AND c.status IN ('ACTIVE', 'HEALING')"
