"""Suspicious and failed discoveries: reported once, retried, and without effect."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from services.schema_observer.claim_queries import Claim
from services.schema_observer.observer import Observed, Observer
from shared.discoveries import Begun
from tests.fakes.airbyte_server import DEFAULT_CATALOG, catalog, stream
from tests.integration.conftest import Mesh
from tests.integration.observing import by_hand, counts, fetch, observe, planned

Json = dict[str, Any]

pytestmark = pytest.mark.exact


@pytest.fixture
def repairs() -> bool:
    """Drifts stay unplanned."""
    return False


async def kinds(mesh: Mesh, connection: Json) -> list[tuple[str, str | None]]:
    """The connection's events about its observation, and their codes, oldest first."""
    rows = await mesh.sql.fetch(
        "SELECT type, code FROM events WHERE connection_id = $1 AND type LIKE 'observation.%'"
        " ORDER BY seq",
        connection["id"],
    )
    return [(row["type"].removeprefix("observation."), row["code"]) for row in rows]


async def until_due_s(mesh: Mesh) -> float:
    """Seconds from the newest look to the next."""
    pause: float = await mesh.sql.fetchval(
        "SELECT extract(epoch FROM next_at - observed_at)::float8 FROM observations"
    )
    return pause


async def age(mesh: Mesh, interval: str) -> None:
    """Let the suspicion have begun so long ago."""
    await mesh.sql.execute(
        "UPDATE observations SET suspicious_since = now() - CAST($1::text AS interval)", interval
    )


async def test_hidden_object_is_suspicious_until_it_is_back(mesh: Mesh) -> None:
    """A permission is lost: nothing is applied, each connection has one event, and it recovers."""
    connection = await mesh.onboard()
    other = await by_hand(mesh, connection)
    first = await observe(mesh, connection)
    before = await counts(mesh)
    mesh.airbyte.hide("Account")

    for _ in range(3):
        found = await observe(mesh, connection)
        assert (found["outcome"], found["code"]) == ("suspicious", "synced_stream_missing")
        assert found["detail"] == "1 of 5 streams are gone, and these are synced: 'Account'."
        assert (found["drift_id"], found["changes"]) == (None, [])
        assert found["snapshot_id"] == first["snapshot_id"]
    observation = await fetch(mesh, f"/connections/{connection['id']}/observation")
    assert observation["failures"] == 3
    assert observation["suspicious_since"] is not None
    mesh.airbyte.show("Account")
    found = await observe(mesh, connection)

    assert (found["outcome"], found["code"]) == ("unchanged", None)
    assert await counts(mesh) == before | {"events": before["events"] + 4}
    expected = [("suspicious", "synced_stream_missing"), ("recovered", None)]
    assert await kinds(mesh, connection) == expected
    assert await kinds(mesh, other) == expected
    assert await planned(mesh) == []


@pytest.mark.parametrize(
    "offered, outcome, code",
    [
        (catalog(), "suspicious", "no_streams"),
        (catalog(stream("Account"), stream("Contact")), "suspicious", "streams_missing"),
        (catalog(stream("Account")), "suspicious", "synced_stream_missing"),
        (
            b'{"streams":[{"stream":{"jsonSchema":{}},"config":{}}]}',
            "failed",
            "unreadable_catalog",
        ),
    ],
)
async def test_suspicious_and_unreadable_discoveries(
    mesh: Mesh, offered: Any, outcome: str, code: str
) -> None:
    """No streams, far fewer than before, without one that is synced, or one without a name."""
    connection = await mesh.onboard()
    before = await counts(mesh)
    mesh.airbyte.offers(offered)

    found = await observe(mesh, connection)

    assert (found["outcome"], found["code"]) == (outcome, code)
    assert await counts(mesh) == before | {"events": before["events"] + 1}


