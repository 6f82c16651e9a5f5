"""What AAM does for callers who are limited by label does not depend on what they may see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from shared.auth.scopes import KEY_SCOPES, Scope
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import streams_in_airbyte
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.repairing import proposal, put

Json = dict[str, Any]
TEAM = json.dumps({"team": "a"})


@pytest.fixture
async def mesh(airbyte: AirbyteServer, meshes: Meshes) -> AsyncIterator[Mesh]:
    """The services, which can send webhooks."""
    async with meshes.start(airbyte, webhook_signing_key="s" * 40) as mesh:
        yield mesh


async def onboarded(mesh: Mesh) -> Json:
    """A connection of the team."""
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "UPDATE connections SET labels = $1::jsonb WHERE id = $2", TEAM, UUID(connection["id"])
    )
    return connection


@asynccontextmanager
async def limited(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the drift_repair_agent whose key sees only connections of the team."""
    scopes = [scope for scope in KEY_SCOPES if scope is not Scope.ADMIN]
    key = await access.insert(mesh.sql, *scopes, labels=TEAM)
    headers = {"Authorization": f"Bearer {key.key}"}
    of = mesh.drift_repair_agent
    yield httpx.AsyncClient(transport=of._transport, base_url=of.base_url, headers=headers)


async def test_webhook_of_all_connections_gets_their_decisions(mesh: Mesh) -> None:
    """They do not see the webhook."""
    hook = {"url": "http://127.0.0.1:1/", "events": ["repair.rejected"]}
    created = await mesh.drift_repair_agent.post("/webhooks", json=hook)
    assert created.status_code == 201, created.text
    connection = await onboarded(mesh)
    repair = await proposal(mesh, connection, offering({"Id": "string", "Name": "string"}))

    async with limited(mesh) as client:
        assert (await client.get("/webhooks")).json()["items"] == []
        rejected = await client.post(f"/repairs/{repair['id']}/reject", json={})

    assert rejected.status_code == 200, rejected.text
    sent = await mesh.sql.fetch("SELECT webhook_id::text, type FROM webhook_deliveries")
    assert [tuple(row) for row in sent] == [(created.json()["id"], "repair.rejected")]


async def test_their_plan_respects_tables_of_others(mesh: Mesh) -> None:
    """A new stream waits for a decision if a connection that they do not see writes its table."""
    mesh.airbyte.offers(offering(ACCOUNT))
    ours = await onboarded(mesh)
    assert (await put(mesh, ours, {"reactions": {"stream": {"added": "apply"}}}))[0] == 200
    offered = offering(ACCOUNT)
    invoice = offering(ACCOUNT)["streams"][0]
    invoice["stream"]["name"] = invoice["config"]["aliasName"] = "Invoice"
    offered["streams"].append(invoice)
    mesh.airbyte.offers(offered)
    await mesh.onboard(connection_name="Payroll", prefix="", streams=["Invoice"])
    await drift(mesh, ours, offered)
    (planned,) = await repairs_until(mesh, ours, ["proposed"])

    async with limited(mesh) as client:
        again = await client.post(f"/connections/{ours['id']}/plan")

    assert again.status_code == 200, again.text
    assert "Payroll" not in again.text
    (repair,) = await repairs_until(mesh, ours, ["proposed"])
    assert repair["changes"] == planned["changes"]
    (finding,) = repair["changes"][0]["destination"]
    assert (finding["verdict"], "another connection" in finding["message"]) == ("refuse", True)
    assert "Invoice" not in streams_in_airbyte(mesh, ours)
