"""One action on several connections: each has its own result, and a refusal stops no other one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, Panel, Reply, load
from services.console.connection_filter import PATH
from services.console.error_pages import own_path
from services.console.forms import Form, SubmittedForm
from services.console.problems import PageProblem
from services.console.rendering import render

router = APIRouter()

MOST: Final = 100
"""As many as a page of the list has."""
_CONCURRENCY: Final = 6
_WAIT_S: Final = 2
"""How long the end of an action is waited for, in seconds; for many connections it goes on."""

Act = Callable[[Api, UUID, str, int], Awaitable[Reply]]
"""Takes the services, a connection, its Idempotency-Key, and how long to wait in seconds."""


class Action(NamedTuple):
    """What a button of the bar does to each connection."""

    title: str
    done: str
    going_on: str
    act: Act


class Result(NamedTuple):
    """What became of one connection."""

    connection_id: UUID
    name: str
    text: str
    problem: PageProblem | None


def _sync(api: Api, connection_id: UUID, key: str, wait_s: int) -> Awaitable[Reply]:
    return api.orchestrator.post(
        "/connections/{}/sync", connection_id, query={"wait": wait_s}, idempotency_key=key
    )


def _check(api: Api, connection_id: UUID, key: str, wait_s: int) -> Awaitable[Reply]:
    del key  # an observation can be repeated
    return api.schema_observer.post(
        "/connections/{}/observe", connection_id, query={"wait": wait_s}
    )


def _pausing(*, is_paused: bool) -> Act:
    def act(api: Api, connection_id: UUID, key: str, wait_s: int) -> Awaitable[Reply]:
        return api.orchestrator.post(
            "/connections/{}",
            connection_id,
            method="PATCH",
            body={"paused": is_paused},
            query={"wait": wait_s},
            idempotency_key=key,
        )

    return act


def _archive(api: Api, connection_id: UUID, key: str, wait_s: int) -> Awaitable[Reply]:
    del key  # archiving again has no further effect
    return api.orchestrator.post(
        "/connections/{}", connection_id, method="DELETE", query={"wait": wait_s}
    )


ACTIONS: Final = {
    "sync": Action("Sync now", "A sync was started.", "A sync is being started.", _sync),
    "check": Action("Check schema", "Checked.", "The check continues.", _check),
    "pause": Action("Pause", "Paused.", "It is being paused.", _pausing(is_paused=True)),
    "resume": Action("Resume", "Resumed.", "It is being resumed.", _pausing(is_paused=False)),
    "archive": Action("Archive", "Archived.", "It is being archived.", _archive),
}
_PHRASE: Final = "archive {}"
"""What has to be typed, with the number of connections."""
_CHECKED: Final = {
    "unchanged": "The schema has not changed.",
    "changed": "The schema has changed.",
    "suspicious": "The schema is suspicious, so nothing was changed.",
    "failed": "The source could not be read.",
}


@router.post("/connections/bulk")
async def act_on_several(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Do something to the chosen connections, and show what became of each."""
    action = ACTIONS.get(form.text("do"))
    back = own_path(form.text("back") or PATH)
    ids = _ids(form.all("id"))
    if action is None:
        raise PageProblem(422, "invalid_form", "The form does not say what to do.")
    if not ids:
        return RedirectResponse(back, status_code=303)
    if len(ids) > MOST:
        sentence = f"At most {MOST} connections can be chosen at once, not {len(ids)}."
        raise PageProblem(422, "too_many", sentence)
    names = form.starting_with("name.")
    if action is ACTIONS["archive"] and form.line("confirm") != _PHRASE.format(len(ids)):
        return await _asked_to_confirm(request, api, form, ids, back)
    slots = asyncio.Semaphore(_CONCURRENCY)
    key, wait_s = form.idempotency_key, _WAIT_S if len(ids) <= _CONCURRENCY else 0

    async def acted(connection_id: UUID) -> Reply:
        async with slots:
            return await action.act(api, connection_id, _key(key, connection_id), wait_s)

    panels = await load(**{str(one): acted(one) for one in ids})
    results = [
        _result(one, names.get(str(one)) or str(one), action, panels[str(one)]) for one in ids
    ]
    return render(
        request,
        "connection_bulk.j2",
        action=action,
        results=sorted(results, key=lambda one: one.problem is None),
        refused=sum(one.problem is not None for one in results),
        back=back,
    )


async def _asked_to_confirm(
    request: Request, api: Api, form: Form, ids: list[UUID], back: str
) -> Response:
    """What archiving destroys, and the form in which it has to be typed."""
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def read(connection_id: UUID) -> Any:
        async with slots:
            return await api.orchestrator.get("/connections/{}", connection_id)

    panels = await load(**{str(one): read(one) for one in ids})
    is_wrong = "confirm" in form
    return render(
        request,
        "connection_bulk_archive.j2",
        status=422 if is_wrong else 200,
        connections=[(one, panels[str(one)]) for one in ids],
        names=form.starting_with("name."),
        phrase=_PHRASE.format(len(ids)),
        typed=form.line("confirm"),
        error="The typed text does not match." if is_wrong else None,
        back=back,
    )


def _result(connection_id: UUID, name: str, action: Action, panel: Panel[Reply]) -> Result:
    if panel.value is None:
        return Result(connection_id, name, "", panel.problem)
    reply = panel.value
    body = reply.body if isinstance(reply.body, dict) else {}
    is_sync = action is ACTIONS["sync"]  # it always answers 202
    is_going_on = not body.get("job_id") if is_sync else reply.is_in_progress
    if is_going_on:
        return Result(connection_id, name, action.going_on, None)
    text = _CHECKED.get(str(body.get("outcome")), action.done)
    return Result(connection_id, name, text, None)


def _ids(given: list[str]) -> list[UUID]:
    """The chosen connections, each once.

    Raises:
        PageProblem: one of them is no id.
    """
    try:
        return list(dict.fromkeys(UUID(one) for one in given))
    except ValueError:
        raise PageProblem(422, "invalid_form", "The form names no valid connection.") from None


def _key(form_key: str, connection_id: UUID) -> str:
    """The Idempotency-Key of one connection: the same if the same form is sent again."""
    return hashlib.sha256(f"{form_key} {connection_id}".encode()).hexdigest()[:40]
