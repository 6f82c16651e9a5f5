"""Observations: when each source is read next, and what the newest reading found."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import CallerApi, load
from services.console.forms import SubmittedForm
from services.console.rendering import render

router = APIRouter()

Shown = Literal["all", "suspicious", "overdue", "failed"]
_FILTERS: Final[dict[str, dict[str, object]]] = {
    "all": {},
    "suspicious": {"suspicious": True},
    "overdue": {"overdue": True},
    "failed": {"outcome": "failed"},
}


@router.get("/observations")
async def observations(
    request: Request,
    api: CallerApi,
    shown: Annotated[Shown, Query(alias="show")] = "all",
    after: Annotated[UUID | None, Query()] = None,
    observed: Annotated[UUID | None, Query()] = None,
) -> Response:
    """Show the sources of live connections, with the state of their observation."""
    panels = await load(
        sources=api.schema_observer.get("/observations", **_FILTERS[shown], after=after, limit=50)
    )
    return render(
        request,
        "observations.j2",
        sources=panels["sources"],
        shown=shown,
        observed=None if observed is None else str(observed),
        is_first=after is None,
    )


@router.post("/observations")
async def observe(api: CallerApi, form: SubmittedForm) -> Response:
    """Observe one connection's source now."""
    connection_id = form.text("connection_id")
    await api.schema_observer.post(
        "/connections/{}/observe",
        connection_id,
        query={"wait": 5},
    )
    return RedirectResponse(f"/observations?observed={UUID(connection_id)}", status_code=303)
