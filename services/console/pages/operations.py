"""Operations: what runs now, what failed and why, and each with its steps."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console.api import CallerApi, load
from services.console.rendering import render

router = APIRouter()

Status = Literal["running", "undoing", "done", "failed"]
KINDS: Final = {
    "onboard": "Onboard",
    "import": "Import",
    "sync": "Start a sync",
    "refresh": "Refresh streams",
    "cancel": "Cancel a job",
    "archive": "Archive",
    "edit": "Change settings",
    "rotate": "Rotate a credential",
    "apply": "Apply a catalog",
    "pause": "Pause",
    "upgrade": "Upgrade the connector",
    "reapply": "Send the catalog again",
}
STEPS: Final = {
    "onboard": (
        ("source", "Create the source"),
        ("discover", "Discover its schema"),
        ("connection", "Create the connection"),
    ),
    "archive": (("connection", "Delete the connection"), ("source", "Delete the source")),
    "edit": (("check", "Check"), ("settings", "Change the settings")),
    "import": (("list", "List the connections"), ("items", "Read each")),
    "apply": (("update", "Send the catalog"), ("look", "Read it back")),
}
"""Steps by kind, in their order; services/*/sagas and the drift repair agent's applying name them.

Others are shown by the name of the current step alone.
"""


@router.get("/operations")
async def operations(
    request: Request,
    api: CallerApi,
    status: Annotated[Status | None, Query()] = None,
    connection_id: Annotated[UUID | None, Query()] = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show operations, newest first."""
    panels = await load(
        operations=api.orchestrator.get(
            "/operations", status=status, connection_id=connection_id, after=after, limit=50
        )
    )
    return render(
        request,
        "operations.j2",
        operations=panels["operations"],
        kinds=KINDS,
        wanted=status,
        connection_id=None if connection_id is None else str(connection_id),
        is_first=after is None,
    )


@router.get("/operations/{operation_id}")
async def operation(request: Request, api: CallerApi, operation_id: UUID) -> Response:
    """Show one operation; while it runs, the page asks again every few seconds."""
    found = await api.orchestrator.get("/operations/{}", operation_id)
    return render(
        request,
        "operation.j2",
        operation=found,
        kind=KINDS.get(found["kind"], found["kind"].replace("_", " ").capitalize()),
        steps=_steps(found),
        is_running=found["status"] in ("running", "undoing"),
    )


def _steps(operation: dict[str, Any]) -> list[tuple[str, str]]:
    """Each known step with `done`, `current`, `failed` or `open`."""
    steps = STEPS.get(operation["kind"], ())
    names = [name for name, _ in steps]
    status, step = operation["status"], operation["step"]
    if status == "done":
        return [(label, "done") for _, label in steps]
    if step not in names:
        return [(label, "open") for _, label in steps] if step == "intent" else []
    at = names.index(step)
    now = "current" if status == "running" else "failed"
    return [
        (label, "done" if index < at else now if index == at else "open")
        for index, (_, label) in enumerate(steps)
    ]
