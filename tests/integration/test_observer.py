"""Looking at sources: what is recorded when one offers something else, and when it does not."""

from __future__ import annotations

from typing import Any

from tests.fakes.airbyte_server import DEFAULT_CATALOG, catalog, stream
from tests.integration.conftest import Mesh

Json = dict[str, Any]


def offered(**streams: Json | None) -> Json:
    """The default catalog with streams replaced, added, or taken away."""
    kept = {pair["stream"]["name"]: pair["stream"] for pair in DEFAULT_CATALOG["streams"]}
    return catalog(*(one for one in (kept | streams).values() if one is not None))


def account(*more: str, **typed: str | Json) -> Json:
    """The Account stream with more fields, or other types."""
    fields = {"Id": "string", "Name": "string", "AnnualRevenue": "number"}
    return stream("Account", {**fields, **dict.fromkeys(more, "string"), **typed})


async def observe(mesh: Mesh, connection: Json, **body: bool) -> Json:
    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe", json=body or None
    )
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def test_a_new_field_becomes_a_drift(mesh: Mesh) -> None:
    """It is told with its verdict, evented, planned, and found again in the lists."""
    connection = await mesh.onboard()
    mesh.airbyte.offers(offered(Account=account("Region__c")))

    found = await observe(mesh, connection)

    assert found["outcome"] == "changed"
    (change,) = found["changes"]
    assert (change["kind"], change["path"]) == ("field_added", ["Region__c"])
    assert (change["severity"], change["concerns"]) == ("harmless", True)
    drift = (await mesh.schema_observer.get(f"/drifts/{found['drift_id']}")).json()
    assert drift["changes"] == found["changes"]
    assert drift["open"] is True
    assert drift["after_snapshot_id"] == found["snapshot_id"]
    page = (await mesh.schema_observer.get("/drifts", params={"open": True})).json()
    assert [one["id"] for one in page["items"]] == [found["drift_id"]]
    told = (await mesh.events(2))[-1]
    assert (told["type"], told["ref"], told["code"]) == (
        "drift.detected",
        found["drift_id"],
        "harmless",
    )
    jobs = await mesh.sql.fetch("SELECT payload FROM pgqueuer WHERE entrypoint = 'plan'")
    assert [job["payload"].decode() for job in jobs] == [connection["id"]]


async def test_seeing_it_again_adds_nothing(mesh: Mesh) -> None:
    """Fifty looks at what stays the same leave no event, no version, no drift and no snapshot."""
    connection = await mesh.onboard()
    await observe(mesh, connection)
    before = await counts(mesh)

    for _ in range(50):
        found = await observe(mesh, connection)
        assert (found["outcome"], found["drift_id"], found["changes"]) == ("unchanged", None, [])

    assert await counts(mesh) == before
    assert before["drifts"] == 0


async def counts(mesh: Mesh) -> dict[str, int]:
    return {
        table: await mesh.sql.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 - no input
        for table in ("events", "sync_catalog_versions", "drifts", "snapshots")
    }
