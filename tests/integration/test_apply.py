"""Applying a catalog: Airbyte and the registry end in step, whatever went wrong between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from local.processes import servers
from shared.airbyte_client import AirbyteClient
from tests import factories
from tests.fakes.airbyte_server import DEFAULT_CATALOG, AirbyteServer, Auth
from tests.integration.applying import GREW, apply, discovered, seen, streams_in_airbyte
from tests.integration.conftest import (
    FAULT_RATE,
    ORDER,
    Mesh,
    Meshes,
    add_destination,
    migrate,
    running,
    settings_for,
)
from tests.waiting import until

Json = dict[str, Any]


def airbyte_requests(mesh: Mesh) -> int:
    """How many requests Airbyte got, beside those of looks that are taken all the while."""
    looks = {"jobs/list", "sources/list", "web_backend/connections/list", "applications/token"}
    return sum(one.path not in looks for one in mesh.airbyte.requests)


async def grown(mesh: Mesh) -> tuple[Json, Json]:
    """Onboard a connection whose source gets a new field; return it and the discovered order."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(GREW)
    return connection, await discovered(mesh, connection)


async def test_discovered_order_can_be_applied(mesh: Mesh) -> None:
    """A new field reaches Airbyte, as version 2, made from the snapshot."""
    connection, order = await grown(mesh)

    status, applied = await apply(mesh, order)

    assert (status, applied) == (
        200,
        {
            "connection_id": connection["id"],
            "previous_version": 1,
            "version_number": 2,
            "status": "ACTIVE",
            "changed": True,
            "resumed": [],
            "refreshed": [],
            "refresh_job": None,
            "sync_state": {
                "saved": False,
                "not_saved": "no_key",
                "put_back": [],
                "not_put_back": [],
            },
        },
    )
    account = streams_in_airbyte(mesh, connection)["Account"]
    assert "Region__c" in account["stream"]["jsonSchema"]["properties"]
    versions = (
        await mesh.orchestrator.get(f"/connections/{connection['id']}/catalog-versions")
    ).json()["items"]
    assert [(one["version_number"], one["origin"]) for one in versions] == [
        (2, "repair"),
        (1, "onboard"),
    ]
    assert versions[0]["snapshot_id"] == order["snapshot_id"] != versions[1]["snapshot_id"]
    events = await mesh.events(3)
    assert [one["type"] for one in events] == [
        "connection.onboarded",
        "catalog.healing",
        "catalog.applied",
    ]
    assert [one["seq"] for one in events] == ["1", "2", "3"]
    assert events[1]["ref"] == events[2]["ref"]


async def test_diff_of_two_versions_names_the_new_field(mesh: Mesh) -> None:
    """In both directions."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(GREW)
    await apply(mesh, await discovered(mesh, connection))

    path = f"/connections/{connection['id']}/catalog-versions"
    forth = (await mesh.orchestrator.get(f"{path}/1/diff/2")).json()
    back = (await mesh.orchestrator.get(f"{path}/2/diff/1")).json()

    assert {("field_added", ("Region__c",)), ("field_removed", ("AnnualRevenue",))} == {
        (one["kind"], tuple(one["path"])) for one in forth["schema_changes"]
    }
    assert {one["kind"] for one in back["schema_changes"]} == {"field_added", "field_removed"}
    assert (await mesh.orchestrator.get(f"{path}/1/diff/9")).status_code == 404


@pytest.mark.exact
async def test_equal_catalog_changes_nothing(mesh: Mesh) -> None:
    """200 `changed: false`, no version, and Airbyte is not asked to update."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    order["sync_catalog"]["streams"].reverse()
    sent = airbyte_requests(mesh)

    status, applied = await apply(mesh, order)

    assert (status, applied["changed"], applied["version_number"]) == (200, False, 1)
    assert airbyte_requests(mesh) == sent


