"""The main job over each Airbyte that AAM is made for; it is told by its answers, not a setting."""

from __future__ import annotations

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import GREW, apply, discovered, held
from tests.integration.conftest import add_destination, running, settings_for


@pytest.mark.parametrize(
    "version, auth",
    [
        ("0.63.19", "basic"),
        ("1.6.0", "token"),
        ("1.8.0", "none"),
        ("2.0.0", "token"),
        ("head", "bearer"),
    ],
)
async def test_main_job_with_each_airbyte_release(
    version: str,
    auth: str,
    registry_url: str,
    redis_url: str,
    sql: asyncpg.Connection[asyncpg.Record],
    redis: Redis,
) -> None:
    """Onboard, sync, discover, apply, archive."""
    order = {
        "source_type": "Salesforce",
        "connection_name": "Salesforce",
        "credential_id": "salesforce-prod",
    }
    async with AirbyteServer(version=version, auth=auth) as airbyte:  # type: ignore[arg-type]
        add_destination(airbyte)
        airbyte.jobs_end_with("succeeded", records=5)
        settings = settings_for(airbyte, registry_url, redis_url)
        async with running(settings, airbyte, sql=sql, redis=redis, order=order) as mesh:
            connection = await mesh.onboard()
            assert set(held(mesh, connection)) == {"Account", "Contact", "Opportunity"}
            started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
            assert started.status_code == 202
            (job,) = await mesh.jobs_until_end(connection["id"])
            assert (job["status"], job["records"]) == ("succeeded", 5)

            airbyte.offers(GREW)
            status, applied = await apply(mesh, await discovered(mesh, connection))
            assert (status, applied["version_number"]) == (200, 2)
            fields = held(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
            assert "Region__c" in fields

            gone = await mesh.orchestrator.delete(f"/connections/{connection['id']}")
            assert gone.status_code == 204
            assert airbyte.sources == {}
