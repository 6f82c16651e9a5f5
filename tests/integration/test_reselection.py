"""Streams that are selected again: what the state that Airbyte kept means, and the decision."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import pytest

from tests.fakes.airbyte_server import DEFAULT_CATALOG
from tests.integration.applying import apply, discovered, seen, streams_in_airbyte
from tests.integration.conftest import Mesh
from tests.integration.drifting import ACCOUNT, drift, offering, post, repairs_until
from tests.integration.repairing import approve, proposal, put
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
CONTACT = {"namespace": None, "name": "Contact"}
WITHOUT_CONTACT = offering(ACCOUNT)
WITHOUT_CONTACT["streams"] = [
    one for one in WITHOUT_CONTACT["streams"] if one["stream"]["name"] != "Contact"
]


def save_state(mesh: Mesh, connection: Json, kind: Literal["stream", "global"]) -> None:
    """Give both streams a state, as a sync would have saved it."""
    states: dict[tuple[str | None, str], Any] = {
        (None, name): {"at": 1} for name in ("Account", "Contact")
    }
    mesh.airbyte.put_states(connection["airbyte_connection_id"], kind, states)


async def reselecting(mesh: Mesh, kind: Literal["stream", "global"]) -> tuple[Json, Json]:
    """A connection at version 2, which left Contact out, and the order to select it again."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    del order["expected_version"]
    save_state(mesh, connection, kind)
    kept = [one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] != "Contact"]
    status, body = await apply(mesh, {**order, "sync_catalog": {"streams": kept}})
    assert (status, body["version_number"]) == (200, 2)
    return connection, order


def refreshes(mesh: Mesh) -> list[Json]:
    """The requested refreshes, without the connection's id."""
    return [
        {name: value for name, value in body.items() if name != "connectionId"}
        for body in mesh.airbyte.called("connections/refresh")
    ]


def is_selected(mesh: Mesh, connection: Json) -> bool:
    """Whether Airbyte syncs Contact."""
    return "Contact" in streams_in_airbyte(mesh, connection)


REFRESHED = [{"refreshMode": "Merge", "streams": [{"streamName": "Contact"}]}]


async def test_stream_with_its_own_state_resumes(mesh: Mesh) -> None:
    """No decision is needed: it catches up from its old cursor, and the result names it."""
    connection, order = await reselecting(mesh, "stream")

    status, body = await apply(mesh, order)

    assert (status, body["resumed"], body["refreshed"]) == (200, [CONTACT], [])
    assert is_selected(mesh, connection)
    assert refreshes(mesh) == []


async def test_stream_of_a_global_state_is_refreshed_by_choice(mesh: Mesh) -> None:
    """409 without a choice and nothing is changed; then the refresh is requested and followed."""
    connection, order = await reselecting(mesh, "global")

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (409, "global_state")
    assert (problem["streams"], problem["choices"]) == ([CONTACT], ["refresh", "accept_gap"])
    assert (await seen(mesh, connection))["catalog_version"] == 2
    assert not is_selected(mesh, connection)

    status, body = await apply(mesh, {**order, "on_global_state": "refresh"})

    assert (status, body["refreshed"], body["resumed"]) == (200, [CONTACT], [])
    assert refreshes(mesh) == REFRESHED
    job = mesh.airbyte.jobs[body["refresh_job"]]
    assert job["configType"] == "refresh"
    names = [one["streamDescriptor"]["name"] for one in mesh.airbyte.states[job["configId"]]]
    assert names == ["Account"]
    mesh.airbyte.finish_job(job["id"], records=3)
    (followed,) = await mesh.jobs_until_end(connection["id"])
    assert (followed["airbyte_job_id"], followed["records"]) == (job["id"], 3)


async def test_gap_can_be_accepted(mesh: Mesh) -> None:
    connection, order = await reselecting(mesh, "global")

    status, body = await apply(mesh, {**order, "on_global_state": "accept_gap"})

    assert (status, body["refreshed"], body["refresh_job"]) == (200, [], None)
    assert is_selected(mesh, connection)
    assert refreshes(mesh) == []