async def test_another_reason_is_reported_again(mesh: Mesh) -> None:
    """From one synced stream missing to no streams at all."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    await observe(mesh, connection)
    mesh.airbyte.offers(catalog())
    await observe(mesh, connection)

    assert [code for _, code in await kinds(mesh, connection)] == [
        "synced_stream_missing",
        "no_streams",
    ]


async def test_person_can_confirm_a_suspicious_discovery(mesh: Mesh) -> None:
    """The next observation makes a drift of it, which breaks the connection as configured."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    await observe(mesh, connection)

    found = await observe(mesh, connection, accept_missing=True)

    assert found["outcome"] == "changed"
    (change,) = found["changes"]
    assert (change["kind"], change["severity"]) == ("stream_removed", "breaking")
    assert await planned(mesh) == [connection["id"]]
    assert [kind for kind, _ in await kinds(mesh, connection)] == ["suspicious", "recovered"]
    again = await observe(mesh, connection)
    assert again["outcome"] == "unchanged"


async def test_confirmation_is_for_one_observation(mesh: Mesh) -> None:
    """Later losses are suspicious again; a failed observation does not use it up."""
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery(times=1)
    failed = await observe(mesh, connection, accept_missing=True)
    assert failed["outcome"] == "failed"
    mesh.airbyte.hide("Account")
    assert (await observe(mesh, connection))["outcome"] == "changed"
    mesh.airbyte.hide("Contact")
    assert (await observe(mesh, connection))["outcome"] == "suspicious"


async def test_lasting_loss_is_believed_in_time(mesh: Mesh) -> None:
    """Only after SUSPICION_TIME of the same, and never at the first observation."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    await observe(mesh, connection)
    await age(mesh, "5 hours 59 minutes")
    assert (await observe(mesh, connection))["outcome"] == "suspicious"
    await age(mesh, "6 hours 1 minute")

    found = await observe(mesh, connection)

    assert found["outcome"] == "changed"
    assert found["changes"][0]["kind"] == "stream_removed"


async def test_larger_loss_starts_the_suspicion_time_again(mesh: Mesh) -> None:
    """More is missing than before, for the same reason: it is reported, and believed later."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    await observe(mesh, connection)
    await age(mesh, "6 hours 1 minute")
    mesh.airbyte.hide("Contact")

    found = await observe(mesh, connection)

    assert (found["outcome"], found["code"]) == ("suspicious", "synced_stream_missing")
    assert len(await kinds(mesh, connection)) == 2
    assert (await observe(mesh, connection))["outcome"] == "suspicious"
    await age(mesh, "6 hours 1 minute")
    assert (await observe(mesh, connection))["outcome"] == "changed"


async def test_malformed_keyword_hides_no_other_change(mesh: Mesh) -> None:
    """A stream that no connection syncs has a `format` that is not a text."""
    connection = await mesh.onboard()

    def offered(format_: Any, **more: str) -> Json:
        beside = stream("Beside", {"at": {"type": "string", "format": format_}})
        account = stream("Account", {"Id": "string", "Name": "string", **more})
        return catalog(account, stream("Contact"), stream("Opportunity"), stream("Case"), beside)

    mesh.airbyte.offers(offered("date"))
    await observe(mesh, connection, accept_missing=True)
    mesh.airbyte.offers(offered(["date", {}], New__c="string"))

    found = await observe(mesh, connection)

    assert found["outcome"] == "changed"
    assert {one["kind"] for one in found["changes"]} == {"field_added", "field_retyped"}


