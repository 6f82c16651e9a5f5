"""The schema of a connection's source: how it is checked, its drifts and its snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi
from services.console.forms import SubmittedForm
from services.console.pages.connection.actions import back_to
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.words import duration
from services.console.problems import ApiProblem

router = APIRouter()

_MOST_DRIFTS: Final = 25
_MOST_SNAPSHOTS: Final = 10
_OUTCOMES: Final = {
    "unchanged": ("good", "Unchanged"),
    "changed": ("info", "Changed"),
    "pending": ("info", "Read, to be compared"),
    "suspicious": ("warn", "Suspicious"),
    "failed": ("bad", "Failed"),
}
_INTERVALS: Final = (
    (60, "1 minute"),
    (300, "5 minutes"),
    (900, "15 minutes"),
    (3600, "1 hour"),
    (21600, "6 hours"),
    (86400, "1 day"),
    (604800, "1 week"),
)


@router.get(f"{PATH}/schema")
async def schema(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show the newest check, and one page of the drifts."""
    return await _page(request, api, connection_id, after=after)


async def _page(
    request: Request,
    api: Api,
    connection_id: UUID,
    *,
    after: str | None = None,
    problem: ApiProblem | None = None,
) -> Response:
    head, panels = await opened(
        api,
        connection_id,
        drifts=api.schema_observer.get(
            "/drifts", connection_id=connection_id, after=after, limit=_MOST_DRIFTS
        ),
        snapshots=api.schema_observer.get(
            "/connections/{}/snapshots", connection_id, limit=_MOST_SNAPSHOTS
        ),
    )
    observation: Mapping[str, Any] = head.observation.value or {}
    effective = observation.get("effective_interval_seconds")
    own = observation.get("interval_seconds")
    intervals = list(_INTERVALS)
    if own is not None and own not in dict(intervals):
        intervals = sorted([*intervals, (own, duration(own))])
    return show(
        request,
        "connection_schema.j2",
        head,
        tab="schema",
        problem=problem,
        outcome=_OUTCOMES.get(str(observation.get("outcome")), ("", "Not checked yet")),
        every=duration(effective) if effective else None,
        intervals=intervals,
        drifts=panels["drifts"],
        snapshots=panels["snapshots"],
        is_first=after is None,
    )


@router.post(f"{PATH}/interval")
async def interval(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Set how often the source is checked; empty means as often as the installation does."""
    given = form.text("interval_seconds")
    try:
        await api.schema_observer.post(
            "/connections/{}/observation",
            connection_id,
            method="PUT",
            body={"interval_seconds": int(given) if given.isdecimal() else None},
        )
    except ApiProblem as problem:
        return await _page(request, api, connection_id, problem=problem)
    return back_to(connection_id, "interval", tab="schema")
