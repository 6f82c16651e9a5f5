"""Real connectors run by the local Airbyte: specification, check, sync and schema drift.

The connectors are unmodified: low-code manifests against the sample API, and Airbyte's packages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
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
from tests.journeys import github
from tests.pools import Sql

MANIFESTS = Path(sample_api.__file__).parent / "manifests"

# A connector may have to be installed first.
pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


@dataclass
class Stage:
    """A local Airbyte with one more connector, the sample API, and access to the warehouse."""

    api: Api
    vendor: httpx.AsyncClient
    """Client of the sample API's control routes."""
    db: Sql
    prefix: str

    async def definition(self, name: str) -> Json:
        """Return the source definition with this name."""
        found = await self.api.ask(
            "source_definitions/list_for_workspace", workspaceId=str(WORKSPACE_ID)
        )
        (definition,) = [one for one in found["sourceDefinitions"] if one["name"] == name]
        return dict(definition)

    async def specification(self, definition: Json) -> Json:
        """Return the JSON Schema of the definition's configuration."""
        found = await self.api.ask(
            "source_definition_specifications/get",
            sourceDefinitionId=definition["sourceDefinitionId"],
            workspaceId=str(WORKSPACE_ID),
        )
        assert found["documentationUrl"] == definition["documentationUrl"]
        return dict(found["connectionSpecification"])

    async def source(self, definition: Json, config: Json) -> Json:
        """Create a source whose check succeeds."""
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
        """Run a new discovery, and select only these streams."""
        found: Json = await self.api.ask(
            "sources/discover_schema", sourceId=source["sourceId"], disable_cache=True
        )
        assert found["jobInfo"]["succeeded"] is True, found
        for pair in found["catalog"]["streams"]:
            pair["config"]["selected"] = pair["stream"]["name"] in names
        return found

    async def connection(self, source: Json, catalog: Json) -> Json:
        """Create a connection and sync it once."""
        created = await self.api.connection(source, catalog["streams"], prefix=self.prefix)
        await self.synced(created)
        return created

    async def synced(self, connection: Json) -> int:
        """Sync, and return the number of records."""
        job = await self.api.synced(connection)
        assert job["job"]["status"] == "succeeded", job
        return int(job["attempts"][-1]["attempt"]["recordsSynced"])

    async def update(self, connection: Json, catalog: Json) -> None:
        """Update the connection's catalog."""
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
        """Return one value of a synced table."""
        return await self.db.fetchval(f'SELECT {expression} FROM "{self.prefix}{table}"')  # noqa: S608 - ours


def stream_of(found: Json, name: str) -> Json:
    """Return a stream of a discovery."""
    (pair,) = [one for one in found["catalog"]["streams"] if one["stream"]["name"] == name]
    return dict(pair["stream"])


@pytest.fixture
async def vendor(tmp_path: Path) -> AsyncIterator[server.Running]:
    """The sample API; its secrets are canaries."""
    settings = SampleSettings(
        port=0,
        state_dir=tmp_path / "sample_api",
        api_key=SecretStr(leaks.canary("the shop's API key")),
        client_secret=SecretStr(leaks.canary("the desk's client secret")),
    )
    async with server.running(settings) as running:
        yield running


@dataclass(frozen=True)
class Stages:
    """Starts local Airbytes with additional connectors."""

    tmp_path: Path
    warehouse_url: str
    vendor: server.Running

    @asynccontextmanager
    async def open(
        self,
        *,
        connectors: Sequence[str] = (),
        manifest: str | None = None,
        env: dict[str, dict[str, str]] | None = None,
    ) -> AsyncIterator[Stage]:
        """Start one with these connectors or this manifest; connectors run as processes."""
        store = Store(CONNECTORS)
        paths = [MANIFESTS / f"{manifest}.yaml"] if manifest else []
        found = await asyncio.to_thread(manifests.load_all, store, paths)
        settings = Settings(
            state_dir=self.tmp_path / "state",
            connectors_dir=CONNECTORS,
            warehouse_url=SecretStr(self.warehouse_url),
            connectors=list(connectors),
            connector_env=env or {},
        )
        db = await asyncpg.connect(self.warehouse_url)
        try:
            async with (
                serving(settings, found) as api,
                httpx.AsyncClient(base_url=self.vendor.url, headers=self.vendor.control) as http,
            ):
                yield Stage(api, http, db, f"c_{uuid4().hex[:6]}_")
        finally:
            await db.close()


