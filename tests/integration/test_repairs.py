"""Repairs: what a changed source needs is done by itself where it is safe, else by a decision."""

from __future__ import annotations

import asyncio
from collections import Counter
from copy import deepcopy
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from local.processes import servers
from services.drift_repair_agent.healing import heal
from services.drift_repair_agent.repairs.executor import RepairExecutor
from services.drift_repair_agent.repairs.expiry import Expiry
from shared import registry
from shared.database import Database
from shared.observability import logs
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.applying import seen, streams_in_airbyte
from tests.integration.conftest import (
    ORDER,
    Mesh,
    add_destination,
    migrate,
    running,
    settings_for,
)
from tests.integration.drifting import (
    ACCOUNT,
    drift,
    offering,
    planned,
    post,
    repairs,
    repairs_until,
)
from tests.integration.repairing import (
    approve,
    fields,
    nothing_was_reset,
    proposal,
    put,
    types,
    upstream,
)
from tests.waiting import until

Json = dict[str, Any]
LESS = {"Id": "string", "Name": "string"}
KEYED = {"Id": "string", "Email": "string", "Name": "string"}


async def test_new_field_is_applied_automatically(mesh: Mesh) -> None:
    """The policy decides, Airbyte has the field, and the version names the policy."""
    connection = await mesh.onboard()

    drift_id = await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    (repair,) = await repairs_until(mesh, connection, ["applied"])
    assert (repair["drift_id"], repair["version_number"]) == (drift_id, 2)
    (change,) = repair["changes"]
    assert (change["kind"], change["path"]) == ("field_added", ["Region__c"])
    assert (change["reaction"], change["decision"]["by"]) == ("apply", "policy")
    assert "Region__c" in fields(mesh, connection)
    path = f"/connections/{connection['id']}/catalog-versions"
    version = (await mesh.orchestrator.get(path)).json()["items"][0]
    recorded = [version[name] for name in ("repair_id", "decided_by", "origin", "snapshot_id")]
    assert recorded == [repair["id"], "policy", "repair", repair["snapshot_id"]]
    snapshot = await mesh.sql.fetchval("SELECT airbyte_catalog_id FROM snapshots ORDER BY taken_at")
    newest = await mesh.sql.fetchval(
        "SELECT airbyte_catalog_id FROM snapshots ORDER BY taken_at DESC LIMIT 1"
    )
    assert upstream(mesh, connection)["sourceCatalogId"] == str(newest) != str(snapshot)
    assert await types(mesh, 3) == ["catalog.healing", "catalog.applied", "repair.applied"]
    assert nothing_was_reset(mesh)


async def test_dropped_field_needs_a_decision(mesh: Mesh) -> None:
    """Nothing changes until somebody approves."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    assert repair["changes"][0]["loses"] == ["AnnualRevenue"]
    assert (await seen(mesh, connection))["catalog_version"] == 1
    assert "AnnualRevenue" in fields(mesh, connection)

    shown = (await mesh.drift_repair_agent.get(f"/repairs/{repair['id']}")).json()
    assert [one["kind"] for one in shown["catalog"]["schema_changes"]] == ["field_removed"]
    assert shown["expires_at"] > shown["created_at"]

    status, decided = await approve(mesh, repair, reason="It is not needed.")

    assert (status, decided["state"], decided["version_number"]) == (200, "applied", 2)
    (decision,) = decided["decisions"]
    assert (decision["by"], decision["reason"], decision["changes"]) == (
        "Ada",
        "It is not needed.",
        ["c1"],
    )
    assert fields(mesh, connection) == {"Id", "Name", "SystemModstamp"}
    assert await types(mesh, 4) == [
        "repair.proposed",
        "catalog.healing",
        "catalog.applied",
        "repair.applied",
    ]
    assert nothing_was_reset(mesh)


async def test_approval_reads_the_current_state_and_heals_once(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog that the approval checked is the one that is applied; it is not made again."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        counted = getattr(owner, name)

        def counting(*args: Any, **more: Any) -> Any:
            # Tasks beside the request read the state, too.
            calls[name] += logs.request_id() == "approval"
            return counted(*args, **more)

        monkeypatch.setattr(owner, name, counting)

    count(heal, "steps")
    count(registry, "read_version")
    count(registry, "stream_bodies")

    status, decided = await post(
        mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada"}, X_Request_ID="approval"
    )

    assert (status, decided["state"]) == (200, "applied")
    assert calls == {"steps": 1, "read_version": 1, "stream_bodies": 1}


async def test_policy_changed_after_the_approval_is_obeyed(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog of the approval is not applied once the policy excludes a field of it."""
    connection = await mesh.onboard()
    await put(mesh, connection, {"reactions": {"field": {"added": "propose"}}})
    repair = await proposal(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))
    begin = RepairExecutor.step

    async def step(*args: Any, **more: Any) -> UUID | None:
        await put(mesh, connection, {"never_select": ["Region*"]})
        return await begin(*args, **more)

    monkeypatch.setattr(RepairExecutor, "step", step)
    await approve(mesh, repair)

    await repairs_until(mesh, connection, ["applied"])
    config = streams_in_airbyte(mesh, connection)["Account"]["config"]
    assert config["fieldSelectionEnabled"]
    assert ["Region__c"] not in [one["fieldPath"] for one in config["selectedFields"]]


