"""The inbox: what needs a decision or a fix, the most urgent first, and what just healed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.console import inbox_items
from services.console.api import CallerApi, Panel, load
from services.console.connection_filter import WORDS
from services.console.rendering import render

router = APIRouter()

_MOST: Final = 50
_MOST_HEALED: Final = 10
_BROKEN: Final = ("failed", "differs", "sync_failing")


@router.get("/")
async def inbox(request: Request, api: CallerApi) -> Response:
    """Show what needs a person; a service that is away leaves out its own part."""
    panels = await load(
        counts=api.orchestrator.get("/connections/summary"),
        repairs=api.drift_repair_agent.get("/repairs", state="proposed", limit=_MOST),
        groups=api.drift_repair_agent.get("/repairs/groups", limit=_MOST),
        proposed=api.drift_repair_agent.get("/repairs/summary"),
        broken=api.orchestrator.get(
            "/connections", health=_BROKEN, sort="health", include="health", limit=_MOST
        ),
        suspicious=api.schema_observer.get("/observations", suspicious=True, limit=_MOST),
        ended=api.drift_repair_agent.get("/repairs", state=("applied", "rolled_back"), limit=_MOST),
    )
    counts = panels["counts"].value
    return render(
        request,
        "inbox.j2",
        now=datetime.now(UTC),
        fleet=None if counts is None else inbox_items.fleet(counts["health"]),
        counts=panels["counts"],
        words=WORDS,
        review=_review(panels),
        proposed=_proposed(panels),
        broken=panels["broken"],
        suspicious=panels["suspicious"],
        healed=_healed(panels["ended"]),
        most_healed=_MOST_HEALED,
    )


def _review(panels: dict[str, Panel[Any]]) -> Panel[inbox_items.Waiting]:
    """The proposals; without groups each is an item of its own."""
    repairs, groups = panels["repairs"], panels["groups"].value
    if repairs.value is None:
        return Panel(None, repairs.problem)
    equal = [] if groups is None else groups["items"]
    return Panel(inbox_items.waiting(repairs.value["items"], equal))


def _proposed(panels: dict[str, Panel[Any]]) -> int | None:
    """How many proposals there are; None if it is not known."""
    counted, listed = panels["proposed"].value, panels["repairs"].value
    if counted is not None:
        return int(counted["by_state"].get("proposed", 0))
    return len(listed["items"]) if listed is not None and not listed["next"] else None


def _healed(ended: Panel[Any]) -> Panel[inbox_items.Healed]:
    if ended.value is None:
        return Panel(None, ended.problem)
    recent = inbox_items.healed(ended.value["items"])
    is_whole = not ended.value["next"] or len(recent) < len(ended.value["items"])
    return Panel(inbox_items.Healed(recent, is_whole))
