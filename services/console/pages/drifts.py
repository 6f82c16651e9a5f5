"""Drifts: how sources changed, and what each change means for its connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import CallerApi, load
from services.console.diffs import Json
from services.console.renames import with_renames
from services.console.rendering import render

router = APIRouter()

Severity = Literal["harmless", "needs_review", "breaking"]
_CHANGES: Final = 100


@router.get("/drifts")
async def drifts(
    request: Request,
    api: CallerApi,
    severity: Annotated[Severity | None, Query()] = None,
    is_open: Annotated[bool | None, Query(alias="open")] = None,
    connection_id: Annotated[UUID | None, Query()] = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show drifts, newest first."""
    query: dict[str, object] = {
        "severity": severity,
        "open": is_open,
        "connection_id": connection_id,
    }
    panels = await load(drifts=api.schema_observer.get("/drifts", **query, after=after, limit=50))
    given = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in query.items()
        if value is not None
    }
    return render(
        request, "drifts.j2", drifts=panels["drifts"], query=given, is_first=after is None
    )


@router.get("/drifts/{drift_id}")
async def drift(
    request: Request,
    api: CallerApi,
    drift_id: UUID,
    start: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> Response:
    """Show one drift, a hundred changes at a time, those that concern the connection first."""
    found = await api.schema_observer.get("/drifts/{}", drift_id)
    panels = await load(
        repairs=api.drift_repair_agent.get(
            "/repairs", connection_id=found["connection_id"], limit=20
        )
    )
    changes = with_renames(found["changes"], found.get("renames") or ())
    streams = _by_stream(changes[start : start + _CHANGES])
    return render(
        request,
        "drift.j2",
        drift=found,
        streams=streams,
        listed=len(changes),
        start=start,
        following=start + _CHANGES if start + _CHANGES < len(changes) else None,
        repair=_repair(panels["repairs"].value, str(drift_id)),
        repairs_problem=panels["repairs"].problem,
    )


def _by_stream(changes: Sequence[Json]) -> list[tuple[Json, list[Json]]]:
    """The changes of each stream together, in the order in which the streams come first."""
    found: dict[tuple[str, str], tuple[Json, list[Json]]] = {}
    for one in changes:
        stream = one["stream"]
        key = (stream.get("namespace") or "", stream["name"])
        found.setdefault(key, (stream, []))[1].append(one)
    return list(found.values())


def _repair(listed: dict[str, Any] | None, drift_id: str) -> dict[str, Any] | None:
    """The newest repair of the drift, if it is among the connection's newest ones."""
    for one in (listed or {"items": []})["items"]:
        if one.get("drift_id") == drift_id:
            found: dict[str, Any] = one
            return found
    return None