async def test_destination_without_refreshes(mesh: Mesh) -> None:
    """The only choice is to accept the gap; a refresh is refused before anything is done."""
    mesh.airbyte.supports_refreshes = False
    connection, order = await reselecting(mesh, "global")

    status, problem = await apply(mesh, order)
    assert (status, problem["choices"]) == (409, ["accept_gap"])

    status, problem = await apply(mesh, {**order, "on_global_state": "refresh"})
    assert (status, problem["code"]) == (422, "refresh_unsupported")
    assert problem["streams"] == [CONTACT]
    assert not is_selected(mesh, connection)
    assert (await seen(mesh, connection))["catalog_version"] == 2


async def test_unknown_choice_is_refused(mesh: Mesh) -> None:
    _, order = await reselecting(mesh, "global")
    status, problem = await apply(mesh, {**order, "on_global_state": "guess"})
    assert (status, problem["fields"][0]["field"]) == (422, "body.on_global_state")


async def test_stream_that_the_connector_never_read_needs_no_choice(mesh: Mesh) -> None:
    """A global state without an entry of the stream: its first read is still to come."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    save_state(mesh, connection, "global")
    pairs = [one for one in DEFAULT_CATALOG["streams"] if one["stream"]["name"] == "Opportunity"]
    more = {**pairs[0], "config": {**pairs[0]["config"], "selected": True}}
    streams = order["sync_catalog"]["streams"]
    known = [one for one in streams if one["stream"]["name"] != "Opportunity"]

    status, body = await apply(mesh, {**order, "sync_catalog": {"streams": [*known, more]}})

    assert (status, body["resumed"], body["refreshed"]) == (200, [], [])


async def test_state_of_another_type_needs_a_choice(mesh: Mesh) -> None:
    """What a legacy state has of a stream is unknown, and a newer type may be shared."""
    connection, order = await reselecting(mesh, "stream")
    body = {"connectionId": connection["airbyte_connection_id"], "stateType": "legacy"}
    mesh.airbyte.answer("state/get", {**body, "state": {"lsn": 7}}, times=None)

    status, problem = await apply(mesh, order)

    assert (status, problem["code"], problem["streams"]) == (409, "global_state", [CONTACT])


async def test_stream_deselected_in_airbyte_is_not_resumed_silently(mesh: Mesh) -> None:
    """The head selects it, but Airbyte does not: applying another catalog selects it again."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    save_state(mesh, connection, "global")
    upstream = mesh.airbyte.connections[connection["airbyte_connection_id"]]["syncCatalog"]
    upstream["streams"] = [one for one in upstream["streams"] if one["stream"]["name"] != "Contact"]
    await mesh.sql.execute("UPDATE connections SET drifted_upstream_at = now()")
    (account,) = [
        one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    ]
    account["config"] |= {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}

    status, problem = await apply(mesh, order)

    assert (status, problem["code"], problem["streams"]) == (409, "global_state", [CONTACT])


async def test_lost_answer_of_a_refresh_starts_one_job(mesh: Mesh) -> None:
    """It took effect: the operation finds the job; one that did not is sent again."""
    connection, order = await reselecting(mesh, "global")
    mesh.airbyte.fault("connections/refresh", "close", after_effect=True)

    status, body = await apply(mesh, {**order, "on_global_state": "refresh"})

    assert (status, body["refresh_job"]) == (200, 1)
    assert len(refreshes(mesh)) == 1
    assert len(mesh.airbyte.jobs) == 1
    assert (await seen(mesh, connection))["catalog_version"] == 3


async def test_refused_refresh_restores_the_catalog_before(mesh: Mesh) -> None:
    """Otherwise the stream would be selected with a gap."""
    connection, order = await reselecting(mesh, "global")
    mesh.airbyte.fault("connections/refresh", 422)

    status, problem = await apply(mesh, {**order, "on_global_state": "refresh"})

    assert (status, problem["code"]) == (422, "upstream_rejected")
    assert not is_selected(mesh, connection)
    view = await seen(mesh, connection)
    assert (view["status"], view["catalog_version"]) == ("ACTIVE", 2)


