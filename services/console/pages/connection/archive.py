"""Archiving a connection: a page of its own, on which its name has to be typed."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi
from services.console.forms import SubmittedForm
from services.console.pages.connection.actions import back_to
from services.console.pages.connection.head import PATH, opened, show
from services.console.problems import ApiProblem
from services.console.text import visible_name

router = APIRouter()


@router.get(f"{PATH}/archive")
async def ask(request: Request, api: CallerApi, connection_id: UUID) -> Response:
    """Show what archiving does, and the form."""
    return await _page(request, api, connection_id)


@router.post(f"{PATH}/archive")
async def archive(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Archive it, if the typed name is its name."""
    connection = await api.orchestrator.get("/connections/{}", connection_id)
    typed, name = form.text("name"), str(connection["name"]).strip()
    if typed not in (name, visible_name(name)):
        error = "This is not the connection's name."
        return await _page(request, api, connection_id, typed=typed, error=error)
    try:
        reply = await api.orchestrator.post("/connections/{}", connection_id, method="DELETE")
    except ApiProblem as problem:
        return await _page(request, api, connection_id, typed=typed, problem=problem)
    return back_to(connection_id, "archiving" if reply.is_in_progress else "archived")


async def _page(
    request: Request,
    api: Api,
    connection_id: UUID,
    *,
    typed: str = "",
    error: str | None = None,
    problem: ApiProblem | None = None,
) -> Response:
    head, _ = await opened(api, connection_id)
    return show(
        request,
        "connection_archive.j2",
        head,
        tab="",
        problem=problem,
        status=422 if error else 200,
        typed=typed,
        error=error,
    )
