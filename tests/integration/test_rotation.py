"""A credential that changed in its store is checked, then given to the sources that use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.fakes.airbyte_server import AirbyteServer, Fault
from tests.integration.conftest import (
    CREDENTIALS,
    ORDER,
    Mesh,
    Meshes,
)
from tests.integration.refusing import deadline_passes, refuse_read_back
from tests.waiting import until

CANARY = "AAMCANARY"
PATH = "/credentials/salesforce-prod/rotate"
SECRET, TOKEN = (
    f"CREDENTIAL_SALESFORCE_PROD__{name}" for name in ("CLIENT_SECRET", "REFRESH_TOKEN")
)
DATE = "CREDENTIAL_SALESFORCE_PROD__START_DATE"
UPDATE, CHECK = "sources/update", "sources/check_connection_for_update"
NO_OPERATION = "SELECT count(*) = 0 FROM operations WHERE status IN ('running', 'undoing')"

pytestmark = pytest.mark.exact


@pytest.fixture
def store() -> dict[str, str]:
    """What the broker's environment holds; whoever keeps it changes it."""
    return dict(CREDENTIALS)


@pytest.fixture
async def mesh(
    store: dict[str, str], airbyte: AirbyteServer, meshes: Meshes
) -> AsyncIterator[Mesh]:
    """The services, with credentials that can be changed."""
    changes = {"airbyte_timeout": "4"}
    async with meshes.start(airbyte, repairs=False, credentials=store, **changes) as mesh:
        yield mesh


async def rotate(mesh: Mesh, *, status: int = 200, wait: float = 20) -> list[dict[str, Any]]:
    """What became of each connection, in the order of their names; no secret is in the answer."""
    answer = await mesh.orchestrator.post(PATH, params={"wait": wait})
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text
    connections: list[dict[str, Any]] = answer.json()["connections"]
    return sorted(connections, key=lambda one: str(one["name"]))


def outcomes(connections: list[dict[str, Any]]) -> list[str]:
    """In the order of their names."""
    return [one["outcome"] for one in connections]


