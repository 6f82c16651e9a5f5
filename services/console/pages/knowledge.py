"""Knowledge: what people decided that a removed field or stream became."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import CallerApi, load
from services.console.rendering import render

router = APIRouter()


@router.get("/knowledge")
async def knowledge(
    request: Request,
    api: CallerApi,
    source_type: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show decisions, newest first."""
    wanted = source_type.strip()
    panels = await load(
        decisions=api.rag_engine.get(
            "/knowledge", source_type=wanted or None, after=after, limit=50
        )
    )
    return render(
        request,
        "knowledge.j2",
        decisions=panels["decisions"],
        source_type=wanted,
        is_first=after is None,
    )
