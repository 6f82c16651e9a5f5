"""The list of connections: filters, counts, order and pages, all in the address."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import CallerApi, load
from services.console.connection_filter import COOKIE, PATH, WORDS, ConnectionFilter
from services.console.cookies import Cookies
from services.console.destination_names import DestinationNames
from services.console.rendering import is_fragment, render
from services.console.sparklines import sparkline

router = APIRouter()

_ROWS: Final = 100


@router.get("/connections")
async def connections(request: Request, api: CallerApi) -> Response:
    """Show one page of the list; an address without a query leads to the filter used last."""
    kept = request.cookies.get(COOKIE, "")
    if not request.url.query and kept and not is_fragment(request):
        last = ConnectionFilter.restored(kept)
        if last.is_filtered:
            return RedirectResponse(last.url(), status_code=303)
    shown = ConnectionFilter.of(request.query_params.multi_items())
    names: DestinationNames = request.app.state.destination_names
    page, counts, destinations = await asyncio.gather(
        api.orchestrator.get(
            PATH,
            **shown.for_api(),
            sort=shown.sort,
            include=("health", "syncs"),
            after=shown.after or None,
            limit=_ROWS,
        ),
        load(
            shown=api.orchestrator.get(f"{PATH}/summary", **shown.for_api(with_health=False)),
            all=api.orchestrator.get(f"{PATH}/summary"),
        ),
        names.of(api, request.state.session.caller_id),
    )
    response = render(
        request,
        "connections.j2",
        page=page,
        shown=shown,
        counts=counts["shown"],
        overall=counts["all"].value,
        matching=_matching(shown, counts["shown"].value),
        destinations=destinations,
        words=WORDS,
        sparkline=sparkline,
    )
    _keep(request, response, shown, kept)
    return response


def _matching(shown: ConnectionFilter, counts: dict[str, Any] | None) -> int | None:
    """How many connections match the filter; None if it is not known."""
    if counts is None or shown.is_archived:
        return None
    if not shown.health:
        return int(counts["total"])
    return sum(int(counts["health"].get(word, 0)) for word in shown.health)


def _keep(request: Request, response: Response, shown: ConnectionFilter, kept: str) -> None:
    """Store the filter in a session cookie, if it is not the stored one; delete it if empty."""
    cookies: Cookies = request.app.state.cookies
    value = shown.stored() if shown.is_filtered else ""
    if value == kept:
        return
    response.set_cookie(
        COOKIE,
        value,
        max_age=None if value else 0,
        path=PATH,
        secure=cookies.is_secure,
        httponly=True,
        samesite="lax",
    )