async def test_safe_changes_do_not_wait_for_the_rest(mesh: Mesh) -> None:
    """A widened type is applied; a narrowed one waits, based on the new version."""
    connection = await mesh.onboard()
    offered = offering({"Id": "string", "Name": "integer", "AnnualRevenue": "number"})
    offered["streams"][1]["stream"]["jsonSchema"]["properties"]["Extra"] = {"type": "string"}

    await drift(mesh, connection, offered)

    proposed, applied = await repairs_until(mesh, connection, ["proposed", "applied"])
    assert applied["parent_id"] == proposed["id"]
    assert (applied["base_version"], applied["version_number"]) == (1, 2)
    assert proposed["base_version"] == 2
    status, decided = await approve(mesh, proposed)
    assert (status, decided["version_number"]) == (200, 3)
    name = streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"][
        "Name"
    ]
    assert "integer" in name["type"]


async def test_some_changes_are_approved_and_the_rest_stays_open(mesh: Mesh) -> None:
    """The approved ones become a repair of their own; the rest is based on the new version."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering({"Id": "string"}))
    assert [one["path"] for one in repair["changes"]] == [["AnnualRevenue"], ["Name"]]

    status, child = await approve(mesh, repair, changes=["c1"])

    assert (status, child["state"], child["parent_id"]) == (200, "applied", repair["id"])
    assert [one["path"] for one in child["changes"]] == [["AnnualRevenue"]]
    assert fields(mesh, connection) == {"Id", "Name", "SystemModstamp"}
    (rest,) = await repairs(mesh, connection, state="proposed")
    assert (rest["id"], rest["base_version"]) == (repair["id"], 2)
    assert [one["path"] for one in rest["changes"]] == [["Name"]]
    assert rest["decisions"][0]["repair_id"] == child["id"]

    status, whole = await approve(mesh, rest)
    assert (status, whole["version_number"]) == (200, 3)
    assert fields(mesh, connection) == {"Id", "SystemModstamp"}


async def test_rejected_repair_changes_nothing(mesh: Mesh) -> None:
    """An event reports it, and it cannot be approved any more."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    before = deepcopy(upstream(mesh, connection))

    path = f"/repairs/{repair['id']}"
    status, rejected = await post(mesh, f"{path}/reject", {"by": "Ada", "reason": "It comes back."})

    assert (status, rejected["state"]) == (200, "rejected")
    assert rejected["decisions"][0]["verdict"] == "rejected"
    status, problem = await approve(mesh, repair)
    assert (status, problem["code"], problem["state"]) == (409, "not_proposed", "rejected")
    assert upstream(mesh, connection) == before
    assert await types(mesh, 2) == ["repair.proposed", "repair.rejected"]


