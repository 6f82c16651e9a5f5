"""Airbyte's public API in front of the local Airbyte, as far as the clients in this folder call it.

For tests only: `make up` answers /api/public/ with a 501. Each request is answered by one request
to the Configuration API, whose times are epoch seconds, where the public API has ISO 8601.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from local.airbyte.api import dispatch
from local.airbyte.connectors_backend import Plane

Json = dict[str, Any]
ROOT = "/api/public/v1/"
_MODES = {"incremental_append_dedup": "incremental_deduped_history"}


class PublicApi:
    """An ASGI application: /api/public/v1 of a plane; `app` answers the rest, with its guard."""

    def __init__(
        self, app: ASGIApp, plane: Callable[[], Plane], *, token: str, login: Json
    ) -> None:
        self._app, self._plane, self._token, self._login = app, plane, token, login
        self.requests: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to the public API, or pass it on."""
        if scope["type"] == "http":
            self.requests.append(f"{scope['method']} {scope['path']}")
        if scope["type"] != "http" or not scope["path"].startswith(ROOT):
            await self._app(scope, receive, send)
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        content = await request.body()
        is_form = request.headers.get("content-type", "").startswith("application/x-www-form")
        body: Json = (
            dict(parse_qsl(content.decode())) if is_form else orjson.loads(content or b"{}")
        )
        words = request.url.path.removeprefix(ROOT).strip("/").split("/")
        match request.method, *words:
            case "GET", "health":
                return Response("Successful operation")
            case "POST", "applications", "token":
                if not self._login.items() <= body.items():
                    return JSONResponse({"type": "about:blank", "status": 401}, 401)
                token = {"access_token": self._token, "token_type": "Bearer", "expires_in": 900}
                return JSONResponse(token)
        if request.headers.get("authorization") != f"Bearer {self._token}":
            return JSONResponse({"type": "about:blank", "status": 401}, 401)
        return await self._resource([request.method, *words], request, body)

    async def _resource(self, called: list[str], request: Request, body: Json) -> Response:
        method, resource, *rest = called
        route = ROUTES.get(f"{method} {resource}{'/*' * len(rest)}")
        if route is None:
            return JSONResponse({"type": "about:blank", "status": 501}, 501)
        workspace = self._plane().instance.workspace_id
        given = {"workspace": workspace, **request.query_params, **body, "id": "".join(rest)}
        path, order, translated = route
        answer = await dispatch.answer(
            self._plane(), "POST", dispatch.BASE + path, orjson.dumps(order(given))
        )
        if answer.status != 200:
            return Response(answer.content, answer.status, media_type="application/problem+json")
        return JSONResponse(translated(orjson.loads(answer.content)))


def page(items: list[Json]) -> Json:
    """Build a page that is the only one."""
    return {"data": items, "previous": "", "next": ""}


def space(read: Json) -> Json:
    """Build a WorkspaceResponse."""
    of = {name: read[name] for name in ("workspaceId", "name")}
    return {**of, "dataResidency": "auto", "notifications": {}}


def connection(read: Json) -> Json:
    """Build a ConnectionResponse."""
    same = ("connectionId", "name", "sourceId", "destinationId", "workspaceId", "status")
    return {
        **{name: read[name] for name in same},
        "prefix": read.get("prefix", ""),
        "createdAt": read["created_at"],
        "schedule": {"scheduleType": read["scheduleType"]},
        "namespaceDefinition": read["namespaceDefinition"].replace("customf", "custom_f"),
        "tags": [],
        "configurations": {"streams": [stream(pair) for pair in read["syncCatalog"]["streams"]]},
    }


def stream(pair: Json) -> Json:
    """Build a StreamConfiguration."""
    config = pair["config"]
    mode = f"{config['syncMode']}_{config['destinationSyncMode']}"
    chosen = {name: config[name] for name in ("cursorField", "primaryKey")}
    return {"name": pair["stream"]["name"], "syncMode": _MODES.get(mode, mode), **chosen}


def destination(read: Json) -> Json:
    """Build a DestinationResponse."""
    same = ("destinationId", "name", "workspaceId", "createdAt")
    return {
        **{name: read[name] for name in same},
        "destinationType": "postgres",
        "definitionId": read["destinationDefinitionId"],
        "configuration": read["connectionConfiguration"],
    }


def job(read: Json) -> Json:
    """Build a JobResponse."""
    counted = read.get("aggregatedStats") or {}
    return {
        "jobId": read["id"],
        "status": read["status"],
        "jobType": read["configType"],
        "startTime": _iso(read["createdAt"]),
        "lastUpdatedAt": _iso(read["updatedAt"]),
        "duration": f"PT{read['updatedAt'] - read['createdAt']}S",
        "connectionId": read["configId"],
        "bytesSynced": counted.get("bytesCommitted", 0),
        "rowsSynced": counted.get("recordsCommitted", 0),
    }


def _iso(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat().replace("+00:00", "Z")


def _job_order(given: Json) -> Json:
    return {"id": int(given["id"])}


def _jobs_order(given: Json) -> Json:
    return {"configTypes": ["sync"], "configId": given.get("connectionId")}


ROUTES: dict[str, tuple[str, Callable[[Json], Json], Callable[[Json], Json]]] = {
    "GET workspaces": (
        "workspaces/get",
        lambda given: {"workspaceId": given["workspace"]},
        lambda read: page([space(read)]),
    ),
    "GET workspaces/*": (
        "workspaces/get",
        lambda given: {"workspaceId": given["id"]},
        space,
    ),
    "GET connections": (
        "connections/list",
        lambda given: {"workspaceId": given["workspace"]},
        lambda read: page([connection(one) for one in read["connections"]]),
    ),
    "GET connections/*": (
        "connections/get",
        lambda given: {"connectionId": given["id"]},
        connection,
    ),
    "GET destinations/*": (
        "destinations/get",
        lambda given: {"destinationId": given["id"]},
        destination,
    ),
    "POST jobs": (
        "connections/sync",
        lambda given: {"connectionId": given["connectionId"]},
        lambda read: job(read["job"]),
    ),
    "GET jobs": (
        "jobs/list",
        _jobs_order,
        lambda read: page([job(one["job"]) for one in read["jobs"]]),
    ),
    "GET jobs/*": ("jobs/get", _job_order, lambda read: job(read["job"])),
    "DELETE jobs/*": ("jobs/cancel", _job_order, lambda read: job(read["job"])),
}
"""By method and path: the endpoint of the Configuration API, its body, and the translation."""
