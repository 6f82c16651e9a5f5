"""Airbyte's state of a connection: saved before changes, shown without values, and put back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import orjson
import pytest

from services.drift_repair_agent.states import restorer
from shared.saved_states import store
from tests import leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.applying import apply, discovered, streams_in_airbyte
from tests.integration.conftest import Mesh, Meshes
from tests.integration.drifting import ACCOUNT, offering, post, repairs_until
from tests.integration.repairing import approve, fields, proposal, put
from tests.integration.states import KEY, opened
from tests.waiting import until

pytestmark = pytest.mark.exact

Json = dict[str, Any]
STREAM = {"namespace": None, "name": "Account"}
CONTACT = {"namespace": None, "name": "Contact"}
WRITE = "state/create_or_update_safe"


@pytest.fixture(params=["2.0.0", "0.63.19"])
async def mesh(
    meshes: Meshes, airbyte: AirbyteServer, request: pytest.FixtureRequest
) -> AsyncIterator[Mesh]:
    """A mesh with a key for saved states, at an Airbyte of each release."""
    airbyte.version = request.param
    async with meshes.start(airbyte, state_encryption_keys=KEY) as mesh:
        yield mesh


only_new = pytest.mark.parametrize("mesh", ["2.0.0"], indirect=True)


def save_state(mesh: Mesh, connection: Json, kind: Literal["stream", "global"] = "stream") -> str:
    """Give both streams a state whose value must appear nowhere; return that."""
    value = leaks.canary("a value of a cursor")
    states: dict[tuple[str | None, str], Any] = {
        (None, name): {"cursor": value, "of": name} for name in ("Account", "Contact")
    }
    if kind == "global":
        states = {key: {**state, "job": 1} for key, state in states.items()}
    mesh.airbyte.put_states(connection["airbyte_connection_id"], kind, states)
    return value


def state_of(mesh: Mesh, connection: Json, name: str) -> Json | None:
    """Return the state of a stream in Airbyte."""
    for one in mesh.airbyte.states.get(connection["airbyte_connection_id"], []):
        if one["streamDescriptor"]["name"] == name:
            found: Json = one["streamState"]
            return found
    return None


async def without_cursor(mesh: Mesh, connection: Json) -> Json:
    """Apply a catalog that reads Account in full; return the result."""
    order = await discovered(mesh, connection)
    (account,) = [
        one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    ]
    account["config"] |= {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}
    status, body = await apply(mesh, order)
    assert status == 200, body
    return body


async def roll_back(mesh: Mesh, connection: Json, version: int = 1) -> Json:
    """Roll back; return the repair with its outcome."""
    status, repair = await post(
        mesh, f"/connections/{connection['id']}/rollback", {"version": version}
    )
    assert (status, repair["state"]) == (200, "applied"), repair
    return await detail(mesh, repair)


async def detail(mesh: Mesh, repair: Json) -> Json:
    found: Json = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    return found


async def preview(mesh: Mesh, connection: Json) -> list[tuple[str, str]]:
    """Return stream and code of each effect that a rollback to version 1 would have."""
    path = f"/connections/{connection['id']}/rollback?dry_run=true"
    answer = await mesh.drift_repair_agent.post(path, json={"version": 1})
    assert answer.status_code == 200, answer.text
    return [(one["stream"]["name"], one["code"]) for one in answer.json()["catalog"]["effects"]]


async def test_state_is_saved_before_a_heal_and_put_back_by_a_rollback(mesh: Mesh) -> None:
    """Since 1.8 Airbyte deletes it with the changed sync mode."""
    connection = await mesh.onboard()
    value = save_state(mesh, connection)
    before = state_of(mesh, connection, "Account")

    applied = await without_cursor(mesh, connection)

    assert applied["sync_state"]["saved"] is True
    (row,) = await mesh.sql.fetch("SELECT * FROM stream_states")
    assert (row["kind"], row["catalog_version"], row["not_saved"]) == ("heal", 1, None)
    assert value not in bytes(row["state"]).decode("latin-1")
    assert orjson.loads(opened(row))["streamState"][0]["streamState"]["cursor"] == value
    if mesh.airbyte.release.since(1, 8):
        assert state_of(mesh, connection, "Account") is None

    is_lost = mesh.airbyte.release.since(1, 8)
    assert await preview(mesh, connection) == ([("Account", "state_put_back")] if is_lost else [])
    repair = await roll_back(mesh, connection)

    restored = [STREAM] if mesh.airbyte.release.since(1, 8) else []
    assert repair["sync_state"]["put_back"] == restored
    assert repair["sync_state"]["not_put_back"] == []
    assert state_of(mesh, connection, "Account") == before
    kinds = await mesh.sql.fetch("SELECT kind FROM stream_states ORDER BY saved_at")
    assert [one["kind"] for one in kinds] == ["heal", "rollback"]


@only_new
async def test_state_is_saved_before_a_pause_by_a_person(mesh: Mesh) -> None:
    """Once, and only if the connection was active; a resume and other edits save none."""
    connection = await mesh.onboard()
    value = save_state(mesh, connection)
    path = f"/connections/{connection['id']}"

    for change in ({"paused": True}, {"paused": True}, {"prefix": "x_"}, {"paused": False}):
        answer = await mesh.orchestrator.patch(path, json=change)
        assert answer.status_code == 200, answer.text

    (row,) = await mesh.sql.fetch("SELECT * FROM stream_states")
    assert (row["kind"], row["catalog_version"], row["not_saved"]) == ("pause", 1, None)
    assert value not in bytes(row["state"]).decode("latin-1")
    assert orjson.loads(opened(row))["streamState"][0]["streamState"]["cursor"] == value
    shown = (await mesh.drift_repair_agent.get(f"{path}/state")).json()
    assert shown["saved"]["kind"] == "pause"


async def test_sync_in_between_prevents_it(mesh: Mesh) -> None:
    """It has replaced the rows, so the stream is read from its start."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    mesh.airbyte.finish_job(mesh.airbyte.start_job(connection["airbyte_connection_id"])["id"])
    assert await preview(mesh, connection) == [("Account", "state_not_put_back")]

    repair = await roll_back(mesh, connection)

    lost = [{"stream": STREAM, "reason": "synced_since"}]
    assert repair["sync_state"]["not_put_back"] == lost
    assert state_of(mesh, connection, "Account") is None


