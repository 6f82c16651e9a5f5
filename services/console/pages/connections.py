"""The list of connections, with a search by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import CallerApi
from services.console.rendering import render

router = APIRouter()


@router.get("/connections")
async def connections(
    request: Request,
    api: CallerApi,
    q: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show one page of the list, newest first."""
    search = q.strip()
    page = await api.orchestrator.get("/connections", name=search or None, after=after, limit=100)
    return render(request, "connections.j2", page=page, search=search, is_first=after is None)
