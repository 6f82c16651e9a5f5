"""The services with Airbyte Cloud, as far as it is documented."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, drift, offering, repairs_until
from tests.integration.repairing import upstream


@pytest.fixture
async def cloud(meshes: Meshes) -> AsyncIterator[Mesh]:
    """The services with an Airbyte Cloud."""
    async with (
        AirbyteServer(version="cloud", auth="token") as airbyte,
        meshes.start(airbyte) as mesh,
    ):
        yield mesh


async def sync(mesh: Mesh, connection: dict[str, str]) -> httpx.Response:
    """Start a sync of a connection."""
    return await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")


async def test_connection_is_onboarded_synced_and_repaired(cloud: Mesh) -> None:
    """Its job waits in a queue first, and some requests exceed the rate limit."""
    for path in ("sources/create", "connections/create", "commands/run/discover"):
        cloud.airbyte.limit_rate("0", path=path)
    connection = await cloud.onboard()
    cloud.airbyte.jobs_end_with("succeeded", polls=2, records=700)

    started = await sync(cloud, connection)
    (job,) = await cloud.jobs_until_end(connection["id"])
    cloud.airbyte.limit_rate("0", path="connections/update")
    await drift(cloud, connection, offering(ACCOUNT | {"Region__c": "string"}))
    await repairs_until(cloud, connection, ["applied"])

    assert (started.status_code, job["status"], job["records"]) == (202, "succeeded", 700)
    assert len(cloud.airbyte.sources) == len(cloud.airbyte.connections) == 1
    streams = upstream(cloud, connection)["syncCatalog"]["streams"]
    (account,) = [one["stream"] for one in streams if one["stream"]["name"] == "Account"]
    assert "Region__c" in account["jsonSchema"]["properties"]


async def test_queued_job_is_a_running_one(cloud: Mesh) -> None:
    """A second sync is refused with its id."""
    connection = await cloud.onboard()
    first = await sync(cloud, connection)
    number = first.json()["airbyte_job_id"]
    cloud.airbyte.jobs[number]["status"] = "queued"

    second = await sync(cloud, connection)

    assert (second.status_code, second.json()["code"]) == (409, "sync_running")
    assert second.json()["airbyte_job_id"] == number


async def test_sync_that_airbyte_started_is_found_in_the_workspace(cloud: Mesh) -> None:
    connection = await cloud.onboard()
    cloud.airbyte.jobs_end_with("succeeded", polls=2)

    cloud.airbyte.start_job(connection["airbyte_connection_id"])

    (job,) = await cloud.jobs_until_end(connection["id"])
    assert (job["started_by"], job["status"]) == ("airbyte", "succeeded")


async def test_syncs_of_other_workspaces_are_followed(cloud: Mesh) -> None:
    """Although Airbyte refuses the jobs of a third one."""
    made = []
    for name in ("Marketing", "Closed"):
        workspace = cloud.airbyte.add_workspace(name)
        destination = cloud.airbyte.add_destination(workspace=workspace)["destinationId"]
        made.append(await cloud.onboard(destination_id=destination, connection_name=name))
    del cloud.airbyte.workspaces[workspace]
    cloud.airbyte.jobs_end_with("succeeded", polls=2)

    cloud.airbyte.start_job(made[0]["airbyte_connection_id"])

    (job,) = await cloud.jobs_until_end(made[0]["id"])
    assert (job["started_by"], job["status"]) == ("airbyte", "succeeded")


async def test_rate_limit_is_passed_on(cloud: Mesh) -> None:
    """More than the timeout of a call, so that it fails at once; `Retry-After` is passed on."""
    connection = await cloud.onboard()
    cloud.airbyte.limit_rate("120", path="commands/run/discover")

    answer = await cloud.orchestrator.post(
        f"/connections/{connection['id']}/discover", params={"fresh": "true"}
    )

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_rate_limited")
    assert answer.headers["retry-after"] == "120"


async def test_locked_connection_is_not_synced(cloud: Mesh) -> None:
    """Airbyte Cloud locks connections of plans that have ended."""
    connection = await cloud.onboard()
    upstream(cloud, connection)["status"] = "locked"

    answer = await sync(cloud, connection)

    assert (answer.status_code, answer.json()["code"]) == (409, "not_active")
    assert cloud.airbyte.jobs == {}


async def test_onboarding_of_too_many_streams_is_refused_with_the_limit(meshes: Meshes) -> None:
    """Both numbers are in the error, and nothing is left in Airbyte."""
    async with (
        AirbyteServer(version="cloud", auth="token") as airbyte,
        meshes.start(airbyte, airbyte_max_streams="3") as mesh,
    ):
        names = [f"S{number}" for number in range(4)]
        airbyte.offers(catalog(*(stream(name, {"Id": "string"}) for name in names)))

        answer = await mesh.orchestrator.post(
            "/connections/onboard", json={**mesh.order, "streams": names}
        )

        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "too_many_streams")
        assert problem["detail"].startswith("4 streams are selected, but this Airbyte accepts at ")
        assert airbyte.connections == {}
        assert airbyte.sources == {}


async def test_workspace_that_is_not_set_is_named(meshes: Meshes) -> None:
    """Where the Airbyte is not known by its host to be Airbyte Cloud.

    A destination's id needs no workspace, its name does.
    """
    async with (
        AirbyteServer(version="cloud", auth="token") as airbyte,
        meshes.start(airbyte, airbyte_workspace_id=None) as mesh,
    ):
        order = {**mesh.order, "destination": "Warehouse"}
        answer = await mesh.orchestrator.post("/connections/onboard", json=order)
        assert (await mesh.onboard())["status"] == "ACTIVE"

    assert (answer.status_code, answer.json()["code"]) == (503, "airbyte_workspace_not_set")
    assert "AIRBYTE_WORKSPACE_ID" in answer.json()["detail"]
