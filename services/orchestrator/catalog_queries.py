"""Queries for parts of catalog versions: some of the streams, one stream, and those that differ.

A catalog may have 16 MB, so Postgres picks the streams, and only those leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.catalog import StreamId
from shared.errors import NotFound
from shared.registry.paging import after_stream, like

# OFFSET 0 keeps Postgres from reading the stored document again for each stream, and from carrying
# the whole document into a sort or a hash with each stream.
_DOCUMENT = """(
    SELECT v.sync_catalog->'streams' AS streams, v.stream_count FROM sync_catalog_versions v
    WHERE v.connection_id = :id AND v.version_number = :{version} OFFSET 0
)"""
_STREAMS = """(
    SELECT n, streams #>> ARRAY[CAST(n AS text), 'stream', 'name'] COLLATE "C" AS name,
        coalesce(streams #>> ARRAY[CAST(n AS text), 'stream', 'namespace'], '') COLLATE "C"
            AS namespace{more}
    FROM {document} d CROSS JOIN generate_series(0, d.stream_count - 1) n OFFSET 0
)"""
_VERSION = _DOCUMENT.format(version="version")
_NAMES = _STREAMS.format(document=_VERSION, more="")
_ORDER = "namespace, name"


async def expect_version(session: AsyncSession, connection_id: UUID, version: int) -> None:
    """Check that a connection has a version.

    Raises:
        NotFound: it has not.
    """
    if await session.scalar(_EXISTS, {"id": connection_id, "version": version}) is None:
        raise NotFound(f"Connection {connection_id} has no catalog version {version}.")


_EXISTS = text("""
    SELECT 1 FROM sync_catalog_versions
    WHERE connection_id = :id AND version_number = CAST(:version AS integer)
""")


async def streams(
    session: AsyncSession,
    connection_id: UUID,
    version: int,
    *,
    search: str | None,
    after: StreamId | None,
    limit: int,
) -> Sequence[bytes]:
    """The streams of a version after one, by namespace and name, as JSON.

    `search` is a part of the name or the namespace, case-insensitive.
    """
    parameters = {
        "id": connection_id,
        "version": version,
        "search": like(search),
        "limit": limit,
        **after_stream(after),
    }
    found: list[str] | None = await session.scalar(_PAGE, parameters)
    return [stream.encode() for stream in found or ()]


_MATCHES = """
    (CAST(:search AS text) IS NULL OR name ILIKE :search OR namespace ILIKE :search)
    AND (
        CAST(:after_name AS text) IS NULL
        OR (namespace, name) > (CAST(:after_namespace AS text), CAST(:after_name AS text))
    )
"""
_PAGE = text(f"""
    SELECT ARRAY(
        SELECT CAST(d.streams->page.n AS text) FROM (
            SELECT n, row_number() OVER (ORDER BY {_ORDER}) AS position FROM {_NAMES} named
            WHERE {_MATCHES} ORDER BY position LIMIT :limit
        ) page ORDER BY page.position
    ) FROM {_VERSION} d
""")  # noqa: S608 - constants


async def stream(
    session: AsyncSession, connection_id: UUID, version: int, wanted: StreamId
) -> bytes | None:
    """One stream of a version as JSON; None if the version has no such stream."""
    parameters = {
        "id": connection_id,
        "version": version,
        "name": wanted.name,
        "namespace": wanted.namespace or "",
    }
    found: str | None = await session.scalar(_ONE, parameters)
    return None if found is None else found.encode()


_ONE = text(f"""
    SELECT CAST(d.streams->found.n AS text)
    FROM {_VERSION} d CROSS JOIN (
        SELECT n FROM {_NAMES} named
        WHERE name = :name AND namespace = :namespace LIMIT 1
    ) found
""")  # noqa: S608 - constants


async def differing(
    session: AsyncSession,
    connection_id: UUID,
    versions: tuple[int, int],
    *,
    only: StreamId | None = None,
    search: str | None = None,
    after: StreamId | None = None,
    limit: int | None = None,
) -> tuple[list[bytes], list[bytes]]:
    """The streams of two versions that are not equal in both, as JSON, by namespace and name.

    `only` is the one stream to compare; `search`, `after` and `limit` are as for `streams`.
    """
    parameters = {
        "id": connection_id,
        "before": versions[0],
        "after": versions[1],
        "only_name": None if only is None else only.name,
        "only_namespace": None if only is None else only.namespace or "",
        "search": like(search),
        "limit": limit,
        **after_stream(after),
    }
    rows = (await session.execute(_DIFFERING, parameters)).all()
    ours, theirs = ([row[at].encode() for row in rows if row[at]] for at in (0, 1))
    return ours, theirs


_SIDE = ", streams->n AS stream"
_DIFFERING = text(f"""
    SELECT CAST(ours AS text), CAST(theirs AS text) FROM (
        SELECT coalesce(a.name, b.name) AS name, coalesce(a.namespace, b.namespace) AS namespace,
            a.stream AS ours, b.stream AS theirs
        FROM {_STREAMS.format(document=_DOCUMENT.format(version="before"), more=_SIDE)} a
        FULL JOIN {_STREAMS.format(document=_DOCUMENT.format(version="after"), more=_SIDE)} b
            ON a.name = b.name AND a.namespace = b.namespace
        WHERE a.stream IS DISTINCT FROM b.stream
    ) k
    WHERE {_MATCHES} AND (
        CAST(:only_name AS text) IS NULL
        OR name = :only_name AND namespace = :only_namespace
    )
    ORDER BY {_ORDER} LIMIT CAST(:limit AS bigint)
""")  # noqa: S608 - constants