@pytest.fixture
def stages(tmp_path: Path, warehouse_url: str, vendor: server.Running) -> Stages:
    """Starts local Airbytes with a state folder, the warehouse and the sample API."""
    return Stages(tmp_path, warehouse_url, vendor)


@pytest.mark.deep
async def test_manifest_with_an_api_key_follows_its_schema(stages: Stages) -> None:
    """A low-code connector: name, specification, pagination, incremental sync, a rename."""
    async with stages.open(manifest="sample-shop") as stage:
        definition = await stage.definition("Sample Shop")
        assert definition["custom"] is True
        assert definition["dockerRepository"] == "airbyte/source-declarative-manifest"
        spec = await stage.specification(definition)
        assert spec["required"] == ["base_url", "api_key"]
        listed = await stage.api.ask(
            "declarative_source_definitions/list_manifests",
            workspaceId=str(WORKSPACE_ID),
            sourceDefinitionId=definition["sourceDefinitionId"],
        )
        assert [(one["version"], one["isActive"]) for one in listed["manifestVersions"]] == [
            (1, True)
        ]
        source = await stage.source(
            definition,
            {"base_url": f"{stages.vendor.url}/api/shop", "api_key": stages.vendor.api.key},
        )
        assert source["connectionConfiguration"]["api_key"] == "**********"

        found = await stage.discovered(source, "customers", "orders")
        customers = stream_of(found, "customers")
        assert customers["sourceDefinedPrimaryKey"] == [["id"]]
        assert customers["defaultCursorField"] == ["updated_at"]
        assert set(inner_fields(customers, "address")) == {"street", "city"}
        connection = await stage.connection(source, found["catalog"])
        assert await stage.value("customers", "count(*)") == 60
        assert await stage.value("orders", "count(*)") == 150

        await stage.change("rename", "customers", api="shop", path=["name"], to="full_name")
        await stage.change("add", "customers", api="shop", path=["region"], values=["N", "S"])
        await stage.change("touch", "customers", api="shop", count=3)
        changed = await stage.discovered(source, "customers", "orders")
        fields = stream_of(changed, "customers")["jsonSchema"]["properties"]
        assert {"full_name", "region"} <= set(fields)
        assert "name" not in fields
        await stage.update(connection, changed["catalog"])

        assert await stage.synced(connection) < 10, "the state was not used"
        assert await stage.value("customers", 'count("region")') >= 3
        assert await stage.value("customers", "count(*)") == 60


@pytest.mark.deep
async def test_manifest_with_client_credentials_follows_nested_fields(stages: Stages) -> None:
    """Dynamic streams, nested schemas, OAuth client credentials, cursor pagination."""
    async with stages.open(manifest="sample-desk") as stage:
        definition = await stage.definition("Sample Desk")
        client = {"client_id": stages.vendor.api.client_id}
        config: Json = {"base_url": f"{stages.vendor.url}/api/desk", "credentials": client}
        missing = await stage.api.ask(
            "sources/create",
            workspaceId=str(WORKSPACE_ID),
            sourceDefinitionId=definition["sourceDefinitionId"],
            name="no secret",
            connectionConfiguration=config,
            expect=422,
        )
        assert "client_secret" in str(missing)
        client["client_secret"] = stages.vendor.api.client_secret
        source = await stage.source(definition, config)
        assert source["connectionConfiguration"]["credentials"]["client_secret"] == "**********"

        found = await stage.discovered(source, "tickets", "agents")
        contact = inner_fields(stream_of(found, "tickets"), "requester", "contact")
        assert set(contact) == {"email", "phone"}
        connection = await stage.connection(source, found["catalog"])
        assert await stage.value("tickets", "count(*)") == 120
        assert await stage.value("agents", "count(*)") == 12

        path = ["requester", "contact", "phone"]
        await stage.change("rename", "tickets", api="desk", path=path, to="mobile")
        await stage.change("retype", "tickets", api="desk", path=["priority"], type="number")
        await stage.change("drop", "agents", api="desk", path=["team", "floor"])
        await stage.change("touch", "tickets", api="desk", count=30)
        changed = await stage.discovered(source, "tickets", "agents")
        contact = inner_fields(stream_of(changed, "tickets"), "requester", "contact")
        assert set(contact) == {"email", "mobile"}
        assert set(inner_fields(stream_of(changed, "agents"), "team")) == {"name"}
        await stage.update(connection, changed["catalog"])

        assert 30 <= await stage.synced(connection) < 40, "the state was not used"
        mobile = """count("requester"->'contact'->>'mobile')"""
        assert await stage.value("tickets", mobile) >= 30
        assert await stage.value("tickets", "count(*)") == 120


