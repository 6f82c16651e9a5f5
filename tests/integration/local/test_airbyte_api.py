"""The local Airbyte answers like the release it plays, by running a real connector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from local.airbyte import DESTINATION_DEFINITION_ID, DESTINATION_ID, WORKSPACE_ID
from local.airbyte.releases import ErrorStyle
from local.airbyte.settings import Flavour, Settings
from tests.integration.local.airbyte_stage import (
    CONNECTORS,
    NOWHERE,
    RECORDS,
    TEXT,
    Api,
    Json,
    serving,
    stream,
)

pytestmark = pytest.mark.process

HERE = str(WORKSPACE_ID)


def settings_of(folder: Path, url: str, flavour: Flavour, style: ErrorStyle | None) -> Settings:
    """A plane on a state directory of its own."""
    return Settings(
        state_dir=folder / "state",
        connectors_dir=CONNECTORS,
        warehouse_url=SecretStr(url),
        flavour=flavour,
        error_style=style,
    )


@pytest.fixture(params=list(Flavour))
async def api(
    request: pytest.FixtureRequest, tmp_path: Path, warehouse_url: str
) -> AsyncIterator[Api]:
    """Either flavour, in its own error style."""
    async with serving(settings_of(tmp_path, warehouse_url, request.param, None)) as api:
        yield api


@pytest.fixture
async def modern(tmp_path: Path, warehouse_url: str) -> AsyncIterator[Api]:
    """The flavour with commands."""
    async with serving(settings_of(tmp_path, warehouse_url, Flavour.COMMANDS, None)) as api:
        yield api


@pytest.fixture
async def classic(tmp_path: Path, warehouse_url: str) -> AsyncIterator[Api]:
    """The flavour of the last compose release."""
    async with serving(settings_of(tmp_path, warehouse_url, Flavour.SYNCHRONOUS, None)) as api:
        yield api


async def test_instance_shows_version_and_workspace(api: Api) -> None:
    """Without a token, and it says that it is the local one."""
    assert await api.get("health") == {"available": True}
    answer = await api.get("instance_configuration")

    assert answer["version"] == api.plane.settings.flavour.release.version
    assert answer["defaultWorkspaceId"] == HERE
    assert answer["auth"] == {"mode": "simple"}
    assert "local" in answer["defaultOrganizationEmail"]
    await api.ask("workspaces/get", workspaceId=HERE)


async def test_unknown_endpoint_is_404_and_unimplemented_is_501(
    modern: Api, tmp_path: Path, warehouse_url: str
) -> None:
    await modern.ask("workspaces/list", expect=404)
    answer = await modern.ask("web_backend/connections/update", expect=501)
    assert "web_backend/connections/update" in answer["detail"]

    async with serving(
        settings_of(tmp_path / "classic", warehouse_url, Flavour.SYNCHRONOUS, None)
    ) as classic:
        answer = await classic.ask("commands/run/discover", expect=404, id="x")
        assert answer["_links"]["self"] == {
            "href": "/api/v1/commands/run/discover",
            "templated": False,
        }
        (error,) = answer["_embedded"]["errors"]
        assert error == {"message": "Page Not Found", "_links": {}, "_embedded": {}}
        assert len((await classic.ask("workspaces/list"))["workspaces"]) == 1


async def test_trailing_slash_is_accepted(modern: Api) -> None:
    """Some clients write one and follow no redirect."""
    answer = await modern.http.get("/api/v1/health/")
    assert (answer.status_code, answer.json()) == (200, {"available": True})


async def test_definitions_and_specifications(api: Api) -> None:
    """What can be created is listed, with what its configuration has to be."""
    sources = await api.ask("source_definitions/list_for_workspace", workspaceId=HERE)
    assert {each["dockerRepository"] for each in sources["sourceDefinitions"]} == {
        "airbyte/source-salesforce",
        "airbyte/source-hardcoded-records",
    }
    definition = str(RECORDS.definition_id)
    answer = await api.ask("source_definitions/get", sourceDefinitionId=definition)
    assert answer["dockerImageTag"] == RECORDS.version
    answer = await api.ask(
        "source_definition_specifications/get", sourceDefinitionId=definition, workspaceId=HERE
    )
    assert "count" in answer["connectionSpecification"]["properties"]

    listed = await api.ask("destination_definitions/list")
    (mine,) = listed["destinationDefinitions"]
    assert mine["destinationDefinitionId"] == str(DESTINATION_DEFINITION_ID)
    answer = await api.ask(
        "destination_definition_specifications/get",
        destinationDefinitionId=str(DESTINATION_DEFINITION_ID),
        workspaceId=HERE,
    )
    assert "append_dedup" in answer["supportedDestinationSyncModes"]


@pytest.mark.deep(after=1)
async def test_create_check_and_delete_a_source(api: Api) -> None:
    """Validated when it is made, tried when it is asked, gone with its connections."""
    source = await api.source({"count": 5})
    source_id = source["sourceId"]
    assert source["sourceName"] == "Hardcoded Records"
    assert (await api.ask("sources/get", sourceId=source_id)) == source

    answer = await api.ask("sources/check_connection", sourceId=source_id)
    assert (answer["status"], answer["jobInfo"]["succeeded"]) == ("succeeded", True)

    answer = await api.ask("sources/partial_update", sourceId=source_id, name="renamed")
    assert (answer["name"], answer["connectionConfiguration"]) == ("renamed", {"count": 5})
    answer = await api.ask(
        "sources/update", sourceId=source_id, name="again", connectionConfiguration={"count": 6}
    )
    assert answer["connectionConfiguration"] == {"count": 6}

    connection = await api.connection(source, [stream("products", {"make": TEXT})])
    await api.ask("sources/delete", sourceId=source_id, expect=204)
    await api.ask("sources/get", sourceId=source_id, expect=404)
    await api.ask("connections/get", connectionId=connection["connectionId"], expect=404)


@pytest.mark.deep(after=1)
async def test_discovery_is_cached_unless_disabled(api: Api) -> None:
    """Equal catalogs have one id; the cache does not expire."""
    source = await api.source()
    body = {"sourceId": source["sourceId"]}
    assert await api.ask("sources/most_recent_source_actor_catalog", **body) == {}

    first = await api.ask("sources/discover_schema", **body, disable_cache=True)
    cached = await api.ask("sources/discover_schema", **body)
    other = await api.ask(
        "sources/discover_schema",
        sourceId=(await api.source(name="other"))["sourceId"],
        disable_cache=True,
    )

    assert first["jobInfo"]["succeeded"] is True
    assert cached["jobInfo"]["configId"] == "NoConfiguration"
    assert first["catalogId"] == cached["catalogId"] == other["catalogId"]
    assert first["catalog"] == cached["catalog"]
    assert [each["stream"]["name"] for each in first["catalog"]["streams"]] == [
        "products",
        "customers",
        "dummy_fields",
    ]
    config = first["catalog"]["streams"][0]["config"]
    assert (config["syncMode"], config["destinationSyncMode"]) == ("full_refresh", "overwrite")
    assert config["selected"] is False
    raw = await api.ask("sources/most_recent_source_actor_catalog", **body)
    assert "json_schema" in raw["catalog"]["streams"][0]


async def test_discovery_for_a_connection_is_501(api: Api) -> None:
    """Airbyte would pause the connection; that is not imitated."""
    source = await api.source()
    await api.ask(
        "sources/discover_schema",
        sourceId=source["sourceId"],
        connectionId=str(NOWHERE),
        expect=501,
    )


async def test_commands_run_once_per_id(modern: Api) -> None:
    """A repeated id is the same run; an unknown one is forbidden."""
    source = await modern.source()
    for _ in range(2):
        answer = await modern.ask("commands/run/discover", id="mine", actor_id=source["sourceId"])
        assert answer == {"id": "mine"}
    early = await modern.ask("commands/output/discover", id="mine")
    assert early["status"] == "failed"
    assert "still running" in early["failureReason"]["externalMessage"]
    await _completed(modern, "mine")
    answer = await modern.ask("commands/output/discover", id="mine")
    assert answer["status"] == "succeeded"
    assert len(answer["catalog"]["streams"]) == 3
    direct = await modern.ask("sources/discover_schema", sourceId=source["sourceId"])
    assert answer["catalogId"] == direct["catalogId"]

    await modern.ask("commands/run/check", id="try", actor_id=source["sourceId"])
    await _completed(modern, "try")
    assert (await modern.ask("commands/output/check", id="try"))["status"] == "succeeded"
    await modern.ask(
        "commands/run/check",
        id="unsaved",
        actor_definition_id=str(RECORDS.definition_id),
        workspace_id=HERE,
        config={"count": 1},
    )
    await modern.ask("commands/cancel", id="unsaved")
    assert (await modern.ask("commands/status", id="unsaved"))["status"] == "cancelled"
    for path in ("status", "output/check", "output/discover", "cancel"):
        await modern.ask(f"commands/{path}", id="never", expect=403)


async def _completed(api: Api, command: str) -> None:
    async with asyncio.timeout(60):
        while (answer := await api.ask("commands/status", id=command))["status"] != "completed":
            assert answer["status"] in ("pending", "running")
            await asyncio.sleep(0.05)


async def test_modern_release_pages_its_lists(modern: Api) -> None:
    """Twenty at a time, continued after the last id of the page before."""
    for number in range(23):
        await modern.source(name=f"source {number:02}")
    first = await modern.ask("sources/list", workspaceId=HERE)
    second = await modern.ask(
        "sources/list", workspaceId=HERE, cursor=first["sources"][-1]["sourceId"]
    )
    names = [each["name"] for each in first["sources"] + second["sources"]]
    assert (len(first["sources"]), len(second["sources"])) == (20, 3)
    assert names == sorted(names)
    found = await modern.ask("sources/list", workspaceId=HERE, filters={"searchTerm": "ce 07"})
    assert [each["name"] for each in found["sources"]] == ["source 07"]


async def test_classic_release_lists_all_at_once(classic: Api) -> None:
    """It ignores paging parameters."""
    for number in range(21):
        await classic.source(name=f"source {number:02}")
    assert len((await classic.ask("sources/list", workspaceId=HERE))["sources"]) == 21
    (warehouse,) = (await classic.ask("destinations/list", workspaceId=HERE))["destinations"]
    assert warehouse["destinationId"] == str(DESTINATION_ID)
    assert warehouse["connectionConfiguration"]["url"] == "**********"


async def test_create_check_and_delete_destinations(api: Api, warehouse_url: str) -> None:
    """The warehouse of the start can be tried; others can be made and deleted."""
    answer = await api.ask("destinations/check_connection", destinationId=str(DESTINATION_ID))
    assert answer["status"] == "succeeded"
    created = await api.ask(
        "destinations/create",
        workspaceId=HERE,
        destinationDefinitionId=str(DESTINATION_DEFINITION_ID),
        name="nowhere",
        connectionConfiguration={"url": "postgresql://nobody:hush@127.0.0.1:1/none"},
    )
    answer = await api.ask("destinations/check_connection", destinationId=created["destinationId"])
    assert answer["status"] == "failed"
    assert "hush" not in str(answer)
    assert "hush" not in str(
        await api.ask("destinations/get", destinationId=created["destinationId"])
    )
    await api.ask("destinations/delete", destinationId=created["destinationId"], expect=204)


async def test_connection_keeps_selected_streams_and_fields(api: Api) -> None:
    """What is read back is what Airbyte keeps, not what was sent."""
    source = await api.source()
    kept = stream("products", {"id": TEXT, "make": TEXT, "model": TEXT}, only=["make", "id"])
    dropped = stream("customers", {"id": TEXT})
    dropped["config"]["selected"] = False

    connection = await api.connection(
        source, [kept, dropped], nonBreakingChangesPreference="ignore"
    )
    (pair,) = connection["syncCatalog"]["streams"]
    assert list(pair["stream"]["jsonSchema"]["properties"]) == ["id", "make"]
    assert pair["config"]["selectedFields"] == [{"fieldPath": ["id"]}, {"fieldPath": ["make"]}]
    assert (pair["config"]["selected"], pair["config"]["suggested"]) == (True, False)
    assert (connection["breakingChange"], connection["scheduleType"]) == (False, "manual")

    connection_id = connection["connectionId"]
    assert await api.ask("connections/get", connectionId=connection_id) == connection
    answer = await api.ask("connections/update", connectionId=connection_id, status="inactive")
    assert answer["syncCatalog"] == connection["syncCatalog"]
    assert answer["status"] == "inactive"
    listed = await api.ask("connections/list", workspaceId=HERE)
    assert [each["connectionId"] for each in listed["connections"]] == [connection_id]
    items = await api.ask("web_backend/connections/list", workspaceId=HERE)
    (item,) = items["connections"]
    assert (item["connectionId"], item["status"]) == (connection_id, "inactive")
    assert item["source"]["sourceId"] == source["sourceId"]
    assert "syncCatalog" not in item
    await api.ask("connections/delete", connectionId=connection_id, expect=204)
    await api.ask("connections/get", connectionId=connection_id, expect=404)


async def test_invalid_catalogs_are_refused(classic: Api) -> None:
    """Each with the status Airbyte gives it; nothing is changed."""
    source = await classic.source()
    one = stream("products", {"id": TEXT})
    connection = await classic.connection(source, [one])
    upsert = ("incremental", "append_dedup")
    refused = {
        "duplicate": (500, [one, one]),
        "wide": (400, [stream("wide", {f"f{number}": TEXT for number in range(20_001)})]),
        "no key": (400, [stream("keyless", {"id": TEXT}, modes=upsert)]),
        "key not selected": (
            422,
            [stream("s", {"id": TEXT, "at": TEXT}, modes=upsert, key=["id"], only=["at"])],
        ),
        "cursor not selected": (
            422,
            [
                stream(
                    "s",
                    {"id": TEXT, "at": TEXT},
                    modes=("incremental", "append"),
                    cursor="at",
                    only=["id"],
                )
            ],
        ),
        "tables collide": (400, [one, stream("PRODUCTS", {"id": TEXT})]),
        "tables collide cut to 63 bytes": (
            400,
            [stream("é" * 40 + "a", {"id": TEXT}), stream("é" * 40 + "b", {"id": TEXT})],
        ),
        "columns collide": (400, [stream("s", {"id": TEXT, "ID": TEXT})]),
        "a column of ours": (400, [stream("s", {"_airbyte_raw_id": TEXT})]),
    }
    nested = stream("s", {"id": TEXT}, only=["id"])
    nested["config"]["selectedFields"] = [{"fieldPath": ["id", "deep"]}]
    refused["nested selection"] = (500, [nested])

    for status, streams in refused.values():
        answer = await classic.ask(
            "connections/update",
            connectionId=connection["connectionId"],
            syncCatalog={"streams": streams},
            expect=status,
        )
        assert answer["message"]
    assert (
        await classic.ask("connections/get", connectionId=connection["connectionId"]) == connection
    )


async def test_body_over_ten_mebibytes_is_413(modern: Api) -> None:
    big = stream("s", {"id": {"type": "string", "description": "x" * (10 * 1024 * 1024)}})
    answer = await modern.ask(
        "connections/update", connectionId=str(NOWHERE), syncCatalog={"streams": [big]}, expect=413
    )
    assert answer["message"] == "Request Entity Too Large"
    assert "10485760" in answer["_embedded"]["errors"][0]["message"]


async def test_errors_of_both_releases(tmp_path: Path, warehouse_url: str) -> None:
    """Up to 1.8 they have a message, from 2.0 mostly an id; neither quotes what was sent."""
    for style in ErrorStyle:
        folder = tmp_path / style
        async with serving(settings_of(folder, warehouse_url, Flavour.COMMANDS, style)) as api:
            missing = await api.http.post("/api/v1/sources/get", json={})
            unknown = await api.http.post("/api/v1/sources/get", json={"sourceId": str(NOWHERE)})
            garbage = await api.http.post(
                "/api/v1/sources/get",
                content=b"{nonsense",
                headers={"Content-Type": "application/json"},
            )
            wrong_id = await api.http.post("/api/v1/sources/get", json={"sourceId": "hush-hush"})
            no_job = await api.http.post("/api/v1/jobs/get", json={"id": 4711})
            invalid = await api.http.post(
                "/api/v1/sources/create",
                json={
                    "workspaceId": HERE,
                    "sourceDefinitionId": str(RECORDS.definition_id),
                    "name": "x",
                    "connectionConfiguration": {"count": "hush-hush"},
                },
            )
            answers = [missing, unknown, garbage, wrong_id, no_job, invalid]
            assert [each.status_code for each in answers] == [400, 404, 422, 422, 500, 422]
            assert all("hush" not in each.text for each in answers)
            assert "$.count" in invalid.json()["message"]
            for each in answers[:-1]:
                expected = "message" if style is ErrorStyle.MESSAGE else "errorId"
                assert expected in each.json()
                assert ("message" in each.json()) is (style is ErrorStyle.MESSAGE)


@pytest.mark.deep(after=1)
async def test_sync_writes_rows_and_counts_them(api: Api, warehouse_url: str) -> None:
    """From a discovery's catalog to a table, with one job that says so everywhere."""
    source = await api.source({"count": 2500})
    found = await api.ask("sources/discover_schema", sourceId=source["sourceId"])
    for each in found["catalog"]["streams"]:
        each["config"]["selected"] = each["stream"]["name"] == "products"
    connection = await api.connection(
        source,
        found["catalog"]["streams"],
        sourceCatalogId=found["catalogId"],
        prefix=f"{api.plane.settings.flavour}_",
    )
    body: Json = {"connectionIds": [connection["connectionId"]]}
    (status,) = await api.ask("connections/status", **body)
    assert status.get("connectionSyncStatus", "pending") == "pending"

    job = await api.ask("connections/sync", connectionId=connection["connectionId"])
    again = await api.ask("connections/sync", connectionId=connection["connectionId"], expect=409)
    assert again["message"] == f"A sync is already running for: {connection['connectionId']}"
    (status,) = await api.ask("connections/status", **body)
    assert status.get("isRunning") or status["activeJob"]["id"] == job["job"]["id"]
    job = await api.ended(job["job"]["id"])

    assert job["job"]["status"] == "succeeded"
    (attempt,) = job["attempts"]
    assert attempt["attempt"]["recordsSynced"] == 2500
    assert attempt["attempt"]["bytesSynced"] > 100_000
    (status,) = await api.ask("connections/status", **body)
    assert status["lastSuccessfulSync"]
    light = await api.ask("jobs/get_light", id=job["job"]["id"])
    assert light["job"] == job["job"]
    await api.ask("jobs/get_without_logs", id=job["job"]["id"])
    listed = await api.ask("jobs/list", configTypes=["sync"], configId=connection["connectionId"])
    assert listed["totalJobCount"] == 1
    answer = await api.ask("state/get", connectionId=connection["connectionId"])
    assert answer["stateType"] == "not_set"
    await api.ask("jobs/cancel", id=job["job"]["id"], expect=500)

    db = await asyncpg.connect(warehouse_url)
    row = await db.fetchrow(
        f'SELECT count(*), min("make") AS make, min(created_at) AS at'  # noqa: S608 - ours
        f" FROM public.{api.plane.settings.flavour}_products"
    )
    await db.close()
    assert row is not None
    assert (row["count"], row["make"], row["at"].year) == (2500, "Mazda", 2022)


