"""Several Airbyte workspaces in one installation."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from services.orchestrator.source_definitions import SourceDefinitions
from shared.airbyte_client import AirbyteClient
from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer
from tests.integration.conftest import DESTINATION_ID, Mesh, Meshes
from tests.waiting import until

Json = dict[str, Any]


@pytest.fixture
def marketing(mesh: Mesh) -> str:
    """A second workspace of the mesh's Airbyte."""
    return mesh.airbyte.add_workspace("Marketing")


@pytest.fixture
def lake(mesh: Mesh, marketing: str) -> str:
    """A destination in the second workspace."""
    return str(mesh.airbyte.add_destination("Lake", workspace=marketing)["destinationId"])


async def onboarding(mesh: Mesh, **changes: Any) -> httpx.Response:
    """Request an onboarding; a None removes a member."""
    order = {**mesh.order, **changes}
    return await mesh.orchestrator.post("/connections/onboard", json=order)


async def listed(mesh: Mesh, path: str, **parameters: str) -> list[Json]:
    """The items of a list."""
    answer = await mesh.orchestrator.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def test_source_is_created_in_the_destinations_workspace(
    mesh: Mesh, marketing: str, lake: str
) -> None:
    connection = await mesh.onboard(destination_id=lake)

    assert connection["airbyte_workspace_id"] == marketing
    assert mesh.airbyte.sources[connection["airbyte_source_id"]]["workspaceId"] == marketing
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert held["workspaceId"] == marketing
    assert (await mesh.onboard(connection_name="here"))["airbyte_workspace_id"] == WORKSPACE_ID


async def test_destination_is_named_in_the_given_workspace(
    mesh: Mesh, marketing: str, lake: str
) -> None:
    """A name only there; an id as text anywhere."""
    unknown = await onboarding(mesh, destination="Lake")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_destination")

    named = await mesh.onboard(destination="lake", workspace_id=marketing)
    by_id = await mesh.onboard(destination=lake, connection_name="by id")

    assert named["airbyte_destination_id"] == by_id["airbyte_destination_id"] == lake
    assert named["airbyte_workspace_id"] == by_id["airbyte_workspace_id"] == marketing


@pytest.mark.parametrize("member", ["destination_id", "destination", None])
async def test_destination_of_another_workspace_is_refused(
    mesh: Mesh, marketing: str, lake: str, member: str | None
) -> None:
    """Both are in the message; the default destination is refused, too. Nothing is recorded."""
    given = {} if member is None else {member: lake}
    wanted, actual = (marketing, WORKSPACE_ID) if member is None else (WORKSPACE_ID, marketing)

    answer = await onboarding(mesh, workspace_id=wanted, **given)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "workspace_mismatch")
    destination = DESTINATION_ID if member is None else lake
    assert problem["detail"] == (
        f"Destination {destination} is in workspace {actual}, not in {wanted}."
    )
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 0
    assert mesh.airbyte.sources == {}


async def test_unknown_workspace_is_refused(mesh: Mesh) -> None:
    """By every request that names one, whether it is unknown or closed to AAM."""
    nowhere = str(uuid4())
    order = {"source_type": "Salesforce", "credential_id": "salesforce-prod"}

    for forbidden in (False, True):
        mesh.airbyte.unknown_is_forbidden = forbidden
        answers = [
            await mesh.orchestrator.get("/source-types", params={"workspace_id": nowhere}),
            await mesh.orchestrator.get("/destinations", params={"workspace_id": nowhere}),
            await mesh.orchestrator.get(
                "/source-types/Salesforce/specification", params={"workspace_id": nowhere}
            ),
            await mesh.orchestrator.post("/sources/check", json={**order, "workspace_id": nowhere}),
            await onboarding(mesh, destination="Warehouse", workspace_id=nowhere),
        ]
        assert [(one.status_code, one.json()["code"]) for one in answers] == [
            (422, "unknown_workspace")
        ] * len(answers)


async def test_failed_onboarding_is_recorded_with_its_workspace(
    mesh: Mesh, marketing: str, lake: str
) -> None:
    mesh.airbyte.fail_discovery("config_error", "denied")

    answer = await onboarding(mesh, destination_id=lake)

    assert answer.status_code == 422
    (failed,) = await listed(mesh, "/connections", workspace_id=marketing)
    assert (failed["status"], failed["airbyte_workspace_id"]) == ("FAILED", marketing)


