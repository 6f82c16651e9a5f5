"""System: whether each service is ready, what it needs, and the versions."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.console.api import SERVICES, Api, CallerApi, load
from services.console.problems import ApiProblem, PageProblem
from services.console.rendering import render

router = APIRouter()

WHAT: Final = {
    "orchestrator": "Onboards connections, starts syncs, shows state and history",
    "drift_repair_agent": "Plans, decides, applies and rolls back repairs",
    "schema_observer": "Observes sources and records drifts",
    "rag_engine": "Suggests what a removed field became",
}


@router.get("/system")
async def system(request: Request, api: CallerApi) -> Response:
    """Show the readiness of each service; one that is away is shown as such."""
    panels = await load(
        about=api.orchestrator.get("/about"),
        workspaces=api.orchestrator.get("/workspaces"),
        **{name: _readiness(api, name) for name in SERVICES},
    )
    states: list[tuple[str, Any]] = [(name, panels[name].value) for name in SERVICES]
    return render(
        request,
        "system.j2",
        states=states,
        what=WHAT,
        about=panels["about"],
        workspaces=panels["workspaces"],
        is_whole=all(state["ready"] and not state["degraded"] for _, state in states),
    )


async def _readiness(api: Api, name: str) -> dict[str, Any]:
    """What a service says about itself; a service that is not ready answers 503 with its checks."""
    try:
        found = await getattr(api, name).get("/ready")
    except ApiProblem as problem:
        checks = problem.members.get("checks")
        if not isinstance(checks, dict):
            return _away(problem)
        found = {"ready": False, "checks": checks, "degraded": problem.members.get("degraded")}
    return {
        "ready": bool(found.get("ready")),
        "degraded": list(found.get("degraded") or ()),
        "checks": dict(found.get("checks") or {}),
        "problem": None,
    }


def _away(problem: PageProblem) -> dict[str, Any]:
    return {"ready": False, "degraded": [], "checks": {}, "problem": problem}