async def test_inactive_connection_cannot_be_synced(api: Api) -> None:
    """Airbyte's answer is an uncaught 500."""
    source = await api.source()
    connection = await api.connection(source, [stream("products", {"make": TEXT})])
    await api.ask("connections/update", connectionId=connection["connectionId"], status="inactive")
    await api.ask("connections/sync", connectionId=connection["connectionId"], expect=500)


async def test_sync_can_be_cancelled(api: Api) -> None:
    """The job and its attempt end as cancelled, and another sync may start."""
    source = await api.source({"count": 1_000_000})
    connection = await api.connection(source, [stream("products", {"make": TEXT})])
    job = await api.ask("connections/sync", connectionId=connection["connectionId"])
    cancelled = await api.ask("jobs/cancel", id=job["job"]["id"])
    assert cancelled["job"]["status"] == "cancelled"
    (attempt,) = cancelled["attempts"]
    (reason,) = attempt["attempt"]["failureSummary"]["failures"]
    assert reason["failureType"] == "manual_cancellation"
    job = await api.ask("connections/sync", connectionId=connection["connectionId"])
    await api.ask("jobs/cancel", id=job["job"]["id"])


@pytest.mark.deep
async def test_basic_schedule_is_followed(modern: Api) -> None:
    """The first sync comes by itself; the next one not before its time."""
    source = await modern.source({"count": 1})
    hourly = {"basicSchedule": {"timeUnit": "hours", "units": 1}}
    connection = await modern.connection(
        source, [stream("products", {"make": TEXT})], scheduleType="basic", scheduleData=hourly
    )
    body: Json = {"configTypes": ["sync"], "configId": connection["connectionId"]}
    async with asyncio.timeout(30):
        while True:
            answer = await modern.ask("jobs/list", **body)
            if answer["jobs"]:
                break
            await asyncio.sleep(0.2)
    await modern.ended(answer["jobs"][0]["job"]["id"])
    await asyncio.sleep(2.5)
    assert (await modern.ask("jobs/list", **body))["totalJobCount"] == 1


async def test_path_outside_the_api_is_404(modern: Api) -> None:
    """With Airbyte's header, like every answer."""
    answer = await modern.http.get("/somewhere")
    assert answer.status_code == 404
    assert answer.headers["x-airbyte-local"] == "true"
