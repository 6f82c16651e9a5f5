"""Two catalog versions side by side, and the rollback to the older one."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import diffs, repair_words, text
from services.console.api import Api, CallerApi, Panel, load
from services.console.diffs import Json
from services.console.dry_runs import expect_supported
from services.console.forms import Form, SubmittedForm
from services.console.pages.connection.head import DONE
from services.console.problems import PageProblem
from services.console.rendering import render

router = APIRouter()

_HEAL: Final = "catalogs:heal"
_STREAMS: Final = 50
_CHANGES: Final = 100
_PATH: Final = "/connections/{connection_id:uuid}/versions/{a:int}..{b:int}"
_Version = Annotated[int, Path(ge=1, le=2**31 - 1)]
_WHY: Final = "Give a reason: it is saved with the new version, under your name."


@router.get("/connections/{connection_id:uuid}/versions/compare")
async def chosen(
    connection_id: UUID,
    a: Annotated[int, Query(ge=1, le=2**31 - 1)],
    b: Annotated[int, Query(ge=1, le=2**31 - 1)],
    search: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Go to the comparison of the two versions that were picked."""
    query = f"?{text.address({'search': search.strip()})}" if search.strip() else ""
    path = f"/connections/{connection_id}/versions/{a}..{b}"
    return RedirectResponse(f"{path}{query}", status_code=303)


@router.get(_PATH)
async def compare(
    request: Request,
    api: CallerApi,
    connection_id: UUID,
    a: _Version,
    b: _Version,
    stream: Annotated[str | None, Query(max_length=512)] = None,
    namespace: Annotated[str | None, Query(max_length=512)] = None,
    search: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str | None, Query(max_length=8_192)] = None,
) -> Response:
    """Show what changes from version `a` to `b`; if `a` is the newest one, the rollback to `b`."""
    if stream is not None:
        return await _of_stream(request, api, connection_id, (a, b), stream, namespace, after)
    return await _shown(request, api, connection_id, (a, b), search=search.strip(), after=after)


@router.post(_PATH)
async def roll_back(
    request: Request,
    api: CallerApi,
    form: SubmittedForm,
    connection_id: UUID,
    a: _Version,
    b: _Version,
) -> Response:
    """Apply the older version as a new one, or show again why that is not possible."""
    agent = api.drift_repair_agent
    if not form.line("why"):
        return await _shown(request, api, connection_id, (a, b), form=form, why_error=_WHY)
    connection = await api.orchestrator.get("/connections/{}", connection_id)
    if connection["catalog_version"] != a:
        sentence = (
            f"The connection is at version {connection['catalog_version']} now, not {a}: look at "
            "what the rollback changes from there. Nothing was done."
        )
        problem = PageProblem(409, "stale_catalog", sentence)
        head = (connection["catalog_version"], b)
        return await _shown(request, api, connection_id, head, form=form, problem=problem)
    try:
        reply = await agent.post(
            "/connections/{}/rollback",
            connection_id,
            body=_order(form, b),
            query={"wait": 0},
            idempotency_key=form.idempotency_key,
        )
    except PageProblem as problem:
        return await _shown(request, api, connection_id, (a, b), form=form, problem=problem)
    if reply.body.get("changed") is False:
        sentence = f"Version {b} is equivalent to the newest one: nothing was done."
        same = PageProblem(409, "unchanged", sentence)
        return await _shown(request, api, connection_id, (a, b), form=form, problem=same)
    return RedirectResponse(f"/repairs/{reply.body['id']}", status_code=303)


