"""The search of the navigation: an id leads to its page, a name to the list."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote, urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, Panel, load
from services.console.connection_filter import ConnectionFilter
from services.console.problems import PageProblem
from services.console.rendering import render

router = APIRouter()

_LONGEST: Final = 200


@router.get("/search")
async def search(
    request: Request, api: CallerApi, q: Annotated[str, Query(max_length=_LONGEST)] = ""
) -> Response:
    """Go to what was searched for."""
    sought = q.strip()
    try:
        id_ = UUID(sought)
    except ValueError:
        url = f"/connections?{urlencode({'q': sought})}" if sought else "/connections"
        return RedirectResponse(url, status_code=303)
    found = await _found(api, id_)
    if found is not None:
        return RedirectResponse(found, status_code=303)
    return render(request, "search.j2", status=404, sought=str(id_))


@router.get("/airbyte/{airbyte_connection_id}")
async def of_airbyte(request: Request, api: CallerApi, airbyte_connection_id: UUID) -> Response:
    """Go from a connection in Airbyte to the same one here."""
    for is_archived in (None, True):
        page = await api.orchestrator.get(
            "/connections",
            airbyte_connection_id=airbyte_connection_id,
            archived=is_archived,
            limit=1,
        )
        if page["items"]:
            return RedirectResponse(_connection(page["items"][0]["id"]), status_code=303)
    return render(request, "search.j2", status=404, sought=str(airbyte_connection_id))


async def _found(api: Api, id_: UUID) -> str | None:
    """The page of an id's thing; None if no service knows it.

    Raises:
        PageProblem: a service that may know it did not answer.
    """
    panels = await load(
        connection=api.orchestrator.get("/connections/{}", id_),
        listed=api.orchestrator.get("/connections", q=id_, limit=2),
        archived=api.orchestrator.get("/connections", q=id_, archived=True, limit=2),
        repair=api.drift_repair_agent.get("/repairs/{}/changes", id_, limit=1),
        drift=api.schema_observer.get("/drifts/{}", id_),
        operation=api.orchestrator.get("/operations/{}", id_),
        carried_out=api.drift_repair_agent.get("/operations/{}", id_),
    )
    if panels["connection"].value is not None:
        return _connection(id_)
    if panels["repair"].value is not None:
        return f"/repairs/{id_}"
    for name in ("listed", "archived"):
        page = panels[name].value
        if page is not None and page["items"]:
            if len(page["items"]) == 1:
                return _connection(page["items"][0]["id"])
            return _list(id_, is_archived=name == "archived")
    for name, page_of in (
        ("drift", "/drifts"),
        ("operation", "/operations"),
        ("carried_out", "/operations"),
    ):
        if panels[name].value is not None:
            return f"{page_of}/{id_}"
    _expect_answers(panels)
    return None


def _expect_answers(panels: dict[str, Panel[dict[str, object]]]) -> None:
    for panel in panels.values():
        problem: PageProblem | None = panel.problem
        if problem is not None and problem.status != 404:
            raise problem


def _connection(id_: object) -> str:
    return f"/connections/{quote(str(id_), safe='')}"


def _list(id_: UUID, *, is_archived: bool) -> str:
    return ConnectionFilter(q=str(id_), health=("archived",) if is_archived else ()).url()