async def test_discover_all_lists_unselected_streams(mesh: Mesh) -> None:
    """Selecting one adds it, deselecting one drops it."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection, all="true")
    by_name = {one["stream"]["name"]: one["config"] for one in order["sync_catalog"]["streams"]}
    assert {name for name, config in by_name.items() if config["selected"]} == {
        "Account",
        "Contact",
    }
    by_name["Case"].update(selected=True)
    by_name["Contact"].update(selected=False)

    status, _ = await apply(mesh, order)

    assert status == 200
    assert set(streams_in_airbyte(mesh, connection)) == {"Account", "Case"}


async def test_selected_fields_survive_the_read_back(mesh: Mesh) -> None:
    """Airbyte returns schemas cut down to the selected fields."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    for one in order["sync_catalog"]["streams"]:
        if one["stream"]["name"] == "Account":
            one["config"] |= {
                "fieldSelectionEnabled": True,
                "selectedFields": [{"fieldPath": [name]} for name in ("Id", "SystemModstamp")],
            }

    status, applied = await apply(mesh, order)

    assert (status, applied["version_number"]) == (200, 2)
    mesh.airbyte.offers(GREW)
    again = await discovered(mesh, connection)
    account = next(
        one for one in again["sync_catalog"]["streams"] if one["stream"]["name"] == "Account"
    )
    picked = {one["fieldPath"][0] for one in account["config"]["selectedFields"]}
    assert picked == {"Id", "SystemModstamp"}, "a hand-picked list never grows"


