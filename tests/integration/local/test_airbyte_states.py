"""The local Airbyte keeps the states of streams through syncs, changes, pauses and restarts."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from local.airbyte.connectors_backend import SCHEDULE_SECONDS
from local.airbyte.metadata import InUse, Metadata
from local.airbyte.settings import Flavour
from tests.integration.local.airbyte_stage import INTEGER, NOWHERE, TEXT, Api, Scripted, stream
from tests.pools import Sql

pytestmark = pytest.mark.process

CATALOG = {"streams": [{"name": "s", "json_schema": {}, "supported_sync_modes": ["full_refresh"]}]}


async def test_every_kind_of_state_is_preserved(with_script: Scripted) -> None:
    """Global and legacy states are passed to the connector again, and returned by state/get."""
    script = """
    if config["kind"] == "global":
        say(type="STATE", state={"type": "GLOBAL", "global": {"shared_state": {"lsn": 7},
            "stream_states": [
                {"stream_descriptor": {"name": "kinds"}, "stream_state": {"at": 1}}]}})
    else:
        say(type="STATE", state={"type": "LEGACY", "data": {"at": 2}})
    record("kinds", {"seen": json.dumps(given.get("state"))})
    """
    async with with_script(script) as api:
        streams = [stream("kinds", {"seen": TEXT}, modes=("incremental", "append"))]
        for kind, member, sent in (
            ("global", "globalState", {"lsn": 7}),
            ("legacy", "state", {"at": 2}),
        ):
            connection = await api.connection(
                await api.source({"kind": kind}), streams, prefix=kind
            )
            await api.synced(connection)
            await api.synced(connection)
            state = await api.ask("state/get", connectionId=connection["connectionId"])
            assert state["stateType"] == kind
            assert state[member].get("shared_state", state[member]) == sent
            db = await asyncpg.connect(api.plane.settings.warehouse_url.get_secret_value())  # type: ignore[union-attr]
            rows = await db.fetch(f"SELECT seen FROM {kind}kinds ORDER BY _airbyte_extracted_at")  # noqa: S608 - ours
            await db.close()
            assert [row["seen"] == "null" for row in rows] == [True, False]
            assert str(next(iter(sent.values()))) in rows[1]["seen"]


async def test_changed_mode_ends_a_streams_state_and_deselection_does_not(
    with_script: Scripted,
) -> None:
    """Since 1.8 with the update, before with the next attempt; a stream left out keeps it."""
    script = """
    for selected in given["catalog"]["streams"]:
        if selected["sync_mode"] == "incremental":
            state(selected["stream"]["name"], {"at": 1})
    """
    append = ("incremental", "append")

    async def with_state(api: Api) -> list[str]:
        found = (await api.ask("state/get", **body)).get("streamState", [])
        return [each["streamDescriptor"]["name"] for each in found]

    for flavour in Flavour:
        async with with_script(script, flavour=flavour) as api:
            streams = [stream(name, {"id": TEXT}, modes=append) for name in ("one", "three", "two")]
            connection = await api.connection(await api.source(), streams)
            await api.synced(connection)
            body = {"connectionId": connection["connectionId"]}
            assert await with_state(api) == ["one", "three", "two"]

            full = stream("one", {"id": TEXT}, modes=("full_refresh", "append"))
            is_new = api.plane.release.since(1, 8)
            await api.ask("connections/update", **body, syncCatalog={"streams": [full, streams[2]]})
            assert await with_state(api) == (
                ["three", "two"] if is_new else ["one", "three", "two"]
            )
            await api.synced(connection)
            assert await with_state(api) == ["three", "two"]


async def test_refresh_reads_a_stream_from_its_start(with_script: Scripted, db: Sql) -> None:
    """Merge keeps its rows, Truncate replaces them; other streams resume, and so does the next."""
    script = """
    at = {s["stream"]["stream_descriptor"]["name"]: s["stream"]["stream_state"]["at"]
          for s in given.get("state", [])}
    for name in ("again", "other"):
        for number in range(at.get(name, 0), config["rows"]):
            record(name, {"id": number})
        state(name, {"at": config["rows"]})
    """
    append = ("incremental", "append")

    async def counts() -> tuple[int, int]:
        rows = [await db.fetchval(f"SELECT count(*) FROM refresh_{name}") for name in names]  # noqa: S608 - ours
        return rows[0], rows[1]

    names = ("again", "other")
    async with with_script(script) as api:
        streams = [stream(name, {"id": INTEGER}, modes=append) for name in names]
        connection = await api.connection(await api.source({"rows": 3}), streams, prefix="refresh_")
        await api.synced(connection)
        assert await counts() == (3, 3)
        for mode, expected in (("Merge", (6, 3)), ("Truncate", (3, 3))):
            answer = await api.ask(
                "connections/refresh",
                connectionId=connection["connectionId"],
                refreshMode=mode,
                streams=[{"streamName": "again"}],
            )
            assert (await api.ended(answer["job"]["id"]))["job"]["status"] == "succeeded"
            assert await counts() == expected
            await api.synced(connection)
            assert await counts() == expected


async def test_refresh_of_one_stream_keeps_the_shared_state(with_script: Scripted) -> None:
    """The connector gets the shared position without that stream's state; of all, it gets none."""
    script = """
    if "state" in given:
        shared = given["state"][0]["global"]
        names = [each["stream_descriptor"]["name"] for each in shared["stream_states"]]
        record("one", {"seen": ",".join([str(shared["shared_state"]["lsn"]), *names])})
    else:
        record("one", {"seen": "nothing"})
    say(type="STATE", state={"type": "GLOBAL", "global": {"shared_state": {"lsn": 7},
        "stream_states": [{"stream_descriptor": {"name": name}, "stream_state": {"done": True}}
                          for name in ("one", "two")]}})
    """
    append = ("incremental", "append")
    async with with_script(script) as api:
        streams = [stream(name, {"seen": TEXT}, modes=append) for name in ("one", "two")]
        connection = await api.connection(await api.source(), streams, prefix="shared_")
        await api.synced(connection)
        for named in ([{"streamName": "two"}], []):
            answer = await api.ask(
                "connections/refresh",
                connectionId=connection["connectionId"],
                refreshMode="Merge",
                streams=named,
            )
            await api.ended(answer["job"]["id"])
        db = await asyncpg.connect(api.plane.settings.warehouse_url.get_secret_value())  # type: ignore[union-attr]
        rows = await db.fetch("SELECT seen FROM shared_one ORDER BY _airbyte_extracted_at")
        await db.close()
        assert sorted(row["seen"] for row in rows) == ["7,one", "nothing", "nothing"]


