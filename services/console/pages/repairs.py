"""The list of repairs, and the changes that wait on several connections at once."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.console import diffs, repair_words
from services.console.api import Api, CallerApi, load
from services.console.forms import Form, SubmittedForm
from services.console.problems import PageProblem
from services.console.rendering import render

router = APIRouter()

_LIMIT: Final = 50
_GROUPS: Final = 20
_MOST_DECIDED: Final = 200
"""Most repairs of a group that the drift_repair_agent decides at once."""
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
    return await _groups(request, api, after=after)


@router.post("/repairs/groups")
async def decide_group(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Approve or reject one change on every connection of its group; show what became of each."""
    verdict = form.text("verdict")
    if verdict not in ("approve", "reject"):
        raise PageProblem(422, "invalid_request", "Choose an answer, then send the form again.")
    body: dict[str, Any] = {"verdict": verdict, "group": form.text("group")}
    if reason := form.line("why"):
        body["reason"] = reason
    if verdict == "approve":
        if form.text("loses") == "yes" and not reason:
            problem = PageProblem(422, "reason_required", "Write why: values are lost.")
            return await _groups(request, api, form=form, problem=problem)
        if choice := _choice(form):
            body["choice"] = choice
    try:
        reply = await api.drift_repair_agent.post(
            "/repairs/decide", body=body, idempotency_key=form.idempotency_key
        )
    except PageProblem as problem:
        return await _groups(request, api, form=form, problem=problem)
    return render(
        request,
        "repair_group_result.j2",
        results=reply.body["items"],
        names=_names(form),
        verdict=verdict,
        words=repair_words,
    )


async def _groups(
    request: Request,
    api: Api,
    *,
    after: str | None = None,
    form: Form | None = None,
    problem: PageProblem | None = None,
) -> Response:
    if form is not None:
        after = form.text("after") or None
    page = await api.drift_repair_agent.get("/repairs/groups", after=after, limit=_GROUPS)
    return render(
        request,
        "repair_groups.j2",
        status=200 if problem is None else problem.status,
        page=page,
        after=after,
        most_decided=_MOST_DECIDED,
        suggested=_suggested(page["items"]),
        problem=problem,
        sent=_sent(form or Form()),
        words=repair_words,
        rows=diffs,
    )


def _sent(form: Form) -> dict[str, Any]:
    """What was answered about a group, for the page that is shown again."""
    return {
        "group": form.text("group"),
        "why": form.line("why"),
        "is_gone": form.text("answer") == "gone",
        "became": _parts(form),
        "column": form.text("column"),
    }


def _parts(form: Form) -> list[str]:
    """The path of the suggestion that was chosen; empty for another answer."""
    kind, _, number = form.text("answer").partition("-")
    return form.all(f"part.{number}") if kind == "became" else []


def _suggested(groups: list[Any]) -> dict[str, list[tuple[str, list[str], int]]]:
    """What the removed field of each group may have become, with how many members say that."""
    found: dict[str, list[tuple[str, list[str], int]]] = {}
    for group in groups:
        paths = [one["suggested"] for one in group["members"] if one.get("suggested")]
        distinct = list({tuple(path): path for path in paths}.values())
        found[group["id"]] = [
            (diffs.dotted(path), path, paths.count(path)) for path in distinct[:5]
        ]
    return found


def _choice(form: Form) -> dict[str, Any]:
    """What a removed field became: one of the suggestions by its parts, or that it is gone."""
    if form.text("answer") == "gone":
        return {"became": None}
    parts = _parts(form)
    choice: dict[str, Any] = {"became": parts} if parts else {}
    if parts and form.text("column") in ("keep_column", "new_column"):
        choice["continuity"] = form.text("column")
    return choice


def _names(form: Form) -> dict[str, str]:
    """The connections' names by repair, as the page of the form showed them."""
    pairs = zip(form.all("repair"), form.all("name"), strict=False)
    return dict(pairs)
