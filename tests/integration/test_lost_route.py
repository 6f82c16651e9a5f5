"""A gateway before Airbyte loses its route for a while: nothing counts as gone, refused or done.

Each test lets the gateway answer in Airbyte's place, sees that nothing was concluded from it, and
gives the route back.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from services.orchestrator.catalog_reconciler import ReapplySaga, Reconciler
from services.orchestrator.importer import Importing
from services.orchestrator.leftover_sweeper import Sweeper
from shared.airbyte_client import AirbyteClient
from shared.database import Database
from shared.errors import UpstreamNotAirbyte
from shared.job_queue import Jobs
from shared.operations import Operations
from tests.fakes.airbyte_server import WORKSPACE_ID
from tests.integration.applying import discovered, seen
from tests.integration.conftest import Mesh, running, settings_for
from tests.integration.drifting import ACCOUNT, offering
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
WORKSPACE = UUID(WORKSPACE_ID)
LOST = [
    ("kong", 404),
    ("login_page", 200),
    ("aws_alb", 403),
    ("title", 409),
    ("envoy", 200),
]
"""The client's own tests have every gateway with every status."""
lost_routes = pytest.mark.parametrize("gateway,status", LOST)
some_lost_routes = pytest.mark.parametrize("gateway,status", LOST[:2])


async def has(mesh: Mesh, connection: Json, name: str, value: str | None = None) -> Json:
    """The connection's view, once a member of it has a value, or has this one."""

    async def view_once_so() -> Json | None:
        view = await seen(mesh, connection)
        is_so = view[name] is not None if value is None else view[name] == value
        return view if is_so else None

    found: Json = await until(view_once_so)
    return found


async def operation_of(mesh: Mesh, connection: Json, kind: str) -> str:
    """How far its operation of this kind is."""
    status: str = await mesh.sql.fetchval(
        "SELECT status FROM operations WHERE connection_id = $1 AND kind = $2",
        UUID(connection["id"]),
        kind,
    )
    return status


async def called(mesh: Mesh, path: str, times: int = 1, *, since: int | None = None) -> None:
    """Wait until a path has been asked for so often since now, or since so many calls."""
    before = len(mesh.airbyte.called(path)) if since is None else since
    await until(lambda: len(mesh.airbyte.called(path)) >= before + times)


@pytest.mark.deep(after=2)
@lost_routes
async def test_connection_is_not_archived(mesh: Mesh, gateway: str, status: int) -> None:
    """DELETE answers 202 meanwhile; it is archived once Airbyte itself has deleted it."""
    connection = await mesh.onboard()
    mesh.airbyte.lose_route(gateway, status=status)

    answer = await mesh.orchestrator.delete(f"/connections/{connection['id']}?wait=0")
    await called(mesh, "connections/delete")

    assert answer.status_code == 202, answer.text
    assert (await seen(mesh, connection))["archived_at"] is None
    assert await operation_of(mesh, connection, "archive") == "running"
    assert len(mesh.airbyte.connections) == 1

    mesh.airbyte.heal()
    await has(mesh, connection, "archived_at")
    assert mesh.airbyte.connections == {}
    assert mesh.airbyte.sources == {}


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("is_known", [True, False])
async def test_connection_of_another_workspace_is_not_archived(
    mesh: Mesh, *, is_known: bool
) -> None:
    """AIRBYTE_WORKSPACE_ID has been changed since: that workspace does not list the connection."""
    connection = await mesh.onboard()
    if not is_known:
        await mesh.sql.execute("UPDATE connections SET airbyte_workspace_id = NULL")
    settings = mesh.settings.model_copy(update={"airbyte_workspace_id": uuid4()})
    async with running(
        settings, mesh.airbyte, repairs=False, sql=mesh.sql, redis=mesh.redis
    ) as moved:
        mesh.airbyte.lose_route("nginx", status=502, path="connections/delete", times=7)

        answer = await moved.orchestrator.delete(f"/connections/{connection['id']}")

    workspaces = {
        body["workspaceId"] for body in mesh.airbyte.called("web_backend/connections/list")
    }
    assert workspaces == {WORKSPACE_ID}
    assert answer.status_code in (202, 204), answer.text
    await has(mesh, connection, "archived_at")
    assert mesh.airbyte.connections == {}