@pytest.mark.parametrize(
    "spoil, code",
    [
        (lambda one: one["config"].update(syncMode="sideways"), "unsupported_sync_mode"),
        (
            lambda one: (
                one["config"].update(cursorField=[]),
                one["stream"].update(sourceDefinedCursor=False, defaultCursorField=[]),
            ),
            "missing_cursor",
        ),
        (
            lambda one: (
                one["config"].update(primaryKey=[]),
                one["stream"].update(sourceDefinedPrimaryKey=[]),
            ),
            "missing_primary_key",
        ),
        (lambda one: one["stream"].pop("name"), "invalid_catalog"),
    ],
)
async def test_invalid_stream_is_named(
    mesh: Mesh, spoil: Callable[[Json], object], code: str
) -> None:
    """422 with the stream and the field, and nothing changes."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    spoil(order["sync_catalog"]["streams"][0])
    sent = airbyte_requests(mesh)

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (422, code)
    assert problem["problems"][0]["field"].startswith("streams[0]")
    assert airbyte_requests(mesh) == sent
    assert (await seen(mesh, connection))["status"] == "ACTIVE"


@pytest.mark.parametrize(
    "body, code",
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_request"),
        (b'{"connection_id":"x","sync_catalog":{}}', "invalid_request"),
        (b'{"connection_id":"%s"}', "invalid_request"),
        (b'{"connection_id":"%s","sync_catalog":{"streams":[]}}', "empty_catalog"),
        (b'{"connection_id":"%s","sync_catalog":{}}', "invalid_catalog"),
        (b'{"connection_id":"%s","sync_catalog":null}', "invalid_catalog"),
        (
            b'{"connection_id":"%s","sync_catalog":{"streams":[]},"status":"ACTIVE"}',
            "invalid_request",
        ),
    ],
)
async def test_malformed_order_is_refused(mesh: Mesh, body: bytes, code: str) -> None:
    """422 with a stable code, and the connection as it was."""
    connection = await mesh.onboard()
    body = body.replace(b"%s", connection["id"].encode())

    answer = await mesh.drift_repair_agent.post(
        "/repair/apply_new_catalog", content=body, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert (await seen(mesh, connection))["catalog_version"] == 1


async def test_apply_is_refused_in_other_states(mesh: Mesh) -> None:
    """Unknown, stale, archived and HEALING connections have their own codes; nothing is sent."""
    connection, order = await grown(mesh)

    status, problem = await apply(mesh, order | {"connection_id": str(uuid4())})
    assert (status, problem["code"]) == (404, "not_found")
    status, problem = await apply(mesh, order | {"expected_version": 7})
    assert (status, problem["code"], problem["current"]) == (409, "stale_catalog", 1)
    status, problem = await apply(mesh, order | {"snapshot_id": str(uuid4())})
    assert (status, problem["code"]) == (422, "unknown_snapshot")

    await mesh.sql.execute("UPDATE connections SET status = 'HEALING', heal_id = $1", uuid4())
    status, problem = await apply(mesh, order)
    assert (status, problem["code"]) == (409, "heal_in_progress")
    await mesh.sql.execute("UPDATE connections SET status = 'ACTIVE', heal_id = NULL")

    await mesh.orchestrator.delete(f"/connections/{connection['id']}")
    status, problem = await apply(mesh, order)
    assert (status, problem["code"]) == (409, "not_active")


async def test_concurrent_applies_create_one_version(mesh: Mesh) -> None:
    """Twenty callers, two catalogs: version numbers without gap or duplicate."""
    _, order = await grown(mesh)

    outcomes = await asyncio.gather(*(apply(mesh, order) for _ in range(20)))

    assert sorted({status for status, _ in outcomes}) in ([200], [200, 409])
    assert sum(body.get("changed", False) for _, body in outcomes) == 1
    numbers = await mesh.sql.fetch("SELECT version_number FROM sync_catalog_versions ORDER BY 1")
    assert [row["version_number"] for row in numbers] == [1, 2]


@pytest.mark.deep(after=2)
@pytest.mark.exact
@pytest.mark.parametrize(
    "kind, more, status, code",
    [
        (422, {}, 422, "upstream_rejected"),
        (422, {"after_effect": True}, 422, "upstream_rejected"),
        (403, {}, 502, "upstream_auth"),
        ("lie", {"times": 3}, 502, "upstream_mismatch"),
    ],
)
async def test_refusal_keeps_the_old_version(
    mesh: Mesh, kind: Any, more: dict[str, Any], status: int, code: str
) -> None:
    """Airbyte has version 1, the connection is ACTIVE at it, and the event says refused."""
    connection = await mesh.onboard()
    before = deepcopy(streams_in_airbyte(mesh, connection))
    mesh.airbyte.offers(GREW)
    order = await discovered(mesh, connection)
    mesh.airbyte.fault("connections/update", kind, **more)

    answered, problem = await apply(mesh, order)

    assert (answered, problem["code"]) == (status, code)
    assert streams_in_airbyte(mesh, connection) == before
    view = await seen(mesh, connection)
    assert (view["status"], view["catalog_version"]) == ("ACTIVE", 1)
    assert (await mesh.events(3))[-1]["type"] == "catalog.refused"


@pytest.mark.deep(after=4)
@pytest.mark.parametrize(
    "kind, after_effect",
    [
        *((kind, False) for kind in (500, "html_502", "reset", 409, "lie")),
        *((kind, True) for kind in (500, "html_504", "reset", "empty_200", "truncated")),
    ],
)
async def test_update_with_unknown_outcome_is_resolved_by_reading_back(
    mesh: Mesh, kind: Any, after_effect: bool
) -> None:
    """The catalog that Airbyte has decides: while it is the old one, the update is sent again."""
    connection, order = await grown(mesh)
    mesh.airbyte.fault("connections/update", kind, after_effect=after_effect)

    status, applied = await apply(mesh, order)

    assert (status, applied["version_number"]) == (200, 2)
    assert after_effect or len(mesh.airbyte.called("connections/update")) == 2
    assert (await seen(mesh, connection))["status"] == "ACTIVE"


async def test_connection_deleted_in_airbyte_fails(mesh: Mesh) -> None:
    """Somebody deleted it in Airbyte: 422 upstream_missing, FAILED."""
    connection, order = await grown(mesh)
    del mesh.airbyte.connections[connection["airbyte_connection_id"]]

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (422, "upstream_missing")
    view = await seen(mesh, connection)
    assert (view["status"], view["failure_code"]) == ("FAILED", "upstream_missing")


async def test_unreachable_airbyte_changes_nothing(mesh: Mesh) -> None:
    """503, ACTIVE at the old version; the same order works later."""
    connection, order = await grown(mesh)
    port = mesh.airbyte.port
    await mesh.airbyte.stop()

    status, problem = await apply(mesh, order)
    # Where answers are lost on purpose, the last try may be one that was.
    codes = {"upstream_unreachable", "upstream_unknown"} if FAULT_RATE else {"upstream_unreachable"}
    assert status == 503
    assert problem["code"] in codes
    assert (await seen(mesh, connection))["status"] == "ACTIVE"

    await mesh.airbyte.start(port)
    status, applied = await apply(mesh, order)
    assert (status, applied["version_number"], applied["status"]) == (200, 2, "ACTIVE")


async def test_breaking_change_pause_is_cleared_by_applying(mesh: Mesh) -> None:
    """A person's pause stays."""
    connection = await mesh.onboard()
    upstream = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    upstream |= {"status": "inactive", "breakingChange": True}
    mesh.airbyte.offers(GREW)

    await apply(mesh, await discovered(mesh, connection))

    upstream = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    assert (upstream["status"], upstream["breakingChange"]) == ("active", False)

    upstream["status"] = "inactive"
    mesh.airbyte.offers(DEFAULT_CATALOG)
    await apply(mesh, await discovered(mesh, connection))
    assert mesh.airbyte.connections[connection["airbyte_connection_id"]]["status"] == "inactive"