async def test_refresh_of_a_paused_connection_is_stored(mesh: Mesh) -> None:
    """Airbyte carries it out with the next job."""
    connection, order = await reselecting(mesh, "global")
    upstream = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    upstream["status"] = "inactive"

    status, body = await apply(mesh, {**order, "on_global_state": "refresh"})

    assert (status, body["refreshed"], body["refresh_job"]) == (200, [CONTACT], None)
    upstream["status"] = "active"
    answer = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert answer.status_code == 202, answer.text
    assert mesh.airbyte.jobs[1]["configType"] == "refresh"


async def test_rollback_asks_and_refreshes(mesh: Mesh) -> None:
    """The version before is restored, the stream is read again, and the decision is recorded."""
    connection, _ = await reselecting(mesh, "global")
    path = f"/connections/{connection['id']}/rollback"

    status, problem = await post(mesh, path, {"version": 1})
    assert (status, problem["code"], problem["streams"]) == (409, "global_state", [CONTACT])
    assert await mesh.sql.fetchval("SELECT count(*) FROM repairs") == 0

    status, repair = await post(mesh, path, {"version": 1, "on_global_state": "refresh"})

    assert (status, repair["state"], repair["version_number"]) == (200, "applied", 3)
    assert repair["decisions"][0]["on_global_state"] == "refresh"
    assert refreshes(mesh) == REFRESHED
    assert is_selected(mesh, connection)


async def test_rollback_of_a_stream_with_its_own_state_is_not_asked_about(mesh: Mesh) -> None:
    connection, _ = await reselecting(mesh, "stream")
    path = f"/connections/{connection['id']}/rollback"
    status, repair = await post(mesh, path, {"version": 1})
    assert (status, repair["state"]) == (200, "applied")
    assert refreshes(mesh) == []


