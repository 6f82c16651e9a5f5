"""Real connectors of several kinds, run by the local Airbyte: a spec, a check, data, and drift.

Each runs as it is installed: low-code manifests against the sample API, and packages of Airbyte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from local import sample_api
from local.airbyte import WORKSPACE_ID, manifests
from local.airbyte.connector_store import Store
from local.airbyte.settings import Settings
from local.sample_api import server
from local.sample_api.settings import Settings as SampleSettings
from tests import leaks
from tests.integration.local.airbyte_stage import CONNECTORS, Api, Json, serving
from tests.pools import Sql

MANIFESTS = Path(sample_api.__file__).parent / "manifests"
TEXT = {"type": ["null", "string"]}

pytestmark = pytest.mark.timeout(600)  # a connector may have to be installed first


@dataclass
class Stage:
    """A plane with one more connector, the sample API, and a look into the warehouse."""

    api: Api
    vendor: httpx.AsyncClient
    """The control API of the sample API."""
    db: Sql
    prefix: str

    async def definition(self, name: str) -> Json:
        """The source definition of this name."""
        found = await self.api.ask(
            "source_definitions/list_for_workspace", workspaceId=str(WORKSPACE_ID)
        )
        (definition,) = [one for one in found["sourceDefinitions"] if one["name"] == name]
        return dict(definition)

    async def specification(self, definition: Json) -> Json:
        """The JSON Schema of its configuration."""
        found = await self.api.ask(
            "source_definition_specifications/get",
            sourceDefinitionId=definition["sourceDefinitionId"],
            workspaceId=str(WORKSPACE_ID),
        )
        assert found["documentationUrl"] == definition["documentationUrl"]
        return dict(found["connectionSpecification"])

    async def source(self, definition: Json, config: Json) -> Json:
        """A new source whose check succeeds."""
        created: Json = await self.api.ask(
            "sources/create",
            workspaceId=str(WORKSPACE_ID),
            sourceDefinitionId=definition["sourceDefinitionId"],
            name=definition["name"],
            connectionConfiguration=config,
        )
        checked = await self.api.ask("sources/check_connection", sourceId=created["sourceId"])
        assert checked.get("status") == "succeeded", checked
        return created

    async def discovered(self, source: Json, *names: str) -> Json:
        """A fresh discovery with only these streams selected."""
        found: Json = await self.api.ask(
            "sources/discover_schema", sourceId=source["sourceId"], disable_cache=True
        )
        assert found["jobInfo"]["succeeded"] is True, found
        for pair in found["catalog"]["streams"]:
            pair["config"]["selected"] = pair["stream"]["name"] in names
        return found

    async def connection(self, source: Json, catalog: Json) -> Json:
        """A connection that has been synced once."""
        created = await self.api.connection(source, catalog["streams"], prefix=self.prefix)
        await self.synced(created)
        return created

    async def synced(self, connection: Json) -> int:
        """Sync; the number of records that were read."""
        job = await self.api.synced(connection)
        assert job["job"]["status"] == "succeeded", job
        return int(job["attempts"][-1]["attempt"]["recordsSynced"])

    async def update(self, connection: Json, catalog: Json) -> None:
        """Give the connection another catalog."""
        await self.api.ask(
            "connections/update",
            connectionId=connection["connectionId"],
            syncCatalog=catalog,
        )

    async def change(self, change: str, stream: str, **more: Any) -> None:
        """Change the sample API."""
        order = {"change": change, "stream": stream, **more}
        answer = await self.vendor.post("/control/changes", json=order)
        assert answer.status_code == 200, answer.text

    async def value(self, table: str, expression: str) -> Any:
        """One value of a synced table."""
        return await self.db.fetchval(f'SELECT {expression} FROM "{self.prefix}{table}"')  # noqa: S608 - ours


def stream_of(found: Json, name: str) -> Json:
    """A stream of a discovery."""
    (pair,) = [one for one in found["catalog"]["streams"] if one["stream"]["name"] == name]
    return dict(pair["stream"])


@pytest.fixture
async def vendor(tmp_path: Path) -> AsyncIterator[server.Running]:
    """The sample API, whose secrets must not come out anywhere."""
    settings = SampleSettings(
        port=0,
        state_dir=tmp_path / "sample_api",
        api_key=SecretStr(leaks.canary("the shop's API key")),
        client_secret=SecretStr(leaks.canary("the desk's client secret")),
    )
    async with server.running(settings) as running:
        yield running


@pytest.fixture
async def stage(tmp_path: Path, warehouse_url: str, vendor: server.Running) -> AsyncIterator[Stage]:
    """A plane with both manifests; the connectors are processes of their own."""
    found = manifests.load_all(
        Store(CONNECTORS), [MANIFESTS / "sample-shop.yaml", MANIFESTS / "sample-desk.yaml"]
    )
    settings = Settings(
        state_dir=tmp_path / "state",
        connectors_dir=CONNECTORS,
        warehouse_url=SecretStr(warehouse_url),
    )
    db = await asyncpg.connect(warehouse_url)
    async with (
        serving(settings, found) as api,
        httpx.AsyncClient(base_url=vendor.url, headers=vendor.control) as http,
    ):
        yield Stage(api, http, db, f"c_{uuid4().hex[:6]}_")
    await db.close()


async def test_manifest_with_an_api_key_is_synced_and_follows_its_schema(
    stage: Stage, vendor: server.Running
) -> None:
    """A low-code connector: its spec and its name, pages, increments, and a renamed field."""
    definition = await stage.definition("Sample Shop")
    assert definition["custom"] is True
    assert definition["dockerRepository"] == "airbyte/source-declarative-manifest"
    spec = await stage.specification(definition)
    assert spec["required"] == ["base_url", "api_key"]
    config = {
        "base_url": f"{vendor.url}/api/shop",
        "api_key": vendor.api._settings.api_key.get_secret_value(),
    }
    source = await stage.source(definition, config)
    assert source["connectionConfiguration"]["api_key"] == "**********"

    found = await stage.discovered(source, "customers", "orders")
    customers = stream_of(found, "customers")
    assert customers["sourceDefinedPrimaryKey"] == [["id"]]
    assert customers["defaultCursorField"] == ["updated_at"]
    assert set(customers["jsonSchema"]["properties"]["address"]["properties"]) == {"street", "city"}
    connection = await stage.connection(source, found["catalog"])
    assert await stage.value("customers", "count(*)") == 60
    assert await stage.value("orders", "count(*)") == 150

    await stage.change("rename", "customers", api="shop", path=["name"], to="full_name")
    await stage.change("add", "customers", api="shop", path=["region"], values=["north", "south"])
    await stage.change("touch", "customers", api="shop", count=3)
    changed = await stage.discovered(source, "customers", "orders")
    assert {"full_name", "region"} <= set(
        stream_of(changed, "customers")["jsonSchema"]["properties"]
    )
    await stage.update(connection, changed["catalog"])
    records = await stage.synced(connection)

    assert records < 10, "the state was not used"
    assert await stage.value("customers", 'count("region")') >= 3
    assert await stage.value("customers", "count(*)") == 60
