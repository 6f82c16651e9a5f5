"""Onboarding: choose a source type, fill in its form, try it out, and onboard.

The form is the connector's own specification. It has no field for a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, Panel, load
from services.console.connection_order import (
    MAX_OFFERED,
    UNITS,
    Errors,
    Order,
    configuration_fields,
    errors_of,
)
from services.console.forms import SubmittedForm
from services.console.problems import ApiProblem
from services.console.rendering import render
from services.console.specification_form import (
    Control,
    Node,
    Read,
    configuration_of,
    controls,
    json_path,
    node_of,
    with_row,
    without_row,
)

router = APIRouter()

_CONNECTOR_S: Final = 180.0
"""How long a browser waits for a check or a preview, each of which starts a connector."""
_WAIT_S: Final = 8
"""How long onboarding may take until its operation is shown instead of the connection."""
_LOST: Final = frozenset({"service_timeout", "service_no_answer"})
"""Codes after which the same form must be sent with the same key."""


@router.get("/onboard")
async def source_types(
    request: Request,
    api: CallerApi,
    q: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[UUID | None, Query()] = None,
) -> Response:
    """Show the source types to choose from."""
    search = q.strip()
    panels = await load(
        types=api.orchestrator.get("/source-types", search=search or None, after=after, limit=50)
    )
    return render(
        request,
        "onboard_types.j2",
        types=panels["types"],
        search=search,
        is_first=after is None,
    )


@router.get("/onboard/{source_type}")
async def form(request: Request, api: CallerApi, source_type: UUID) -> Response:
    """Show the form of a source type."""
    shown = await _Shown.of(api, source_type)
    order = Order(name=f"{shown.type_name} ")
    return _page(request, shown, order, Read({}, ()))


@router.post("/onboard/{source_type}")
async def submit(
    request: Request, api: CallerApi, source_type: UUID, form: SubmittedForm
) -> Response:
    """Do what the pressed button says: change rows, check, preview or onboard."""
    shown = await _Shown.of(api, source_type)
    order, fields = Order.of(form), configuration_fields(form)
    action, _, place = form.exact("do").partition(":")
    if action == "add":
        fields = with_row(shown.node, fields, place)
    elif action == "remove":
        fields = without_row(fields, place)
    read = configuration_of(shown.node, fields)
    if action not in ("check", "preview", "onboard"):
        return _page(request, shown, order, read)
    errors = _own_errors(order, read, is_onboarding=action == "onboard")
    if errors:
        return _page(request, shown, order, read, Outcome(errors=errors), status=422)
    try:
        if action == "onboard":
            return await _onboarded(api, source_type, order, read, form.idempotency_key)
        found = await _tried(api, action, order.trial(str(source_type), read.configuration))
    except ApiProblem as problem:
        outcome = Outcome(problem=problem, of=action)
        if problem.status == 422:
            outcome.errors = errors_of(problem)
        if problem.code in _LOST and action == "onboard":
            outcome.key = form.idempotency_key
        return _page(request, shown, order, read, outcome, status=problem.status)
    if action == "preview":
        order.offered = _names(found)
        order.chosen = [name for name in order.chosen if name in order.offered]
    return _page(request, shown, order, read, Outcome(of=action, found=found))


@dataclass(slots=True)
class Outcome:
    """What the pressed button led to."""

    of: str = ""
    """`check`, `preview` or `onboard`."""
    found: dict[str, Any] | None = None
    problem: ApiProblem | None = None
    errors: Errors = field(default_factory=Errors)
    key: str = ""
    """The form's own key, if it is unknown whether the order was carried out."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A source type with what its form chooses from."""

    type_id: UUID
    type_name: str
    version: str
    documentation_url: str | None
    node: Node
    needs_secret: bool
    destinations: Panel[Any]
    credentials: list[dict[str, Any]]

    @classmethod
    async def of(cls, api: Api, source_type: UUID) -> _Shown:
        panels = await load(
            specification=api.orchestrator.get("/source-types/{}/specification", source_type),
            destinations=api.orchestrator.get("/destinations", limit=100),
            credentials=api.orchestrator.get("/credentials", limit=100),
        )
        specified = panels["specification"]
        if specified.problem is not None:
            raise specified.problem
        view: Any = specified.value
        listed = panels["credentials"].value or {"items": []}
        name = str(view["name"])
        return cls(
            type_id=source_type,
            type_name=name,
            version=str(view["version"]),
            documentation_url=_https(view.get("documentation_url")),
            node=node_of(view["specification"]),
            needs_secret=bool(view["secret_paths"]),
            destinations=panels["destinations"],
            credentials=sorted(
                listed["items"], key=lambda one: name not in one.get("source_types", ())
            ),
        )


