"""Adopting the catalog that Airbyte holds: the next version is what syncs run with."""

from __future__ import annotations

from typing import Any

from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import seen
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, offering

Json = dict[str, Any]


def edit(airbyte: AirbyteServer, connection: Json) -> None:
    """Deselect a stream in Airbyte."""
    airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]["streams"].pop()


async def adopt(mesh: Mesh, connection: Json) -> tuple[int, Json]:
    """The status and the body of the response."""
    path = f"/connections/{connection['id']}/catalog-versions/adopt"
    answer = await mesh.orchestrator.post(path)
    return answer.status_code, answer.json()


async def test_catalog_is_adopted_once(mesh: Mesh) -> None:
    """It is the next version, the connection is in step, and nothing is sent to Airbyte."""
    connection = await mesh.onboard()
    edit(mesh.airbyte, connection)
    await mesh.sql.execute(
        "UPDATE connections SET drifted_upstream_at = now(), upstream_code = 'catalog_differs'"
    )

    first, again = await adopt(mesh, connection), await adopt(mesh, connection)

    assert first == (
        200,
        {
            "connection_id": connection["id"],
            "previous_version": 1,
            "version_number": 2,
            "changed": True,
            "notes": [],
            "never_selected": [],
        },
    )
    assert (again[0], again[1]["version_number"], again[1]["changed"]) == (200, 2, False)
    after = await seen(mesh, connection)
    assert (after["catalog_version"], after["upstream_code"]) == (2, None)
    versions = f"/connections/{connection['id']}/catalog-versions"
    (newest, _) = (await mesh.orchestrator.get(versions)).json()["items"]
    assert newest["origin"] == "import"
    changes = (await mesh.orchestrator.get(f"{versions}/1/diff/2")).json()
    assert [one["kind"] for one in changes["schema_changes"]] == ["stream_removed"]
    assert [event["type"] for event in await mesh.events(2)] == [
        "connection.onboarded",
        "connection.in_step",
    ]
    assert not mesh.airbyte.called("connections/update")


async def test_excluded_fields_are_reported(mesh: Mesh) -> None:
    """Airbyte syncs them already; a repair or an edit leaves them out."""
    mesh.airbyte.offers(offering(ACCOUNT))
    connection = await mesh.onboard(streams=["Account"])
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    held["streams"][0]["stream"]["jsonSchema"]["properties"]["SSN__c"] = {"type": "string"}
    held["streams"][0]["config"]["fieldSelectionEnabled"] = False

    _, adopted = await adopt(mesh, connection)
    _, again = await adopt(mesh, connection)

    excluded = [{"stream": {"namespace": None, "name": "Account"}, "fields": ["SSN__c"]}]
    assert (adopted["changed"], adopted["never_selected"]) == (True, excluded)
    assert (again["changed"], again["never_selected"]) == (False, excluded)


async def test_destination_is_noted_and_refuses_nothing(mesh: Mesh) -> None:
    """A field that Postgres cannot hold, and a table that another connection writes."""
    mesh.airbyte.offers(offering(ACCOUNT))
    await mesh.onboard(connection_name="CRM", streams=["Account"])
    connection = await mesh.onboard(connection_name="Contacts", streams=["Contact"], prefix=None)
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    account = offering({**ACCOUNT, "xmin": "string"})["streams"][0]
    account["config"]["selected"] = True
    held["streams"].append(account)

    status, adopted = await adopt(mesh, connection)

    assert (status, adopted["version_number"]) == (200, 2), adopted
    (note,) = adopted["notes"]
    assert note["stream"]["name"] == "Account"
    assert "'xmin'" in note["message"]
    assert "'Account' of the connection 'CRM'" in note["message"]


async def test_failed_connection_is_active_again(mesh: Mesh) -> None:
    """Even with the newest version, if that is what Airbyte holds."""
    connection = await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET status = 'FAILED', failure_code = 'unknown'")

    assert (await adopt(mesh, connection))[1]["changed"] is False

    after = await seen(mesh, connection)
    assert (after["status"], after["failure_code"]) == ("ACTIVE", None)


async def test_what_cannot_be_adopted_is_refused(mesh: Mesh) -> None:
    """A catalog without a stream, a deleted connection, an archived one."""
    connection = await mesh.onboard()
    held = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    streams, held["syncCatalog"]["streams"] = held["syncCatalog"]["streams"], []
    status, problem = await adopt(mesh, connection)
    assert (status, problem["code"]) == (422, "no_selected_stream")
    held["syncCatalog"]["streams"] = streams
    del mesh.airbyte.connections[connection["airbyte_connection_id"]]
    status, problem = await adopt(mesh, connection)
    assert (status, problem["code"]) == (422, "upstream_missing")

    await mesh.orchestrator.delete(f"/connections/{connection['id']}")

    assert (await adopt(mesh, connection))[0] == 409
    assert (await seen(mesh, connection))["catalog_version"] == 1
