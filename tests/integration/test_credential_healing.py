"""Changed credentials reach their sources, and failures of sources are followed up once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.orchestrator import follow_up, sync_after_heal
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import CREDENTIALS, Mesh, Meshes
from tests.waiting import until

pytestmark = pytest.mark.exact

PREFIX = "CREDENTIAL_SALESFORCE_PROD__"
SECRET = f"{PREFIX}CLIENT_SECRET"
NEW = "AAMCANARY-healing-secret"
UPDATE, CHECK = "sources/update", "sources/check_connection_for_update"
REJECTED = ("config_error", "invalid_grant: expired access/refresh token")
SLOW = "3600"
"""An interval in which the watch runs once, at the start."""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for follow-ups that are due more often than every 30 seconds."""
    monkeypatch.setattr(follow_up, "_AGAIN_EVERY", timedelta(seconds=0.5))
    monkeypatch.setattr(follow_up, "_LEFT_TO_ITS_JOB", timedelta(0))
    monkeypatch.setattr(sync_after_heal, "_EVERY", timedelta(seconds=0.2))


@pytest.fixture
def by_jobs_alone(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave follow-ups to their jobs: the search can repeat one that its job is just ending."""
    monkeypatch.setattr(follow_up, "_LEFT_TO_ITS_JOB", timedelta(minutes=1))


@pytest.fixture
def store() -> dict[str, str]:
    """What the broker's environment holds; tests change it."""
    return dict(CREDENTIALS)


@pytest.fixture
async def mesh(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> AsyncIterator[Mesh]:
    """The services, which compare credentials all the time."""
    async with meshes.start(airbyte, credentials=store, rotation_interval="0.2") as mesh:
        yield mesh


@pytest.fixture
async def unwatched(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> AsyncIterator[Mesh]:
    """The services, whose watch does not run during the test."""
    async with meshes.start(airbyte, credentials=store, rotation_interval=SLOW) as mesh:
        yield mesh


def secret_in_airbyte(mesh: Mesh, connection: dict[str, Any]) -> str:
    """The secret that the connection's source has."""
    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    secret: str = source["connectionConfiguration"]["client_secret"]
    return secret


async def view(mesh: Mesh, connection: dict[str, Any]) -> dict[str, Any]:
    """The connection as it is shown."""
    shown: dict[str, Any] = (await mesh.orchestrator.get(f"/connections/{connection['id']}")).json()
    return shown


async def events(mesh: Mesh, event: str) -> list[Any]:
    """The code of each event of a type that is recorded."""
    rows = await mesh.sql.fetch("SELECT code FROM events WHERE type = $1 ORDER BY id", event)
    return [row["code"] for row in rows]


async def compared(mesh: Mesh, credential_id: str = "salesforce-prod") -> Any:
    """Wait until the sources were compared with a credential; its row."""
    query = "SELECT * FROM credential_versions WHERE credential_id = $1"
    return await until(lambda: mesh.sql.fetchrow(query, credential_id))


async def set_policy(mesh: Mesh, connection: dict[str, Any], reaction: str) -> None:
    path = f"/connections/{connection['id']}/policy"
    answer = await mesh.drift_repair_agent.put(path, json={"credentials": reaction})
    assert (answer.status_code, answer.json()["credentials"]) == (200, reaction), answer.text


async def failed_sync(
    mesh: Mesh, connection: dict[str, Any], failure: tuple[str, str] = REJECTED, *, times: int = 1
) -> dict[str, Any]:
    """Run a sync that fails; its job, once it is followed up or needs no follow-up."""
    mesh.airbyte.jobs_end_with("failed", failure=failure, times=times)
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    assert started.status_code == 202, started.text
    query = """
        SELECT * FROM job_history
        WHERE id = $1::uuid AND ended_at IS NOT NULL AND follow_up IS DISTINCT FROM 'due'
    """
    return dict(await until(lambda: mesh.sql.fetchrow(query, started.json()["job_id"])))


# Watching the stores


async def test_changed_credential_is_given_to_its_sources(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """After one check of each source, and once; the first comparison changes nothing."""
    a, b = [await mesh.onboard(connection_name=name) for name in "AB"]
    before = (await compared(mesh))["version"]
    assert mesh.airbyte.called(CHECK) == []

    store[SECRET] = NEW
    await until(lambda: [secret_in_airbyte(mesh, one) for one in (a, b)] == [NEW, NEW])

    query = "SELECT true FROM credential_versions WHERE version <> $1"
    await mesh.until_true(query, before)
    assert len(mesh.airbyte.called(UPDATE)) == len(mesh.airbyte.called(CHECK)) == 2
    assert len(await events(mesh, "credential.rotated")) == 2
    rows = await mesh.sql.fetch("SELECT v::text FROM credential_versions v")
    assert "AAMCANARY" not in str(rows)


async def test_refused_credential_is_not_given(mesh: Mesh, store: dict[str, str]) -> None:
    """It is shown and announced once; the corrected one is given."""
    connection = await mesh.onboard()
    await compared(mesh)
    old = secret_in_airbyte(mesh, connection)
    mesh.airbyte.accept_only(client_secret=NEW)

    store[SECRET] = "AAMCANARY-mistyped"
    await mesh.until_true("SELECT true FROM credential_versions WHERE compare_again_at > now()")

    shown = await view(mesh, connection)
    assert shown["credential_changed_at"] is not None
    assert shown["credential_rejected_since"] is None
    assert secret_in_airbyte(mesh, connection) == old
    assert mesh.airbyte.called(UPDATE) == []
    assert len(mesh.airbyte.called(CHECK)) == 1
    assert await events(mesh, "credential.changed") == ["check_failed"]

    store[SECRET] = NEW
    await until(lambda: secret_in_airbyte(mesh, connection) == NEW)
    await mesh.until_true("SELECT credential_changed_at IS NULL FROM connections")


async def test_policy_proposes_a_changed_credential(mesh: Mesh, store: dict[str, str]) -> None:
    """It is shown and announced once, and given by a rotation on request."""
    connection = await mesh.onboard()
    await set_policy(mesh, connection, "propose")
    await compared(mesh)

    store[SECRET] = NEW
    await mesh.until_true("SELECT credential_changed_at IS NOT NULL FROM connections")

    assert await events(mesh, "credential.changed") == ["proposed"]
    assert mesh.airbyte.called(CHECK) == mesh.airbyte.called(UPDATE) == []
    answer = await mesh.orchestrator.post("/credentials/salesforce-prod/rotate")
    assert answer.json()["connections"][0]["outcome"] == "updated"
    assert (await view(mesh, connection))["credential_changed_at"] is None
    assert secret_in_airbyte(mesh, connection) == NEW


async def test_policy_ignores_a_changed_credential(mesh: Mesh, store: dict[str, str]) -> None:
    """The source of another connection with it is given the credential; this one is not."""
    ignoring, other = [await mesh.onboard(connection_name=name) for name in "AB"]
    await set_policy(mesh, ignoring, "ignore")
    await compared(mesh)
    old = secret_in_airbyte(mesh, ignoring)

    store[SECRET] = NEW
    await until(lambda: secret_in_airbyte(mesh, other) == NEW)
    await mesh.until_true("SELECT count(*) = 1 FROM operations WHERE status = 'done'"
                          " AND kind = 'rotate'")  # fmt: skip

    assert secret_in_airbyte(mesh, ignoring) == old
    assert (await view(mesh, ignoring))["credential_changed_at"] is None


async def test_bad_credential_does_not_stop_its_neighbours(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """A missing one and an incomplete one change nothing for the others."""
    for name in ("GONE", "LESS"):
        for key, value in CREDENTIALS.items():
            store[key.replace("SALESFORCE_PROD", name)] = value
    for name in ("gone", "less"):
        await mesh.onboard(connection_name=name, credential_id=name)
    connection = await mesh.onboard()
    await compared(mesh)

    for key in [key for key in store if "_GONE__" in key]:
        del store[key]
    del store["CREDENTIAL_LESS__REFRESH_TOKEN"]
    store[SECRET] = NEW

    await until(lambda: secret_in_airbyte(mesh, connection) == NEW)
    await mesh.until_true("SELECT credential_changed_at IS NOT NULL FROM connections"
                          " WHERE name = 'less'")  # fmt: skip
    assert await events(mesh, "credential.changed") == ["credential_incomplete"]


async def test_expiring_credential_is_announced_once(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> None:
    """Once for each expiry; the date is sent to no connector."""
    soon = datetime.now(UTC) + timedelta(days=3)
    later = soon + timedelta(days=90)
    store[f"{PREFIX}EXPIRES_AT"] = soon.isoformat()
    async with meshes.start(airbyte, credentials=store, rotation_interval="0.2") as mesh:
        connection = await mesh.onboard()
        await mesh.until_true("SELECT true FROM events WHERE type = 'credential.expiring'")
        source = mesh.airbyte.sources[connection["airbyte_source_id"]]
        assert "expires_at" not in source["connectionConfiguration"]

        before = (await compared(mesh))["version"]
        store[f"{PREFIX}EXPIRES_AT"] = later.isoformat()
        query = "SELECT true FROM credential_versions WHERE version <> $1"
        await mesh.until_true(query, before)
        assert await events(mesh, "credential.expiring") == [f"{soon:%Y-%m-%dT%H:%M:%SZ}"]
        assert mesh.airbyte.called(CHECK) == []


# Failed syncs


async def test_failed_sync_is_retried_with_the_new_credential(
    unwatched: Mesh, store: dict[str, str]
) -> None:
    """Read again, rotated, and tried once more: one new job, which succeeds."""
    mesh = unwatched
    connection = await mesh.onboard()
    store[SECRET] = NEW

    failed = await failed_sync(mesh, connection)

    assert failed["follow_up"] == "retried"
    assert secret_in_airbyte(mesh, connection) == NEW
    jobs = await until(lambda: ended_jobs(mesh, connection, 2))
    assert [(one["status"], one["follow_up"]) for one in jobs] == [
        ("succeeded", None),
        ("failed", "retried"),
    ]
    assert len(mesh.airbyte.called("connections/sync")) == 2


async def ended_jobs(
    mesh: Mesh, connection: dict[str, Any], count: int
) -> list[dict[str, Any]] | None:
    """The jobs of a connection, newest first, once so many have ended."""
    answer = await mesh.orchestrator.get(f"/connections/{connection['id']}/jobs")
    jobs: list[dict[str, Any]] = answer.json()["items"]
    return jobs if len([one for one in jobs if one["ended_at"]]) == count else None


async def test_retry_that_fails_is_not_retried(unwatched: Mesh, store: dict[str, str]) -> None:
    """The credential did not change again, so that its check decides."""
    mesh = unwatched
    connection = await mesh.onboard()
    store[SECRET] = NEW

    await failed_sync(mesh, connection, times=2)

    jobs = await until(lambda: ended_jobs(mesh, connection, 2))
    await mesh.until_true("SELECT count(*) = 0 FROM job_history WHERE follow_up = 'due'")
    jobs = await until(lambda: ended_jobs(mesh, connection, 2))
    assert [one["follow_up"] for one in jobs] == ["observed", "retried"]
    assert len(mesh.airbyte.called("connections/sync")) == 2


async def test_sync_that_failed_before_a_rotation_is_retried(
    unwatched: Mesh, store: dict[str, str]
) -> None:
    """The credential was given while the sync ran, by another follow-up or a request."""
    mesh = unwatched
    connection = await mesh.onboard()
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    store[SECRET] = NEW
    assert (await mesh.orchestrator.post("/credentials/salesforce-prod/rotate")).is_success

    mesh.airbyte.finish_job(started.json()["airbyte_job_id"], "failed", failure=REJECTED)

    await mesh.until_true("SELECT true FROM job_history WHERE follow_up = 'retried'")
    assert len(mesh.airbyte.called(CHECK)) == 1


async def test_rejected_credential_is_shown_until_it_is_replaced(
    by_jobs_alone: None, unwatched: Mesh, store: dict[str, str]
) -> None:
    """One event for the episode; a rotation ends it and observes the source."""
    mesh = unwatched
    connection = await mesh.onboard()
    mesh.airbyte.accept_only(client_secret=NEW)

    assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"
    first = await view(mesh, connection)
    assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"

    shown = await view(mesh, connection)
    assert shown["credential_rejected_since"] == first["credential_rejected_since"] is not None
    assert shown["credential_rejected_cause"] == "authentication_failed"
    assert await events(mesh, "credential.rejected") == ["authentication_failed"]
    assert mesh.airbyte.called(UPDATE) == []
    store[SECRET] = NEW
    observed = "SELECT observed_at FROM observations"
    before = await mesh.sql.fetchval(observed)
    assert (await mesh.orchestrator.post("/credentials/salesforce-prod/rotate")).is_success
    assert (await view(mesh, connection))["credential_rejected_since"] is None
    await until(lambda: is_other(mesh, observed, before))


async def is_other(mesh: Mesh, query: str, before: Any) -> bool:
    return bool(await mesh.sql.fetchval(query) != before)


async def test_refused_credential_is_checked_once_for_each_failure(
    by_jobs_alone: None, mesh: Mesh, store: dict[str, str]
) -> None:
    """The watch has checked it with every source, so a follow-up checks its own source alone."""
    connections = [await mesh.onboard(connection_name=name) for name in "ABCDE"]
    await compared(mesh)
    mesh.airbyte.accept_only(client_secret=NEW)
    store[SECRET] = "AAMCANARY-mistyped"
    await mesh.until_true("SELECT true FROM credential_versions WHERE compare_again_at > now()")
    assert len(mesh.airbyte.called(CHECK)) == 5

    for connection in connections:
        assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"

    assert len(mesh.airbyte.called(CHECK)) == 10
    store[SECRET] = NEW
    await until(lambda: [secret_in_airbyte(mesh, one) for one in connections] == [NEW] * 5)


async def test_successful_sync_ends_a_rejection(unwatched: Mesh) -> None:
    """The credential was repaired at the source itself."""
    mesh = unwatched
    connection = await mesh.onboard()
    mesh.airbyte.accept_only(client_secret=NEW)
    assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"

    mesh.airbyte.jobs_end_with("succeeded")
    assert (await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")).is_success

    await mesh.until_true("SELECT credential_rejected_since IS NULL FROM connections")


@pytest.mark.parametrize("kind", ["clear", "reset_connection"])
async def test_job_that_clears_data_ends_no_rejection(unwatched: Mesh, kind: str) -> None:
    """It runs no source; the newest sync, and with it the health, is the one before."""
    mesh = unwatched
    connection = await mesh.onboard()
    mesh.airbyte.accept_only(client_secret=NEW)
    assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"
    health = "SELECT health, code, last_job_id, failed_syncs FROM connection_health"
    before = await mesh.sql.fetchrow(health)
    assert before is not None
    assert (before["health"], before["failed_syncs"]) == ("sync_failing", 1)

    job = mesh.airbyte.start_job(connection["airbyte_connection_id"], kind)
    job["createdAt"] += 2  # whole seconds, and yet after the sync
    mesh.airbyte.finish_job(job["id"])
    await until(lambda: ended_jobs(mesh, connection, 2))

    assert (await view(mesh, connection))["credential_rejected_since"] is not None
    assert await mesh.sql.fetchrow(health) == before
    listed = await mesh.orchestrator.get(f"/connections/{connection['id']}/jobs")
    assert [one["kind"] for one in listed.json()["items"]] == [kind, "sync"]


@pytest.mark.parametrize(
    "failure",
    [
        ("transient_error", "503 Service Unavailable"),
        ("transient_error", "invalid_grant"),
        ("system_error", "REQUEST_LIMIT_EXCEEDED: TotalRequests Limit exceeded."),
    ],
)
async def test_passing_failure_has_no_follow_up(
    unwatched: Mesh, store: dict[str, str], failure: tuple[str, str]
) -> None:
    """Neither is the credential read again nor the source observed, which would add to it."""
    mesh = unwatched
    connection = await mesh.onboard()
    store[SECRET] = NEW
    discoveries = len(mesh.airbyte.called("sources/discover_schema"))

    assert (await failed_sync(mesh, connection, failure))["follow_up"] is None

    assert len(mesh.airbyte.called("sources/discover_schema")) == discoveries
    assert mesh.airbyte.called(CHECK) == []
    jobs = "SELECT count(*) FROM pgqueuer WHERE entrypoint IN ('failed_sync', 'observe.source')"
    assert await mesh.sql.fetchval(jobs) == 0


@pytest.mark.parametrize("failure_type", ["system_error", "config_error"])
async def test_changed_source_is_observed_and_healed_after_a_failed_sync(
    unwatched: Mesh, failure_type: str
) -> None:
    """A rejected field is no credential failure: the check succeeds."""
    mesh = unwatched
    connection = await mesh.onboard()
    mesh.airbyte.add_field("Account", "Region__c")

    failed = await failed_sync(mesh, connection, (failure_type, "Field requested by stream"))

    assert failed["follow_up"] == "observed"
    query = "SELECT catalog_version = 2 AND status = 'ACTIVE' FROM connections"
    await mesh.until_true(query)
    assert len(mesh.airbyte.called(CHECK)) == (1 if failure_type == "config_error" else 0)
    assert (await view(mesh, connection))["credential_rejected_since"] is None


async def rejected_while_unavailable(mesh: Mesh) -> dict[str, Any]:
    """Onboard a connection whose sync fails by its credential, which Airbyte cannot check."""
    connection = await mesh.onboard()
    mesh.airbyte.fault(CHECK, 503, times=None)
    mesh.airbyte.jobs_end_with("failed", failure=REJECTED, times=1)
    assert (await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")).is_success
    await until(lambda: mesh.airbyte.called(CHECK))
    return connection


async def test_follow_up_survives_an_unavailable_airbyte(unwatched: Mesh) -> None:
    """It stays due while the credential cannot be checked."""
    mesh = unwatched
    await rejected_while_unavailable(mesh)
    queued = "SELECT count(*) = 0 FROM pgqueuer WHERE entrypoint = 'failed_sync'"
    await mesh.until_true(queued)
    assert await mesh.sql.fetchval("SELECT follow_up FROM job_history") == "due"

    mesh.airbyte.heal()
    await mesh.until_true("SELECT follow_up = 'observed' FROM job_history")


async def test_follow_up_goes_on_after_a_job_that_clears_data(unwatched: Mesh) -> None:
    """Such a job does not replace the sync; if it fails itself, it has no follow-up."""
    mesh = unwatched
    connection = await rejected_while_unavailable(mesh)

    cleared = mesh.airbyte.start_job(connection["airbyte_connection_id"], "clear")
    cleared["createdAt"] += 2  # whole seconds, and yet after the sync
    mesh.airbyte.finish_job(cleared["id"], "failed", failure=REJECTED)
    await until(lambda: ended_jobs(mesh, connection, 2))
    mesh.airbyte.heal()

    await mesh.until_true("SELECT NOT bool_or(follow_up = 'due') FROM job_history")
    rows = await mesh.sql.fetch("SELECT kind, follow_up FROM job_history ORDER BY started_at, kind")
    assert sorted(map(tuple, rows)) == [("clear", None), ("sync", "observed")]


# Failed discoveries


async def observe(mesh: Mesh, connection: dict[str, Any]) -> dict[str, Any]:
    path = f"/connections/{connection['id']}/observe"
    found: dict[str, Any] = (await mesh.schema_observer.post(path)).json()
    return found


async def test_failed_discovery_is_repeated_with_the_new_credential(
    unwatched: Mesh, store: dict[str, str]
) -> None:
    """Rotated, and observed once more."""
    mesh = unwatched
    connection = await mesh.onboard()
    store[SECRET] = NEW
    mesh.airbyte.fail_discovery("config_error", "invalid_grant", times=1)

    assert (await observe(mesh, connection))["outcome"] == "failed"

    await mesh.until_true("SELECT outcome = 'unchanged' FROM observations")
    assert secret_in_airbyte(mesh, connection) == NEW
    assert await events(mesh, "credential.rejected") == []


async def test_rejected_credential_is_discovered_once_an_hour(unwatched: Mesh) -> None:
    """The next observation is postponed, not made; a person may still request one."""
    mesh = unwatched
    connection = await mesh.onboard()
    mesh.airbyte.accept_only(client_secret=NEW)
    mesh.airbyte.fail_discovery("config_error", "invalid_grant")
    assert (await observe(mesh, connection))["outcome"] == "failed"
    await mesh.until_true("SELECT credential_rejected_since IS NOT NULL FROM connections")
    begun = "SELECT count(*) FROM discoveries WHERE purpose = 'observe'"
    before = await mesh.sql.fetchval(begun)

    await mesh.sql.execute("UPDATE observations SET next_at = now()")
    await mesh.until_true(
        "SELECT next_at > now() + interval '50 minutes' AND postponed_since IS NOT NULL"
        " FROM observations"
    )

    assert await mesh.sql.fetchval(begun) == before
    assert (await observe(mesh, connection))["outcome"] == "failed"
    assert await events(mesh, "credential.rejected") == ["authentication_failed"]


async def test_successful_discovery_ends_a_rejection(mesh: Mesh) -> None:
    """The watch finds it."""
    connection = await mesh.onboard()
    mesh.airbyte.accept_only(client_secret=NEW)
    assert (await failed_sync(mesh, connection))["follow_up"] == "rejected"

    assert (await observe(mesh, connection))["outcome"] == "unchanged"

    await mesh.until_true("SELECT credential_rejected_since IS NULL FROM connections")


# Syncs after a heal


async def jobs_after_a_heal(mesh: Mesh, *, version: int, jobs: int) -> list[dict[str, Any]]:
    """Wait for the heal and the end of all syncs; they, oldest first."""
    healed = "SELECT catalog_version = $1 AND status = 'ACTIVE' FROM connections"
    await mesh.until_true(healed, version)
    ended = """
        SELECT count(*) = $1 AND bool_and(ended_at IS NOT NULL)
            AND bool_and(follow_up IS NULL OR follow_up NOT IN ('due', 'awaits_heal'))
        FROM job_history
    """
    await mesh.until_true(ended, jobs)
    rows = await mesh.sql.fetch("SELECT * FROM job_history ORDER BY started_at")
    return [dict(row) for row in rows]


@pytest.mark.parametrize("failures", [1, 2])
async def test_healed_sync_runs_again_once_by_policy(unwatched: Mesh, failures: int) -> None:
    """If it fails again, that is the end of it, but the next failed sync is run again, too."""
    mesh = unwatched
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}/policy"
    answer = await mesh.drift_repair_agent.put(path, json={"sync_after_heal": "once"})
    assert (answer.status_code, answer.json()["sync_after_heal"]) == (200, "once"), answer.text
    failure = ("system_error", "A field is gone")
    mesh.airbyte.add_field("Account", "Region__c")

    await failed_sync(mesh, connection, failure, times=failures)

    jobs = await jobs_after_a_heal(mesh, version=2, jobs=2)
    assert [(job["catalog_version"], job["started_by"]) for job in jobs] == [(1, "aam"), (2, "aam")]
    second = ("succeeded", None) if failures == 1 else ("failed", "observed")
    shown = [("failed", "synced"), second]
    assert [(job["status"], job["follow_up"]) for job in jobs] == shown
    if failures == 1:
        # As after a crash between the start of the sync and its record.
        await mesh.sql.execute("UPDATE job_history SET follow_up = 'awaits_heal' WHERE id = $1",
                               jobs[0]["id"])  # fmt: skip
        jobs = await jobs_after_a_heal(mesh, version=2, jobs=2)
        assert [(job["status"], job["follow_up"]) for job in jobs] == shown
        return
    mesh.airbyte.add_field("Account", "Segment__c")
    await failed_sync(mesh, connection, failure)
    jobs = await jobs_after_a_heal(mesh, version=3, jobs=4)
    shown += [("failed", "synced"), ("succeeded", None)]
    assert [(job["status"], job["follow_up"]) for job in jobs] == shown
