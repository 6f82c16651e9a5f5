"""HTTP routes of catalog versions: list, page through one, compare two, adopt Airbyte's."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response

from services.orchestrator.catalog_adoption import CatalogAdoption
from services.orchestrator.catalog_pages import CatalogPages
from services.orchestrator.catalog_schemas import Adopted, CatalogDiff, FieldPage, StreamPage
from services.orchestrator.schemas import CATALOG, VersionPage
from shared import registry
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.domain.catalog import StreamId
from shared.http.dependencies import from_state
from shared.http.diff_pages import (
    DiffSummary,
    FirstChange,
    MostChanges,
    Namespace,
    OnlyStream,
    StreamName,
    only,
)
from shared.http.openapi import example, links
from shared.http.paging import AfterStream, Limit, Search
from shared.http.problems import problems
from shared.http.responses import raw_json

router = APIRouter(tags=["connections"])

Registry = Annotated[Database, from_state("db")]


def _pages(db: Registry) -> CatalogPages:
    return CatalogPages(db)


Pages = Annotated[CatalogPages, Depends(_pages)]
Adoption = Annotated[CatalogAdoption, from_state("adoption")]
_VERSION = Path(ge=1, le=2**31 - 1)


@router.get(
    "/connections/{connection_id}/catalog-versions",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=VersionPage,
    responses={
        200: links(
            "GET /connections/{connection_id}/catalog-versions/{version}",
            "GET /connections/{connection_id}/catalog-versions/{version}/streams",
            connection_id="$request.path.connection_id",
            version="$response.body#/items/0/version_number",
        ),
        **problems(404, 422, 503),
    },
)
async def catalog_versions(
    connection_id: UUID,
    db: Registry,
    limit: Limit = 100,
    after: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="`next` of the previous page")
    ] = None,
) -> Response:
    """List the versions of the connection's catalog, newest first, without the catalogs."""
    async with db.read() as session:
        await registry.find_connection(session, connection_id)
        return raw_json(
            await registry.page_of_versions(session, connection_id, after=after, limit=limit)
        )


@router.post(
    "/connections/{connection_id}/catalog-versions/adopt",
    dependencies=[may(Scope.CATALOGS_HEAL)],
    responses=problems(404, 409, 422, 502, 503, 504),
)
async def adopt(connection_id: UUID, adoption: Adoption) -> Adopted:
    """Record the catalog that Airbyte holds for the connection as its next version.

    For a connection whose `upstream_code` is `catalog_differs`: because it was edited in Airbyte,
    or the registry was restored from a backup. Nothing in Airbyte is changed; a rollback to the
    previous version would apply that again. `changed` is false if the newest version already has
    the catalog. A FAILED connection is ACTIVE then.
    """
    return await adoption.adopt(connection_id)


@router.get(
    "/connections/{connection_id}/catalog-versions/{version}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses={
        200: example(CATALOG),
        **problems(404, 422, 503),
    },
)
async def catalog_version(
    connection_id: UUID, version: Annotated[int, _VERSION], db: Registry
) -> Response:
    """Get the syncCatalog of one version, as it was sent to Airbyte."""
    async with db.read() as session:
        found = await registry.read_version(session, connection_id, version)
    return raw_json(found.sync_catalog)


@router.get(
    "/connections/{connection_id}/catalog-versions/{version}/streams",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses={
        200: links(
            "GET /connections/{connection_id}/catalog-versions/{version}/fields",
            connection_id="$request.path.connection_id",
            version="$request.path.version",
            stream="$response.body#/items/0/name",
        ),
        **problems(404, 422, 503),
    },
)
async def streams(
    connection_id: UUID,
    version: Annotated[int, _VERSION],
    pages: Pages,
    search: Search = None,
    after: AfterStream = None,
    limit: Limit = 100,
) -> StreamPage:
    """List the streams of one version, by namespace and name, without their fields."""
    return await pages.streams(connection_id, version, search=search, after=after, limit=limit)


@router.get(
    "/connections/{connection_id}/catalog-versions/{version}/fields",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def fields(
    connection_id: UUID,
    version: Annotated[int, _VERSION],
    stream: StreamName,
    pages: Pages,
    namespace: Namespace = None,
    search: Search = None,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="`next` of the previous page")] = 0,
    limit: Limit = 200,
) -> FieldPage:
    """List the top-level fields of one stream, by name.

    A version is the catalog as it was sent to Airbyte. If a stream's fields are selected
    individually, unselected fields are missing from its schema, and so from this list.
    """
    return await pages.fields(
        connection_id,
        version,
        StreamId(namespace or None, stream),
        search=search,
        after=after,
        limit=limit,
    )


@router.get(
    "/connections/{connection_id}/catalog-versions/{from_version}/diff/{to_version}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=CatalogDiff,
    responses=problems(404, 422, 503),
)
async def catalog_diff(
    connection_id: UUID,
    from_version: Annotated[int, _VERSION],
    to_version: Annotated[int, _VERSION],
    pages: Pages,
    stream: OnlyStream = None,
    namespace: Namespace = None,
    after: FirstChange = 0,
    limit: MostChanges = None,
) -> Response:
    """Compare two catalog versions by stream, field and setting.

    With `stream`, only that stream is compared. With `limit`, the response is a page of the
    changes: first those of the schema, then those of the settings, each by stream.
    """
    found = await pages.diff(
        connection_id,
        (from_version, to_version),
        only=only(stream, namespace),
        after=after,
        limit=limit,
    )
    return raw_json(msgspec.json.encode(found))


@router.get(
    "/connections/{connection_id}/catalog-versions/{from_version}/diff/{to_version}/summary",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 503),
)
async def catalog_diff_summary(
    connection_id: UUID,
    from_version: Annotated[int, _VERSION],
    to_version: Annotated[int, _VERSION],
    pages: Pages,
    search: Search = None,
    after: AfterStream = None,
    limit: Limit = 100,
) -> DiffSummary:
    """List the streams that differ between two catalog versions, with the number of changes."""
    return await pages.summary(
        connection_id, (from_version, to_version), search=search, after=after, limit=limit
    )