def configuration_in_airbyte(mesh: Mesh, connection: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the connection's source in Airbyte."""
    source = mesh.airbyte.sources[connection["airbyte_source_id"]]
    configuration: dict[str, Any] = source["connectionConfiguration"]
    return configuration


async def two(mesh: Mesh) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two connections that use the credential, each with a source of its own."""
    return await mesh.onboard(connection_name="A"), await mesh.onboard(connection_name="B")


async def test_changed_credential_is_sent_to_every_source(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The same sources, each by one update after one check; a repetition changes nothing."""
    connections = await two(mesh)
    sources = set(mesh.airbyte.sources)
    before = {**configuration_in_airbyte(mesh, connections[0])}
    assert outcomes(await rotate(mesh)) == ["unchanged", "unchanged"]
    assert mesh.airbyte.called(CHECK) == []

    store[SECRET] = "AAMCANARY-new-secret"
    results = await rotate(mesh)

    assert outcomes(results) == ["updated", "updated"]
    assert set(mesh.airbyte.sources) == sources
    for connection in connections:
        assert configuration_in_airbyte(mesh, connection) == before | {
            "client_secret": "AAMCANARY-new-secret"
        }
    assert len(mesh.airbyte.called(UPDATE)) == len(mesh.airbyte.called(CHECK)) == 2
    # What did not change was not sent at all: Airbyte keeps its own.
    for sent in mesh.airbyte.called(UPDATE):
        assert sent["connectionConfiguration"]["refresh_token"] == "**********"
    assert outcomes(await rotate(mesh)) == ["unchanged", "unchanged"]
    assert len(mesh.airbyte.called(UPDATE)) == 2


async def test_each_connection_has_an_operation_and_an_event(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The operation names the requester; neither events nor the registry have a secret."""
    connection = await mesh.onboard()
    store[TOKEN] = "AAMCANARY-new-token"

    (result,) = await rotate(mesh)

    path = f"/operations/{result['operation_id']}"
    operation = (await mesh.orchestrator.get(path)).json()
    assert (operation["kind"], operation["status"]) == ("rotate", "done")
    assert operation["connection_id"] == result["connection_id"] == connection["id"]
    assert operation["requested_by"].startswith("tests")
    event = (await mesh.events(2))[1]
    assert (event["type"], event["ref"]) == ("credential.rotated", result["operation_id"])
    rows = await mesh.sql.fetch("SELECT o::text FROM operations o UNION ALL"
                                " SELECT c::text FROM connections c")  # fmt: skip
    assert len(rows) == 3
    assert not [row for row in rows if CANARY in row[0]]


async def test_failed_check_changes_nothing(mesh: Mesh, store: dict[str, str]) -> None:
    """422 with each connection's outcome; with the store corrected, all are updated."""
    a, b = await two(mesh)
    before = [{**configuration_in_airbyte(mesh, one)} for one in (a, b)]
    store[TOKEN] = "AAMCANARY-mistyped"
    mesh.airbyte.fail_check("invalid_grant: AAMCANARY-said", source=b["airbyte_source_id"])

    refused = await mesh.orchestrator.post(PATH)

    assert (refused.status_code, refused.json()["code"]) == (422, "check_failed")
    assert refused.json()["credential_id"] == "salesforce-prod"
    assert "AAMCANARY" not in refused.text
    assert outcomes(await rotate(mesh, status=422)) == ["skipped", "check_failed"]
    assert [configuration_in_airbyte(mesh, one) for one in (a, b)] == before
    assert mesh.airbyte.called(UPDATE) == []
    assert await mesh.sql.fetchval("SELECT count(*) FROM operations WHERE kind = 'rotate'") == 0

    mesh.airbyte.heal()
    assert outcomes(await rotate(mesh)) == ["updated", "updated"]


async def test_invalid_configuration_is_a_failed_check(mesh: Mesh, store: dict[str, str]) -> None:
    """Airbyte's own 422 on the check; its message is not repeated."""
    await mesh.onboard()
    store[TOKEN] = "AAMCANARY-new"
    refusal = {"message": "AAMCANARY is not a string", "errorId": str(uuid4())}
    mesh.airbyte.answer(CHECK, refusal, status=422, times=None)

    (result,) = await rotate(mesh, status=422)

    assert (result["outcome"], result["code"]) == ("check_failed", "upstream_rejected")


async def test_renewed_token_is_never_overwritten(mesh: Mesh, store: dict[str, str]) -> None:
    """The store has the older one: only other changed members are sent."""
    connection = await mesh.onboard()
    mesh.airbyte.renew(connection["airbyte_source_id"], refresh_token="renewed")
    assert outcomes(await rotate(mesh)) == ["unchanged"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"

    store[SECRET] = "new secret"
    mesh.airbyte.accept_only(client_secret="new secret", refresh_token="renewed")
    assert outcomes(await rotate(mesh)) == ["updated"]
    found = configuration_in_airbyte(mesh, connection)
    assert (found["client_secret"], found["refresh_token"]) == ("new secret", "renewed")

    # One that the store was given since is newer than what the connector has.
    store[TOKEN] = "granted anew"
    mesh.airbyte.accept_only(refresh_token="granted anew")
    assert outcomes(await rotate(mesh)) == ["updated"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "granted anew"


async def test_token_renewed_by_the_check_stays(mesh: Mesh, store: dict[str, str]) -> None:
    """The check has used up the store's token; Airbyte has stored the new one."""
    connection = await mesh.onboard()
    store[SECRET], store[TOKEN] = "new secret", "used once"
    mesh.airbyte.accept_only(client_secret="new secret", refresh_token="used once")
    mesh.airbyte.renew_on_check(refresh_token="renewed")

    assert outcomes(await rotate(mesh)) == ["updated"]
    found = configuration_in_airbyte(mesh, connection)
    assert (found["client_secret"], found["refresh_token"]) == ("new secret", "renewed")
    assert outcomes(await rotate(mesh)) == ["unchanged"]


async def test_renewal_by_a_check_is_kept_though_another_check_fails(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """It cannot be reverted, so it is reported and recorded."""
    a, b = await two(mesh)
    store[TOKEN] = "used once"
    mesh.airbyte.renew_on_check(refresh_token="renewed")
    mesh.airbyte.fail_check(source=b["airbyte_source_id"])

    results = await rotate(mesh, status=422)

    assert outcomes(results) == ["updated", "check_failed"]
    assert configuration_in_airbyte(mesh, a)["refresh_token"] == "renewed"
    assert configuration_in_airbyte(mesh, b)["refresh_token"] == CREDENTIALS[TOKEN]


async def test_renewal_is_recorded_before_the_other_checks_end(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """They may take minutes, in which the process can crash."""
    await two(mesh)
    store[TOKEN] = "used once"
    mesh.airbyte.renew_on_check(refresh_token="renewed")
    mesh.airbyte.fault(CHECK, "hang", skip=1)
    rotating = asyncio.create_task(rotate(mesh, status=503))

    await mesh.until_true("SELECT count(*) = 1 FROM operations"
                          " WHERE kind = 'rotate' AND status = 'done'")  # fmt: skip
    assert not rotating.done()

    mesh.airbyte.heal()
    results = await rotating
    assert sorted(outcomes(results)) == ["unchecked", "updated"]


async def test_busy_connection_is_not_checked(mesh: Mesh, store: dict[str, str]) -> None:
    """The check would use up the store's token for a rotation that cannot begin."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}"
    store[TOKEN] = "used once"
    mesh.airbyte.accept_only(refresh_token="used once")
    mesh.airbyte.renew_on_check(refresh_token="renewed")
    mesh.airbyte.fault("connections/update", "hang", after_effect=True)
    await mesh.orchestrator.patch(path, params={"wait": 0}, json={"prefix": "x_"})

    (result,) = await rotate(mesh, status=409)

    assert (result["outcome"], result["code"]) == ("busy", "editing")
    assert mesh.airbyte.called(CHECK) == []
    mesh.airbyte.heal()
    await mesh.until_true(NO_OPERATION)
    assert outcomes(await rotate(mesh)) == ["updated"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"
    assert outcomes(await rotate(mesh)) == ["unchanged"]


async def test_renewal_is_recorded_though_another_operation_began(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """It began during the check; the rotation has an operation of its own, which has ended."""
    connection = await mesh.onboard()
    path = f"/connections/{connection['id']}"
    store[TOKEN] = "used once"
    mesh.airbyte.accept_only(refresh_token="used once")
    mesh.airbyte.renew_on_check(refresh_token="renewed")
    mesh.airbyte.fault(CHECK, "slow", seconds=1.0)
    rotating = asyncio.create_task(rotate(mesh))
    await until(lambda: mesh.airbyte.called(CHECK))
    mesh.airbyte.fault("connections/update", "hang", after_effect=True)
    editing = await mesh.orchestrator.patch(path, params={"wait": 0}, json={"prefix": "x_"})
    assert editing.status_code == 202, editing.text

    (result,) = await rotating

    assert result["outcome"] == "updated"
    kept = (await mesh.orchestrator.get(f"/operations/{result['operation_id']}")).json()
    assert (kept["kind"], kept["status"]) == ("rotate", "done")
    assert kept["requested_by"].startswith("tests")
    assert not await mesh.sql.fetchval(NO_OPERATION)
    assert mesh.airbyte.called(UPDATE) == []
    mesh.airbyte.heal()
    await mesh.until_true(NO_OPERATION)
    assert outcomes(await rotate(mesh)) == ["unchanged"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"
    rotated = [one for one in await mesh.events(3) if one["type"] == "credential.rotated"]
    assert [one["ref"] for one in rotated] == [result["operation_id"]]


async def test_renewal_is_recorded_though_another_source_has_no_valid_configuration(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The rotation is refused as a whole, but not what has happened already."""
    a, b = await two(mesh)
    ordered = "UPDATE connections SET source_configuration = $1 WHERE id = $2::uuid"
    await mesh.sql.execute(ordered, '{"is_sandbox": "perhaps"}', b["id"])
    store[TOKEN] = "used once"
    mesh.airbyte.renew_on_check(refresh_token="renewed")

    refused = await mesh.orchestrator.post(PATH)

    assert refused.status_code == 422, refused.text
    await mesh.sql.execute(ordered, "{}", b["id"])
    mesh.airbyte.fail_check(source=b["airbyte_source_id"])
    assert outcomes(await rotate(mesh, status=422)) == ["unchanged", "check_failed"]
    assert configuration_in_airbyte(mesh, a)["refresh_token"] == "renewed"


async def test_update_that_arrived_counts_though_its_operation_fails(
    mesh: Mesh, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airbyte's answer was lost, and it could not show the source until the deadline."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(UPDATE, "reset", after_effect=True)
    rotating = asyncio.create_task(rotate(mesh, status=504))
    await until(lambda: mesh.airbyte.called(UPDATE))
    mesh.airbyte.fault("sources/get", 500, times=None)
    await deadline_passes(mesh, "rotate", monkeypatch)
    mesh.airbyte.heal()

    assert outcomes(await rotating) == ["unknown"]

    mesh.airbyte.renew(connection["airbyte_source_id"], refresh_token="renewed")
    assert outcomes(await rotate(mesh)) == ["unchanged"]
    assert len(mesh.airbyte.called(UPDATE)) == 1
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"


async def test_without_digests_the_whole_credential_is_checked(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """A source from before, whose token was renewed: the old one fails the check."""
    connection = await mesh.onboard()
    await mesh.sql.execute("UPDATE connections SET credential_digests = NULL")
    mesh.airbyte.renew(connection["airbyte_source_id"], refresh_token="renewed")
    mesh.airbyte.accept_only(refresh_token="renewed")

    assert outcomes(await rotate(mesh, status=422)) == ["check_failed"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"

    mesh.airbyte.accept_only(refresh_token=CREDENTIALS[TOKEN])
    assert outcomes(await rotate(mesh)) == ["updated"]
    assert outcomes(await rotate(mesh)) == ["unchanged"]


async def test_members_set_in_airbyte_stay(mesh: Mesh, store: dict[str, str]) -> None:
    """The store never had them; members removed from the store are removed."""
    store[DATE] = "2024-01-01"
    connection = await mesh.onboard()
    mesh.airbyte.renew(connection["airbyte_source_id"], streams_criteria=["by hand"])
    del store[DATE]
    store[SECRET] = "new secret"

    assert outcomes(await rotate(mesh)) == ["updated"]

    found = configuration_in_airbyte(mesh, connection)
    assert found["streams_criteria"] == ["by hand"]
    assert "start_date" not in found


async def test_shared_source_is_updated_once(mesh: Mesh, store: dict[str, str]) -> None:
    """Each of its connections has an event, also an imported one."""
    connection = await mesh.onboard(connection_name="A")
    wired = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    by_hand = str(uuid4())
    mesh.airbyte.connections[by_hand] = {**wired, "connectionId": by_hand, "name": "B"}
    order = {"airbyte_connection_id": by_hand}
    imported = await mesh.orchestrator.post("/connections/import", json=order)
    assert imported.status_code == 200, imported.text
    store[SECRET] = "new secret"

    results = await rotate(mesh)

    assert [(one["name"], one["outcome"]) for one in results] == [
        ("A", "updated"),
        ("B", "updated"),
    ]
    assert len(mesh.airbyte.called(UPDATE)) == 1
    rotated = [event["connection_id"] for event in await mesh.events(4)
               if event["type"] == "credential.rotated"]  # fmt: skip
    assert sorted(rotated) == sorted(one["connection_id"] for one in results)


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("after_effect", [True, False])
@pytest.mark.parametrize("kind", ["reset", "hang", 500])
async def test_lost_update_is_resolved(
    mesh: Mesh, store: dict[str, str], kind: Fault, after_effect: bool
) -> None:
    """The name in Airbyte shows whether it arrived; only then it is sent again."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(UPDATE, kind, after_effect=after_effect)

    assert outcomes(await rotate(mesh)) == ["updated"]

    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "new token"
    assert len(mesh.airbyte.called(UPDATE)) == (1 if after_effect else 2)


async def test_update_whose_read_back_is_refused_is_recorded(
    mesh: Mesh, store: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source has the new credential, and so it is not sent again."""
    await mesh.onboard()
    store[TOKEN] = "new token"
    refuse_read_back(monkeypatch, mesh, "update_source", path="sources/get")

    assert outcomes(await rotate(mesh)) == ["updated"]
    assert outcomes(await rotate(mesh)) == ["unchanged"]
    assert len(mesh.airbyte.called(UPDATE)) == 1


async def test_update_that_arrived_and_was_renewed_is_not_repeated(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The outcome was unknown while a sync renewed the token."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(UPDATE, "reset", after_effect=True)

    assert outcomes(await rotate(mesh, status=202, wait=0)) == ["running"]
    await until(lambda: configuration_in_airbyte(mesh, connection)["refresh_token"] == "new token")
    mesh.airbyte.renew(connection["airbyte_source_id"], refresh_token="renewed")

    async with asyncio.timeout(10):
        while outcomes(await rotate_or_busy(mesh)) != ["unchanged"]:  # noqa: ASYNC110 (as above)
            await asyncio.sleep(0.1)
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"


async def rotate_or_busy(mesh: Mesh) -> list[dict[str, Any]]:
    """Return the results of a rotation while another may be running."""
    results: list[dict[str, Any]] = (await mesh.orchestrator.post(PATH)).json()["connections"]
    return results


async def test_acknowledged_update_without_effect_is_502(mesh: Mesh, store: dict[str, str]) -> None:
    """Nothing is recorded, and a repetition sends it."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(UPDATE, "lie")

    (result,) = await rotate(mesh, status=502)
    assert (result["outcome"], result["code"]) == ("failed", "upstream_mismatch")
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == CREDENTIALS[TOKEN]

    assert outcomes(await rotate(mesh)) == ["updated"]


async def test_refused_source_does_not_block_the_others(mesh: Mesh, store: dict[str, str]) -> None:
    """A source deleted in Airbyte is reported; the others are updated."""
    a, b = await two(mesh)
    del mesh.airbyte.sources[a["airbyte_source_id"]]
    store[TOKEN] = "new token"

    results = await rotate(mesh, status=502)

    assert [(one["outcome"], one.get("code")) for one in results] == [
        ("failed", "upstream_missing"),
        ("updated", None),
    ]
    assert configuration_in_airbyte(mesh, b)["refresh_token"] == "new token"


@pytest.mark.parametrize("path", ["sources/get", CHECK])
async def test_unreachable_airbyte_changes_nothing(
    mesh: Mesh, store: dict[str, str], path: str
) -> None:
    """503, since nothing was recorded."""
    await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(path, "reset", times=None)

    assert outcomes(await rotate(mesh, status=503)) == ["unchecked"]

    assert mesh.airbyte.called(UPDATE) == []
    mesh.airbyte.heal()
    assert outcomes(await rotate(mesh)) == ["updated"]


async def test_credential_changed_after_the_check_is_not_sent(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The rotation is refused, and a repetition checks the newest."""
    connection = await mesh.onboard()
    store[TOKEN] = "checked"
    mesh.airbyte.fault(CHECK, "slow", seconds=0.5)
    rotating = asyncio.create_task(rotate(mesh, status=502))
    await until(lambda: mesh.airbyte.called(CHECK))
    store[TOKEN] = "never checked"

    (result,) = await rotating

    assert (result["outcome"], result["code"]) == ("failed", "credential_changed")
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == CREDENTIALS[TOKEN]
    assert outcomes(await rotate(mesh)) == ["updated"]
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "never checked"


async def test_concurrent_rotations_send_it_once(mesh: Mesh, store: dict[str, str]) -> None:
    """The others find it done, or the connection busy."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"

    answers = await asyncio.gather(*(mesh.orchestrator.post(PATH) for _ in range(6)))

    results = [answer.json()["connections"][0] for answer in answers]
    assert {one["outcome"] for one in results} <= {"updated", "busy", "unchanged"}
    assert {one.get("code") for one in results if one["outcome"] == "busy"} <= {"rotating"}
    assert mesh.airbyte.most_at_once(UPDATE) == 1
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "new token"
    assert outcomes(await rotate(mesh)) == ["unchanged"]


async def test_credential_sent_by_another_rotation_is_not_repeated(
    mesh: Mesh, store: dict[str, str]
) -> None:
    """The check took longer than another whole rotation, and a renewal after it."""
    connection = await mesh.onboard()
    store[TOKEN] = "new token"
    mesh.airbyte.fault(CHECK, "slow", seconds=1.0)
    slow = asyncio.create_task(rotate(mesh, status=409))
    await until(lambda: mesh.airbyte.called(CHECK))

    assert outcomes(await rotate(mesh)) == ["updated"]
    mesh.airbyte.renew(connection["airbyte_source_id"], refresh_token="renewed")

    (result,) = await slow
    assert (result["outcome"], result["code"]) == ("busy", "rotating")
    assert configuration_in_airbyte(mesh, connection)["refresh_token"] == "renewed"
    assert outcomes(await rotate(mesh)) == ["unchanged"]


async def test_connection_being_onboarded_is_409(mesh: Mesh, store: dict[str, str]) -> None:
    """It may have received the previous credential."""
    await mesh.onboard(connection_name="A")
    mesh.airbyte.fault("commands/run/discover", "hang")
    order = {**ORDER, "connection_name": "B", "prefix": "b_"}
    await mesh.orchestrator.post("/connections/onboard", params={"wait": 0}, json=order)
    store[TOKEN] = "new token"

    results = await rotate(mesh, status=409)

    assert [(one["name"], one["outcome"]) for one in results] == [("A", "updated"), ("B", "busy")]
    mesh.airbyte.heal()


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("/credentials/nobody-s/rotate", 404, "credential_unused"),
        ("/credentials/env:salesforce-prod/rotate", 404, "credential_unused"),
        ("/credentials/salesforce_prod/rotate", 422, "invalid_request"),
        ("/credentials/..%2f..%2fx/rotate", 404, "no_such_route"),
    ],
)
async def test_invalid_reference_is_refused(mesh: Mesh, path: str, status: int, code: str) -> None:
    answer = await mesh.orchestrator.post(path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_missing_credential_changes_nothing(mesh: Mesh, store: dict[str, str]) -> None:
    """The store's refusal is passed on, with the variable's name."""
    await mesh.onboard()
    del store[TOKEN]
    answer = await mesh.orchestrator.post(PATH)
    assert (answer.status_code, answer.json()["code"]) == (422, "credential_incomplete")
    store.clear()
    answer = await mesh.orchestrator.post(PATH)
    assert (answer.status_code, answer.json()["code"]) == (422, "credential_not_found")
    assert mesh.airbyte.called(UPDATE) == []


async def test_rotation_needs_the_digest_key(airbyte: AirbyteServer, meshes: Meshes) -> None:
    """Otherwise a renewed token could not be distinguished from a new one in the store."""
    async with meshes.start(airbyte, rotation_digest_key=None) as mesh:
        await mesh.onboard()
        answer = await mesh.orchestrator.post(PATH)
    assert (answer.status_code, answer.json()["code"]) == (409, "no_digest_key")
    assert await mesh.sql.fetchval("SELECT credential_digests FROM connections") is None
