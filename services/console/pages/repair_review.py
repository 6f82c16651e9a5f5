"""One repair: its changes, the choices about them, a preview, the decision, and its progress."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console import diffs, repair_words
from services.console.api import Api, CallerApi, load
from services.console.diffs import Json, dotted
from services.console.dry_runs import expect_supported
from services.console.forms import Form, SubmittedForm
from services.console.problems import ApiProblem, PageProblem
from services.console.rendering import is_fragment, render
from services.console.repair_choices import Decisions, Item

router = APIRouter()

PAGE: Final = 40
_MOST_CANDIDATES: Final = 200
"""Most names that are offered for a stream; others can be typed."""
_MOST_ROWS: Final = 100
_MOST_PICKED: Final = 5
"""Most streams for which fields are offered as a cursor or key."""
_PATH: Final = "/repairs/{repair_id:uuid}"
_WHY: Final = "Give a reason: something is lost or read again. It is saved with the version."
_INCOMPLETE: Final = "Some answers are missing."
_NOTHING: Final = "Nothing is decided yet: choose an answer for at least one change."
_CHANGED: Final = (
    "The choices have changed since the preview. Check what they would do now, then approve."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a submitted form led to, for the page that is shown again."""

    dry_run: Json | None = None
    is_previewed: bool = False
    problem: PageProblem | None = None
    notice: str = ""
    why_error: str = ""
    decided_id: str | None = None
    """The repair with the approval, if only the rejection after it failed."""

    @property
    def status(self) -> int:
        """The status of the page."""
        if self.problem is not None:
            return self.problem.status
        return 422 if self.why_error or self.notice else 200


