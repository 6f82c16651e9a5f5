"""The versions of a connection's catalog; two of them can be chosen and compared."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import CallerApi
from services.console.pages.connection.events import ORIGINS
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.words import sentence

router = APIRouter()

_MOST: Final = 50


@router.get(f"{PATH}/versions")
async def versions(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    after: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    """Show one page of the versions, newest first."""
    head, panels = await opened(
        api,
        connection_id,
        versions=api.orchestrator.get(
            "/connections/{}/catalog-versions", connection_id, after=after, limit=_MOST
        ),
    )
    found: dict[str, Any] = panels["versions"].value or {"items": [], "next": None}
    numbers = [one["version_number"] for one in found["items"]]
    return show(
        request,
        "connection_versions.j2",
        head,
        tab="versions",
        versions=panels["versions"],
        origins=[ORIGINS.get(one["origin"], sentence(one["origin"])) for one in found["items"]],
        can_compare=len(numbers) > 1,
        chosen=(numbers[1] if len(numbers) > 1 else None, numbers[0] if numbers else None),
        is_first=after is None,
    )