async def test_rejected_change_is_not_applied_automatically_later(mesh: Mesh) -> None:
    """The policy would apply it now: it is only proposed."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    ask = {"reactions": {"field": {"added": "propose"}}}
    assert (await mesh.drift_repair_agent.put(path, json=ask)).status_code == 200
    one = ACCOUNT | {"Region__c": "string"}
    repair = await proposal(mesh, connection, offering(one))
    await post(mesh, f"/repairs/{repair['id']}/reject", {"by": "Ada"})
    dont_ask = {"reactions": {"field": {"added": None}}}
    assert (await mesh.drift_repair_agent.put(path, json=dont_ask)).status_code == 200

    await drift(mesh, connection, offering(one | {"Zone__c": "string"}))

    _, again, applied = await repairs_until(mesh, connection, ["rejected", "proposed", "applied"])
    assert [c["path"] for c in again["changes"]] == [["Region__c"]]
    assert [c["path"] for c in applied["changes"]] == [["Zone__c"]]


async def test_newer_drift_supersedes_the_open_repair(mesh: Mesh) -> None:
    """Approving the older one is refused with the newer one's id."""
    connection = await mesh.onboard()
    first = await proposal(mesh, connection, offering(LESS))

    await drift(mesh, connection, offering({"Id": "string"}))

    old, new = await repairs_until(mesh, connection, ["superseded", "proposed"])
    assert (old["id"], old["superseded_by"]) == (first["id"], new["id"])
    status, problem = await approve(mesh, first)
    assert (status, problem["code"], problem["newer"]) == (409, "not_proposed", new["id"])
    assert await types(mesh, 3) == ["repair.proposed", "repair.superseded", "repair.proposed"]


async def test_reverted_source_supersedes_the_proposal(mesh: Mesh) -> None:
    """The field is back: no repair follows, and no version is added."""
    connection = await mesh.onboard()
    await proposal(mesh, connection, offering(LESS))

    await drift(mesh, connection, offering(ACCOUNT))

    (over,) = await repairs_until(mesh, connection, ["superseded"])
    assert over["superseded_by"] is None
    assert (await seen(mesh, connection))["catalog_version"] == 1


async def test_unchanged_proposal_is_reported_once(mesh: Mesh) -> None:
    """A newer drift that does not affect it moves it to the newer snapshot."""
    connection = await mesh.onboard()
    first = await proposal(mesh, connection, offering(LESS))
    unsynced = offering(LESS)
    unsynced["streams"].append(catalog(stream("Lead"))["streams"][0])

    newer = await drift(mesh, connection, unsynced)

    await planned(mesh, connection, newer)
    (repair,) = await repairs(mesh, connection)
    assert (repair["id"], repair["state"]) == (first["id"], "proposed")
    assert repair["drift_id"] == newer
    assert repair["snapshot_id"] != first["snapshot_id"]
    assert await types(mesh, 1) == ["repair.proposed"]
    status, decided = await approve(mesh, repair)
    assert (status, decided["state"]) == (200, "applied")


@pytest.mark.parametrize("is_syncing", [False, True])
async def test_change_keeps_its_id_while_it_is_proposed(mesh: Mesh, *, is_syncing: bool) -> None:
    """A decision by an id that was read before a newer plan is about the change that was read.

    Also if the repair with the new change waits for a sync, so that the decision joins it.
    """
    connection = await mesh.onboard()
    read = await proposal(mesh, connection, with_less_of_contact(ACCOUNT))
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"]) if is_syncing else None
    await drift(mesh, connection, with_less_of_contact(ACCOUNT | {"Region__c": "string"}))
    states = ["proposed", "approved" if is_syncing else "applied"]
    newer, _ = await repairs_until(mesh, connection, states)
    assert (newer["id"], ids(newer)) == (read["id"], ids(read))

    status, decided = await approve(mesh, read, changes=[ids(read)["Email"]])

    if job is None:
        assert (status, decided["state"]) == (200, "applied"), decided
    else:
        assert (status, decided["state"]) == (202, "approved"), decided
        mesh.airbyte.finish_job(job["id"])
        await repairs_until(mesh, connection, ["proposed", "superseded", "applied"])
    assert "Region__c" in fields(mesh, connection)
    contact = streams_in_airbyte(mesh, connection)["Contact"]["stream"]["jsonSchema"]["properties"]
    assert contact.keys() == {"Id", "AccountId", "LastName", "SystemModstamp"}
    (rest,) = await repairs(mesh, connection, state="proposed")
    assert [one["path"] for one in rest["changes"]] == [["AccountId"]]