def _page(
    request: Request,
    shown: _Shown,
    order: Order,
    read: Read,
    outcome: Outcome | None = None,
    *,
    status: int = 200,
) -> Response:
    outcome = outcome or Outcome()
    made = controls(shown.node, read.configuration, outcome.errors.paths)
    return render(
        request,
        "onboard.j2",
        status=status,
        shown=shown,
        order=order,
        form=made,
        outcome=outcome,
        summary=_summary(outcome.errors, made, shown.needs_secret),
        units=UNITS,
    )


def _own_errors(order: Order, read: Read, *, is_onboarding: bool) -> Errors:
    """What need not be sent to be known."""
    errors = Errors()
    for fault in read.faults:
        errors.paths[json_path(fault.path)] = fault.message
    if is_onboarding and not order.name:
        errors.places["name"] = "Give the connection a name."
    return errors


async def _onboarded(api: Api, source_type: UUID, order: Order, read: Read, key: str) -> Response:
    """Onboard, and go on to the connection, or to the operation while it lasts."""
    reply = await api.orchestrator.post(
        "/connections/onboard",
        body=order.onboarding(str(source_type), read.configuration),
        query={"wait": _WAIT_S},
        idempotency_key=key,
    )
    if reply.is_in_progress:
        return RedirectResponse(f"/operations/{UUID(reply.body['operation_id'])}", status_code=303)
    return RedirectResponse(f"/connections/{UUID(reply.body['id'])}", status_code=303)


async def _tried(api: Api, action: str, body: dict[str, Any]) -> dict[str, Any]:
    reply = await api.orchestrator.post(f"/sources/{action}", body=body, within_s=_CONNECTOR_S)
    found: dict[str, Any] = reply.body
    return found


def _names(found: dict[str, Any]) -> list[str]:
    """The names of the previewed streams; onboarding takes names without namespaces."""
    return list(dict.fromkeys(str(one["name"]) for one in found["items"]))[:MAX_OFFERED]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the summary of errors: a sentence, and the field that it is about."""

    sentence: str
    anchor: str = ""
    label: str = ""
    joint: str = " "
    """What stands between the label and the sentence."""


_LABELS: Final = {
    "name": "Connection name",
    "credential": "Credential",
    "destination": "Destination",
    "prefix": "Prefix of tables",
    "schedule": "Schedule",
    "streams": "Streams",
}


def _summary(errors: Errors, form: Control, needs_secret: bool) -> list[Line]:
    """Every error once, those with a field first."""
    lines = [Line(text, place, _LABELS[place], ": ") for place, text in errors.places.items()]
    by_path = _by_path(form)
    for path, text in errors.paths.items():
        control = by_path.get(path)
        if control is None:
            lines.append(Line(f"{path} {text}"))
        elif control.kind == "secret":
            anchor = "credential" if needs_secret else ""
            lines.append(Line(f"{text} It comes from the credential.", anchor, control.title))
        else:
            lines.append(Line(text, control.id, control.title))
    return lines + [Line(text) for text in errors.others]


def _by_path(form: Control) -> dict[str, Control]:
    """Each control by its JSON path; of several branches, the chosen one's."""
    found: dict[str, Control] = {}
    waiting = [form]
    while waiting:
        one = waiting.pop()
        found.setdefault(one.json_path, one)
        chosen = [two for two in one.options if two.is_chosen]
        others = [two for two in one.options if not two.is_chosen]
        waiting.extend(two.control for two in others if two.control is not None)
        waiting.extend(two.control for two in chosen if two.control is not None)
        waiting.extend(one.children)
    return found


def _https(url: Any) -> str | None:
    return url if isinstance(url, str) and url.startswith("https://") else None
