"""Routes of source types, and of checks and previews of sources before they are onboarded."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from services.orchestrator.source_definitions import SourceDefinitions
from services.orchestrator.source_schemas import (
    CheckedView,
    PreviewedView,
    SourceTypePage,
    SourceTypeView,
    SpecificationView,
    Trial,
)
from services.orchestrator.source_trials import SourceTrials
from services.orchestrator.workspace_routes import RequestedWorkspace
from shared.auth.scopes import Scope, may
from shared.domain.specification import json_path
from shared.http.dependencies import from_state
from shared.http.openapi import links
from shared.http.paging import Limit
from shared.http.problems import problems

router = APIRouter(tags=["sources"])

Definitions = Annotated[SourceDefinitions, from_state("definitions")]
Trials = Annotated[SourceTrials, from_state("trials")]
_TO_SPECIFICATION = "GET /source-types/{source_type}/specification"


@router.get(
    "/source-types",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses={
        200: links(_TO_SPECIFICATION, source_type="$response.body#/items/0/id"),
        **problems(422, 502, 503, 504),
    },
)
async def source_types(
    definitions: Definitions,
    workspace_id: RequestedWorkspace,
    search: Annotated[
        str | None,
        Query(max_length=200, pattern=r"^[^\x00]*$", description="Part of the name"),
    ] = None,
    after: Annotated[UUID | None, Query(description="`next` of the previous page")] = None,
    limit: Limit = 100,
) -> SourceTypePage:
    """List the source types that an Airbyte workspace can use, by name.

    The list is read from Airbyte at most every five minutes.
    """
    items, following = await definitions.page(workspace_id, search, after=after, limit=limit)
    return SourceTypePage(
        items=[
            SourceTypeView(
                id=one.definition_id,
                name=one.name,
                version=one.docker_image_tag,
                support_level=one.support_level,
                documentation_url=one.documentation_url,
                is_custom=one.is_custom,
            )
            for one in items
        ],
        next=None if following is None else str(following),
    )


@router.get(
    "/source-types/{source_type}/specification",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses=problems(404, 422, 502, 503, 504),
)
async def specification(
    source_type: Annotated[str, Path(min_length=1, max_length=200)],
    definitions: Definitions,
    workspace_id: RequestedWorkspace,
) -> SpecificationView:
    """Get the specification of a source type: its connector's JSON Schema, and what is secret.

    It is read from Airbyte at most every five minutes. A name that several source types have is
    422 `ambiguous_source_type`: use the id.
    """
    found, definition, documentation_url = await definitions.shown(source_type, workspace_id)
    specified = await definitions.specification(found, workspace_id)
    return SpecificationView(
        id=definition.definition_id,
        name=definition.name,
        version=definition.docker_image_tag,
        documentation_url=documentation_url,
        specification=specified.schema,
        secret_paths=[json_path(path) for path in specified.secrets],
    )


@router.post(
    "/sources/check",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses=problems(409, 422, 502, 503, 504),
)
async def check(order: Trial, trials: Trials) -> CheckedView:
    """Check whether a source can be reached with a configuration and a credential.

    Nothing is created, in AAM or in Airbyte. It starts a connector, which takes seconds or
    minutes. 422 `check_failed`: the source cannot be reached, and `cause` says why if that is
    known. 429 `discovery_quota`: the limit of checks and previews in 24 hours with this source type
    and credential is reached. 409 `trial_running`: another one is running.
    """
    return await trials.check(order)


@router.post(
    "/sources/preview",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses=problems(409, 422, 502, 503, 504),
)
async def preview(order: Trial, trials: Trials) -> PreviewedView:
    """Show which streams a source would offer, with keys, cursors and fields.

    Airbyte needs a source for that: a temporary one is created, and deleted at the end. Limits and
    errors are those of a check; 422 `discovery_failed`: the connector could not list the schema.
    """
    return await trials.preview(order)
