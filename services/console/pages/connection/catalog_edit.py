"""Editing a stream's selection: read the source, choose, see what it would do, apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi
from services.console.dry_runs import expect_supported
from services.console.forms import Form, SubmittedForm
from services.console.pages.connection import selection
from services.console.pages.connection.events import Change
from services.console.pages.connection.head import PATH, opened, show
from services.console.pages.connection.words import mark_of, sentence, to
from services.console.problems import ApiProblem, PageProblem

router = APIRouter()

_WAIT_S: Final = 5
_DISCOVERY_S: Final = 180.0
"""How long a page waits for a discovery, which starts a connector."""
_MOST_CHANGES: Final = 100
_FIELD: Final = "field"
_CHOICE: Final = "on_global_state"
_CHOICES: Final = ("refresh", "accept_gap")


@router.post(f"{PATH}/catalog/edit")
async def edit(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Read what the source offers of a stream, and show it as a form.

    This is a POST, since a discovery uses up API calls of the source.
    """
    try:
        merged = await _discovered(api, connection_id)
        entry = _entry(merged, form)
    except PageProblem as problem:
        return await _form(request, api, connection_id, form, None, problem=problem)
    return await _form(request, api, connection_id, form, selection.read(entry))


@router.post(f"{PATH}/catalog/preview")
async def preview(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Show what the selection would change, without applying it."""
    chosen: selection.Selection | None = None
    try:
        await expect_supported(api)
        merged = await _discovered(api, connection_id)
        entry = _entry(merged, form)
        chosen = _changed(entry, form)
        reply = await api.drift_repair_agent.post(
            "/repair/apply_new_catalog",
            body=await _order(api, connection_id, merged, entry, form),
            query={"dry_run": True},
        )
    except PageProblem as problem:
        return await _form(
            request, api, connection_id, form, chosen, entered=_entered(form), problem=problem
        )
    head, _ = await opened(api, connection_id)
    found = reply.body["catalog"]
    changes = [_shown(one) for one in (*found["schema_changes"], *found["config_changes"])]
    return show(
        request,
        "connection_catalog_preview.j2",
        head,
        tab="catalog",
        rehearsal=reply.body,
        changes=changes[:_MOST_CHANGES],
        more=max(0, len(changes) - _MOST_CHANGES),
        effects=found["effects"],
        problems=found["problems"],
        fields=_entered(form),
        snapshot_id=merged["snapshot_id"],
        expected_version=merged["expected_version"],
        stream=form.exact("stream"),
    )


@router.post(f"{PATH}/catalog/apply")
async def apply(
    request: Request, api: CallerApi, connection_id: UUID, form: SubmittedForm
) -> Response:
    """Apply the previewed selection, if neither the catalog nor the source changed meanwhile."""
    chosen: selection.Selection | None = None
    try:
        merged = await _discovered(api, connection_id)
        entry = _entry(merged, form)
        chosen = _changed(entry, form)
        _expect_previewed(merged, form)
        await api.drift_repair_agent.post(
            "/repair/apply_new_catalog",
            body=await _order(api, connection_id, merged, entry, form),
            query={"wait": _WAIT_S},
            idempotency_key=form.idempotency_key,
        )
    except PageProblem as problem:
        return await _form(
            request, api, connection_id, form, chosen, entered=_entered(form), problem=problem
        )
    where = f"{to('connections', connection_id, 'timeline')}?done=applied"
    return RedirectResponse(where, status_code=303)


async def _discovered(api: Api, connection_id: UUID) -> dict[str, Any]:
    """The catalog merged with what the source offers; a discovery of the last minute is reused.

    Raises:
        PageProblem: the source cannot be read; `service_timeout` if that takes longer than a page.
    """
    reply = await api.orchestrator.post(
        "/connections/{}/discover", connection_id, query={"all": True}, within_s=_DISCOVERY_S
    )
    merged: dict[str, Any] = reply.body
    return merged


def _entry(merged: dict[str, Any], form: Form) -> dict[str, Any]:
    stream = (form.exact("namespace"), form.exact("stream"))
    entry = selection.find(merged["sync_catalog"], stream)
    if entry is None:
        raise PageProblem(404, "not_found", "Neither the catalog nor the source has this stream.")
    return entry


def _changed(entry: dict[str, Any], form: Form) -> selection.Selection:
    selection.change(
        entry, is_selected=form.text("stream_selected") == "yes", names=form.all(_FIELD)
    )
    return selection.read(entry)


async def _order(
    api: Api, connection_id: UUID, merged: dict[str, Any], entry: dict[str, Any], form: Form
) -> dict[str, Any]:
    """The order to apply the newest version with this stream as it was edited.

    Other streams stay as they are, so that what changed in the source is left to repairs.
    """
    version = merged["expected_version"]
    catalog = await api.orchestrator.get(
        "/connections/{}/catalog-versions/{}", connection_id, version
    )
    stored = selection.find(catalog, selection.key_of(entry["stream"]))
    if stored is None:
        catalog["streams"].append(entry)
    else:
        stored.clear()
        stored.update(entry)
    order = {
        "connection_id": str(connection_id),
        "expected_version": version,
        "sync_catalog": catalog,
    }
    if choice := _global_state(form):
        order["on_global_state"] = choice
    return order


def _global_state(form: Form) -> str:
    """What to do about streams selected again in a global state; empty without a valid choice."""
    choice = form.text(_CHOICE)
    return choice if choice in _CHOICES else ""


def _expect_previewed(merged: dict[str, Any], form: Form) -> None:
    now = (str(merged["snapshot_id"]), str(merged["expected_version"]))
    if now != (form.text("snapshot_id"), form.text("expected_version")):
        sentence_ = (
            "The source or the catalog changed since the preview. Nothing was applied: look at "
            "the selection again."
        )
        raise PageProblem(409, "stale_preview", sentence_)


def _shown(change: dict[str, Any]) -> tuple[Change, str]:
    """A change of a catalog: its mark and place, and in words what a setting becomes."""
    kind = str(change["kind"])
    path = ".".join(str(part) for part in change.get("path") or ())
    words = "" if kind in ("field_selected", "field_deselected") else sentence(kind)
    return Change(mark_of(kind), str(change["stream"]["name"]), path), words


def _identity(form: Form) -> list[tuple[str, str]]:
    return [("stream", form.exact("stream")), ("namespace", form.exact("namespace"))]


def _entered(form: Form) -> list[tuple[str, str]]:
    """The selection as it was submitted, to be sent again."""
    choice = _global_state(form)
    return [
        *_identity(form),
        ("stream_selected", form.text("stream_selected")),
        *((_FIELD, name) for name in form.all(_FIELD)),
        *([(_CHOICE, choice)] if choice else []),
    ]


def _offered_choices(form: Form, problem: PageProblem | None) -> Sequence[str]:
    """The choices about a global state: those of the refusal, or all once one was made."""
    if isinstance(problem, ApiProblem) and problem.code == "global_state":
        offered = problem.members.get("choices") or _CHOICES
        return [one for one in _CHOICES if one in offered]
    return _CHOICES if _global_state(form) else ()


async def _form(
    request: Request,
    api: Api,
    connection_id: UUID,
    form: Form,
    shown: selection.Selection | None,
    *,
    entered: list[tuple[str, str]] | None = None,
    problem: PageProblem | None = None,
) -> Response:
    """The form; without a selection, only the problem, and a button that sends `entered` again."""
    head, _ = await opened(api, connection_id)
    return show(
        request,
        "connection_catalog_edit.j2",
        head,
        tab="catalog",
        problem=problem,
        stream=form.exact("stream"),
        identity=_identity(form),
        entered=entered,
        choices=_offered_choices(form, problem),
        on_global_state=_global_state(form),
        selection=shown,
        most_fields=selection.MOST_FIELDS,
    )