async def returned(
    mesh: Mesh, kind: Literal["stream", "global"], reaction: str, account: Json = ACCOUNT
) -> Json:
    """A connection whose source lost Contact, which was deselected, and has it again."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"reactions": {"stream": {"added": reaction}}})
    save_state(mesh, connection, kind)
    gone = await proposal(mesh, connection, WITHOUT_CONTACT)
    status, repair = await approve(mesh, gone)
    assert (status, repair["state"]) == (200, "applied")
    await drift(mesh, connection, offering(account))
    return connection


async def test_repair_that_selects_a_stream_again_asks_and_refreshes(mesh: Mesh) -> None:
    """The effects give the reason; the approval needs a choice, which is carried out."""
    connection = await returned(mesh, "global", "propose")
    _, repair = await repairs_until(mesh, connection, ["applied", "proposed"])
    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    codes = [one["code"] for one in shown["catalog"]["effects"]]
    assert codes == ["stream_selected", "global_state"]

    status, problem = await approve(mesh, repair)
    assert (status, problem["code"]) == (409, "global_state")

    status, repair = await approve(mesh, repair, on_global_state="refresh")

    assert (status, repair["state"]) == (200, "applied")
    assert refreshes(mesh) == REFRESHED
    assert repair["decisions"][-1]["on_global_state"] == "refresh"


@pytest.mark.parametrize("other", [None, "accept_gap"])
async def test_approval_that_joins_another_leaves_its_choice(mesh: Mesh, other: str | None) -> None:
    """The stream is refreshed as its approval says, and is not asked about again."""
    less = {"Id": "string", "Name": "string"}
    connection = await returned(mesh, "global", "propose", less)
    _, repair = await repairs_until(mesh, connection, ["applied", "proposed"])
    added = [one["id"] for one in repair["changes"] if one["kind"] == "stream_added"]
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    status, body = await approve(mesh, repair, changes=added, on_global_state="refresh")
    assert (status, body["state"]) == (202, "approved")

    status, body = await approve(mesh, repair, **({"on_global_state": other} if other else {}))

    assert (status, body["state"]) == (202, "approved"), body
    mesh.airbyte.finish_job(job["id"])
    await repairs_until(mesh, connection, ["applied", "superseded", "applied"])
    assert is_selected(mesh, connection)
    assert refreshes(mesh) == REFRESHED


async def test_rename_back_asks_about_the_former_name(mesh: Mesh) -> None:
    """The new name was never read; the former one has state from before."""
    connection = await mesh.onboard()
    save_state(mesh, connection, "global")
    renamed = offering(ACCOUNT)
    (contact,) = [one for one in renamed["streams"] if one["stream"]["name"] == "Contact"]
    contact["stream"]["name"] = "Person"
    for offered, new, choice in (
        (renamed, "Person", None),
        (offering(ACCOUNT), "Contact", "refresh"),
    ):
        repair = await proposal(mesh, connection, offered)
        (gone,) = [one for one in repair["changes"] if one["kind"] == "stream_removed"]
        order: Json = {"choices": {gone["id"]: {"became": [new]}}}
        if choice is not None:
            status, problem = await approve(mesh, repair, **order)
            assert (status, problem["code"]) == (409, "global_state")
            order["on_global_state"] = choice
        status, repair = await approve(mesh, repair, **order)
        assert (status, repair["state"]) == (200, "applied")
    assert refreshes(mesh) == REFRESHED


async def test_effect_says_that_a_stream_resumes(mesh: Mesh) -> None:
    """With a state of its own it needs no choice; without Airbyte the effect is unknown."""
    connection = await returned(mesh, "stream", "propose")
    _, repair = await repairs_until(mesh, connection, ["applied", "proposed"])

    async def codes() -> list[str]:
        shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
        return [one["code"] for one in shown["catalog"]["effects"]]

    assert await codes() == ["stream_selected", "stream_resumed"]
    mesh.airbyte.fault("state/get", 500, times=None)
    assert await codes() == ["stream_selected", "state_unknown"]
    status, problem = await approve(mesh, repair)
    assert (status, problem["code"]) == (503, "upstream_unknown")
    mesh.airbyte.heal()
    status, repair = await approve(mesh, repair)
    assert (status, repair["state"]) == (200, "applied")
    assert refreshes(mesh) == []


@pytest.mark.parametrize("kind,state", [("stream", "applied"), ("global", "proposed")])
async def test_policy_does_not_select_a_stream_of_a_global_state(
    mesh: Mesh, kind: Literal["stream", "global"], state: str
) -> None:
    """A person decides, although the policy has `apply`."""
    connection = await returned(mesh, kind, "apply")
    _, repair = await repairs_until(mesh, connection, ["applied", state])
    assert [change["kind"] for change in repair["changes"]] == ["stream_added"]
    assert is_selected(mesh, connection) is (kind == "stream")
    assert refreshes(mesh) == []


@pytest.mark.parametrize("supports", [True, False])
async def test_restoring_a_version_refreshes_what_it_selects_again(
    mesh: Mesh, supports: bool
) -> None:
    """The failed sync may have moved the shared position; without refreshes a person decides."""
    mesh.airbyte.supports_refreshes = supports
    connection = await mesh.onboard()
    await put(mesh, connection, {"verify": "sync"})
    save_state(mesh, connection, "global")
    gone = await proposal(mesh, connection, WITHOUT_CONTACT)
    status, _ = await approve(mesh, gone)
    assert status == 202
    await until(lambda: bool(mesh.airbyte.jobs))
    mesh.airbyte.finish_job(1, "failed", failure=("config_error", "No."))

    if supports:
        (repair,) = await repairs_until(mesh, connection, ["rolled_back"])
        assert is_selected(mesh, connection)
        assert refreshes(mesh) == REFRESHED
        assert await mesh.sql.fetchval(
            "SELECT restored_version FROM repairs WHERE id = $1", UUID(repair["id"])
        )
    else:
        (repair,) = await repairs_until(mesh, connection, ["failed"])
        assert repair["failure_code"] == "refresh_unsupported"
        assert not is_selected(mesh, connection)
        assert refreshes(mesh) == []