@router.get(_PATH)
async def repair(
    request: Request,
    repair_id: UUID,
    api: CallerApi,
    page: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> Response:
    """Show a repair, with its form if it waits for a decision."""
    found = await api.drift_repair_agent.get("/repairs/{}", repair_id)
    return await _shown(request, api, found, Decisions.of(found), page=page)


@router.get(_PATH + "/progress")
async def progress(
    request: Request, repair_id: UUID, api: CallerApi, connection_id: UUID | None = None
) -> Response:
    """Show how far a decided repair is; the page is loaded again once it has ended."""
    if not is_fragment(request):
        return RedirectResponse(f"/repairs/{repair_id}", status_code=303)
    found = await _summary(api, repair_id, connection_id)
    if found["state"] not in repair_words.IN_PROGRESS:
        return Response(status_code=200, headers={"HX-Refresh": "true"})
    panels = await load(operation=_operation(api, found))
    return render(
        request, "repair_progress.j2", repair=found, operation=panels["operation"], **_words()
    )


@router.post(_PATH)
async def decide(
    request: Request, repair_id: UUID, api: CallerApi, form: SubmittedForm
) -> Response:
    """Preview the choices, turn to another page of them, or decide."""
    found = await api.drift_repair_agent.get("/repairs/{}", repair_id)
    decisions = Decisions.of(found, form)
    asked, _, number = form.text("do").partition("-")
    page = int(number) if asked == "page" and number.isdecimal() else _page_of(form)
    outcome = Outcome()
    if found["state"] != "proposed" or asked == "carry":
        pass
    elif asked == "reject":
        outcome = await _all_rejected(api, found, decisions, form)
    elif asked == "harmless":
        decisions.choose_harmless()
    elif asked == "preview":
        outcome = await _previewed(api, found, decisions)
    elif asked == "approve":
        outcome = await _approved(api, found, decisions, form)
    if outcome.decided_id is not None and outcome.problem is None:
        return RedirectResponse(f"/repairs/{outcome.decided_id}", status_code=303)
    if outcome.problem is not None and outcome.problem.status == 409:
        # Somebody else may have decided since it was read.
        found = await api.drift_repair_agent.get("/repairs/{}", repair_id)
        if found["state"] != "proposed":
            decisions = Decisions.of(found, form)
    return await _shown(request, api, found, decisions, outcome, page=page, is_sent=True)


async def _previewed(api: Api, found: Json, decisions: Decisions, *, notice: str = "") -> Outcome:
    if not decisions.check():
        return Outcome(notice=_INCOMPLETE)
    if not decisions.approved:
        is_any = bool(decisions.rejected)
        return Outcome(is_previewed=is_any, notice=notice if is_any else _NOTHING)
    try:
        await expect_supported(api)
        reply = await api.drift_repair_agent.post(
            "/repairs/{}/approve",
            found["id"],
            body=decisions.approval(),
            query={"dry_run": True},
        )
    except PageProblem as problem:
        return _refused(decisions, problem)
    return Outcome(reply.body, is_previewed=True, notice=notice)


async def _approved(api: Api, found: Json, decisions: Decisions, form: Form) -> Outcome:
    """Approve and reject as chosen, if that is what was previewed."""
    if form.text("previewed") != decisions.digest(found):
        return await _previewed(api, found, decisions, notice=_CHANGED)
    if not decisions.approved and not decisions.rejected:
        return Outcome(notice=_NOTHING)
    is_required = decisions.needs_reason or form.text("resets") == "yes"
    if decisions.approved and is_required and not decisions.reason:
        outcome = await _previewed(api, found, decisions)
        return replace(outcome, notice=_WHY, why_error=_WHY)
    agent, decided = api.drift_repair_agent, None
    try:
        if decisions.approved:
            reply = await agent.post(
                "/repairs/{}/approve",
                found["id"],
                body=decisions.approval(),
                query={"wait": 0},
                idempotency_key=f"{form.idempotency_key}-approve",
            )
            decided = str(reply.body["id"])
        if decisions.rejected:
            reply = await agent.post(
                "/repairs/{}/reject",
                found["id"],
                body=decisions.rejection(),
                idempotency_key=f"{form.idempotency_key}-reject",
            )
    except PageProblem as problem:
        return _refused(decisions, problem, decided_id=decided)
    return Outcome(decided_id=decided or str(reply.body["id"]))


async def _all_rejected(api: Api, found: Json, decisions: Decisions, form: Form) -> Outcome:
    body = {"reason": decisions.reason} if decisions.reason else {}
    try:
        reply = await api.drift_repair_agent.post(
            "/repairs/{}/reject",
            found["id"],
            body=body,
            idempotency_key=f"{form.idempotency_key}-reject",
        )
    except PageProblem as problem:
        return Outcome(problem=problem)
    return Outcome(decided_id=str(reply.body["id"]))


async def _shown(
    request: Request,
    api: Api,
    found: Json,
    decisions: Decisions,
    outcome: Outcome | None = None,
    *,
    page: int = 1,
    is_sent: bool = False,
) -> Response:
    """The page; for htmx, the preview and the bar of the decision alone."""
    result = outcome or Outcome()
    newer = found.get("superseded_by")
    if isinstance(result.problem, ApiProblem) and result.problem.status == 409:
        newer = newer or result.problem.members.get("newer")
    last = 1 if found["kind"] == "rollback" else max(1, -(-len(decisions.items) // PAGE))
    page = min(page, last)
    # What a rollback takes back needs no decisions.
    items = [] if found["kind"] == "rollback" else decisions.items[(page - 1) * PAGE : page * PAGE]
    preview = result.dry_run
    shared = {
        "items": items,
        "last": last,
        "repair": found,
        "decisions": decisions,
        "outcome": result,
        "newer": newer,
        "is_proposed": found["state"] == "proposed",
        "is_rollback": found["kind"] == "rollback",
        "digest": decisions.digest(found) if result.is_previewed else "",
        "preview": None
        if preview is None
        else _difference(preview["catalog"], _streams(preview["catalog"], decisions)),
        **_words(),
    }
    policy = api.drift_repair_agent.get("/connections/{}/policy", found["connection_id"])
    if is_fragment(request):
        decisions.ask_columns((await load(policy=policy))["policy"].value)
        return render(request, "repair_preview.j2", status=result.status, **shared)
    on_page = {one.number for one in items}
    panels = await load(
        policy=policy,
        operation=_operation(api, found),
        version=_version(api, found),
        fields=_fields(api, found, items if found["state"] == "proposed" else []),
    )
    decisions.ask_columns(panels["policy"].value)
    for item in items:
        offered = (panels["fields"].value or {}).get(item.stream)
        if offered:
            item.candidates = {**offered, **item.candidates}
    return render(
        request,
        "repair.j2",
        status=result.status,
        away_fields=[
            pair for one in decisions.items if one.number not in on_page for pair in one.hidden()
        ],
        all_fields=_all_fields(decisions),
        streams=_outline(items, found),
        all_streams=repair_words.streams_of(found["changes"]),
        counts=_counted(decisions.items, found),
        page=page,
        expected=_expected(found, decisions),
        is_sent=is_sent,
        **shared,
        **panels,
    )


def _all_fields(decisions: Decisions) -> list[tuple[str, str]]:
    """The fields that carry every choice over to a newer repair."""
    fields = [
        *[pair for item in decisions.items for pair in item.hidden()],
        ("why", decisions.reason),
        ("on_global_state", decisions.on_global_state),
        ("on_renamed_stream", decisions.on_renamed_stream),
    ]
    return [(name, value) for name, value in fields if value]


def _counted(items: Iterable[Item], found: Json) -> str:
    kinds = Counter(item.kind for item in items)
    return repair_words.counted(kinds, is_decided=repair_words.is_decided(found))


def _outline(items: Iterable[Item], repair: Json) -> list[dict[str, Any]]:
    """The streams of a page of changes, with how many are decided."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        one = found.setdefault(
            item.stream, {"name": item.stream, "first": item.id, "decided": 0, "items": []}
        )
        one["decided"] += item.is_decided
        one["items"].append(item)
    for one in found.values():
        names = dict.fromkeys(name for item in one["items"] for name in item.candidates)
        one["candidates"] = list(names)[:_MOST_CANDIDATES]
        one["summary"] = _counted(one["items"], repair)
    return list(found.values())


def _streams(catalog: Json, decisions: Decisions) -> list[diffs.StreamRows]:
    return diffs.with_renames_named(diffs.by_stream(catalog), decisions.renamed)


def _expected(found: Json, decisions: Decisions) -> dict[str, Any] | None:
    """What the repair changed, or would change; None if that is not known.

    A rollback whose version does not exist yet takes its planned changes back.
    """
    catalog = found["catalog"]
    if found["kind"] != "rollback":
        return None if catalog is None else _difference(catalog, _streams(catalog, decisions))
    shown = catalog or {"schema_changes": diffs.taken_back(found["changes"])}
    return _difference(shown, diffs.rolled_back(diffs.by_stream(shown)))


def _difference(catalog: Json, shown: Iterable[diffs.StreamRows]) -> dict[str, Any]:
    """A catalog's difference for people: at most a hundred rows, and what it resets."""
    streams, left = [], _MOST_ROWS
    rows = 0
    for one in shown:
        rows += len(one.rows)
        if left > 0:
            streams.append((one, one.rows[:left]))
            left -= len(one.rows)
    return {
        "streams": streams,
        "left_out": max(0, rows - _MOST_ROWS),
        "effects": catalog.get("effects") or [],
        "problems": catalog.get("problems") or [],
    }


def _words() -> Mapping[str, Any]:
    return {"words": repair_words, "rows": diffs, "in_progress": repair_words.IN_PROGRESS}


def _page_of(form: Form) -> int:
    number = form.text("page")
    return int(number) if number.isdecimal() and 0 < len(number) < 6 and int(number) else 1


def _refused(
    decisions: Decisions, problem: PageProblem, *, decided_id: str | None = None
) -> Outcome:
    """The outcome of a refusal; an answer that is missing is shown at its question instead."""
    if problem.code == "continuity_required":
        decisions.require_columns()
        if any(item.column_error for item in decisions.items):
            return Outcome(notice=_INCOMPLETE)
    _place(decisions, problem)
    return Outcome(problem=problem, decided_id=decided_id)


def _place(decisions: Decisions, problem: PageProblem) -> None:
    fields = problem.members.get("fields") if isinstance(problem, ApiProblem) else None
    if isinstance(fields, Sequence):
        decisions.place([one for one in fields if isinstance(one, Mapping)])


async def _summary(api: Api, repair_id: UUID, connection_id: UUID | None) -> Any:
    """A repair's state; from the connection's newest repairs, which is cheaper than the whole."""
    if connection_id is not None:
        newest = await api.drift_repair_agent.get("/repairs", connection_id=connection_id, limit=10)
        for one in newest["items"]:
            if one["id"] == str(repair_id):
                return one
    return await api.drift_repair_agent.get("/repairs/{}", repair_id)


async def _operation(api: Api, found: Json) -> Any:
    if not found.get("operation_id"):
        return None
    return await api.orchestrator.get("/operations/{}", found["operation_id"])


async def _version(api: Api, found: Json) -> Any:
    """The version that the repair made, with its fingerprint."""
    number = found.get("version_number")
    if number is None:
        return None
    page = await api.orchestrator.get(
        "/connections/{}/catalog-versions", found["connection_id"], after=number + 1, limit=1
    )
    return next((one for one in page["items"] if one["version_number"] == number), None)


async def _fields(api: Api, found: Json, items: Iterable[Item]) -> dict[str, dict[str, list[str]]]:
    """Fields that may become a cursor or part of a key, by stream, each by how it is shown."""
    asking = {one.stream: one.change["stream"] for one in items if one.asks_cursor or one.asks_key}
    gone = {
        (diffs.stream_name(one["stream"]), *one["path"])
        for one in found["changes"]
        if one["kind"] == "field_removed"
    }
    offered: dict[str, dict[str, list[str]]] = {}
    for name, stream in list(asking.items())[:_MOST_PICKED]:
        page = await api.orchestrator.get(
            "/connections/{}/catalog-versions/{}/fields",
            found["connection_id"],
            found["base_version"],
            stream=stream["name"],
            namespace=stream.get("namespace"),
            limit=200,
        )
        names = [one["name"] for one in page["items"]]
        offered[name] = {dotted([one]): [one] for one in names if (name, one) not in gone}
    return offered