async def test_failing_connector_does_not_start_the_suspicion_time(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    mesh.airbyte.fail_discovery("config_error", "password authentication failed for bob", times=1)
    failed = await observe(mesh, connection)
    assert (failed["outcome"], failed["code"]) == ("failed", "discovery_failed")
    assert "bob" not in failed["detail"]
    await age(mesh, "2 days")
    mesh.airbyte.hide("Account")

    assert (await observe(mesh, connection))["outcome"] == "suspicious"
    assert [code for _, code in await kinds(mesh, connection)] == [
        "discovery_failed",
        "synced_stream_missing",
    ]


async def test_unreachable_airbyte_says_nothing_about_the_source(mesh: Mesh) -> None:
    """It is recorded and retried; no connection has an event, and no snapshot is lost."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    before = await counts(mesh)
    mesh.airbyte.fault("commands/run/discover", 500, times=None)

    found = await observe(mesh, connection)

    assert found["outcome"] == "failed"
    assert found["code"].startswith("upstream_")
    mesh.airbyte.heal()
    found = await observe(mesh, connection)
    assert found["outcome"] == "unchanged"
    assert await counts(mesh) == before


@pytest.mark.parametrize("is_first", [True, False])
async def test_duplicate_stream_is_no_drift(mesh: Mesh, is_first: bool) -> None:
    """Whichever comes last, and whatever a person confirms."""
    connection = await mesh.onboard()
    before = await counts(mesh)
    others = [pair["stream"] for pair in DEFAULT_CATALOG["streams"]]
    twin = stream("Account", {"Id": "string", "Extra__c": "string"})
    mesh.airbyte.offers(catalog(twin, *others) if is_first else catalog(*others, twin))

    for accept_missing in (False, True):
        found = await observe(mesh, connection, accept_missing=accept_missing)

        assert (found["outcome"], found["code"]) == ("failed", "duplicate_stream")
        assert "'Account'" in found["detail"]
    assert await counts(mesh) == before | {"events": before["events"] + 1}
    refused = await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")
    assert (refused.status_code, refused.json()["code"]) == (422, "duplicate_stream")
    refused = await mesh.orchestrator.post(
        "/connections/onboard", json={**mesh.order, "connection_name": "Other"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "duplicate_stream")


async def test_one_name_in_two_namespaces_is_two_streams(mesh: Mesh) -> None:
    mesh.airbyte.offers(catalog(stream("items", namespace="shop"), stream("items")))
    connection = await mesh.onboard(streams=None)
    assert (await observe(mesh, connection))["outcome"] == "unchanged"


async def test_stream_without_fields_is_suspicious(mesh: Mesh) -> None:
    """It pauses nothing: a person, or time, confirms it."""
    connection = await mesh.onboard()
    before = await counts(mesh)
    mesh.airbyte.reshape("Account", lambda offered: offered["jsonSchema"].update(properties={}))

    found = await observe(mesh, connection)

    assert (found["outcome"], found["code"]) == ("suspicious", "stream_without_fields")
    assert await counts(mesh) == before | {"events": before["events"] + 1}
    found = await observe(mesh, connection, accept_missing=True)
    assert found["outcome"] == "changed"


async def test_mass_loss_of_fields_is_suspicious(mesh: Mesh) -> None:
    """Also in an imported connection's first observation, which is compared with the catalog."""
    names = [f"Field_{number}__c" for number in range(20)]
    many = stream("Account", dict.fromkeys(["Id", *names], "string"))
    mesh.airbyte.offers(catalog(many))
    connection = await mesh.onboard(streams=["Account"])
    mesh.airbyte.offers(catalog(stream("Account", dict.fromkeys(["Id", *names[:5]], "string"))))

    found = await observe(mesh, connection)

    assert (found["outcome"], found["code"]) == ("suspicious", "fields_missing")
    assert "15 of 22 fields" in found["detail"]
    await mesh.sql.execute("UPDATE observations SET snapshot_id = NULL")
    await mesh.sql.execute("UPDATE sync_catalog_versions SET snapshot_id = NULL")
    await mesh.sql.execute("DELETE FROM snapshots")
    found = await observe(mesh, connection)
    assert (found["outcome"], found["code"]) == ("suspicious", "fields_missing")


async def test_failed_observation_is_retried_less_and_less_often(mesh: Mesh) -> None:
    """After a minute, doubled each time, with jitter, and never less often than its interval."""
    connection = await mesh.onboard()
    mesh.airbyte.hide("Account")
    pauses = []
    for _ in range(6):
        await observe(mesh, connection)
        pauses.append(await until_due_s(mesh))

    for pause, expected in zip(pauses, (60, 120, 240, 480, 900, 900), strict=True):
        assert expected * 0.89 <= pause <= expected * 1.11, pauses
    assert len({round(pause, 3) for pause in pauses[-2:]}) == 2
    mesh.airbyte.show("Account")
    await observe(mesh, connection)
    assert 0.89 * 900 <= await until_due_s(mesh) <= 1.11 * 900


async def test_deleted_source_is_reported(mesh: Mesh) -> None:
    connection = await mesh.onboard()
    await observe(mesh, connection)
    del mesh.airbyte.sources[connection["airbyte_source_id"]]

    found = await observe(mesh, connection)

    assert found["outcome"] == "failed"
    assert len(await kinds(mesh, connection)) == (found["code"] == "upstream_missing")


async def test_imported_connection_is_checked_against_its_own_catalog(mesh: Mesh) -> None:
    """Its source was never observed: what it syncs must be there."""
    connection = await mesh.onboard()
    other = await by_hand(mesh, connection)
    await mesh.sql.execute(
        "UPDATE connections SET archived_at = now() WHERE id = $1", connection["id"]
    )
    await mesh.sql.execute("UPDATE sync_catalog_versions SET snapshot_id = NULL")
    await mesh.sql.execute("DELETE FROM snapshots")
    mesh.airbyte.hide("Contact")

    found = await observe(mesh, other)

    assert (found["outcome"], found["code"]) == ("suspicious", "synced_stream_missing")
    assert found["snapshot_id"] is None
    mesh.airbyte.show("Contact")
    assert (await observe(mesh, other))["outcome"] == "unchanged"


async def test_suspicion_affects_only_its_source(mesh: Mesh) -> None:
    one = await mesh.onboard()
    two = await mesh.onboard(connection_name="Another org")
    mesh.airbyte.hide("Account", source=one["airbyte_source_id"])

    found = await asyncio.gather(observe(mesh, one), observe(mesh, two))

    assert [observation["outcome"] for observation in found] == ["suspicious", "unchanged"]
    assert await kinds(mesh, two) == []


async def test_failed_comparison_blocks_no_other_connection(mesh: Mesh) -> None:
    """Its own catalog is broken: the other one's drift is recorded, and it is retried."""
    broken = await mesh.onboard()
    other = await by_hand(mesh, broken)
    await observe(mesh, broken)
    await mesh.sql.execute(
        "UPDATE sync_catalog_versions SET sync_catalog = jsonb_set(sync_catalog,"
        " '{streams,0,config,syncMode}', '5') WHERE connection_id = $1",
        broken["id"],
    )
    mesh.airbyte.add_field("Account", "New__c")

    found = await observe(mesh, other)

    assert (found["outcome"], len(found["changes"])) == ("changed", 1)
    assert await until_due_s(mesh) < 70
    compared = await mesh.sql.fetchval(
        "SELECT compared_snapshot_id FROM watches WHERE connection_id = $1", broken["id"]
    )
    assert str(compared) != found["snapshot_id"]


async def test_bug_in_one_observation_blocks_no_other_source(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays claimed until its lease expires; those after it are observed."""
    one = await mesh.onboard()
    two = await mesh.onboard(connection_name="Another org")
    await observe(mesh, one)
    await observe(mesh, two)
    discover = Observer.discover

    async def with_a_bug(
        self: Observer, claim: Claim, slot: UUID, begun: Begun | None
    ) -> Observed | None:
        if str(claim.source_id) == one["airbyte_source_id"]:
            raise ZeroDivisionError
        return await discover(self, claim, slot, begun)

    monkeypatch.setattr(Observer, "discover", with_a_bug)
    at = await mesh.sql.fetchval("SELECT now()")
    await mesh.sql.execute(
        "UPDATE observations SET next_at = now() - CASE WHEN airbyte_source_id = $1"
        " THEN interval '2 hours' ELSE interval '1 hour' END",
        one["airbyte_source_id"],
    )
    seen = "SELECT observed_at > $2 FROM observations WHERE airbyte_source_id = $1"
    await mesh.until_true(seen, two["airbyte_source_id"], at)
    assert await mesh.sql.fetchval(
        "SELECT claimed_until > now() FROM observations WHERE airbyte_source_id = $1",
        one["airbyte_source_id"],
    )