def with_less_of_contact(account: Json) -> Json:
    """Build a catalog with these fields of Account, and without two fields of Contact."""
    offered = offering(account)
    for field in ("AccountId", "Email"):
        del offered["streams"][1]["stream"]["jsonSchema"]["properties"][field]
    return offered


def ids(repair: Json) -> dict[str, str]:
    """Return the id of each change, by its field."""
    return {one["path"][0]: one["id"] for one in repair["changes"]}


async def test_drift_without_effect_makes_only_a_plan(mesh: Mesh) -> None:
    """Changes that the connection does not sync make no repair and no event."""
    connection = await mesh.onboard()
    offered = offering(ACCOUNT)
    offered["streams"].append(catalog(stream("Lead"))["streams"][0])

    await planned(mesh, connection, await drift(mesh, connection, offered))

    assert await repairs(mesh, connection) == []
    assert await types(mesh, 0) == []


async def test_stale_proposal_cannot_be_applied(mesh: Mesh) -> None:
    """The source changed again, or a catalog was applied: 409 `stale_plan`, nothing sent."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    # The source has the field again, and no plan has seen it yet.
    mesh.airbyte.offers(offering(ACCOUNT))
    await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")

    status, problem = await approve(mesh, repair)

    assert (status, problem["code"]) == (409, "stale_plan")
    assert (await seen(mesh, connection))["catalog_version"] == 1
    assert (await repairs(mesh, connection))[0]["state"] == "proposed"


async def test_approval_during_a_sync_is_applied_at_its_end(mesh: Mesh) -> None:
    """202, waiting for the sync."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])

    status, decided = await approve(mesh, repair)

    assert (status, decided["state"], decided["waits_for"]) == (202, "approved", "sync_running")
    assert "AnnualRevenue" in fields(mesh, connection)
    mesh.airbyte.finish_job(job["id"])
    (over,) = await repairs_until(mesh, connection, ["applied"])
    assert (over["id"], over["waits_for"]) == (repair["id"], None)
    assert "AnnualRevenue" not in fields(mesh, connection)


async def test_approval_joins_a_repair_that_waits_for_a_sync(mesh: Mesh) -> None:
    """The safe part waits for a sync's end: changes approved meanwhile are applied with it."""
    connection = await mesh.onboard()
    job = mesh.airbyte.start_job(connection["airbyte_connection_id"])
    offered = offering({"Id": "string", "Name": "integer", "AnnualRevenue": "number"})
    offered["streams"][1]["stream"]["jsonSchema"]["properties"]["Extra"] = {"type": "string"}
    await drift(mesh, connection, offered)
    proposed, _ = await repairs_until(mesh, connection, ["proposed", "approved"])

    status, decided = await approve(mesh, proposed)

    assert (status, decided["state"]) == (202, "approved")
    mesh.airbyte.finish_job(job["id"])
    applied, safe = await repairs_until(mesh, connection, ["applied", "superseded"])
    assert safe["superseded_by"] == applied["id"]
    assert {one["decision"]["by"] for one in applied["changes"]} == {"Ada", "policy"}
    assert applied["version_number"] == 2


