"""The policy of a connection: what is in effect, by which layer, and changing its own entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.console.api import Api, CallerApi, Panel
from services.console.forms import SubmittedForm
from services.console.pages.connection.actions import back_to
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.policy_form import Edited, form_of, reaction_words
from services.console.pages.connection.words import counted, mark_of
from services.console.problems import ApiProblem

router = APIRouter()

_DRIFTS: Final = 20
_MOST_ROWS: Final = 100


@router.get(f"{PATH}/policy")
async def policy(request: Request, api: CallerApi, connection_id: UUID) -> Response:
    """Show the policy in effect, in a form."""
    return await _page(request, api, connection_id)


@router.post(f"{PATH}/policy/preview")
async def preview(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Show what the changed policy would have done with the newest drifts; nothing is saved."""
    edited = Edited.of(form)
    if form.text("step") == "edit" or not edited.order:
        nothing = form.text("step") != "edit"
        return await _page(request, api, connection_id, edited=edited, is_unchanged=nothing)
    try:
        found = (
            await api.drift_repair_agent.post(
                "/connections/{}/policy/preview",
                connection_id,
                body=edited.order,
                query={"limit": _DRIFTS},
            )
        ).body
    except ApiProblem as problem:
        return await _page(request, api, connection_id, edited=edited, problem=problem)
    head, panels = await opened(
        api,
        connection_id,
        policy=api.drift_repair_agent.get("/connections/{}/policy", connection_id),
    )
    own = _own(panels["policy"])
    rows, left_out = _rows(found["items"])
    return show(
        request,
        "connection_policy_preview.j2",
        head,
        tab="policy",
        changes=edited.described(own),
        fields=_fields(form.starting_with("set."), form.starting_with("was.")),
        conflicts=edited.conflicts(own),
        drifts=found["items"],
        different=sum(one["different"] for one in found["items"]),
        rows=rows,
        left_out=left_out,
    )


@router.post(f"{PATH}/policy")
async def save(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Save the changed entries, unless somebody else changed the same ones meanwhile."""
    edited = Edited.of(form)
    if not edited.order:
        return await _page(request, api, connection_id, edited=edited, is_unchanged=True)
    try:
        stored = await api.drift_repair_agent.get("/connections/{}/policy", connection_id)
        if conflicts := edited.conflicts(stored["own"]):
            raise _stale(conflicts)
        await api.drift_repair_agent.post(
            "/connections/{}/policy", connection_id, method="PUT", body=edited.order
        )
    except ApiProblem as problem:
        return await _page(request, api, connection_id, edited=edited, problem=problem)
    return back_to(connection_id, "policy", tab="policy")


def _stale(conflicts: list[str]) -> ApiProblem:
    sentence = (
        f"{counted(len(conflicts), 'entry', 'entries')} changed since you opened the form "
        f"({', '.join(conflicts)}). Nothing was saved; what you entered is still below."
    )
    return ApiProblem(409, "stale_policy", sentence, service="console")


async def _page(
    request: Request,
    api: Api,
    connection_id: UUID,
    *,
    edited: Edited | None = None,
    is_unchanged: bool = False,
    problem: ApiProblem | None = None,
) -> Response:
    head, panels = await opened(
        api,
        connection_id,
        policy=api.drift_repair_agent.get("/connections/{}/policy", connection_id, explain=True),
    )
    found = panels["policy"]
    if problem is not None and problem.code == "stale_policy" and edited is not None:
        edited = edited.rebased(_own(found))
    return show(
        request,
        "connection_policy.j2",
        head,
        tab="policy",
        problem=problem,
        policy=found,
        form=form_of(found.value, edited) if found.value else None,
        is_unchanged=is_unchanged,
    )


def _own(policy: Panel[Any]) -> Mapping[str, Any]:
    own: Mapping[str, Any] = (policy.value or {}).get("own") or {}
    return own


def _fields(new: Mapping[str, str], was: Mapping[str, str]) -> list[tuple[str, str]]:
    """The form's fields, to be sent again."""
    return [(f"set.{name}", value) for name, value in new.items()] + [
        (f"was.{name}", value) for name, value in was.items()
    ]


def _rows(drifts: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The changes that would be treated differently, at most a page of them, and how many more."""
    rows = [
        {
            "drift_id": drift["drift_id"],
            "at": drift["first_seen_at"],
            "mark": mark_of(change["kind"]),
            "stream": change["stream"]["name"],
            "path": ".".join(change["path"]),
            "now": reaction_words(change["now"]),
            "previewed": reaction_words(change["previewed"]),
        }
        for drift in drifts
        for change in drift["changes"]
        if change["now"] != change["previewed"]
    ]
    return rows[:_MOST_ROWS], max(0, len(rows) - _MOST_ROWS)
