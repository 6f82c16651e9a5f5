"""What can be done to a connection from its head: sync, check, plan again, pause, resume."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import CallerApi
from services.console.forms import SubmittedForm
from services.console.pages.connection.head import PATH
from services.console.pages.connection.timeline import timeline_page
from services.console.pages.connection.words import to
from services.console.problems import ApiProblem

router = APIRouter()

_WAIT_S: Final = 5
"""How long an answer is waited for before the page goes on, in seconds."""
_LONGEST_VERSION: Final = 11
_CHECKED: Final = {
    "unchanged": "checked",
    "changed": "changed",
    "suspicious": "suspicious",
    "pending": "pending",
    "failed": "check-failed",
}


def back_to(connection_id: UUID, done: str, *, tab: str = "timeline") -> Response:
    """Back to a tab, which reports what was done."""
    return RedirectResponse(f"{to('connections', connection_id, tab)}?done={done}", status_code=303)


@router.post(f"{PATH}/sync")
async def sync(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Start a sync."""
    try:
        reply = await api.orchestrator.post(
            "/connections/{}/sync",
            connection_id,
            query={"wait": _WAIT_S},
            idempotency_key=form.idempotency_key,
        )
    except ApiProblem as problem:
        return await timeline_page(request, api, connection_id, problem=problem)
    return back_to(connection_id, "sync" if reply.body.get("job_id") else "syncing", tab="syncs")


@router.post(f"{PATH}/observe")
async def observe(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Check the source's schema now; `accept_missing` accepts a suspicious result.

    With `from` and `to`, the comparison of these versions shows what the check found.
    """
    is_accepted = form.text("accept_missing") == "yes"
    try:
        reply = await api.schema_observer.post(
            "/connections/{}/observe",
            connection_id,
            body={"accept_missing": is_accepted},
            query={"wait": _WAIT_S},
        )
    except ApiProblem as problem:
        return await timeline_page(request, api, connection_id, problem=problem)
    done = _CHECKED.get(str(reply.body.get("outcome")), "checking")
    versions = [form.text(name) for name in ("from", "to")]
    if all(one.isdecimal() and len(one) < _LONGEST_VERSION for one in versions):
        path = to("connections", connection_id, "versions", "..".join(versions))
        return RedirectResponse(f"{path}?checked={done}", status_code=303)
    return back_to(connection_id, done, tab="schema")


@router.post(f"{PATH}/plan")
async def plan(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Plan the repairs again."""
    del form
    try:
        await api.drift_repair_agent.post("/connections/{}/plan", connection_id)
    except ApiProblem as problem:
        return await timeline_page(request, api, connection_id, problem=problem)
    return back_to(connection_id, "planned")


@router.post(f"{PATH}/pause")
async def pause(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Stop Airbyte's schedule until a person resumes the connection."""
    return await _edited(request, api, connection_id, form, {"paused": True}, "paused")


@router.post(f"{PATH}/resume")
async def resume(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Resume it, whoever paused it."""
    return await _edited(request, api, connection_id, form, {"paused": False}, "resumed")


async def _edited(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    form: SubmittedForm,
    body: dict[str, Any],
    done: str,
) -> Response:
    try:
        reply = await api.orchestrator.post(
            "/connections/{}",
            connection_id,
            method="PATCH",
            body=body,
            query={"wait": _WAIT_S},
            idempotency_key=form.idempotency_key,
        )
    except ApiProblem as problem:
        return await timeline_page(request, api, connection_id, problem=problem)
    return back_to(connection_id, "changing" if reply.is_in_progress else done)
