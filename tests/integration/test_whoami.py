"""Callers learn who they are, and what this installation is, without waiting for Airbyte."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import httpx

from shared.auth.scopes import KEY_SCOPES, Scope
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.callers import caller
from tests.integration.conftest import Mesh, Meshes, serving
from tests.waiting import until

ISSUER = "https://login.example.com/realms/data"


async def test_key_is_shown_with_its_scopes(mesh: Mesh) -> None:
    """By each service alike, without any scope."""
    services = (mesh.orchestrator, mesh.drift_repair_agent, mesh.schema_observer)
    waiting: list[httpx.AsyncClient] = []
    for service in services:
        answer = await service.get("/whoami")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json() == {
            "kind": "api_key", "id": access.KEY.id, "name": access.NAME, "owner": "tests",
            "scopes": sorted(KEY_SCOPES), "expires_at": None, "labels": {},
        }  # fmt: skip
    async with AsyncExitStack() as callers:
        for service in services:
            ada = await callers.enter_async_context(caller(mesh, service, owner="ada@example.com"))
            shown = (await ada.get("/whoami")).json()
            assert (shown["owner"], shown["scopes"]) == ("ada@example.com", [])
            assert shown["name"] == ada.headers["x-name"]
            await mesh.sql.execute(
                "UPDATE api_keys SET expires_at = '2037-02-23T00:00:00Z' WHERE id = $1",
                shown["id"],
            )
            waiting.append(ada)

        async def is_seen() -> bool:
            answers = [await ada.get("/whoami") for ada in waiting]
            return all(one.json()["expires_at"] == "2037-02-23T00:00:00Z" for one in answers)

        await until(is_seen)  # a key is remembered for four seconds


async def test_service_is_shown_with_the_scopes_it_has_there(mesh: Mesh) -> None:
    """The console's own token may follow events, and do nothing else."""
    token = access.signer("console").token("orchestrator", "events:read connections:read")
    headers = {"Authorization": f"Bearer {token}"}
    shown = (await mesh.orchestrator.get("/whoami", headers=headers)).json()
    assert (shown["kind"], shown["id"], shown["owner"]) == ("service", "console", None)
    assert shown["scopes"] == ["events:read"]
    assert shown["expires_at"] is not None
    refused = await mesh.orchestrator.get("/events", headers=headers)
    assert (refused.status_code, refused.json()["scope"]) == (403, "connections:read")
    async with (
        serving(mesh.orchestrator._transport.app, lifespan="off") as url,  # type: ignore[attr-defined]
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        async with client.stream("GET", "/events/stream", headers=headers) as answer:
            assert answer.status_code == 200
        async with caller(
            mesh, mesh.orchestrator, *set(KEY_SCOPES) - {Scope.CONNECTIONS_READ}
        ) as key:
            refused = await client.get("/events/stream", headers=dict(key.headers))
            assert (refused.status_code, refused.json()["scope"]) == (403, "connections:read")


async def test_revoked_key_ends_its_stream(mesh: Mesh) -> None:
    """Of the orchestrator itself, within five seconds of the revocation."""
    async with (
        caller(mesh, mesh.orchestrator, Scope.CONNECTIONS_READ) as reader,
        serving(mesh.orchestrator._transport.app, lifespan="off") as url,  # type: ignore[attr-defined]
        httpx.AsyncClient(base_url=url, timeout=30) as client,
        client.stream("GET", "/events/stream", headers=dict(reader.headers)) as answer,
    ):
        await mesh.onboard()
        lines = answer.aiter_lines()
        async for line in lines:
            if "connection.onboarded" in line:
                break
        key_id = (await reader.get("/whoami")).json()["id"]
        await mesh.orchestrator.delete(f"/api-keys/{key_id}")

        async def end() -> bool:
            async for _ in lines:
                pass
            return True

        assert await until(end, within=7)


async def test_about_shows_versions_to_callers_only(meshes: Meshes, airbyte: AirbyteServer) -> None:
    """The rest is what a login page has to know."""
    settings: dict[str, Any] = {
        "oidc_issuer": ISSUER,
        "oidc_audience": "aam",
        "oidc_client_id": "aam-console",
        "console_url": "https://aam.example.com",
        "webhook_signing_key": "w" * 40,
    }
    async with meshes.start(airbyte, **settings) as mesh:
        del mesh.orchestrator.headers["Authorization"]
        shown = (await mesh.orchestrator.get("/about")).json()
        assert shown == {
            "environment": "live",
            "console_url": "https://aam.example.com/",
            "oidc": {"issuer": ISSUER, "client_id": "aam-console", "audience": "aam"},
            "version": None,
            "airbyte_version": None,
            "features": None,
        }
        wrong = await mesh.orchestrator.get("/about", headers={"Authorization": "Bearer x"})
        assert wrong.status_code == 401

        async def versions() -> dict[str, object] | None:
            answer = await mesh.orchestrator.get("/about", headers=access.HEADERS)
            body: dict[str, object] = answer.json()
            return body if body["airbyte_version"] else None

        known = await until(versions)
        assert known["version"] == "0.1.0"
        assert known["features"] == {
            "webhooks": True, "credential_rotation": True, "saved_states": False,
        }  # fmt: skip
        assert {**known, "version": None, "airbyte_version": None, "features": None} == shown


async def test_about_does_not_wait_for_airbyte(meshes: Meshes, airbyte: AirbyteServer) -> None:
    """While it is away, its version is unknown."""
    async with meshes.start(airbyte, airbyte_api_url="http://127.0.0.1:9/api/v1") as mesh:
        for _ in range(3):
            answer = await mesh.orchestrator.get("/about")
            assert (answer.status_code, answer.json()["airbyte_version"]) == (200, None)