@pytest.mark.deep
async def test_broken_credential_fails_the_check(stages: Stages) -> None:
    """The check fails, and its message does not contain the secret."""
    wrong = leaks.canary("a wrong API key")
    async with stages.open(manifest="sample-shop") as stage:
        definition = await stage.definition("Sample Shop")
        created = await stage.api.ask(
            "sources/create",
            workspaceId=str(WORKSPACE_ID),
            sourceDefinitionId=definition["sourceDefinitionId"],
            name="wrong key",
            connectionConfiguration={
                "base_url": f"{stages.vendor.url}/api/shop",
                "api_key": wrong,
            },
        )
        checked = await stage.api.ask("sources/check_connection", sourceId=created["sourceId"])
    assert checked["status"] == "failed", checked
    assert wrong not in str(checked)


@pytest.mark.deep
async def test_faker_is_read_with_state(stages: Stages) -> None:
    """An `airbyte-source-*` package: specification, three streams, incremental sync."""
    async with stages.open(connectors=["source-faker"]) as stage:
        definition = await stage.definition("Sample Data")
        assert definition["dockerRepository"] == "airbyte/source-faker"
        assert definition["sourceDefinitionId"] == "dfd88b22-b603-4c3d-aad7-3701784586b1"
        spec = await stage.specification(definition)
        assert {"count", "seed"} <= set(spec["properties"])
        source = await stage.source(definition, {"count": 500, "seed": 7, "always_updated": False})

        first = await stage.discovered(source, "users", "purchases")
        again = await stage.discovered(source, "users", "purchases")
        assert first["catalogId"] == again["catalogId"]
        assert {pair["stream"]["name"] for pair in first["catalog"]["streams"]} == {
            "users",
            "products",
            "purchases",
        }
        connection = await stage.connection(source, first["catalog"])
        assert await stage.value("users", "count(*)") == 500
        state = await stage.api.ask("state/get", connectionId=connection["connectionId"])
        assert {one["streamDescriptor"]["name"] for one in state["streamState"]} == {
            "users",
            "purchases",
        }
        assert await stage.synced(connection) == 0, "the state was not used"


@pytest.mark.deep
async def test_github_connector_upgrade_changes_the_schema(stages: Stages) -> None:
    """GitHub's connector in two releases with different fields of `releases`."""
    token = leaks.canary("a GitHub token")
    config = {
        "repositories": [github.REPOSITORY],
        "start_date": "2026-01-01T00:00:00Z",
        "credentials": {"option_title": "PAT Credentials", "personal_access_token": token},
    }
    streams = ("releases", "issue_labels", "issues")
    counts = {
        "releases": github.RELEASES,
        "issue_labels": github.LABELS,
        "issues": github.ISSUES,
    }
    async with github.running(token=token, folder=stages.tmp_path / "github") as environment:
        env = {"source-github": environment}
        async with stages.open(connectors=["source-github==2.0.0"], env=env) as stage:
            definition = await stage.definition("GitHub")
            assert definition["dockerImageTag"] == "2.0.0"
            source = await stage.source(definition, config)
            shown = source["connectionConfiguration"]["credentials"]
            assert shown["personal_access_token"] == "**********"
            found = await stage.discovered(source, *streams)
            before = set(stream_of(found, "releases")["jsonSchema"]["properties"])
            connection = await stage.connection(source, found["catalog"])
            prefix = stage.prefix
            assert {name: await stage.value(name, "count(*)") for name in streams} == counts

        async with stages.open(connectors=["source-github"], env=env) as stage:
            stage.prefix = prefix
            definition = await stage.definition("GitHub")
            assert definition["dockerImageTag"] == "2.7.1"
            changed = await stage.discovered(source, *streams)
            after = set(stream_of(changed, "releases")["jsonSchema"]["properties"])
            assert before - after == {"body_text", "discussion_url"}
            assert after - before == {"updated_at"}
            await stage.update(connection, changed["catalog"])
            await stage.synced(connection)
            assert {name: await stage.value(name, "count(*)") for name in streams} == counts


def inner_fields(stream: Json, *path: str) -> Json:
    """Return the fields of a nested object."""
    schema = stream["jsonSchema"]
    for name in path:
        schema = schema["properties"][name]
    return dict(schema["properties"])
