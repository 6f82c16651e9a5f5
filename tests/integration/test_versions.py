"""The main job with each supported Airbyte release, which is detected from its answers."""

from __future__ import annotations

import pytest

from tests.fakes.airbyte_server import AirbyteServer, Auth
from tests.integration.applying import GREW, apply, discovered, streams_in_airbyte
from tests.integration.conftest import Meshes


@pytest.mark.deep(after=2)
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
async def test_main_job_with_each_airbyte_release(version: str, auth: Auth, meshes: Meshes) -> None:
    """Onboard, sync, discover, apply, archive."""
    async with (
        AirbyteServer(version=version, auth=auth) as airbyte,
        meshes.start(airbyte) as mesh,
    ):
        airbyte.jobs_end_with("succeeded", records=5)
        connection = await mesh.onboard(streams=None)
        assert set(streams_in_airbyte(mesh, connection)) == {"Account", "Contact", "Opportunity"}
        started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
        assert started.status_code == 202
        (job,) = await mesh.jobs_until_end(connection["id"])
        assert (job["status"], job["records"]) == ("succeeded", 5)

        airbyte.offers(GREW)
        status, applied = await apply(mesh, await discovered(mesh, connection))
        assert (status, applied["version_number"]) == (200, 2)
        fields = streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"][
            "properties"
        ]
        assert "Region__c" in fields

        gone = await mesh.orchestrator.delete(f"/connections/{connection['id']}")
        assert gone.status_code == 204
        assert airbyte.sources == {}
