"""The inbox: what needs a decision or a fix."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.console.api import CallerApi, load
from services.console.rendering import render

router = APIRouter()

_MOST = 50


@router.get("/")
async def inbox(request: Request, api: CallerApi) -> Response:
    """Show proposed repairs and failed connections; one service away leaves out its own part."""
    panels = await load(
        repairs=api.drift_repair_agent.get("/repairs", state="proposed", limit=_MOST),
        failed=api.orchestrator.get("/connections", status="FAILED", limit=_MOST),
    )
    return render(request, "inbox.j2", repairs=panels["repairs"], failed=panels["failed"])
