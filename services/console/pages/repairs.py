"""The list of repairs, and the changes that wait on several connections at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console import diffs, repair_words
from services.console.api import Api, CallerApi, load
from services.console.forms import Form, SubmittedForm
from services.console.group_choices import Group
from services.console.problems import PageProblem
from services.console.rendering import render

router = APIRouter()

_LIMIT: Final = 50
_GROUPS: Final = 20
_MOST_DECIDED: Final = 200
"""Most repairs of a group that the drift_repair_agent decides at once."""
_CHANGED: Final = (
    "This change no longer waits on several connections, or was planned again. Nothing was decided."
)
_INCOMPLETE: Final = "Some answers are missing. Nothing was decided."
_ALL: Final = "all"
_MOST_STATES: Final = 12
FILTERS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("Waiting", ("proposed",)),
    ("In progress", repair_words.IN_PROGRESS),
    ("Applied", ("applied",)),
    ("Failed", ("failed", "rolled_back")),
    ("Not applied", ("rejected", "expired", "superseded")),
)


@router.get("/repairs")
async def repairs(
    request: Request,
    api: CallerApi,
    state: Annotated[list[str] | None, Query(max_length=_MOST_STATES)] = None,
    severity: Annotated[list[str] | None, Query(max_length=3)] = None,
    connection_id: UUID | None = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show one page of the list, newest first; without a state, what waits for a decision."""
    asked = state or ["proposed"]
    states = [one for one in asked if one in repair_words.STATES]
    severities = [one for one in severity or () if one in repair_words.SEVERITIES]
    panels = await load(
        repairs=api.drift_repair_agent.get(
            "/repairs",
            state=states or None,
            severity=severities or None,
            connection_id=connection_id,
            after=after,
            limit=_LIMIT,
        ),
        counts=api.drift_repair_agent.get("/repairs/summary"),
    )
    if panels["repairs"].problem is not None:
        raise panels["repairs"].problem
    query: dict[str, Any] = {
        name: value
        for name, value in (("severity", severities), ("connection_id", connection_id))
        if value
    }
    return render(
        request,
        "repairs.j2",
        page=panels["repairs"].value,
        counts=panels["counts"],
        states=states,
        severities=severities,
        query=query,
        asked=states or [_ALL],
        filters=FILTERS,
        is_first=after is None,
        words=repair_words,
        rows=diffs,
    )


@router.get("/repairs/groups")
async def groups(
    request: Request,
    api: CallerApi,
    after: Annotated[str | None, Query(max_length=400)] = None,
) -> Response:
    """Show changes that are the same on several connections, those of most connections first."""
    return _shown(request, await _page(api, after))


@router.post("/repairs/groups")
async def decide_group(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Approve or reject one change on every connection of its group; show what became of each."""
    verdict = form.text("verdict")
    if verdict not in ("approve", "reject"):
        raise PageProblem(422, "invalid_request", "Choose an answer, then send the form again.")
    page = await _page(api, form.text("after") or None)
    group = next((one for one in page.groups if one.id == form.text("group")), None)
    if group is None:
        return _shown(request, page, problem=PageProblem(409, "group_changed", _CHANGED))
    group.fill(form)
    body: dict[str, Any] = {"verdict": verdict, "group": group.id}
    if group.reason:
        body["reason"] = group.reason
    if verdict == "approve":
        if not group.check():
            return _shown(request, page, problem=PageProblem(422, "incomplete", _INCOMPLETE))
        if choice := group.item.choice():
            body["choice"] = choice
    try:
        reply = await api.drift_repair_agent.post(
            "/repairs/decide", body=body, idempotency_key=form.idempotency_key
        )
    except PageProblem as problem:
        return _shown(request, page, problem=problem)
    return render(
        request,
        "repair_group_result.j2",
        results=reply.body["items"],
        names=_names(form),
        verdict=verdict,
        words=repair_words,
    )


@dataclass(frozen=True, slots=True)
class _Groups:
    """A page of groups; `after` is its own cursor, `next` that of the next page."""

    groups: list[Group]
    after: str | None
    next: str | None


async def _page(api: Api, after: str | None) -> _Groups:
    page = await api.drift_repair_agent.get("/repairs/groups", after=after, limit=_GROUPS)
    groups = [Group.of(one, number) for number, one in enumerate(page["items"], start=1)]
    return _Groups(groups, after, page["next"])


def _shown(request: Request, page: _Groups, *, problem: PageProblem | None = None) -> Response:
    return render(
        request,
        "repair_groups.j2",
        status=200 if problem is None else problem.status,
        page=page,
        most_decided=_MOST_DECIDED,
        problem=problem,
        words=repair_words,
        rows=diffs,
    )


def _names(form: Form) -> dict[str, str]:
    """The connections' names by repair, as the page of the form showed them."""
    pairs = zip(form.all("repair"), form.all("name"), strict=False)
    return dict(pairs)