@only_new
async def test_clear_that_runs_while_the_state_is_saved_prevents_it(mesh: Mesh) -> None:
    """It empties the stream afterwards, whose next sync must read all rows again."""
    connection = await mesh.onboard()
    airbyte_id = connection["airbyte_connection_id"]
    job = mesh.airbyte.start_job(airbyte_id, "clear")
    save_state(mesh, connection)
    path = f"/connections/{connection['id']}"
    for paused in (True, False):
        answer = await mesh.orchestrator.patch(path, json={"paused": paused})
        assert answer.status_code == 200, answer.text
    mesh.airbyte.finish_job(job["id"])
    mesh.airbyte.states.pop(airbyte_id)
    await mesh.jobs_until_end(connection["id"])
    await without_cursor(mesh, connection)
    assert await preview(mesh, connection) == [("Account", "state_not_put_back")]

    repair = await roll_back(mesh, connection)

    lost = [{"stream": STREAM, "reason": "synced_since"}]
    assert repair["sync_state"]["not_put_back"] == lost
    assert state_of(mesh, connection, "Account") is None


@pytest.mark.deep(after=1)
@pytest.mark.parametrize("records", [0, 5])
async def test_failed_verification_puts_it_back(mesh: Mesh, records: int) -> None:
    """Unless the failed sync has read rows, and so may have replaced them."""
    connection = await mesh.onboard()
    before = save_state(mesh, connection)
    await put(mesh, connection, {"verify": "sync"})
    offered = offering(ACCOUNT, cursor=None)
    repair = await proposal(mesh, connection, offered)
    (effect,) = [
        one
        for one in (await detail(mesh, repair))["catalog"]["effects"]
        if one["code"] == "state_lost"
    ]
    assert "AAM saves it before" in effect["message"]
    assert "The last sync that read it in full" not in effect["message"]
    status, body = await approve(mesh, repair)
    assert status == 202, body
    await until(lambda: bool(mesh.airbyte.jobs))
    mesh.airbyte.finish_job(1, "failed", records=records, failure=("config_error", "No."))

    (repair,) = await repairs_until(mesh, connection, ["rolled_back"])

    outcome = (await detail(mesh, repair))["sync_state"]
    account = state_of(mesh, connection, "Account")
    if records:
        assert account is None
        assert outcome["not_put_back"] == [{"stream": STREAM, "reason": "synced_since"}]
    else:
        assert account is not None
        assert account["cursor"] == before
        assert outcome["put_back"] == [STREAM]
    kinds = await mesh.sql.fetch("SELECT DISTINCT kind FROM stream_states")
    assert {one["kind"] for one in kinds} >= {"heal", "rollback", "pause"}