async def test_body_over_16_mib_is_refused(mesh: Mesh) -> None:
    answer = await mesh.drift_repair_agent.post(
        "/repair/apply_new_catalog",
        content=b" " * (16 * 1024 * 1024 + 1),
        headers={"Content-Type": "application/json"},
    )

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_unchanged_source_is_stored_once(mesh: Mesh) -> None:
    """One snapshot per difference, and one row per distinct stream schema."""
    connection = await mesh.onboard()
    first = await discovered(mesh, connection)
    again = await discovered(mesh, connection)
    mesh.airbyte.offers(GREW)
    grown = await discovered(mesh, connection, fresh="true")

    assert first["snapshot_id"] == again["snapshot_id"] != grown["snapshot_id"]
    assert await mesh.sql.fetchval("SELECT count(*) FROM snapshots") == 2
    assert await mesh.sql.fetchval("SELECT count(*) FROM stream_schemas") == 6


@pytest.mark.process
async def test_registry_outage_during_a_call_is_waited_out(
    airbyte: AirbyteServer, own_postgres: servers.Postgres, redis_url: str, redis: Redis
) -> None:
    """Nothing stays HEALING or PENDING."""
    migrate(own_postgres.url)
    sql = await asyncpg.connect(own_postgres.url)
    add_destination(airbyte)
    settings = settings_for(airbyte, own_postgres.services_url, redis_url)
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        airbyte.fault("connections/create", "slow", seconds=1)
        onboarding = asyncio.create_task(mesh.onboard())
        await until(lambda: airbyte.called("connections/create"))
        own_postgres.stop()
        await asyncio.sleep(1)
        own_postgres.start()
        connection = await onboarding
        assert connection["status"] == "ACTIVE"

        airbyte.offers(GREW)
        order = await discovered(mesh, connection)
        airbyte.fault("connections/update", "slow", seconds=1)
        applying = asyncio.create_task(apply(mesh, order))
        await until(lambda: airbyte.called("connections/update"))
        own_postgres.stop()
        await asyncio.sleep(1)
        own_postgres.start()
        status, applied = await applying
        assert (status, applied["version_number"]) == (200, 2)
        assert (await seen(mesh, connection))["status"] == "ACTIVE"
    await sql.close()