async def test_second_approval_is_refused(mesh: Mesh) -> None:
    """With the same key it gets the first one's answer."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    path, order = f"/repairs/{repair['id']}/approve", {"by": "Ada"}
    key = f"approve-{uuid4()}"

    answers = await asyncio.gather(*(approve(mesh, repair) for _ in range(8)))

    assert sorted({status for status, _ in answers}) == [200, 409]
    assert sum(status == 200 for status, _ in answers) == 1
    assert (await mesh.sql.fetchval("SELECT count(*) FROM sync_catalog_versions")) == 2

    second = await proposal_after(mesh, connection, offering({"Id": "string"}), ["applied"])
    path = f"/repairs/{second['id']}/approve"
    status, first = await post(mesh, path, order, idempotency_key=key)
    assert (status, first["state"]) == (200, "applied")
    again = await mesh.drift_repair_agent.post(path, json=order, headers={"Idempotency-Key": key})
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    assert (await mesh.sql.fetchval("SELECT count(*) FROM sync_catalog_versions")) == 3


async def proposal_after(mesh: Mesh, connection: Json, offered: Json, before: list[str]) -> Json:
    """Let the source change; the repair that waits for a person after those before."""
    await drift(mesh, connection, offered)
    return (await repairs_until(mesh, connection, [*before, "proposed"]))[-1]


async def test_repair_refused_by_airbyte_fails_with_the_code(mesh: Mesh) -> None:
    """The old version stays in force, and the repair is not repeated."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("connections/update", 422)

    await drift(mesh, connection, offering(ACCOUNT | {"Region__c": "string"}))

    (repair,) = await repairs_until(mesh, connection, ["failed"])
    assert repair["failure_code"] == "upstream_rejected"
    view = await seen(mesh, connection)
    assert (view["status"], view["catalog_version"]) == ("ACTIVE", 1)
    assert (await types(mesh, 3))[-1] == "repair.failed"

    # A newer drift brings the same change again: now a person is asked.
    again = await proposal_after(
        mesh, connection, offering(ACCOUNT | {"Region__c": "string"}, key=None), ["failed"]
    )
    assert ["Region__c"] in [one["path"] for one in again["changes"]]


async def test_undecided_repair_expires(mesh: Mesh) -> None:
    """Nothing is sent, an event reports it, and it cannot be approved."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    await mesh.sql.execute("UPDATE repairs SET expires_at = now() - interval '1 s'")

    (over,) = await repairs_until(mesh, connection, ["expired"])

    assert over["id"] == repair["id"]
    status, problem = await approve(mesh, repair)
    assert (status, problem["code"]) == (409, "not_proposed")
    assert await types(mesh, 2) == ["repair.proposed", "repair.expired"]
    assert "AnnualRevenue" in fields(mesh, connection)


@pytest.mark.deep(after=4)
@pytest.mark.parametrize(
    "order, code",
    [
        ({"by": 7}, "invalid_request"),
        ({"by": ""}, "invalid_request"),
        ({"by": "Ada\x00"}, "forbidden_character"),
        ({"by": "Ada\u202e"}, "invalid_request"),
        ({"by": "a" * 201}, "invalid_request"),
        ({"by": "Ada", "changes": []}, "invalid_request"),
        ({"by": "Ada", "changes": ["c9"]}, "unknown_change"),
        ({"by": "Ada", "choices": {"c9": {}}}, "unknown_change"),
        ({"by": "Ada", "choices": {"c1": {"became": ["Nowhere"]}}}, "heal_impossible"),
        ({"by": "Ada", "surprise": 1}, "invalid_request"),
    ],
)
async def test_invalid_decision_is_refused(mesh: Mesh, order: Json, code: str) -> None:
    """422 with a stable code; the repair waits as before."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))

    status, problem = await post(mesh, f"/repairs/{repair['id']}/approve", order)

    assert (status, problem["code"]) == (422, code)
    assert (await repairs(mesh, connection))[0]["state"] == "proposed"
    assert "Nowhere" not in (problem["detail"] if code != "heal_impossible" else "")
    if code == "unknown_change":
        assert "Unknown change 'c9'" in problem["detail"]
        assert "The repair has c1" in problem["fields"][0]["message"]


