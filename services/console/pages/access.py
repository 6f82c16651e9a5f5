"""Access: API keys, the credentials that connections use, and who read which credential."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from services.console.api import Api, CallerApi, load
from services.console.forms import SubmittedForm
from services.console.problems import ApiProblem, PageProblem
from services.console.rendering import render

router = APIRouter()

SCOPES: Final = {
    "connections:read": "Read connections, catalogs, jobs, drifts, repairs and operations",
    "connections:write": "Onboard, import, edit, observe and archive connections; webhooks",
    "connections:sync": "Start syncs, refresh streams, cancel jobs",
    "catalogs:heal": "Apply a catalog, roll back, upgrade a connector",
    "repairs:decide": "Approve and reject repairs, change policies",
    "admin": "Create and revoke keys, rotate credentials",
}
_DAYS: Final = {"30": 30, "90": 90, "365": 365}
_REFERENCE: Final = r"^(?:(?:env|file|vault):)?[a-z0-9][a-z0-9-]{0,62}$"


@router.get("/access")
async def keys(
    request: Request,
    api: CallerApi,
    after: Annotated[str | None, Query(max_length=200)] = None,
    revoked: Annotated[bool, Query()] = False,
    revoked_key: Annotated[str | None, Query(pattern="^[a-z0-9]{8}$")] = None,
) -> Response:
    """Show the API keys, newest first, and the form of a new one."""
    return await _keys(request, api, after=after, with_revoked=revoked, revoked_key=revoked_key)


@router.post("/access/keys")
async def make_key(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Create a key, and show it once."""
    scopes = [name for name in SCOPES if name in form.all("scope")]
    given: dict[str, Any] = {
        "owner": form.text("owner"),
        "scopes": scopes,
        "days": form.text("days"),
        "labels": form.text("labels"),
    }
    if not given["owner"] or not scopes:
        missing = "Name the owner." if not given["owner"] else "Choose at least one scope."
        return await _keys(
            request, api, problem=PageProblem(422, "incomplete", missing), given=given
        )
    pairs = [one.partition("=")[::2] for one in given["labels"].split()]
    labels = dict(pairs)
    if len(labels) < len(pairs):
        twice = "Give each label one value: a key is limited to connections with all of them."
        return await _keys(
            request, api, problem=PageProblem(422, "label_twice", twice), given=given
        )
    body: dict[str, Any] = {"owner": given["owner"], "scopes": scopes, "labels": labels}
    if form.text("days") in _DAYS:
        end = datetime.now(UTC) + timedelta(days=_DAYS[form.text("days")])
        body["expires_at"] = end.isoformat()
    try:
        reply = await api.orchestrator.post("/api-keys", body=body)
    except ApiProblem as problem:
        return await _keys(request, api, problem=problem, given=given)
    return render(request, "key_created.j2", status=201, key=reply.body, owner=given["owner"])


@router.post("/access/keys/{key_id}/revoke")
async def revoke(api: CallerApi, key_id: str, form: SubmittedForm) -> Response:
    """Revoke a key for good."""
    del form
    await api.orchestrator.post("/api-keys/{}", key_id, method="DELETE")
    return RedirectResponse(f"/access?revoked_key={key_id}", status_code=303)


@router.get("/access/credentials")
async def credentials(
    request: Request,
    api: CallerApi,
    after: Annotated[str | None, Query(max_length=200, pattern=_REFERENCE)] = None,
    rejected: Annotated[bool | None, Query()] = None,
) -> Response:
    """Show the credentials that connections use, by reference."""
    panels = await load(
        credentials=api.orchestrator.get("/credentials", rejected=rejected, after=after, limit=50)
    )
    return render(
        request,
        "credentials.j2",
        credentials=panels["credentials"],
        rejected=rejected,
        rotated=None,
        is_first=after is None,
    )


@router.post("/access/credentials/rotate")
async def rotate(request: Request, api: CallerApi, form: SubmittedForm) -> Response:
    """Give every source of a credential the values that are in its store now."""
    credential_id = form.text("credential_id")
    reply = await api.orchestrator.post(
        "/credentials/{}/rotate",
        credential_id,
        query={"wait": 8},
    )
    panels = await load(credentials=api.orchestrator.get("/credentials", limit=50))
    return render(
        request,
        "credentials.j2",
        credentials=panels["credentials"],
        rejected=None,
        rotated={"credential_id": credential_id, "connections": [], **(reply.body or {})},
        is_first=True,
    )


@router.get("/access/reads")
async def reads(
    request: Request,
    api: CallerApi,
    credential_id: Annotated[str | None, Query(pattern=_REFERENCE)] = None,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show who requested the values of which credential, newest first."""
    panels = await load(
        reads=api.orchestrator.get(
            "/credential-reads", credential_id=credential_id, after=after, limit=100
        )
    )
    return render(
        request,
        "credential_reads.j2",
        reads=panels["reads"],
        credential_id=credential_id,
        is_first=after is None,
    )


@router.get("/access/refusals")
async def refusals(
    request: Request,
    api: CallerApi,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Show what was refused to whom, newest minute first."""
    panels = await load(refusals=api.orchestrator.get("/refusals", after=after, limit=100))
    return render(request, "refusals.j2", refusals=panels["refusals"], is_first=after is None)


async def _keys(
    request: Request,
    api: Api,
    *,
    after: str | None = None,
    with_revoked: bool = False,
    revoked_key: str | None = None,
    problem: PageProblem | None = None,
    given: dict[str, Any] | None = None,
) -> Response:
    panels = await load(
        keys=api.orchestrator.get("/api-keys", revoked=with_revoked, after=after, limit=50)
    )
    return render(
        request,
        "access.j2",
        status=200 if problem is None else problem.status,
        keys=panels["keys"],
        scopes=SCOPES,
        given=given or {"owner": "", "scopes": ["connections:read"], "days": "90", "labels": ""},
        problem=problem,
        with_revoked=with_revoked,
        revoked_key=revoked_key,
        is_first=after is None,
    )