async def test_repair_does_not_begin_while_a_gateway_hides_the_syncs(mesh: Mesh) -> None:
    """An empty 401 may be a gateway's: whether a sync runs is not known. Nothing is recorded."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    order["sync_catalog"]["streams"].pop()
    mesh.airbyte.start_job(connection["airbyte_connection_id"])
    mesh.airbyte.lose_route("envoy", status=401, path="connections/status")

    answer = await mesh.drift_repair_agent.post("/repair/apply_new_catalog", json=order)

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_auth")
    assert (await seen(mesh, connection))["catalog_version"] == 1
    mesh.airbyte.heal()
    answer = await mesh.drift_repair_agent.post("/repair/apply_new_catalog", json=order)
    assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")


async def test_source_is_not_taken_for_deleted(mesh: Mesh) -> None:
    """The connection is gone, and the route is lost just then."""
    connection = await mesh.onboard()
    mesh.airbyte.lose_route("kong", path="sources/get")
    answer = await mesh.orchestrator.delete(f"/connections/{connection['id']}?wait=0")
    await called(mesh, "sources/get")
    assert answer.status_code == 202
    assert mesh.airbyte.connections == {}
    assert (await seen(mesh, connection))["archived_at"] is None

    mesh.airbyte.heal()
    await has(mesh, connection, "archived_at")
    assert mesh.airbyte.sources == {}


@some_lost_routes
async def test_running_job_is_followed_again_afterwards(
    mesh: Mesh, gateway: str, status: int
) -> None:
    connection = await mesh.onboard()
    await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    mesh.airbyte.lose_route(gateway, status=status)
    await called(mesh, "jobs/list", 3)
    jobs = await mesh.orchestrator.get(f"/connections/{connection['id']}/jobs")
    (job,) = jobs.json()["items"]
    assert (job["status"], job["ended_at"]) == ("running", None)

    mesh.airbyte.heal()
    mesh.airbyte.finish_job(1, records=3)
    (job,) = await mesh.jobs_until_end(connection["id"])
    assert (job["status"], job["records"]) == ("succeeded", 3)


@pytest.mark.deep(after=1)
@some_lost_routes
async def test_nothing_is_missing_deleted_or_imported(
    mesh: Mesh, registry_url: str, redis_url: str, gateway: str, status: int
) -> None:
    """Reconciling reports unknown; sweeping and importing end with the gateway's answer."""
    connection = await mesh.onboard()
    settings = settings_for(mesh.airbyte, registry_url, redis_url)
    db = Database.at(settings.registry_address, application="test")
    operations = Operations(
        settings, db, Jobs(settings.registry_address, application="test"), service="orchestrator"
    )
    async with AirbyteClient.from_settings(settings) as airbyte:
        operations.register("reapply", ReapplySaga(settings, db, airbyte))
        reconciler = Reconciler(settings, db, airbyte, operations)
        await airbyte.list_sources(WORKSPACE)  # has a token from now on
        mesh.airbyte.lose_route(gateway, status=status)

        compared = await reconciler.reconcile(dry_run=False)
        assert compared.drifted == {}
        assert compared.unknown == {UUID(connection["id"]): "upstream_not_airbyte"}
        with pytest.raises(UpstreamNotAirbyte):
            await Sweeper(db, airbyte, grace=settings.sweep_grace).sweep(WORKSPACE, dry_run=False)
        importing = Importing(settings, db, airbyte, operations)
        with pytest.raises(UpstreamNotAirbyte):
            await importing.one(uuid4(), dry_run=True)
    await db.close()
    assert (await seen(mesh, connection))["drifted_upstream_at"] is None


@pytest.mark.deep(after=1)
@some_lost_routes
async def test_rotation_changes_nothing(mesh: Mesh, gateway: str, status: int) -> None:
    """No source is reported as missing or out of reach."""
    connection = await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET credential_digests = '{}'")
    mesh.airbyte.lose_route(gateway, status=status)

    answer = await mesh.orchestrator.post("/credentials/salesforce-prod/rotate?wait=5")

    assert (answer.status_code, answer.json()["code"]) == (503, "rotation_unchecked")
    (outcome,) = answer.json()["connections"]
    assert (outcome["connection_id"], outcome["outcome"]) == (connection["id"], "unchecked")


@some_lost_routes
async def test_observation_says_nothing_about_the_source(
    mesh: Mesh, gateway: str, status: int
) -> None:
    """No connection has an event, and the next observation is regular."""
    connection = await mesh.onboard()
    mesh.airbyte.lose_route(gateway, status=status)

    path = f"/connections/{connection['id']}/observe"
    observed = (await mesh.schema_observer.post(path)).json()
    assert (observed["outcome"], observed["code"]) == ("failed", "upstream_not_airbyte")

    mesh.airbyte.heal()
    observed = (await mesh.schema_observer.post(path)).json()
    assert observed["outcome"] == "unchanged"
    types = [one["type"] for one in await mesh.events(1)]
    assert "observation.suspicious" not in types


@some_lost_routes
async def test_running_apply_is_finished(mesh: Mesh, gateway: str, status: int) -> None:
    """The repair waits, and the connection is not FAILED for a missing counterpart."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(offering({**ACCOUNT, "Region__c": "string"}))
    order = await discovered(mesh, connection)
    mesh.airbyte.lose_route(gateway, status=status, path="connections/update")
    mesh.airbyte.lose_route(gateway, status=status, path="connections/get")

    path = "/repair/apply_new_catalog"
    before = len(mesh.airbyte.called("connections/update"))
    answer = await mesh.drift_repair_agent.post(f"{path}?wait=0", json=order)
    assert answer.status_code == 202, answer.text
    await called(mesh, "connections/update", since=before)
    assert (await seen(mesh, connection))["status"] == "HEALING"

    mesh.airbyte.heal()
    view = await has(mesh, connection, "status", "ACTIVE")
    assert view["catalog_version"] == 2


@some_lost_routes
async def test_running_onboarding_is_finished(mesh: Mesh, gateway: str, status: int) -> None:
    """What was created stays until Airbyte itself answers for the rest."""
    mesh.airbyte.lose_route(gateway, status=status, path="connections/create", times=2)

    connection = await mesh.onboard()

    assert connection["status"] == "ACTIVE"
    assert len(mesh.airbyte.connections) == len(mesh.airbyte.sources) == 1


@some_lost_routes
async def test_onboarding_is_not_begun(mesh: Mesh, gateway: str, status: int) -> None:
    """503 with the reason; the destination is not reported as unknown, and no row is left."""
    mesh.airbyte.lose_route(gateway, status=status)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    assert (answer.status_code, answer.json()["code"]) == (503, "upstream_not_airbyte")
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0


async def test_readiness_names_the_gateway(mesh: Mesh) -> None:
    mesh.airbyte.lose_route("nginx", status=404)

    checks = (await mesh.orchestrator.get("/ready")).json()["checks"]

    assert "a web page" in checks["airbyte"]
    assert "AIRBYTE_API_URL" in checks["airbyte"]
