"""Limits of discoveries: how often, beside which syncs, and for whom."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import Mesh, Meshes
from tests.waiting import until

Json = dict[str, Any]

pytestmark = pytest.mark.exact


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


async def observe(mesh: Mesh, connection: Json, *, status: int = 200, **order: Any) -> Json:
    """Have the connection's source observed now."""
    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe", json=order or None
    )
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


async def discover(mesh: Mesh, connection: Json, *, status: int = 200, **params: Any) -> Json:
    """Have the connection's source discovered by the orchestrator."""
    answer = await mesh.orchestrator.post(
        f"/connections/{connection['id']}/discover", params=params
    )
    assert answer.status_code == status, answer.text
    found: Json = answer.json() | {"retry_after": answer.headers.get("retry-after")}
    return found


async def observation(mesh: Mesh, connection: Json) -> Json:
    """How the connection's source is observed."""
    answer = await mesh.schema_observer.get(f"/connections/{connection['id']}/observation")
    found: Json = answer.json()
    return found


async def pause_s(mesh: Mesh) -> float:
    """Seconds from the newest observation to the next."""
    pause: float = await mesh.sql.fetchval(
        "SELECT extract(epoch FROM next_at - observed_at)::float8 FROM observations"
    )
    return pause


def discovered(mesh: Mesh, connection: Json) -> int:
    """How often Airbyte has run the source's connector to discover it."""
    return mesh.airbyte.discoveries[connection["airbyte_source_id"]]


async def postponed(mesh: Mesh, connection: Json) -> bool:
    """Whether the source's observation is due and waits."""
    return (await observation(mesh, connection))["postponed_since"] is not None


async def seen_since(mesh: Mesh, connection: Json, before: int) -> bool:
    """Whether an observation after so many discoveries is over."""
    found = await observation(mesh, connection)
    return discovered(mesh, connection) > before and not found["observing"]


async def failed(mesh: Mesh, connection: Json) -> bool:
    """Whether the newest observation failed."""
    return bool((await observation(mesh, connection))["outcome"] == "failed")


async def sync_running(mesh: Mesh, connection: Json) -> int:
    """A sync that Airbyte started, once the orchestrator has seen it; Airbyte's id of it."""
    job: int = mesh.airbyte.start_job(connection["airbyte_connection_id"])["id"]
    await mesh.until_true("SELECT count(*) FROM job_history")
    return job


