"""The cause of a connector's failure in every answer that reports it, without its message."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from shared.auth.scopes import Scope
from tests import access, leaks
from tests.integration.conftest import Mesh

Json = dict[str, Any]

pytestmark = pytest.mark.exact

MESSAGE = (
    f"401 invalid_grant: {leaks.canary('a refresh token in a message')} is revoked for"
    " bob@example.com"
)
CAUSE = "authentication_failed"


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


async def reads(mesh: Mesh, client: httpx.AsyncClient, path: str, *, method: str = "GET") -> Any:
    """What a service answers a caller with connections:read alone."""
    key = await access.insert(mesh.sql, Scope.CONNECTIONS_READ)
    answer = await client.request(method, path, headers={"Authorization": f"Bearer {key.key}"})
    assert_safe(answer)
    return answer.json()


def assert_safe(answer: httpx.Response) -> None:
    """Nothing of the connector's message is in an answer, but a word of the lists."""
    assert "bob" not in answer.text
    assert "AAMCANARY" not in answer.text
    assert "revoked for" not in answer.text


def explained(found: Json) -> None:
    """A writer gets the cause, an explanation, and where the log is."""
    assert found["cause"] == CAUSE
    assert "credential" in found["explanation"]
    assert found["explanation"].endswith(". The message contains: invalid_grant, 401.")
    assert found["log"].startswith("Airbyte run ")


def only_named(found: Json) -> None:
    """A reader gets the cause alone."""
    assert found["cause"] == CAUSE
    assert not found.get("explanation")
    assert not found.get("log")


async def test_onboarding_failure_has_a_cause(mesh: Mesh) -> None:
    """In its 422, and in its operation."""
    mesh.airbyte.fail_discovery("config_error", MESSAGE)

    answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)

    assert (answer.status_code, answer.json()["code"]) == (422, "discovery_failed")
    assert_safe(answer)
    explained(answer.json())
    assert answer.json()["failure_type"] == "config_error"
    operation = f"/operations/{answer.json()['operation_id']}"
    explained((await mesh.orchestrator.get(operation)).json()["problem"])
    only_named((await reads(mesh, mesh.orchestrator, operation))["problem"])


@pytest.mark.parametrize("version", ["1.6.2", "2.0.0"])
async def test_discovery_failure_has_a_cause(mesh: Mesh, version: str) -> None:
    """In either of Airbyte's APIs."""
    mesh.airbyte.version = version
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery("config_error", MESSAGE)
    path = f"/connections/{connection['id']}/discover"

    answer = await mesh.orchestrator.post(path)

    assert answer.status_code == 422
    assert_safe(answer)
    explained(answer.json())
    only_named(await reads(mesh, mesh.orchestrator, path, method="POST"))


async def test_observation_failure_has_a_cause(mesh: Mesh) -> None:
    """In the answer, and for as long as it is the newest."""
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery("config_error", MESSAGE, times=1)
    path = f"/connections/{connection['id']}/observation"

    answer = await mesh.schema_observer.post(f"/connections/{connection['id']}/observe")

    assert_safe(answer)
    explained(answer.json())
    explained((await mesh.schema_observer.get(path)).json())
    only_named(await reads(mesh, mesh.schema_observer, path))
    await mesh.schema_observer.post(f"/connections/{connection['id']}/observe")
    assert (await mesh.schema_observer.get(path)).json()["cause"] is None


async def test_sync_failure_has_a_cause(mesh: Mesh) -> None:
    """In the history of jobs, whose `airbyte_job_id` says where the log is."""
    connection = await mesh.onboard()
    started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
    mesh.airbyte.finish_job(
        started.json()["airbyte_job_id"], "failed", failure=("config_error", MESSAGE)
    )

    (job,) = await mesh.jobs_until_end(connection["id"])

    assert (job["failure_code"], job["failure_cause"]) == ("config_error", CAUSE)
    assert "credential" in job["failure_explanation"]
    (seen,) = (await reads(mesh, mesh.orchestrator, f"/connections/{connection['id']}/jobs"))[
        "items"
    ]
    assert (seen["failure_cause"], seen["failure_explanation"]) == (CAUSE, None)


async def test_unknown_failure_type_is_kept(mesh: Mesh) -> None:
    """A message in its place is not."""
    connection = await mesh.onboard()
    codes = []
    for failure_type in ("quantum_error", f"told {MESSAGE}"):
        started = await mesh.orchestrator.post(f"/connections/{connection['id']}/sync")
        mesh.airbyte.finish_job(
            started.json()["airbyte_job_id"], "failed", failure=(failure_type, "500")
        )
        codes.append((await mesh.jobs_until_end(connection["id"]))[0]["failure_code"])
    assert codes == ["quantum_error", "failed"]


async def test_rotation_failure_has_a_cause_per_connection(mesh: Mesh) -> None:
    await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET credential_digests = NULL")
    mesh.airbyte.fail_check(MESSAGE)

    answer = await mesh.orchestrator.post("/credentials/salesforce-prod/rotate")

    assert (answer.status_code, answer.json()["code"]) == (422, "check_failed")
    assert_safe(answer)
    (connection,) = answer.json()["connections"]
    explained(connection)
