"""HTTP routes of the list of connections and of its counts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from pydantic import StringConstraints

from services.orchestrator import connection_queries
from services.orchestrator.connection_queries import ConnectionFilter, Sort
from services.orchestrator.health_schemas import SUMMARY, ConnectionSummary
from services.orchestrator.schemas import ConnectionPage
from shared.auth.scopes import Scope, may
from shared.database import Database
from shared.domain.health import Health
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import Limit
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.models import ConnectionStatus

router = APIRouter(tags=["connections"])

Registry = Annotated[Database, from_state("db")]
FROM_CONNECTION = (
    "GET /connections/{connection_id}",
    "GET /connections/{connection_id}/jobs",
    "GET /connections/{connection_id}/timeline",
    "GET /connections/{connection_id}/volume",
    "GET /connections/{connection_id}/catalog-versions",
    "POST /connections/{connection_id}/discover",
    "POST /connections/{connection_id}/sync",
    "POST /connections/{connection_id}/streams/refresh",
    "PATCH /connections/{connection_id}",
    "GET /connections/{connection_id}/history",
    "DELETE /connections/{connection_id}",
)
"""Routes that take the id of a connection."""
_PLAIN = r"^[^\x00]*$"
_LABEL = r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?=[^\x00]{1,200}$"
_LONGEST_CURSOR = 1200
"""A name of 200 characters, at most four bytes each, and an id, in base64."""


class Include(StrEnum):
    """What the items of the list have in addition."""

    HEALTH = "health"
    SYNCS = "syncs"


def _filter(  # noqa: PLR0913, PLR0917 - one for each query parameter
    status: Annotated[ConnectionStatus | None, Query()] = None,
    name: Annotated[
        str | None, Query(max_length=200, pattern=_PLAIN, description="Part of the name")
    ] = None,
    archived: Annotated[bool, Query(description="List archived connections instead")] = False,
    workspace_id: Annotated[
        UUID | None, Query(description="Only connections of this Airbyte workspace")
    ] = None,
    health: Annotated[
        list[Health] | None,
        Query(
            max_length=12,
            description="Only connections with one of these words; repeatable. `archived` implies "
            "`archived=true`.",
        ),
    ] = None,
    source_type: Annotated[str | None, Query(max_length=200, pattern=_PLAIN)] = None,
    label: Annotated[
        list[Annotated[str, StringConstraints(pattern=_LABEL)]] | None,
        Query(max_length=10, description="A label as `name=value`; repeatable, all must match"),
    ] = None,
    credential_id: Annotated[str | None, Query(max_length=200, pattern=_PLAIN)] = None,
    destination_id: Annotated[UUID | None, Query(description="An Airbyte destination")] = None,
    upstream_code: Annotated[
        str | None,
        Query(max_length=50, pattern=_PLAIN, description="How Airbyte differs from the registry"),
    ] = None,
    airbyte_connection_id: Annotated[UUID | None, Query()] = None,
    q: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=200,
            pattern=_PLAIN,
            description="Part of the name, or the id of the connection, or of its source, "
            "destination or connection in Airbyte",
        ),
    ] = None,
) -> ConnectionFilter:
    pairs = [one.partition("=") for one in label or ()]
    return ConnectionFilter(
        status=status,
        name=name,
        archived=archived,
        workspace_id=workspace_id,
        health=tuple(word for word in Health if word in (health or ())),
        source_type=source_type,
        labels=tuple((name_, value) for name_, _, value in pairs),
        credential_id=credential_id,
        destination_id=destination_id,
        upstream_code=upstream_code,
        airbyte_connection_id=airbyte_connection_id,
        anything=q,
    )


Shown = Annotated[ConnectionFilter, Depends(_filter)]


@router.get(
    "/connections",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ConnectionPage,
    responses={
        200: links(*FROM_CONNECTION, connection_id="$response.body#/items/0/id"),
        **problems(422, 503),
    },
)
async def connections(
    db: Registry,
    shown: Shown,
    sort: Annotated[
        Sort,
        Query(
            description="`created_at`: newest first. `name`: ignoring case. `health`: most urgent "
            "first, and of the same word what has waited longest."
        ),
    ] = Sort.CREATED_AT,
    include: Annotated[
        list[Include] | None,
        Query(
            max_length=2,
            description="`health` adds each connection's health, `syncs` its newest syncs",
        ),
    ] = None,
    after: Annotated[
        str | None,
        Query(max_length=_LONGEST_CURSOR, description="`next` of the previous page, same `sort`"),
    ] = None,
    limit: Limit = 100,
) -> Response:
    """List connections; every filter that is given must match.

    A connection has one health word, the first that applies: `failed`, `paused_by_repair`,
    `paused`, `needs_review`, `differs`, `sync_failing`, `suspicious`, `overdue`, `healing`,
    `syncing`, `healthy`; or `archived`.
    """
    async with db.read() as session:
        return raw_json(
            await connection_queries.page_of_connections(
                session,
                shown,
                limit=limit,
                sort=sort,
                after=after or None,
                with_health=Include.HEALTH in (include or ()),
                with_syncs=Include.SYNCS in (include or ()),
            )
        )


@router.get(
    "/connections/summary",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=ConnectionSummary,
    responses={200: example(SUMMARY), **problems(422, 503)},
)
async def summary(db: Registry, shown: Shown) -> Response:
    """Count the connections that the filters of GET /connections show, by what they have.

    Of source types and destinations, the 100 most frequent are counted.
    """
    async with db.read() as session:
        return raw_json(await connection_queries.summary_of_connections(session, shown))