async def test_refused_update_that_took_effect_costs_no_state(mesh: Mesh) -> None:
    """The catalog before is restored, and then the state that the update deleted."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    before = state_of(mesh, connection, "Account")
    order = await discovered(mesh, connection)
    (account,) = [
        one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    ]
    account["config"] |= {"syncMode": "full_refresh", "destinationSyncMode": "overwrite"}
    mesh.airbyte.fault("connections/update", 422, after_effect=True)

    status, _ = await apply(mesh, order)

    assert status == 422
    config = streams_in_airbyte(mesh, connection)["Account"]["config"]
    assert config["syncMode"] == "incremental"
    assert state_of(mesh, connection, "Account") == before


@pytest.mark.deep(after=1)
@only_new
@pytest.mark.parametrize("ends", [True, False])
async def test_job_in_airbyte_is_waited_for(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """423: for a while; if it lasts longer, the stream is read from its start."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    monkeypatch.setattr(restorer, "WAIT_S", 10.0 if ends else 0.0)
    mesh.airbyte.fault(WRITE, 423, times=2 if ends else None)

    repair = await roll_back(mesh, connection)

    refused = [] if ends else [{"stream": STREAM, "reason": "sync_running"}]
    assert repair["sync_state"]["not_put_back"] == refused
    assert (state_of(mesh, connection, "Account") is not None) is ends


@only_new
async def test_clear_that_begins_before_the_state_is_put_back_prevents_it(mesh: Mesh) -> None:
    """Airbyte takes no state while it runs, and the stream is empty afterwards."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    mesh.airbyte.fault(WRITE, 423)

    async def clear() -> None:
        await until(lambda: mesh.airbyte.called(WRITE))
        job = mesh.airbyte.start_job(connection["airbyte_connection_id"], "clear")
        mesh.airbyte.finish_job(job["id"])

    repair, _ = await asyncio.gather(roll_back(mesh, connection), clear())

    lost = [{"stream": STREAM, "reason": "synced_since"}]
    assert repair["sync_state"]["not_put_back"] == lost
    assert state_of(mesh, connection, "Account") is None


@pytest.mark.deep(after=2)
@only_new
@pytest.mark.parametrize(
    "path, fault",
    [
        ("state/create_or_update_safe", "lie"),
        ("state/create_or_update_safe", 403),
        ("state/create_or_update_safe", 500),
        ("state/get", 403),
        ("state/get", 500),
    ],
)
async def test_airbyte_that_does_not_take_it_stops_no_rollback(
    mesh: Mesh, path: str, fault: Literal["lie"] | int
) -> None:
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    mesh.airbyte.fault(path, fault, times=None)

    status, _ = await post(mesh, f"/connections/{connection['id']}/rollback", {"version": 1})
    assert status in (200, 202)
    (repair,) = await repairs_until(mesh, connection, ["applied"])

    refused = [{"stream": STREAM, "reason": "refused"}]
    assert (await detail(mesh, repair))["sync_state"]["not_put_back"] == refused


@only_new
async def test_lost_answer_writes_the_same_state_once(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    mesh.airbyte.fault(WRITE, "close", after_effect=True)

    status, _ = await post(mesh, f"/connections/{connection['id']}/rollback", {"version": 1})

    assert status == 200
    assert len(mesh.airbyte.called(WRITE)) == 1
    assert state_of(mesh, connection, "Account") is not None


@only_new
async def test_stream_that_appends_gets_no_older_state(mesh: Mesh) -> None:
    """Rows would be there twice."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    order = await discovered(mesh, connection)
    del order["expected_version"]
    (account,) = [
        one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    ]
    for reads in ("incremental", "full_refresh"):
        account["config"] |= {"syncMode": reads, "destinationSyncMode": "append"}
        status, body = await apply(mesh, order)
        assert status == 200, body

    repair = await roll_back(mesh, connection, version=2)

    refused = [{"stream": STREAM, "reason": "not_deduplicated"}]
    assert repair["sync_state"]["not_put_back"] == refused
    assert mesh.airbyte.called(WRITE) == []


