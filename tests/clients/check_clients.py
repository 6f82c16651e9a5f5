"""Each client connects to the local Airbyte, reads its connections, and runs a sync to its end.

Run by `make clients`, and not by `make test`: the clients are 1.2 GB of packages.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from local.airbyte import DESTINATION_ID, WORKSPACE_ID
from local.airbyte.server import app_of
from local.airbyte.settings import Settings
from local.request_guard import token_of
from tests import leaks
from tests.clients.environments import python_of
from tests.clients.public_api import PublicApi
from tests.integration.conftest import serving
from tests.integration.local.airbyte_stage import CONNECTORS, RECORDS

Json = dict[str, Any]
PROGRAMS = Path(__file__).with_name("programs")
CLIENT_SECRET = leaks.canary("the client secret of other clients")
_WITHIN_S = 240.0
ROWS = 7


@dataclass
class Stage:
    """A local Airbyte with one connection, and what a client needs to use it."""

    api: PublicApi
    place: Json

    async def run(self, client: str) -> Json:
        """Run a client's program in its own environment; return what it has seen."""
        python = await asyncio.to_thread(python_of, client)
        program = await asyncio.create_subprocess_exec(
            python,
            PROGRAMS / f"use_{client}.py",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": str(python.parent), "DO_NOT_TRACK": "1"},
        )
        async with asyncio.timeout(_WITHIN_S):
            out, errors = await program.communicate(json.dumps(self.place).encode())
        assert program.returncode == 0, errors.decode()[-4000:]
        seen: Json = json.loads(out.splitlines()[-1])
        return seen


@pytest.fixture
async def stage(tmp_path: Path, warehouse_url: str) -> AsyncIterator[Stage]:
    """A local Airbyte over HTTP, with a real connector and a connection that has not run."""
    settings = Settings(
        state_dir=tmp_path / "state",
        connectors_dir=CONNECTORS,
        warehouse_url=SecretStr(warehouse_url),
    )
    token = token_of(settings.state_dir)
    leaks.know("the local Airbyte's token", token)
    login = {"client_id": "other-client", "client_secret": CLIENT_SECRET}
    app = app_of(settings)
    api = PublicApi(app, lambda: app.state.plane, token=token, login=login)
    async with (
        serving(api) as url,
        httpx.AsyncClient(
            base_url=f"{url}/api/v1/", headers={"Authorization": f"Bearer {token}"}, timeout=60
        ) as http,
    ):
        place = {
            "public": f"{url}/api/public/v1",
            "config": f"{url}/api/v1",
            "workspace": str(WORKSPACE_ID),
            "connection": await _connection(http),
            **login,
        }
        api.requests.clear()
        yield Stage(api, place)


async def _connection(http: httpx.AsyncClient) -> str:
    async def ask(path: str, **body: Any) -> Json:
        answer = await http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        read: Json = answer.json()
        return read

    source = await ask(
        "sources/create",
        workspaceId=str(WORKSPACE_ID),
        sourceDefinitionId=str(RECORDS.definition_id),
        name="records",
        connectionConfiguration={"count": ROWS},
    )
    found = await ask("sources/discover_schema", sourceId=source["sourceId"])
    for pair in found["catalog"]["streams"]:
        pair["config"]["selected"] = pair["stream"]["name"] == "products"
    made = await ask(
        "connections/create",
        name="products of others",
        sourceId=source["sourceId"],
        destinationId=str(DESTINATION_ID),
        status="active",
        syncCatalog=found["catalog"],
        sourceCatalogId=found["catalogId"],
        prefix="others_",
    )
    return str(made["connectionId"])


async def test_airbyte_api(stage: Stage) -> None:
    """Airbyte's SDK sends its client secret as a form."""
    seen = await stage.run("airbyte_api")

    assert seen == {
        "health": 200,
        "workspaces": [str(WORKSPACE_ID)],
        "connections": {stage.place["connection"]: ["products"]},
        "job": {"status": "succeeded", "rows": ROWS},
        "listed": True,
    }


async def test_dagster(stage: Stage) -> None:
    """AirbyteWorkspace reads the catalog from the Configuration API."""
    seen = await stage.run("dagster")

    assert seen == {
        "workspaces": [str(WORKSPACE_ID)],
        "connections": {stage.place["connection"]: ["products"]},
        "job": {"status": "succeeded", "rows": ROWS},
        "listed": True,
        "tables": ["others_products"],
    }
    assert "POST /api/v1/connections/get" in stage.api.requests


async def test_pyairbyte(stage: Stage) -> None:
    """It also reads the state and the whole catalog of the source."""
    seen = await stage.run("pyairbyte")

    assert seen["workspaces"] == [str(WORKSPACE_ID)]
    assert seen["connections"] == {stage.place["connection"]: ["products"]}
    assert (seen["job"], seen["listed"]) == ({"status": "succeeded", "rows": ROWS}, True)
    assert seen["state"] in ("stream", "not_set")
    assert seen["catalog"]["products"] is True
    assert set(seen["catalog"].values()) == {True, False}
    used = {"POST /api/v1/state/get", "POST /api/v1/web_backend/connections/get"}
    assert used <= set(stage.api.requests)


async def test_airflow(stage: Stage) -> None:
    """The hook's test of the connection, and the operator outside of a task runner."""
    seen = await stage.run("airflow")

    assert (seen["health"], seen["job"]) == (True, {"status": "succeeded", "rows": ROWS}), seen
    assert seen["connections"] == {stage.place["connection"]: ["products"]}