async def test_source_types_and_destinations_are_those_of_a_workspace(
    mesh: Mesh, marketing: str, lake: str
) -> None:
    """Each workspace's definitions are read once, and again after neither."""
    for workspace in (WORKSPACE_ID, marketing, WORKSPACE_ID, marketing):
        assert await listed(mesh, "/source-types", workspace_id=workspace)
    await listed(mesh, "/source-types")
    read = mesh.airbyte.called("source_definitions/list_for_workspace")
    assert [one["workspaceId"] for one in read] == [WORKSPACE_ID, marketing]

    (there,) = await listed(mesh, "/destinations", workspace_id=marketing)
    (here,) = await listed(mesh, "/destinations")
    assert (there["id"], there["workspace_id"]) == (lake, marketing)
    assert (here["id"], here["workspace_id"]) == (DESTINATION_ID, WORKSPACE_ID)

    specified = await mesh.orchestrator.get(
        "/source-types/Salesforce/specification", params={"workspace_id": marketing}
    )
    assert specified.status_code == 200
    (asked,) = mesh.airbyte.called("source_definition_specifications/get")
    assert asked["workspaceId"] == marketing


async def test_definitions_of_few_workspaces_are_remembered() -> None:
    """Those that were read the longest ago are forgotten; one workspace's are no other's."""
    async with AirbyteServer() as airbyte, AirbyteClient(airbyte.url) as client:
        definitions = SourceDefinitions(client)
        workspaces = [UUID(airbyte.add_workspace(f"W{number}")) for number in range(17)]

        for workspace in (*workspaces, workspaces[-1], workspaces[0]):
            assert await definitions.all(workspace)

        read = airbyte.called("source_definitions/list_for_workspace")
        assert [one["workspaceId"] for one in read] == [
            str(one) for one in (*workspaces, workspaces[0])
        ]


async def test_check_and_preview_are_in_a_workspace(mesh: Mesh, marketing: str) -> None:
    order = {
        "source_type": "Salesforce",
        "credential_id": "salesforce-prod",
        "workspace_id": marketing,
    }

    checked = await mesh.orchestrator.post("/sources/check", json=order)
    previewed = await mesh.orchestrator.post("/sources/preview", json=order)

    assert (checked.status_code, previewed.status_code) == (200, 200)
    (created,) = mesh.airbyte.called("sources/create")
    assert created["workspaceId"] == marketing
    recorded = await mesh.sql.fetch("SELECT airbyte_workspace_id FROM source_trials")
    assert [str(one[0]) for one in recorded] == [marketing] * 2


async def test_connections_are_filtered_by_workspace(mesh: Mesh, lake: str, marketing: str) -> None:
    here = await mesh.onboard()
    there = await mesh.onboard(destination_id=lake, connection_name="there")

    for workspace, connection in ((WORKSPACE_ID, here), (marketing, there)):
        (one,) = await listed(mesh, "/connections", workspace_id=workspace)
        assert (one["id"], one["airbyte_workspace_id"]) == (connection["id"], workspace)
    assert await listed(mesh, "/connections", workspace_id=str(uuid4())) == []


async def test_connections_of_both_workspaces_are_imported(
    mesh: Mesh, lake: str, marketing: str
) -> None:
    """Each with its workspace; its syncs are followed."""
    for workspace, destination in ((WORKSPACE_ID, DESTINATION_ID), (marketing, lake)):
        await mesh.onboard(destination_id=destination, connection_name=f"of {workspace}")
    await mesh.sql.execute(
        "UPDATE connections SET archived_at = now(), airbyte_workspace_id = NULL"
    )

    for workspace in (WORKSPACE_ID, marketing):
        answer = await mesh.orchestrator.post(
            "/connections/import", json={"workspace_id": workspace, "dry_run": False}
        )
        assert answer.json()["outcomes"] == {"imported": 1}, answer.text
        (one,) = await listed(mesh, "/connections", workspace_id=workspace)
        assert one["airbyte_workspace_id"] == workspace
        mesh.airbyte.jobs_end_with("succeeded", polls=2)
        mesh.airbyte.start_job(one["airbyte_connection_id"])
        (job,) = await mesh.jobs_until_end(one["id"])
        assert (job["started_by"], job["status"]) == ("airbyte", "succeeded")


