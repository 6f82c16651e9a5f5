"""The real Salesforce connector, run by the local Airbyte, reads the sample org into Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from local.airbyte import WORKSPACE_ID
from local.airbyte.connector import PINNED
from local.airbyte.settings import Settings
from local.sample_org import server as sample_org
from local.sample_org.settings import Settings as OrgSettings
from tests.integration.local.airbyte_stage import CONNECTORS, Api, Json, serving
from tests.pools import Sql

SALESFORCE = PINNED["source-salesforce"]
SUGGESTED = {"Account", "Contact", "Lead", "Opportunity", "Task", "User"}

# The connector may have to be installed first.
pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


@dataclass
class Stage:
    """A sample org, a local Airbyte that reads it, and access to the warehouse."""

    api: Api
    org: httpx.AsyncClient
    db: Sql
    prefix: str
    source: Json

    async def discovered(self, *names: str) -> Json:
        """Run a new discovery, and select only these streams."""
        found: Json = await self.api.ask(
            "sources/discover_schema", sourceId=self.source["sourceId"], disable_cache=True
        )
        assert found["jobInfo"]["succeeded"] is True, found
        for pair in found["catalog"]["streams"]:
            pair["config"]["selected"] = pair["stream"]["name"] in names
        return found

    async def count(self, table: str, where: str = "TRUE") -> int:
        """Return the number of rows of a synced table."""
        query = f'SELECT count(*) FROM "{self.prefix}{table}" WHERE {where}'  # noqa: S608 - ours
        counted: int = await self.db.fetchval(query)
        return counted


@pytest.fixture
async def stage(tmp_path: Path, warehouse_url: str) -> AsyncIterator[Stage]:
    """Everything in this process, except the connector."""
    org_settings = OrgSettings(port=0, proxy_port=0, state_dir=tmp_path / "org")
    async with sample_org.running(org_settings) as org:
        settings = Settings(
            state_dir=tmp_path / "state",
            connectors_dir=CONNECTORS,
            warehouse_url=SecretStr(warehouse_url),
            connector_env={SALESFORCE.name: org.connector_environment},
        )
        db = await asyncpg.connect(warehouse_url)
        async with (
            serving(settings) as api,
            httpx.AsyncClient(base_url=org.url, headers=org.control) as http,
        ):
            source = await api.ask(
                "sources/create",
                workspaceId=str(WORKSPACE_ID),
                sourceDefinitionId=str(SALESFORCE.definition_id),
                name="sample org",
                connectionConfiguration={
                    "client_id": org_settings.client_id,
                    "client_secret": org_settings.client_secret.get_secret_value(),
                    "refresh_token": org_settings.refresh_token.get_secret_value(),
                    "start_date": "2025-01-01T00:00:00Z",
                    "stream_slice_step": "P365D",
                },
            )
            yield Stage(api, http, db, f"sf_{uuid4().hex[:6]}_", source)
        await db.close()


@pytest.mark.deep
async def test_org_is_synced_and_then_its_new_field(stage: Stage) -> None:
    """A new field has values in the warehouse after discovery, update and sync."""
    answer = await stage.api.ask("sources/check_connection", sourceId=stage.source["sourceId"])
    assert answer["status"] == "succeeded"

    first = await stage.api.ask("sources/discover_schema", sourceId=stage.source["sourceId"])
    suggested = {
        pair["stream"]["name"]
        for pair in first["catalog"]["streams"]
        if pair["config"]["suggested"]
    }
    assert suggested == SUGGESTED
    found = await stage.discovered("Account", "Contact")
    assert found["catalogId"] == first["catalogId"]
    connection = await stage.api.connection(
        stage.source,
        found["catalog"]["streams"],
        sourceCatalogId=found["catalogId"],
        prefix=stage.prefix,
    )
    job = await stage.api.synced(connection)
    assert job["job"]["status"] == "succeeded", job
    accounts, contacts = await stage.count("Account"), await stage.count("Contact")
    assert (accounts > 0, contacts > 0) == (True, True)
    assert job["attempts"][0]["attempt"]["recordsSynced"] == accounts + contacts
    state = await stage.api.ask("state/get", connectionId=connection["connectionId"])
    assert {each["streamDescriptor"]["name"] for each in state["streamState"]} == {
        "Account",
        "Contact",
    }

    field = {"name": "Region__c", "type": "string", "values": ["north", "south"]}
    (await stage.org.post("/org/objects/Account/fields", json=field)).raise_for_status()
    (await stage.org.post("/org/objects/Account/touch", json={"count": 3})).raise_for_status()
    changed = await stage.discovered("Account", "Contact")
    assert changed["catalogId"] != found["catalogId"]
    await stage.api.ask(
        "connections/update",
        connectionId=connection["connectionId"],
        syncCatalog=changed["catalog"],
        sourceCatalogId=changed["catalogId"],
    )
    job = await stage.api.synced(connection)
    assert job["job"]["status"] == "succeeded", job
    assert await stage.count("Account", "\"Region__c\" IN ('north', 'south')") >= 3
    assert await stage.count("Account") == accounts


@pytest.mark.deep
async def test_field_refused_by_queries_fails_the_sync(stage: Stage) -> None:
    """Immediately, as a configuration error of the source; the state is preserved."""
    found = await stage.discovered("Contact")
    connection = await stage.api.connection(
        stage.source, found["catalog"]["streams"], prefix=stage.prefix
    )
    assert (await stage.api.synced(connection))["job"]["status"] == "succeeded"
    body = {"connectionId": connection["connectionId"]}
    state = await stage.api.ask("state/get", **body)

    (await stage.org.post("/org/objects/Contact/fields/Title/forbid")).raise_for_status()
    job = await stage.api.synced(connection)

    assert (await stage.discovered("Contact"))["catalogId"] == found["catalogId"]
    assert job["job"]["status"] == "failed"
    (attempt,) = job["attempts"]
    (reason,) = attempt["attempt"]["failureSummary"]["failures"]
    assert (reason["failureOrigin"], reason["failureType"]) == ("source", "config_error")
    assert await stage.api.ask("state/get", **body) == state
    (await stage.org.post("/org/objects/Contact/fields/Title/allow")).raise_for_status()
    assert (await stage.api.synced(connection))["job"]["status"] == "succeeded"
    assert await stage.count("Contact") == 500


@pytest.mark.deep
async def test_hidden_object_and_lost_cursor(stage: Stage) -> None:
    """Both are visible in a discovery only; a sync silently reads nothing or everything."""
    found = await stage.discovered("Campaign", "Product2")
    connection = await stage.api.connection(
        stage.source, found["catalog"]["streams"], prefix=stage.prefix
    )
    assert (await stage.api.synced(connection))["attempts"][0]["attempt"]["recordsSynced"] == 50
    (await stage.org.post("/org/objects/Campaign/hide")).raise_for_status()
    for name in ("SystemModstamp", "LastModifiedDate", "CreatedDate"):
        answer = await stage.org.delete(f"/org/objects/Product2/fields/{name}")
        answer.raise_for_status()

    offered = {
        pair["stream"]["name"]: pair for pair in (await stage.discovered())["catalog"]["streams"]
    }
    assert "Campaign" not in offered
    assert offered["Product2"]["stream"]["supportedSyncModes"] == ["full_refresh"]
    assert offered["Product2"]["stream"]["defaultCursorField"] == []
    assert offered["Product2"]["config"]["syncMode"] == "full_refresh"
    job = await stage.api.synced(connection)
    assert job["job"]["status"] == "succeeded"
    (attempt,) = job["attempts"]
    synced = {
        each["streamName"]: each["stats"]["recordsCommitted"]
        for each in attempt["attempt"]["streamStats"]
    }
    assert synced == {"Campaign": 0, "Product2": 30}
    state = await stage.api.ask("state/get", connectionId=connection["connectionId"])
    kept = {each["streamDescriptor"]["name"]: each["streamState"] for each in state["streamState"]}
    assert "slices" in kept["Campaign"]
    assert "slices" not in kept["Product2"]

    (await stage.org.post("/org/objects/Campaign/show")).raise_for_status()
    back = await stage.discovered()
    shown = {pair["stream"]["name"]: pair["stream"] for pair in back["catalog"]["streams"]}
    before = {pair["stream"]["name"]: pair["stream"] for pair in found["catalog"]["streams"]}
    assert shown.pop("Product2") != before.pop("Product2")
    assert shown == before


@pytest.mark.deep
async def test_rotated_token_survives(stage: Stage) -> None:
    """The org accepts each refresh token once; Airbyte stores the connector's new one."""
    rotate = {"rotate_refresh_token": True}
    (await stage.org.patch("/org/settings", json=rotate)).raise_for_status()
    for _ in range(2):
        answer = await stage.api.ask("sources/check_connection", sourceId=stage.source["sourceId"])
        assert answer["status"] == "succeeded"
        assert answer["jobInfo"]["connectorConfigurationUpdated"] is True
    assert (await stage.discovered())["jobInfo"]["connectorConfigurationUpdated"] is True


@pytest.mark.deep
async def test_wrong_credentials_are_reported_without_secrets(stage: Stage) -> None:
    """Both the check and the discovery fail with a reason."""
    await stage.api.ask(
        "sources/partial_update",
        sourceId=stage.source["sourceId"],
        connectionConfiguration={"refresh_token": "canary-4711"},
    )
    body = {"sourceId": stage.source["sourceId"]}
    answer = await stage.api.ask("sources/check_connection", **body)
    assert answer["status"] == "failed"
    found = await stage.api.ask("sources/discover_schema", **body)
    assert found["jobInfo"]["succeeded"] is False
    assert "catalog" not in found
    assert "canary-4711" not in str([answer, found])