async def _shown(
    request: Request,
    api: Api,
    connection_id: UUID,
    pair: tuple[int, int],
    *,
    search: str = "",
    after: str | None = None,
    form: Form | None = None,
    problem: PageProblem | None = None,
    why_error: str = "",
) -> Response:
    a, b = pair
    route = "/connections/{}/catalog-versions/{}/diff/{}"
    connection = await api.orchestrator.get("/connections/{}", connection_id)
    is_rollback = connection["catalog_version"] == a and b < a
    may_heal = request.state.session.may(_HEAL)
    panels = await load(
        summary=api.orchestrator.get(
            f"{route}/summary",
            connection_id,
            a,
            b,
            search=search or None,
            after=after,
            limit=_STREAMS,
        ),
        changes=api.orchestrator.get(route, connection_id, a, b, limit=_CHANGES),
        versions=api.orchestrator.get("/connections/{}/catalog-versions", connection_id, limit=100),
        rehearsal=_rehearsed(api, connection_id, b, form) if is_rollback and may_heal else _none(),
    )
    if panels["summary"].problem is not None and panels["summary"].problem.status == 404:
        raise panels["summary"].problem
    rehearsal: Panel[Any] = panels["rehearsal"]
    status = problem.status if problem is not None else 422 if why_error else 200
    return render(
        request,
        "compare.j2",
        status=status,
        connection=connection,
        a=a,
        b=b,
        base=f"/connections/{connection_id}/versions/{a}..{b}",
        is_rollback=is_rollback,
        is_first=after is None,
        search=search,
        shown=_rows(panels["changes"]),
        effects=_effects(rehearsal.value),
        problem=problem,
        checked=DONE.get(request.query_params.get("checked", "")),
        why="" if form is None else form.line("why"),
        why_error=why_error,
        on_global_state="" if form is None else form.text("on_global_state"),
        words=repair_words,
        rows=diffs,
        **panels,
    )


async def _of_stream(
    request: Request,
    api: Api,
    connection_id: UUID,
    pair: tuple[int, int],
    stream: str,
    namespace: str | None,
    after: str | None,
) -> Response:
    """All changes of one stream, a page at a time."""
    a, b = pair
    position = int(after) if after is not None and after.isdecimal() else 0
    panels = await load(
        connection=api.orchestrator.get("/connections/{}", connection_id),
        changes=api.orchestrator.get(
            "/connections/{}/catalog-versions/{}/diff/{}",
            connection_id,
            a,
            b,
            stream=stream,
            namespace=namespace,
            after=position,
            limit=_CHANGES,
        ),
    )
    changes = panels["changes"]
    if changes.value is None:
        raise changes.problem or PageProblem(404, "not_found", "There is no such page.")
    place = {"stream": stream} | ({"namespace": namespace} if namespace else {})
    return render(
        request,
        "compare_stream.j2",
        connection=panels["connection"],
        connection_id=connection_id,
        a=a,
        b=b,
        base=f"/connections/{connection_id}/versions/{a}..{b}",
        place=place,
        name=diffs.stream_name({"name": stream, "namespace": namespace}),
        streams=diffs.by_stream(changes.value),
        next=changes.value.get("next"),
        is_first=position == 0,
        rows=diffs,
    )


async def _rehearsed(api: Api, connection_id: UUID, version: int, form: Form | None) -> Any:
    """What the rollback would do; nothing is recorded."""
    await expect_supported(api)
    reply = await api.drift_repair_agent.post(
        "/connections/{}/rollback",
        connection_id,
        body={**_order(form, version), "reason": "Preview."},
        query={"dry_run": True},
    )
    return reply.body


async def _none() -> None:
    return None


def _order(form: Form | None, version: int) -> dict[str, Any]:
    order: dict[str, Any] = {"version": version}
    if form is not None and form.line("why"):
        order["reason"] = form.line("why")
    if form is not None and form.text("on_global_state") in ("refresh", "accept_gap"):
        order["on_global_state"] = form.text("on_global_state")
    return order


def _rows(changes: Panel[Any]) -> dict[tuple[str | None, str], diffs.StreamRows]:
    """The rows of the streams whose changes were all returned, by namespace and name."""
    if changes.value is None:
        return {}
    return {
        (one.stream.get("namespace") or None, str(one.stream["name"])): one
        for one in diffs.by_stream(changes.value)
    }


def _effects(dry_run: Json | None) -> dict[str, Any] | None:
    if dry_run is None:
        return None
    catalog = dry_run["catalog"]
    return {"effects": catalog.get("effects") or [], "problems": catalog.get("problems") or []}