async def test_paused_connection_continues_from_its_state(with_script: Scripted, db: Sql) -> None:
    """Healed and resumed by one update: no state is lost, no row is read or written twice."""
    script = """
    done = [s["stream"]["stream_state"]["at"] for s in given.get("state", [])]
    at = max(done, default=0) + 1
    record("orders", {"id": str(at), "at": at, "was": at - 1, "name": "n"})
    state("orders", {"at": at})
    """
    append = ("incremental", "append")
    fields = {"id": TEXT, "at": INTEGER, "was": INTEGER}
    minutely = {"basicSchedule": {"timeUnit": "minutes", "units": 1}}
    async with with_script(script) as api:
        before = stream("orders", fields, modes=append, cursor="at")
        connection = await api.connection(await api.source(), [before], prefix="paused_")
        await api.synced(connection)
        body = {"connectionId": connection["connectionId"]}
        state = await api.ask("state/get", **body)

        await api.ask(
            "connections/update",
            **body,
            status="inactive",
            breakingChange=True,
            scheduleType="basic",
            scheduleData=minutely,
        )
        api.plane.metadata.write("UPDATE jobs SET created_at = created_at - 3600")
        await asyncio.sleep(SCHEDULE_SECONDS + 0.5)
        await api.ask("connections/sync", **body, expect=500)
        (status,) = await api.ask("connections/status", connectionIds=[connection["connectionId"]])
        assert status["connectionSyncStatus"] == "failed"
        assert (await api.ask("state/get", **body)) == state

        grown = stream("orders", {**fields, "name": TEXT}, modes=append, cursor="at")
        healed = await api.ask(
            "connections/update",
            **body,
            syncCatalog={"streams": [grown]},
            sourceCatalogId=str(NOWHERE),
            status="active",
            breakingChange=False,
            scheduleType="manual",
        )
        assert (healed["status"], healed["breakingChange"]) == ("active", False)
        assert healed["sourceCatalogId"] == str(NOWHERE)
        assert (await api.ask("state/get", **body)) == state
        assert (await api.synced(connection))["job"]["status"] == "succeeded"

        kinds = ["sync", "reset_connection", "refresh", "clear"]
        jobs = await api.ask("jobs/list", configTypes=kinds, configId=connection["connectionId"])
        assert [job["job"]["configType"] for job in jobs["jobs"]] == ["sync", "sync"]
    rows = await db.fetch("SELECT at, was, name FROM paused_orders ORDER BY at")
    assert [tuple(row) for row in rows] == [(1, 0, None), (2, 1, "n")]


async def test_restart_keeps_everything(with_script: Scripted) -> None:
    """Sources with their secrets, catalogs, connections and jobs."""
    script = f"""
    if verb == "discover":
        say(type="CATALOG", catalog={CATALOG!r})
    """
    async with with_script(script) as api:
        source = await api.source({"token": "canary"})
        found = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        connection = await api.connection(source, [stream("s", {"id": TEXT})])
        job = await api.synced(connection)
        with pytest.raises(InUse):
            Metadata(api.plane.settings.state_dir)
    async with with_script(script) as api:
        assert await api.ask("sources/get", sourceId=source["sourceId"]) == source
        assert (
            await api.ask("connections/get", connectionId=connection["connectionId"]) == connection
        )
        assert await api.ask("jobs/get", id=job["job"]["id"]) == job
        again = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
        assert again["catalogId"] == found["catalogId"]
