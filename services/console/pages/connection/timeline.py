"""The timeline: what happened to a connection, newest first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi, Panel, load
from services.console.cookies import Cookies
from services.console.destination_names import DestinationNames
from services.console.pages.connection.chart import MOST_BARS, chart_of
from services.console.pages.connection.events import event_of
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.timeline_days import by_day
from services.console.problems import ApiProblem
from services.console.rendering import render

router = APIRouter()

_MOST: Final = 100
_FACETS: Final = {
    "": ("Everything", ()),
    "repairs": ("Repairs", ("repair_proposed", "repair_decided", "repair_ended")),
    "versions": ("Versions", ("version",)),
    "schema": ("Schema changes", ("drift", "connector")),
    "checks": ("Schema checks", ("observation",)),
    "syncs": ("Syncs", ("sync", "volume")),
    "settings": ("Settings", ("setting", "pause", "credential", "archived")),
    "airbyte": ("Changed in Airbyte", ("upstream",)),
    "operations": ("Operations", ("operation",)),
}
"""The kinds of the API's entries by the parameter `kind` of the page."""


@router.get(PATH)
@router.get(f"{PATH}/timeline")
async def timeline(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    kind: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show one page, everything or one kind of events."""
    return await timeline_page(request, api, connection_id, kind=kind, before=before)


@router.get(f"{PATH}/destination")
async def destination(request: Request, api: CallerApi, connection_id: UUID) -> Response:
    """Show the destination's name in the head, read from Airbyte.

    If Airbyte does not answer, the name that was read last is shown, or else its id.
    """
    connection = await api.orchestrator.get("/connections/{}", connection_id)
    destination_id = connection["airbyte_destination_id"]
    listed = (
        await load(
            destinations=api.orchestrator.get(
                "/destinations", workspace_id=connection.get("airbyte_workspace_id"), limit=500
            )
        )
    )["destinations"]
    known: DestinationNames = request.app.state.destination_names
    caller_id = request.state.session.caller_id
    names = {one["id"]: one["name"] for one in (listed.value or {"items": []})["items"]}
    if destination_id in names:
        known.remember(caller_id, {destination_id: names[destination_id]})
    return render(
        request,
        "connection_destination.j2",
        destination_id=destination_id,
        name=known.remembered(caller_id).get(destination_id),
    )


async def timeline_page(
    request: Request,
    api: Api,
    connection_id: UUID,
    *,
    kind: str = "",
    before: str | None = None,
    problem: ApiProblem | None = None,
) -> Response:
    """The timeline; `problem` is why what was asked for on it was not done."""
    facet = kind if kind in _FACETS else ""
    head, panels = await opened(
        api,
        connection_id,
        timeline=api.orchestrator.get(
            "/connections/{}/timeline",
            connection_id,
            kinds=list(_FACETS[facet][1]),
            before=before,
            limit=_MOST,
        ),
        jobs=api.orchestrator.get("/connections/{}/jobs", connection_id, limit=MOST_BARS),
    )
    cookies: Cookies = request.app.state.cookies
    zone = cookies.zone(request.cookies) or UTC
    listed: Panel[dict[str, list[dict[str, object]]]] = panels["timeline"]
    events = [event_of(head.id, entry) for entry in (listed.value or {}).get("items", ())]
    jobs = panels["jobs"].value or {"items": []}
    return show(
        request,
        "connection_timeline.j2",
        head,
        tab="timeline",
        problem=problem,
        days=by_day(events, today=datetime.now(zone).date(), folds=not facet, zone=zone),
        timeline=listed,
        chart=chart_of(jobs["items"]),
        facets=[(name, label) for name, (label, _) in _FACETS.items()],
        facet=facet,
        is_first=before is None,
    )
