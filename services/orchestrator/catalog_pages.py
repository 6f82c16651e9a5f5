"""Pages of a catalog version and of the difference of two, without reading whole catalogs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from services.orchestrator import catalog_queries
from services.orchestrator.catalog_schemas import FieldPage, FieldView, StreamPage, StreamView
from shared import registry
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain import drift
from shared.domain.catalog import Catalog, ConfiguredStream, StreamId
from shared.domain.cooperative import Steps, Stepwise, run_cooperatively
from shared.errors import NotFound
from shared.http.diff_pages import DiffSummary, counted, members, window


class Difference(msgspec.Struct, frozen=True):
    """What changed between two catalog versions."""

    from_version: int
    to_version: int
    schema_changes: list[drift.Change]
    config_changes: list[drift.ConfigChange]
    next: str | None = None


class CatalogPages:
    """Reads parts of catalog versions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def streams(
        self,
        connection_id: UUID,
        version: int,
        *,
        search: str | None,
        after: StreamId | None,
        limit: int,
    ) -> StreamPage:
        """A page of a version's streams, by namespace and name.

        Raises:
            NotFound: the connection has no such version.
        """
        async with self._db.read() as session:
            await catalog_queries.expect_version(session, connection_id, version)
            slices = await catalog_queries.streams(
                session, connection_id, version, search=search, after=after, limit=limit + 1
            )
        listed, following = slices[:limit], slices[limit:]
        streams = await run_cooperatively(_read.steps(listed))
        return StreamPage(
            items=await run_cooperatively(_views.steps(streams)),
            next=registry.stream_cursor(streams[-1].id) if following else None,
        )

    async def fields(
        self,
        connection_id: UUID,
        version: int,
        stream: StreamId,
        *,
        search: str | None,
        after: int,
        limit: int,
    ) -> FieldPage:
        """A page of a stream's fields, by name; `after` is the number of fields before the page.

        Raises:
            NotFound: the connection has no such version, or the version has no such stream.
        """
        async with self._db.read() as session:
            await catalog_queries.expect_version(session, connection_id, version)
            document = await catalog_queries.stream(session, connection_id, version, stream)
        if document is None:
            raise NotFound(
                f"Catalog version {version} of connection {connection_id} has no stream {stream}."
            )
        found = catalogs.read_stream(document)
        fields = found.stream.fields() or {}
        part = (search or "").casefold()
        names = sorted(name for name in fields if part in name.casefold())
        listed, following = window(names, after=after, limit=limit)
        chosen = found.config.selected_names()
        keys = {path[0] for path in found.primary_key if path}
        return FieldPage(
            items=[
                FieldView(
                    name=name,
                    type=drift.type_of(fields[name]),
                    selected=chosen is None or name in chosen,
                    is_cursor=found.cursor[:1] == (name,),
                    is_key=name in keys,
                )
                for name in listed
            ],
            next=following,
        )

    async def diff(
        self,
        connection_id: UUID,
        versions: tuple[int, int],
        *,
        only: StreamId | None = None,
        after: int = 0,
        limit: int | None = None,
    ) -> Difference:
        """What changed between two versions, in the schema and in the settings.

        `after` and `limit` choose a page of the changes, schema changes first; `only` is the one
        stream to compare. Streams that are equal in both are not read.

        Raises:
            NotFound: the connection has no such version.
        """
        before, now = await self._differing(connection_id, versions, only=only)
        schema, config = await _compared(before, now)
        changes, following = window([*schema, *config], after=after, limit=limit)
        return Difference(
            from_version=versions[0],
            to_version=versions[1],
            schema_changes=members(changes, drift.Change),
            config_changes=members(changes, drift.ConfigChange),
            next=following,
        )

    async def summary(
        self,
        connection_id: UUID,
        versions: tuple[int, int],
        *,
        search: str | None,
        after: StreamId | None,
        limit: int,
    ) -> DiffSummary:
        """The number of changes of each stream, for a page of the streams that differ.

        Raises:
            NotFound: the connection has no such version.
        """
        before, now = await self._differing(
            connection_id, versions, search=search, after=after, limit=limit + 1
        )
        streams = sorted({one.id for one in (*before, *now)}, key=lambda one: one.order)
        following = registry.stream_cursor(streams[limit - 1]) if streams[limit:] else None
        listed = frozenset(streams[:limit])
        before, now = ([one for one in side if one.id in listed] for side in (before, now))
        schema, config = await _compared(before, now)
        return DiffSummary(items=counted(schema, config), next=following)

    async def _differing(
        self, connection_id: UUID, versions: tuple[int, int], **options: Any
    ) -> tuple[list[ConfiguredStream], list[ConfiguredStream]]:
        """The streams that differ, as each of the two versions has them."""
        async with self._db.read() as session:
            for version in versions:
                await catalog_queries.expect_version(session, connection_id, version)
            ours, theirs = await catalog_queries.differing(
                session, connection_id, versions, **options
            )
        return (
            await run_cooperatively(_read.steps(ours)),
            await run_cooperatively(_read.steps(theirs)),
        )


async def _compared(
    before: Sequence[ConfiguredStream], after: Sequence[ConfiguredStream]
) -> tuple[list[drift.Change], list[drift.ConfigChange]]:
    ours, theirs = Catalog(tuple(before)), Catalog(tuple(after))
    return (
        await run_cooperatively(drift.diff.steps(ours, theirs)),
        await run_cooperatively(drift.diff_config.steps(ours, theirs)),
    )


@Stepwise
def _read(slices: Sequence[bytes]) -> Steps[list[ConfiguredStream]]:
    streams = []
    for document in slices:
        streams.append(catalogs.read_stream(document))
        yield
    return streams


@Stepwise
def _views(streams: Sequence[ConfiguredStream]) -> Steps[list[StreamView]]:
    views = []
    for one in streams:
        fields = frozenset(one.stream.fields() or ())
        chosen = one.config.selected_names()
        views.append(
            StreamView(
                name=one.id.name,
                namespace=one.id.namespace,
                selected=one.selected,
                sync_mode=one.config.sync_mode,
                destination_sync_mode=one.config.destination_sync_mode,
                cursor_field=list(one.cursor) or None,
                primary_key=[list(path) for path in one.primary_key],
                fields=len(fields),
                selected_fields=len(fields if chosen is None else fields & chosen),
                mappers=len(one.config.mappers or ()),
            )
        )
        yield
    return views