@pytest.mark.parametrize("number", ["1e999", "9" * 5000])
async def test_extreme_numbers_are_no_internal_error(mesh: Mesh, number: str) -> None:
    """In a posted schema: 422 or 200, and nothing stays HEALING."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    body = json.dumps(order).replace('"object"', '"object","maximum":' + number, 1)

    answer = await mesh.drift_repair_agent.post(
        "/repair/apply_new_catalog", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in (200, 422), answer.text
    assert (await seen(mesh, connection))["status"] == "ACTIVE"


async def test_archiving_supersedes_a_concurrent_repair(mesh: Mesh) -> None:
    """The archived connection is not left HEALING."""
    connection, order = await grown(mesh)
    mesh.airbyte.fault("connections/delete", "slow", seconds=2)
    archiving = asyncio.create_task(mesh.orchestrator.delete(f"/connections/{connection['id']}"))
    await until(lambda: mesh.airbyte.called("connections/delete"))
    await apply(mesh, order)

    assert (await archiving).status_code == 204
    view = await seen(mesh, connection)
    assert view["archived_at"]
    assert view["status"] != "HEALING"


async def test_connection_without_airbyte_counterpart_cannot_be_applied(mesh: Mesh) -> None:
    """409 while it is being onboarded, and after that failed; nothing is sent or changed."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    del order["snapshot_id"]
    pending, failed = factories.connection(), factories.connection()
    await mesh.sql.executemany(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " VALUES ($1, $2, 'Salesforce', $3, $4)",
        [
            (one.id, one.name, one.airbyte_destination_id, status)
            for one, status in ((pending, "PENDING"), (failed, "FAILED"))
        ],
    )
    sent = airbyte_requests(mesh)

    for one in (pending, failed):
        status, problem = await apply(
            mesh, order | {"connection_id": str(one.id), "expected_version": 0}
        )
        assert (status, problem["code"]) == (409, "not_active")

    assert airbyte_requests(mesh) == sent
    rows = await mesh.sql.fetch(
        "SELECT id, status FROM connections WHERE id <> $1", connection["id"]
    )
    assert {row["id"]: row["status"] for row in rows} == {
        pending.id: "PENDING",
        failed.id: "FAILED",
    }


@pytest.mark.parametrize("version, auth", [("2.0.0", "token"), ("0.63.19", "basic")])
async def test_connection_deleted_through_the_airbyte_api_fails(
    version: str, auth: Auth, meshes: Meshes
) -> None:
    """Airbyte keeps answering for it, as deprecated: 422 upstream_missing, FAILED."""
    async with (
        AirbyteServer(version=version, auth=auth) as airbyte,
        meshes.start(airbyte) as mesh,
        AirbyteClient.from_settings(mesh.settings) as somebody,
    ):
        connection = await mesh.onboard()
        airbyte.offers(GREW)
        order = await discovered(mesh, connection)
        await somebody.delete_connection(UUID(connection["airbyte_connection_id"]))

        status, problem = await apply(mesh, order)

        assert (status, problem["code"]) == (422, "upstream_missing")
        view = await seen(mesh, connection)
        assert (view["status"], view["failure_code"]) == ("FAILED", "upstream_missing")
        assert view["catalog_version"] == 1


async def test_unknown_stream_is_named_with_a_suggestion(mesh: Mesh) -> None:
    """A typo in an edited catalog would stop a stream silently."""
    connection = await mesh.onboard()
    order = await discovered(mesh, connection)
    order["sync_catalog"]["streams"][0]["stream"]["name"] = "Acount"

    status, problem = await apply(mesh, order)

    assert (status, problem["code"]) == (422, "unknown_stream")
    assert "Acount" in problem["detail"]
    assert "Did you mean 'Account'?" in problem["detail"]