@only_new
async def test_global_state_is_never_put_back(mesh: Mesh) -> None:
    """The position that all streams share has moved on."""
    connection = await mesh.onboard()
    save_state(mesh, connection, "global")
    await without_cursor(mesh, connection)

    repair = await roll_back(mesh, connection)

    refused = [{"stream": STREAM, "reason": "global_state"}]
    assert repair["sync_state"]["not_put_back"] == refused
    assert mesh.airbyte.called(WRITE) == []


@only_new
async def test_state_of_another_major_version_is_not_put_back(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await without_cursor(mesh, connection)
    mesh.airbyte.publish_version("3.0.0", breaking=True)
    status, body = await post(mesh, f"/connections/{connection['id']}/connector/upgrade", {})
    assert status == 200, body

    repair = await roll_back(mesh, connection)

    refused = [{"stream": STREAM, "reason": "connector_changed"}]
    assert repair["sync_state"]["not_put_back"] == refused


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("reason", ["no_key", "unreadable", "too_large", "no_state"])
async def test_state_that_is_not_saved_is_reported(
    meshes: Meshes, airbyte: AirbyteServer, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """The heal is carried out; its result, the repair and the state say why."""
    key = None if reason == "no_key" else KEY
    async with meshes.start(airbyte, state_encryption_keys=key) as mesh:
        connection = await mesh.onboard()
        if reason != "no_state":
            save_state(mesh, connection)
        if reason == "unreadable":
            airbyte.fault("state/get", 403)
        if reason == "too_large":
            monkeypatch.setattr(store, "MAX_BYTES", 10)

        applied = await without_cursor(mesh, connection)

        assert (applied["sync_state"]["saved"], applied["sync_state"]["not_saved"]) == (
            False,
            reason,
        )
        (row,) = await mesh.sql.fetch("SELECT state, not_saved FROM stream_states")
        assert (row["state"], row["not_saved"]) == (None, reason)
        view = await mesh.drift_repair_agent.get(f"/connections/{connection['id']}/state")
        assert (view.json()["saved"], view.json()["not_saved"]) == (None, reason)
        repair = await roll_back(mesh, connection)
        lost = [{"stream": STREAM, "reason": "not_saved"}]
        assert repair["sync_state"]["not_put_back"] == lost


async def test_state_is_shown_without_values(mesh: Mesh) -> None:
    """Streams, shapes, those that the head lacks, and when it was saved; the run finds leaks."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/state"
    empty = (await mesh.drift_repair_agent.get(path)).json()
    assert (empty["type"], empty["streams"], empty["saved"]) == ("not_set", [], None)
    value = save_state(mesh, connection)
    order = await discovered(mesh, connection)
    kept = [one for one in order["sync_catalog"]["streams"] if one["stream"]["name"] != "Contact"]
    status, _ = await apply(mesh, {**order, "sync_catalog": {"streams": kept}})
    assert status == 200

    answer = await mesh.drift_repair_agent.get(path)

    assert answer.status_code == 200, answer.text
    assert value not in answer.text
    shown = answer.json()
    shape = {"cursor": "string", "of": "string"}
    assert shown["streams"] == [
        {"stream": STREAM, "selected": True, "shape": shape},
        {"stream": CONTACT, "selected": False, "shape": shape},
    ]
    assert (shown["orphaned"], shown["shared"], shown["type"]) == ([CONTACT], None, "stream")
    saved = shown["saved"]
    assert (saved["kind"], saved["catalog_version"]) == ("heal", 1)
    assert saved["connector_version"] == "2.10.3"
    mesh.airbyte.fault("state/get", 503, times=None)
    answer = await mesh.drift_repair_agent.get(path)
    assert answer.status_code == 503


async def renamed(mesh: Mesh, connection: Json, account: Json = ACCOUNT) -> Json:
    """Rename Contact to Person in the source; return the proposed repair, in detail."""
    offered = offering(account)
    (contact,) = [one for one in offered["streams"] if one["stream"]["name"] == "Contact"]
    contact["stream"]["name"] = "Person"
    return await proposal(mesh, connection, offered)


def became_person(repair: Json) -> Json:
    (gone,) = [one for one in repair["changes"] if one["kind"] == "stream_removed"]
    return {"choices": {gone["id"]: {"became": ["Person"]}}}


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("choice", [None, "read_again"])
async def test_renamed_stream_takes_its_state_along(mesh: Mesh, choice: str | None) -> None:
    """Unless the person wants all rows in the new table."""
    connection = await mesh.onboard()
    value = save_state(mesh, connection)
    repair = await renamed(mesh, connection)
    shown = (await detail(mesh, repair))["catalog"]["effects"]
    assert [one["code"] for one in shown if one["code"].startswith("state")] == [
        "state_taken_along"
    ]
    more = {} if choice is None else {"on_renamed_stream": choice}

    status, repair = await approve(mesh, repair, **became_person(repair), **more)

    assert (status, repair["state"]) == (200, "applied"), repair
    outcome = (await detail(mesh, repair))["sync_state"]
    person = state_of(mesh, connection, "Person")
    if choice == "read_again":
        assert (person, outcome["put_back"]) == (None, [])
    else:
        assert person is not None
        assert person["cursor"] == value
        assert outcome["put_back"] == [{"namespace": None, "name": "Person"}]


@only_new
@pytest.mark.parametrize(
    "choice, other, is_taken", [("read_again", None, False), (None, "read_again", True)]
)
async def test_approval_that_joins_another_leaves_its_choice(
    mesh: Mesh, choice: str | None, other: str | None, *, is_taken: bool
) -> None:
    """What a renamed stream starts from is as the approval of the rename says."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    repair = await renamed(mesh, connection, {"Id": "string", "Name": "string"})
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    rename = became_person(repair)
    for part, chosen in ((rename | {"changes": list(rename["choices"])}, choice), ({}, other)):
        start = {} if chosen is None else {"on_renamed_stream": chosen}
        status, approved = await approve(mesh, repair, **part, **start)
        assert (status, approved["state"]) == (202, "approved"), approved

    mesh.airbyte.finish_job(job["id"])

    await repairs_until(mesh, connection, ["superseded", "applied"])
    assert "AnnualRevenue" not in fields(mesh, connection)
    assert (state_of(mesh, connection, "Person") is not None) is is_taken


@only_new
async def test_dry_run_of_a_first_approval_shows_what_becomes_of_states(mesh: Mesh) -> None:
    """As its choices say, although they are not recorded in the changes yet."""
    connection = await mesh.onboard()
    save_state(mesh, connection)
    await put(mesh, connection, {"two_approvals_from": "needs_review"})
    repair = await renamed(mesh, connection)
    path = f"/repairs/{repair['id']}/approve"

    for choice, expected in (("take_state", ["state_taken_along"]), ("read_again", [])):
        order = {**became_person(repair), "on_renamed_stream": choice}
        answer = await mesh.drift_repair_agent.post(path, json=order, params={"dry_run": "true"})

        found = answer.json()
        assert found["outcome"] == "first_approval", found
        codes = [one["code"] for one in found["catalog"]["effects"]]
        assert [code for code in codes if code == "state_taken_along"] == expected


@only_new
async def test_renamed_stream_of_a_global_state_takes_nothing_along(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    save_state(mesh, connection, "global")
    repair = await renamed(mesh, connection)

    status, repair = await approve(mesh, repair, **became_person(repair))

    assert (status, repair["state"]) == (200, "applied"), repair
    outcome = (await detail(mesh, repair))["sync_state"]
    refused = [{"stream": {"namespace": None, "name": "Person"}, "reason": "global_state"}]
    assert outcome["not_put_back"] == refused
    assert mesh.airbyte.called(WRITE) == []


@only_new
async def test_cost_of_a_full_read_is_that_of_the_last_one(mesh: Mesh) -> None:
    """The first sync of an onboarded connection is known to have read everything."""
    connection = await mesh.onboard()
    mesh.airbyte.jobs_end_with("succeeded", polls=1, records=1234)
    await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    await mesh.jobs_until_end(connection["id"])
    query = "UPDATE job_history SET started_at = ended_at - interval '7 minutes'"
    await mesh.sql.execute(query)

    repair = await proposal(mesh, connection, offering(ACCOUNT, cursor=None))

    (effect,) = [
        one
        for one in (await detail(mesh, repair))["catalog"]["effects"]
        if one["code"] == "state_lost"
    ]
    assert "in full took 7 min and read 1234 rows" in effect["message"]
    await mesh.sql.execute("UPDATE connections SET created_at = now() - interval '1 year'")
    (effect,) = [
        one
        for one in (await detail(mesh, repair))["catalog"]["effects"]
        if one["code"] == "state_lost"
    ]
    assert "in full took" not in effect["message"]