async def test_default_workspace_is_listed_without_connections(mesh: Mesh) -> None:
    (only,) = await listed(mesh, "/workspaces")

    assert only == {
        "id": WORKSPACE_ID,
        "name": "Default Workspace",
        "failure_code": None,
        "is_default": True,
        "connections": 0,
        "discoveries_at_once": mesh.settings.discoveries_at_once,
        "discoveries_running": 0,
        "sources_due": 0,
    }


async def test_workspaces_are_listed_with_their_load(meshes: Meshes) -> None:
    """One of three sources occupies the only slot, and the others wait for it."""
    async with (
        AirbyteServer() as airbyte,
        meshes.start(airbyte, discoveries_at_once="1", observe_interval="3600") as mesh,
    ):
        marketing = airbyte.add_workspace("Marketing")
        lake = airbyte.add_destination("Lake", workspace=marketing)["destinationId"]
        made = [
            await mesh.onboard(destination_id=lake, connection_name=f"there {number}")
            for number in range(3)
        ]
        gone = await mesh.onboard(connection_name="archived")
        await mesh.orchestrator.delete(f"/connections/{gone['id']}")
        await mesh.until_true(
            "SELECT count(*) = 3 FROM observations WHERE airbyte_workspace_id = $1",
            UUID(marketing),
        )
        claimed = UUID(made[0]["airbyte_source_id"])
        await mesh.sql.execute(
            "UPDATE observations SET claimed_by = $1, claimed_until = now() + interval '1 hour'"
            " WHERE airbyte_source_id = $1",
            claimed,
        )
        await mesh.sql.execute(
            "UPDATE observations SET next_at = now()"
            " WHERE airbyte_source_id <> $1 AND airbyte_workspace_id = $2",
            claimed,
            UUID(marketing),
        )

        default, other = await listed(mesh, "/workspaces")

    assert (default["is_default"], default["connections"]) == (True, 0)
    assert (default["discoveries_running"], default["sources_due"]) == (0, 0)
    assert (other["id"], other["name"], other["is_default"]) == (marketing, "Marketing", False)
    assert (other["connections"], other["discoveries_at_once"]) == (3, 1)
    assert (other["discoveries_running"], other["sources_due"]) == (1, 2)


async def test_workspace_that_cannot_be_read_is_listed_without_its_name(
    mesh: Mesh, lake: str, marketing: str
) -> None:
    """With the reason; the others keep theirs."""
    await mesh.onboard(destination_id=lake)
    del mesh.airbyte.workspaces[marketing]

    default, other = await listed(mesh, "/workspaces")

    assert (default["name"], default["failure_code"]) == ("Default Workspace", None)
    assert (other["id"], other["name"]) == (marketing, None)
    assert other["failure_code"] == "upstream_missing"
    assert other["connections"] == 1


async def test_limit_of_discoveries_is_per_workspace(meshes: Meshes) -> None:
    """One at once in each of two workspaces: two run at once, and never more."""
    async with AirbyteServer() as airbyte:
        marketing = airbyte.add_workspace("Marketing")
        async with meshes.start(airbyte, discoveries_at_once="1", observe_interval="3600") as mesh:
            lake = airbyte.add_destination("Lake", workspace=marketing)["destinationId"]
            for number in range(2):
                await mesh.onboard(connection_name=f"here {number}")
                await mesh.onboard(connection_name=f"there {number}", destination_id=lake)
            await mesh.until_true("SELECT count(*) = 4 FROM observations")
            airbyte.forget_peaks()
            airbyte.command_statuses = ["running"] * 10_000
            await mesh.sql.execute("UPDATE observations SET next_at = now()")

            await until(lambda: airbyte.most_discoveries_at_once == 2)
            airbyte.command_statuses = ["running"]
            for command in airbyte.commands.values():
                command["statuses"] = ["completed"]
            await mesh.until_true(
                "SELECT count(*) = 4 FROM observations WHERE outcome = 'unchanged'"
            )

            assert airbyte.most_discoveries_at_once == 2