async def set_limit(mesh: Mesh, connection: Json, limit: int) -> None:
    """Have the connection's policy limit how often its source is discovered in 24 hours."""
    answer = await mesh.drift_repair_agent.put(
        f"/connections/{connection['id']}/policy", json={"discoveries_per_day": limit}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["discoveries_per_day"] == limit


# A source that fails


async def test_failing_source_is_observed_less_and_less_often(mesh: Mesh) -> None:
    """Beyond the interval, up to six hours; after a success, at the interval again."""
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery("config_error", "something else")
    pauses = []
    for _ in range(12):
        assert (await observe(mesh, connection))["outcome"] == "failed"
        pauses.append(await pause_s(mesh))

    assert pauses[0] == pytest.approx(60, rel=0.11)
    assert pauses[4] == pytest.approx(960, rel=0.11)
    assert pauses[5] > 900
    assert pauses[-1] == pytest.approx(6 * 3600, rel=0.11)
    mesh.airbyte.heal()
    assert (await observe(mesh, connection))["outcome"] == "unchanged"
    assert await pause_s(mesh) == pytest.approx(900, rel=0.11)


async def test_exhausted_quota_is_not_retried_within_the_interval(mesh: Mesh) -> None:
    """Each try costs more of it."""
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery(
        "config_error", "REQUEST_LIMIT_EXCEEDED: TotalRequests Limit exceeded."
    )

    found = await observe(mesh, connection)

    assert (found["outcome"], found["cause"]) == ("failed", "quota_exceeded")
    assert await pause_s(mesh) == pytest.approx(900, rel=0.11)


async def test_unreachable_airbyte_is_retried_within_the_interval(mesh: Mesh) -> None:
    """It cost the source nothing, and the source may be healthy."""
    connection = await mesh.onboard()
    mesh.airbyte.fault("commands/run/discover", 500, times=None)
    for _ in range(8):
        await observe(mesh, connection)

    assert await pause_s(mesh) < 1000


async def test_discovery_failing_with_500_is_retried_less_and_less_often(
    meshes: Meshes,
) -> None:
    """Releases before 1.7 may answer 500 where the connector has run and failed."""
    async with (
        AirbyteServer(version="0.63.19") as airbyte,
        meshes.start(airbyte, repairs=False) as mesh,
    ):
        connection = await mesh.onboard()
        body = {"message": "Internal Server Error", "exceptionClassName": "java.lang.Error"}
        airbyte.answer("sources/discover_schema", body, status=500, times=None)
        before = discovered(mesh, connection)
        for _ in range(7):
            assert (await observe(mesh, connection))["outcome"] == "failed"

        assert discovered(mesh, connection) == before + 7
        assert await pause_s(mesh) > 1.5 * 900


# Beside a sync


async def test_observation_waits_for_a_sync_of_the_source(mesh: Mesh) -> None:
    """Its connector renews tokens: a second login at the same time would revoke its token."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    job = await sync_running(mesh, connection)
    before = discovered(mesh, connection)
    await mesh.sql.execute("UPDATE observations SET next_at = now()")
    await until(lambda: postponed(mesh, connection))
    assert discovered(mesh, connection) == before

    refused = await observe(mesh, connection, status=409)
    assert refused["code"] == "sync_running"
    refused = await discover(mesh, connection, status=409)
    assert refused["code"] == "sync_running"
    assert discovered(mesh, connection) == before
    await observe(mesh, connection, accept_missing=True)
    assert discovered(mesh, connection) == before + 1
    before += 1

    mesh.airbyte.finish_job(job)
    await mesh.jobs_until_end(connection["id"])
    await mesh.sql.execute("UPDATE observations SET next_at = now()")
    await until(lambda: seen_since(mesh, connection, before))
    assert discovered(mesh, connection) == before + 1
    assert not await postponed(mesh, connection)


async def test_observation_blocked_for_hours_is_reported(mesh: Mesh) -> None:
    """Once, as a failed observation; the source is still not called."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    await sync_running(mesh, connection)
    before = discovered(mesh, connection)
    await mesh.sql.execute(
        "UPDATE observations SET next_at = now(), postponed_since = now() - interval '7 hours'"
    )
    await until(lambda: failed(mesh, connection))

    found = await observation(mesh, connection)
    assert (found["code"], discovered(mesh, connection)) == ("sync_running", before)
    codes = await mesh.sql.fetch("SELECT code FROM events WHERE type LIKE 'observation.%'")
    assert [row["code"] for row in codes] == ["sync_running"]


async def test_source_without_token_renewal_is_observed_during_a_sync(mesh: Mesh) -> None:
    connection = await mesh.onboard(
        source_type="Hardcoded Records", credential_id=None, streams=None
    )
    await sync_running(mesh, connection)

    assert (await observe(mesh, connection))["outcome"] == "unchanged"
    await discover(mesh, connection)


# Renewed tokens


@pytest.mark.parametrize("version", ["1.6.2", "2.0.0"])
async def test_renewal_during_a_discovery_is_detected(mesh: Mesh, version: str) -> None:
    """By Airbyte's answer, or by a changed configuration."""
    mesh.airbyte.version = version
    connection = await mesh.onboard()
    await observe(mesh, connection)
    assert (await observation(mesh, connection))["configuration_renewed_at"] is None
    mesh.airbyte.renew_on_discovery(
        connection["airbyte_source_id"], refresh_token="next", token_expiry_date="2026-12-01"
    )

    await observe(mesh, connection)

    assert (await observation(mesh, connection))["configuration_renewed_at"] is not None


async def test_used_up_token_is_refused_for_a_second_connection(mesh: Mesh) -> None:
    """With the reason, and nothing is created; a new token in the store is accepted."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    mesh.airbyte.renew_on_discovery(
        connection["airbyte_source_id"], refresh_token="next", token_expiry_date="2026-12-01"
    )
    await observe(mesh, connection)
    sources = len(mesh.airbyte.sources)

    answer = await mesh.orchestrator.post(
        "/connections/onboard", json={**mesh.order, "connection_name": "Finance"}
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "credential_used_up")
    assert answer.json()["connection_id"] == connection["id"]
    assert "refresh_token" in answer.json()["detail"]
    assert len(mesh.airbyte.sources) == sources
    assert await mesh.sql.fetchval("SELECT count(*) FROM connections") == 1


async def test_possibly_used_up_token_is_accepted_with_a_note(mesh: Mesh) -> None:
    """Airbyte does not report renewals by syncs; the first connection gets no note."""
    first = await mesh.onboard()
    assert "notes" not in first
    mesh.airbyte.renew(first["airbyte_source_id"], refresh_token="the second one")

    second = await mesh.onboard(connection_name="Finance")

    assert [note["code"] for note in second["notes"]] == ["credential_shared"]
    assert first["id"] in second["notes"][0]["message"]


# How often


async def test_recent_discovery_is_reused(mesh: Mesh) -> None:
    """From its stored snapshot; `fresh` asks the source."""
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "New__c")
    before = discovered(mesh, connection)
    first = await discover(mesh, connection)
    mesh.airbyte.add_field("Account", "Newer__c")

    second = await discover(mesh, connection)
    fresh = await discover(mesh, connection, fresh="true")

    assert second == first
    assert "Newer__c" in str(fresh)
    assert "Newer__c" not in str(second)
    assert discovered(mesh, connection) == before + 2
    await mesh.sql.execute("UPDATE discoveries SET started_at = started_at - interval '61 s'")
    await discover(mesh, connection)
    assert discovered(mesh, connection) == before + 3


async def test_running_discovery_is_shared(mesh: Mesh) -> None:
    """Ten callers, one run of the connector."""
    connection = await mesh.onboard()
    before = discovered(mesh, connection)
    mesh.airbyte.fault("commands/run/discover", "slow", seconds=0.5)

    found = await asyncio.gather(*(discover(mesh, connection) for _ in range(10)))

    assert len({str(one) for one in found}) == 1
    assert discovered(mesh, connection) == before + 1


async def test_failed_discovery_is_not_shared(mesh: Mesh) -> None:
    """Callers that wait for it run their own."""
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery(times=1)
    mesh.airbyte.fault("commands/run/discover", "slow", seconds=0.3)

    answers = await asyncio.gather(
        *(mesh.orchestrator.post(f"/connections/{connection['id']}/discover") for _ in range(3))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 200, 422]


async def test_daily_limit_counts_all_discoveries(mesh: Mesh) -> None:
    """Observations, failures and requested discoveries: 429 says when to retry."""
    connection = await mesh.onboard()
    await set_limit(mesh, connection, 4)
    await observe(mesh, connection)
    mesh.airbyte.fail_discovery(times=1)
    await discover(mesh, connection, status=422)
    await discover(mesh, connection)
    await discover(mesh, connection, fresh="true")
    before = discovered(mesh, connection)
    await mesh.sql.execute("UPDATE discoveries SET started_at = started_at - interval '23 hours'")

    refused = await discover(mesh, connection, status=429)

    assert (refused["code"], refused["limit"]) == ("discovery_quota", 4)
    assert 3500 < int(refused["retry_after"]) <= 3600
    assert (await observe(mesh, connection, status=429))["code"] == "discovery_quota"
    assert discovered(mesh, connection) == before
    assert (await observation(mesh, connection))["discoveries_in_24_hours"] == 4
    await mesh.sql.execute("UPDATE discoveries SET started_at = started_at - interval '61 minutes'")
    await discover(mesh, connection)


async def test_observations_leave_part_of_the_limit_to_requests(mesh: Mesh) -> None:
    """And spread their own part over the day."""
    connection = await mesh.onboard()
    await set_limit(mesh, connection, 8)
    await observe(mesh, connection)
    assert await pause_s(mesh) == pytest.approx(86_400 / 6, rel=0.11)
    for _ in range(5):
        await observe(mesh, connection)
    before = discovered(mesh, connection)
    await mesh.sql.execute("UPDATE observations SET next_at = now()")
    await until(lambda: postponed(mesh, connection))

    found = await observation(mesh, connection)
    assert discovered(mesh, connection) == before
    until_next = datetime.fromisoformat(found["next_at"]) - datetime.now(UTC)
    assert until_next > timedelta(hours=20)
    await discover(mesh, connection)


async def test_smallest_limit_of_a_source_applies(mesh: Mesh) -> None:
    """Its connections share the source's quota."""
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO connections (id, name, source_type, status, airbyte_source_id,"
        " airbyte_connection_id, airbyte_destination_id, catalog_version)"
        " SELECT gen_random_uuid(), 'other', source_type, 'ACTIVE', airbyte_source_id,"
        " gen_random_uuid(), airbyte_destination_id, 1 FROM connections"
    )
    await mesh.sql.execute(
        "INSERT INTO policies (connection_id, policy)"
        " SELECT id, jsonb_build_object('discoveries_per_day',"
        " CASE name WHEN 'other' THEN 1 ELSE 100 END) FROM connections"
    )
    await discover(mesh, connection)

    assert (await discover(mesh, connection, fresh="true", status=429))["limit"] == 1


async def test_installation_has_a_default_limit(airbyte: AirbyteServer, meshes: Meshes) -> None:
    """DISCOVERIES_PER_DAY, where no policy says otherwise."""
    async with meshes.start(airbyte, repairs=False, discoveries_per_day="2") as mesh:
        connection = await mesh.onboard()
        for _ in range(2):
            await discover(mesh, connection, fresh="true")
        assert (await discover(mesh, connection, fresh="true", status=429))["limit"] == 2


async def test_discovery_of_a_dead_process_expires(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await mesh.sql.execute(
        "INSERT INTO discoveries (id, airbyte_source_id, purpose, expires_at)"
        " VALUES (gen_random_uuid(), $1, 'discover', now() + interval '0.5 s')",
        connection["airbyte_source_id"],
    )

    await discover(mesh, connection)


async def test_old_discoveries_are_pruned(mesh: Mesh) -> None:
    """A source's newest stays, and its newest renewal."""
    connection = await mesh.onboard()
    source = connection["airbyte_source_id"]
    for number, is_renewed in enumerate((True, True, False, False)):
        await mesh.sql.execute(
            "INSERT INTO discoveries (id, airbyte_source_id, purpose, started_at, expires_at,"
            " is_renewed) VALUES (gen_random_uuid(), $1, 'observe', now() - $2::interval, now(),"
            " $3)",
            source,
            timedelta(hours=60 - number),
            is_renewed,
        )
    await mesh.sql.execute("UPDATE periodic_runs SET next_at = now() WHERE name = 'observe.enrol'")
    await mesh.until_true("SELECT count(*) <= 2 FROM discoveries")
    remaining = await mesh.sql.fetch("SELECT is_renewed FROM discoveries ORDER BY started_at")
    assert [row["is_renewed"] for row in remaining] == [True, False]