async def test_repairs_are_listed_and_unknown_ones_are_404(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await proposal(mesh, connection, offering(LESS))
    await drift(mesh, connection, offering({"Id": "string"}))
    await repairs_until(mesh, connection, ["superseded", "proposed"])

    page = (await mesh.drift_repair_agent.get("/repairs", params={"limit": 1})).json()
    rest = (await mesh.drift_repair_agent.get("/repairs", params={"after": page["next"]})).json()
    assert [one["state"] for one in page["items"] + rest["items"]] == ["proposed", "superseded"]
    assert rest["next"] is None
    assert (await mesh.drift_repair_agent.get(f"/repairs/{uuid4()}")).status_code == 404
    assert (await mesh.drift_repair_agent.get("/repairs?state=unheard")).status_code == 422
    status, problem = await post(mesh, f"/repairs/{uuid4()}/approve", {"by": "Ada"})
    assert (status, problem["code"]) == (404, "not_found")


async def test_plan_on_demand_proposes_ended_repairs_again(mesh: Mesh) -> None:
    """Although the source is unchanged; an open proposal is not repeated."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/plan"
    assert await post(mesh, path, {}) == (200, {"items": [], "next": None})
    repair = await proposal(mesh, connection, offering(LESS))
    await post(mesh, f"/repairs/{repair['id']}/reject", {"by": "Ada"})

    status, found = await post(mesh, path, {})

    (again,) = found["items"]
    assert (status, again["state"]) == (200, "proposed")
    assert again["id"] != repair["id"]
    _, same = await post(mesh, path, {})
    assert [one["id"] for one in same["items"]] == [again["id"]]
    assert (await post(mesh, f"/connections/{uuid4()}/plan", {}))[0] == 404


async def test_decision_and_expiry_exclude_each_other(mesh: Mesh) -> None:
    """Whichever is first counts, in any order."""
    connection = await mesh.onboard()
    repair = await proposal(mesh, connection, offering(LESS))
    db = Database.at(mesh.settings.registry_address, application="test")
    await mesh.sql.execute("UPDATE repairs SET expires_at = now()")

    approving = asyncio.create_task(approve(mesh, repair))
    await asyncio.gather(*(Expiry(db).expire_due() for _ in range(3)))
    status, body = await approving
    await db.close()

    (over,) = await repairs(mesh, connection)
    published = [one["type"] for one in await mesh.events(4)]
    if status == 200:
        assert over["state"] == "applied"
        assert "repair.expired" not in published
    else:
        assert (status, body["code"], over["state"]) == (409, "not_proposed", "expired")
        assert published.count("repair.expired") == 1
    versions = await mesh.sql.fetchval("SELECT count(*) FROM sync_catalog_versions")
    assert versions == (2 if status == 200 else 1)


@pytest.mark.process
async def test_registry_outage_loses_no_decision(
    airbyte: AirbyteServer, own_postgres: servers.Postgres, redis_url: str, redis: Redis
) -> None:
    """Before the decision: 503. While it is applied: it is applied after all."""
    migrate(own_postgres.url)
    sql = await asyncpg.connect(own_postgres.url)
    add_destination(airbyte)
    settings = settings_for(airbyte, own_postgres.services_url, redis_url)
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        connection = await mesh.onboard()
        repair = await proposal(mesh, connection, offering(LESS))
        own_postgres.stop()
        status, problem = await approve(mesh, repair)
        assert (status, problem["code"]) == (503, "unavailable")
        own_postgres.start()
        (still,) = await repairs_until(mesh, connection, ["proposed"])
        assert still["decisions"] == []

        airbyte.fault("connections/update", "slow", seconds=1)
        approving = asyncio.create_task(approve(mesh, repair))
        await until(lambda: bool(airbyte.called("connections/update")))
        own_postgres.stop()
        await asyncio.sleep(1)
        own_postgres.start()
        status, _ = await approving
        assert status in (200, 504)
        (applied,) = await repairs_until(mesh, connection, ["applied"])
        assert applied["version_number"] == 2
        assert "AnnualRevenue" not in fields(mesh, connection)
    await sql.close()
