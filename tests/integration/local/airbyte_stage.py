"""Stages for tests of the local Airbyte: a plane in this process, and connectors that misbehave.

The plane runs real processes either way. Where a fault is wanted that no real connector shows on
demand, the process is a script that prints what the test says.
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson

from local.airbyte import DESTINATION_ID, WORKSPACE_ID
from local.airbyte.connector import PINNED, Manifest
from local.airbyte.connector_store import REQUIREMENTS, Store
from local.airbyte.connectors_backend import Plane
from local.airbyte.server import app_of
from local.airbyte.settings import Flavour, Settings
from local.request_guard import token_of
from tests.contract.openapi import FOLDER, description

ROOT = Path(__file__).resolve().parents[3]
CONNECTORS = ROOT / ".aam" / "connectors"
RECORDS = PINNED["source-hardcoded-records"]
JUDGES = {Flavour.COMMANDS: ("2.0.0", "head"), Flavour.SYNCHRONOUS: ("0.63.19",)}
# What a release after the played one requires of an answer, and the played one does not know.
REQUIRED_LATER = {
    ("head", "web_backend/connections/list"): "'onDemandEnabled' is a required property",
    ("head", "web_backend/connections/get"): "'onDemandEnabled' is a required property",
}

Json = dict[str, Any]


class Api:
    """The plane's API, each answer judged by Airbyte's descriptions where these are present."""

    def __init__(self, http: httpx.AsyncClient, plane: Plane) -> None:
        self.http = http
        self.plane = plane

    async def ask(self, path: str, *, expect: int = 200, **body: Any) -> Any:
        """The answer's JSON; fails where the status is not the expected one."""
        answer = await self.http.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == expect, f"{path}: {answer.status_code} {answer.text[:500]}"
        return self._judged("post", path, answer)

    async def get(self, path: str) -> Any:
        """Return the JSON that a GET is answered with."""
        return self._judged("get", path, await self.http.get(f"/api/v1/{path}"))

    def _judged(self, method: str, path: str, answer: httpx.Response) -> Any:
        assert answer.headers["x-airbyte-local"] == "true"
        body = orjson.loads(answer.content) if answer.content else None
        if FOLDER.is_dir() and answer.status_code not in (403, 404, 501):
            for version in JUDGES[self.plane.settings.flavour]:
                faults = description(version).about_answer(method, path, answer.status_code, body)
                later = REQUIRED_LATER.get((version, path))
                faults = [fault for fault in faults if fault.partition(": ")[2] != later]
                assert faults == [], f"{path} as {version}: {faults}"
        return body

    async def source(self, config: Json | None = None, *, name: str = "records") -> Json:
        """A new source of the records connector (or of the script in its place)."""
        created: Json = await self.ask(
            "sources/create",
            workspaceId=str(WORKSPACE_ID),
            sourceDefinitionId=str(RECORDS.definition_id),
            name=name,
            connectionConfiguration=config or {"count": 5},
        )
        return created

    async def connection(self, source: Json, streams: list[Json], **more: Any) -> Json:
        """An active connection from a source to the warehouse."""
        created: Json = await self.ask(
            "connections/create",
            sourceId=source["sourceId"],
            destinationId=str(DESTINATION_ID),
            status="active",
            syncCatalog={"streams": streams},
            **more,
        )
        return created

    async def synced(self, connection: Json) -> Json:
        """The job of a sync, when it has ended."""
        job = await self.ask("connections/sync", connectionId=connection["connectionId"])
        return await self.ended(job["job"]["id"])

    async def ended(self, job_id: int) -> Json:
        """A job, when it has ended."""
        async with asyncio.timeout(60):
            while True:
                job: Json = await self.ask("jobs/get", id=job_id)
                if job["job"]["status"] in ("succeeded", "failed", "cancelled"):
                    return job
                await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(settings: Settings, manifests: Sequence[Manifest] = ()) -> AsyncIterator[Api]:
    """The API of a plane that lives as long as the block."""
    app = app_of(settings)
    async with Plane.open(settings, manifests) as plane:
        app.state.plane = plane
        transport = httpx.ASGITransport(app)
        token = {"Authorization": f"Bearer {token_of(settings.state_dir)}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:8000", headers=token
        ) as http:
            yield Api(http, plane)


Scripted = Callable[..., AbstractAsyncContextManager[Api]]
"""Starts a plane whose connector is a script."""


def scripted(directory: Path, script: str) -> Path:
    """A connectors directory in which the records connector is this script."""
    store = Store(directory)
    executable = store.executable(RECORDS)
    executable.parent.mkdir(parents=True, exist_ok=True)
    program = textwrap.dedent(script)
    executable.write_text(f"#!{sys.executable}\n{PREAMBLE}\n{program}")
    executable.chmod(0o755)
    (store.home(RECORDS) / "complete").write_bytes(
        (REQUIREMENTS / f"{RECORDS.name}.txt").read_bytes()
    )
    return directory


PREAMBLE = """
import json, os, sys, time
verb = sys.argv[1]
given = {sys.argv[i][2:]: json.load(open(sys.argv[i + 1])) for i in range(2, len(sys.argv), 2)}
config = given.get("config", {})
def say(**message):
    print(json.dumps(message), flush=True)
def record(stream, data, **more):
    say(type="RECORD", record={"stream": stream, "data": data, "emitted_at": 1e12, **more})
def state(stream, value):
    descriptor = {"name": stream}
    say(type="STATE", state={"type": "STREAM", "stream": {
        "stream_descriptor": descriptor, "stream_state": value}})
def fail(message, **more):
    say(type="TRACE", trace={"type": "ERROR", "emitted_at": 1e12, "error": {
        "message": message, "failure_type": "system_error", **more}})
    sys.exit(1)
if verb == "spec":
    say(type="SPEC", spec={"connectionSpecification": {"type": "object", "required": [],
        "properties": {"token": {"type": "string", "airbyte_secret": True}}}})
    sys.exit(0)
"""


def stream(
    name: str,
    fields: Json,
    *,
    modes: tuple[str, str] = ("full_refresh", "overwrite"),
    key: list[str] | None = None,
    cursor: str | None = None,
    only: list[str] | None = None,
    namespace: str | None = None,
) -> Json:
    """One entry of a syncCatalog, selected."""
    described: Json = {
        "name": name,
        "jsonSchema": {"type": "object", "properties": fields},
        "supportedSyncModes": ["full_refresh", "incremental"],
    }
    if namespace is not None:
        described["namespace"] = namespace
    return {
        "stream": described,
        "config": {
            "syncMode": modes[0],
            "destinationSyncMode": modes[1],
            "cursorField": [cursor] if cursor else [],
            "primaryKey": [[name] for name in key or []],
            "selected": True,
            "fieldSelectionEnabled": only is not None,
            "selectedFields": [{"fieldPath": [name]} for name in only or []],
        },
    }


NOWHERE = UUID(int=7)
TEXT = {"type": ["null", "string"]}
INTEGER = {"type": ["null", "integer"]}
NUMBER = {"type": ["null", "number"]}
TIME = {
    "type": ["null", "string"],
    "format": "date-time",
    "airbyte_type": "timestamp_with_timezone",
}
