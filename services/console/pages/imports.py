"""Importing what Airbyte already runs: a dry run first, then those that are ticked, or all."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, Reply
from services.console.forms import Form, SubmittedForm
from services.console.problems import ApiProblem, PageProblem
from services.console.rendering import render

router = APIRouter()

_WAIT_S: Final = 8
_MOST: Final = 100
_AT_ONCE: Final = 4
_RUNNING: Final = ("running", "undoing")

Outcome = Literal[
    "pending", "imported", "would_import", "already_managed", "not_importable", "failed"
]
OutcomeFilter = Annotated[Outcome | None, Query()]
Cursor = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


@router.get("/import")
async def start(request: Request) -> Response:
    """Show what an import does, and the button for its dry run."""
    return _start(request)


@router.post("/import")
async def begin(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Start the dry run, or import the whole workspace; its progress has a page of its own."""
    body: dict[str, Any] = {"dry_run": form.text("do") != "import_all"}
    workspace_id = form.text("workspace_id")
    if workspace_id:
        body["workspace_id"] = workspace_id
    try:
        reply = await api.orchestrator.post(
            "/connections/import",
            body=body,
            query={"wait": _WAIT_S},
            idempotency_key=form.idempotency_key,
        )
    except PageProblem as problem:
        members = problem.members if isinstance(problem, ApiProblem) else {}
        running = members.get("operation_id")
        if problem.code == "import_running" and isinstance(running, str):
            return RedirectResponse(f"/import/{UUID(running)}", status_code=303)
        return _start(request, workspace_id=workspace_id, problem=problem)
    return RedirectResponse(f"/import/{UUID(reply.body['operation_id'])}", status_code=303)


def _start(
    request: Request, *, workspace_id: str = "", problem: PageProblem | None = None
) -> Response:
    return render(
        request,
        "import.j2",
        status=200 if problem is None else problem.status,
        report=None,
        workspace_id=workspace_id,
        problem=problem,
        results=[],
    )


@router.get("/import/{import_id}")
async def report(
    request: Request,
    api: CallerApi,
    import_id: UUID,
    outcome: OutcomeFilter = None,
    after: Cursor = None,
) -> Response:
    """Show the progress of an import and what it found."""
    return await _report(request, api, import_id, outcome=outcome, after=after)


@router.post("/import/{import_id}")
async def import_chosen(
    request: Request,
    api: CallerApi,
    import_id: UUID,
    form: SubmittedForm,
    outcome: OutcomeFilter = None,
    after: Cursor = None,
) -> Response:
    """Import the ticked connections of a page, one after another; each result is shown."""
    chosen = list(dict.fromkeys(form.all("connection")))[:_MOST]
    if not chosen:
        none = PageProblem(422, "nothing_chosen", "Tick the connections to import.")
        return await _report(request, api, import_id, outcome=outcome, after=after, problem=none)
    results = await _each_imported(api, chosen, form)
    return await _report(request, api, import_id, outcome=outcome, after=after, results=results)


async def _each_imported(api: Api, chosen: list[str], form: Form) -> list[dict[str, Any]]:
    """The outcomes in the order of the page; a few are imported at once.

    Raises:
        SignedOut: the credential is no longer accepted.
    """
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(airbyte_id: str) -> dict[str, Any]:
        async with slots:
            return await _imported(api, airbyte_id, form)

    found = await asyncio.gather(*map(one, chosen), return_exceptions=True)
    results: list[dict[str, Any]] = []
    for result in found:
        if isinstance(result, BaseException):
            raise result
        results.append(result)
    return results


async def _imported(api: Api, airbyte_id: str, form: Form) -> dict[str, Any]:
    """The outcome for one connection; one that fails does not stop the others."""
    try:
        airbyte_connection_id = str(UUID(airbyte_id))
    except ValueError:
        raise PageProblem(400, "invalid_form", "A ticked connection has no valid id.") from None
    try:
        reply: Reply = await api.orchestrator.post(
            "/connections/import",
            body={"airbyte_connection_id": airbyte_connection_id, "dry_run": False},
            idempotency_key=None,
        )
    except ApiProblem as problem:
        name = form.text(f"name:{airbyte_id}")
        return {
            "name": name or airbyte_id,
            "outcome": "failed",
            "code": problem.code,
            "sentence": problem.sentence,
        }
    items = reply.body.get("items") or [reply.body]
    found: dict[str, Any] = items[0]
    return found


async def _report(
    request: Request,
    api: Api,
    import_id: UUID,
    *,
    outcome: str | None = None,
    after: int | None = None,
    results: list[dict[str, Any]] | None = None,
    problem: PageProblem | None = None,
) -> Response:
    found = await api.orchestrator.get(
        "/imports/{}", import_id, outcome=outcome, after=after, limit=_MOST
    )
    done = {one.get("airbyte_connection_id"): one for one in results or []}
    found["items"] = [done.get(one["airbyte_connection_id"], one) for one in found["items"]]
    return render(
        request,
        "import.j2",
        status=200 if problem is None else problem.status,
        report=found,
        is_running=found["status"] in _RUNNING,
        outcome=outcome,
        is_first=after is None,
        query={name: value for name, value in (("outcome", outcome), ("after", after)) if value},
        results=results or [],
        problem=problem,
    )
