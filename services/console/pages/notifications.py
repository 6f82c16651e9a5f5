"""Notifications: the webhooks, their secrets, and what was delivered to them."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, load
from services.console.forms import SubmittedForm
from services.console.problems import ApiProblem, PageProblem
from services.console.rendering import render

router = APIRouter()

EVENTS: Final = {
    "repair.proposed": "A repair waits for a decision",
    "repair.applied": "A repair was applied",
    "repair.failed": "A repair failed",
    "repair.rolled_back": "A repair was rolled back",
    "repair.expired": "A repair expired without a decision",
    "repair.rejected": "A repair was rejected",
    "repair.superseded": "A newer repair replaced one",
    "mapper.lapsed": "A mapper in Airbyte no longer applies",
    "connector.upgrade_due": "A connector must be upgraded",
    "sync.volume_suspicious": "A sync brought far fewer rows than usual",
    "credential.rotated": "A changed credential was sent to its source",
    "credential.changed": "A changed credential was not sent to its source",
    "credential.rejected": "A source rejects its credential",
    "credential.expiring": "A credential expires soon",
}
_ON_BY_DEFAULT: Final = tuple(EVENTS)[:5]


@router.get("/notifications")
async def webhooks(
    request: Request,
    api: CallerApi,
    after: Annotated[str | None, Query(max_length=200)] = None,
    deleted: Annotated[bool, Query()] = False,
) -> Response:
    """Show the webhooks, newest first, and the form of a new one."""
    return await _list(request, api, after=after, was_deleted=deleted)


@router.post("/notifications")
async def add(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Create a webhook, and show its secret once."""
    chosen = [name for name in EVENTS if name in form.all("event")]
    given = {"url": form.text("url"), "chosen": chosen, "connection": form.text("connection_id")}
    body: dict[str, Any] = {"url": given["url"], "events": chosen}
    if given["connection"]:
        body["connection_id"] = given["connection"]
    if not chosen:
        none = PageProblem(422, "no_events", "Choose at least one event.")
        return await _list(request, api, problem=none, given=given)
    try:
        reply = await api.drift_repair_agent.post("/webhooks", body=body)
    except ApiProblem as problem:
        return await _list(request, api, problem=problem, given=given)
    return render(request, "webhook_secret.j2", status=201, webhook=reply.body, is_new=True)


@router.get("/notifications/{webhook_id}")
async def webhook(
    request: Request,
    api: CallerApi,
    webhook_id: UUID,
    after: Annotated[str | None, Query(max_length=200)] = None,
    retried: Annotated[bool, Query()] = False,
) -> Response:
    """Show one webhook and its messages."""
    return await _one(request, api, webhook_id, after=after, was_retried=retried)


@router.post("/notifications/{webhook_id}/test")
async def test(request: Request, api: CallerApi, webhook_id: UUID, form: SubmittedForm) -> Response:
    """Send a test message now, and show what came of it."""
    del form
    reply = await api.drift_repair_agent.post("/webhooks/{}/test", webhook_id)
    return await _one(request, api, webhook_id, tested=reply.body)


@router.post("/notifications/{webhook_id}/rotate")
async def rotate(
    request: Request, api: CallerApi, webhook_id: UUID, form: SubmittedForm
) -> Response:
    """Rotate the secret, and show the new one once."""
    del form
    reply = await api.drift_repair_agent.post("/webhooks/{}/rotate", webhook_id)
    return render(request, "webhook_secret.j2", webhook=reply.body, is_new=False)


@router.post("/notifications/{webhook_id}/delete")
async def delete(api: CallerApi, webhook_id: UUID, form: SubmittedForm) -> Response:
    """Delete it; its messages stay readable."""
    del form
    await api.drift_repair_agent.post("/webhooks/{}", webhook_id, method="DELETE")
    return RedirectResponse("/notifications?deleted=true", status_code=303)


@router.post("/notifications/{webhook_id}/deliveries/{delivery_id}/retry")
async def retry(
    api: CallerApi, webhook_id: UUID, delivery_id: UUID, form: SubmittedForm
) -> Response:
    """Send a message again now."""
    del form
    await api.drift_repair_agent.post("/webhooks/{}/deliveries/{}/retry", webhook_id, delivery_id)
    return RedirectResponse(f"/notifications/{webhook_id}?retried=true", status_code=303)


async def _list(
    request: Request,
    api: Api,
    *,
    after: str | None = None,
    was_deleted: bool = False,
    problem: PageProblem | None = None,
    given: dict[str, Any] | None = None,
) -> Response:
    panels = await load(webhooks=api.drift_repair_agent.get("/webhooks", after=after, limit=50))
    return render(
        request,
        "notifications.j2",
        status=200 if problem is None else problem.status,
        webhooks=panels["webhooks"],
        events=EVENTS,
        given=given or {"url": "", "chosen": _ON_BY_DEFAULT, "connection": ""},
        problem=problem,
        was_deleted=was_deleted,
        is_first=after is None,
    )


async def _one(
    request: Request,
    api: Api,
    webhook_id: UUID,
    *,
    after: str | None = None,
    tested: dict[str, Any] | None = None,
    was_retried: bool = False,
) -> Response:
    panels = await load(
        webhook=api.drift_repair_agent.get("/webhooks/{}", webhook_id),
        deliveries=api.drift_repair_agent.get(
            "/webhooks/{}/deliveries", webhook_id, after=after, limit=50
        ),
    )
    if panels["webhook"].problem is not None:
        raise panels["webhook"].problem
    return render(
        request,
        "webhook.j2",
        webhook=panels["webhook"].value,
        deliveries=panels["deliveries"],
        events=EVENTS,
        tested=tested,
        was_retried=was_retried,
        here=f"/notifications/{webhook_id}",
        is_first=after is None,
    )
