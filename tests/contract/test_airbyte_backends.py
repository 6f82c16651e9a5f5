"""Both back ends of the local Airbyte conform to the OpenAPI documents and to recorded responses.

The documents are Airbyte's (`AIRBYTE_OPENAPI_DIR`); the responses were recorded from real servers
(`AIRBYTE_RECORDED_DIR`). Each back end goes through one life cycle that calls every endpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import orjson
import pytest

from local.airbyte import DESTINATION_DEFINITION_ID
from local.airbyte.api import dispatch
from local.airbyte.api.defaults import ORGANIZATION_ID
from local.airbyte.api.routes import ROUTES
from local.airbyte.connectors_backend import Plane
from local.airbyte.settings import Flavour, Settings
from tests.contract.openapi import VERSIONS, Description, description
from tests.contract.recordings import members, recordings
from tests.fakes.airbyte_server import HARDCODED_RECORDS, POSTGRES, AirbyteServer, catalog, stream
from tests.integration.local.airbyte_stage import JUDGES, REQUIRED_LATER, scripted

Json = dict[str, Any]
UNKNOWN = str(uuid4())

CONNECTOR = """
if verb == "check":
    ok = config.get("count") != 13
    say(type="CONNECTION_STATUS", connectionStatus={
        "status": "SUCCEEDED" if ok else "FAILED", "message": None if ok else "No such host."})
if verb == "discover":
    say(type="CATALOG", catalog={"streams": [{
        "name": "Account", "namespace": "crm",
        "supported_sync_modes": ["full_refresh", "incremental"],
        "json_schema": {"type": "object", "properties": {
            "Id": {"type": "string"}, "Name": {"type": "string"}, "At": {"type": "string"}}},
        "source_defined_cursor": True, "default_cursor_field": ["At"],
        "source_defined_primary_key": [["Id"]]}]})
if verb == "read":
    if config.get("count") == 14:
        fail("A field is gone.", failure_type="config_error", internal_message="KeyError")
    record("Account", {"Id": "1", "Name": "x", "At": "2026"}, namespace="crm")
    say(type="STATE", state={"type": "STREAM", "stream": {
        "stream_descriptor": {"name": "Account", "namespace": "crm"}, "stream_state": {"At": 1}}})
"""


@dataclass
class CheckedBackend:
    """A back end whose requests and responses are validated against the OpenAPI documents."""

    backend: Plane | AirbyteServer
    judges: list[Description]
    destination: Json
    """The definition and the configuration of a destination."""

    paths: set[tuple[str, str]] = field(default_factory=set)
    answers: dict[str, list[Any]] = field(default_factory=dict)

    async def __call__(
        self, path: str, *, method: str = "POST", answers: int = 200, **body: Any
    ) -> Any:
        """Call an endpoint, validate the exchange, and return the response's JSON."""
        content = orjson.dumps(body) if method == "POST" else b""
        answer = await dispatch.answer(self.backend, method, dispatch.BASE + path, content)
        found = orjson.loads(answer.content) if answer.content else None
        assert answer.status == answers, (path, found)
        for judge in self.judges:
            if answers < 400:
                assert judge.about_request(method, path, body) == [], path
            faults = judge.about_answer(method, path, answers, found)
            later = REQUIRED_LATER.get((judge.version, path))
            assert [fault for fault in faults if fault.partition(": ")[2] != later] == [], path
        self.paths.add((method, path))
        if answers == 200:
            self.answers.setdefault(path, []).append(found)
        return found

    def fail_check(self, source_id: str) -> None:
        """Script a failed check; the sample connector fails by itself with a count of 13."""
        if isinstance(self.backend, AirbyteServer):
            self.backend.fail_check("No such host.", source=source_id)

    def end_jobs(self, *, failed: bool) -> None:
        """Script the results of jobs; the sample connector fails with a count of 14."""
        if isinstance(self.backend, AirbyteServer):
            failure = ("config_error", "A field is gone.") if failed else None
            status: Literal["failed", "succeeded"] = "failed" if failed else "succeeded"
            self.backend.jobs_end_with(status, polls=3, records=1, bytes=9, failure=failure)

    async def ended(self, job_id: int) -> Json:
        """Wait until a job has ended, and return it."""
        async with asyncio.timeout(60):
            while True:
                job: Json = await self("jobs/get", id=job_id)
                if job["job"]["status"] in ("succeeded", "failed", "cancelled"):
                    return job
                await asyncio.sleep(0.05)

    async def completed(self, command_id: str) -> None:
        """Wait until a command has ended."""
        async with asyncio.timeout(60):
            while (await self("commands/status", id=command_id))["status"] != "completed":  # noqa: ASYNC110 (changed by the server)
                await asyncio.sleep(0.05)


BACKENDS = [
    *(("scripted", version) for version in VERSIONS),
    *(("connectors", flavour.release.version) for flavour in Flavour),
]


@pytest.fixture(params=BACKENDS, ids="-".join)
async def ask(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CheckedBackend]:
    """Each back end in each release that it can emulate."""
    kind, version = request.param
    if kind == "scripted":
        backend = AirbyteServer(version=version)
        backend.offers(catalog(stream("Account", ("Id", "Name"), cursor="At", namespace="crm")))
        config = {"host": "h", "port": 1, "username": "u", "database": "d", "schema": "public"}
        destination = {"destinationDefinitionId": POSTGRES, "connectionConfiguration": config}
        yield CheckedBackend(backend, [description(version)], destination)
        return
    (flavour,) = [one for one in Flavour if one.release.version == version]
    settings = Settings(
        state_dir=tmp_path / "state",
        connectors_dir=scripted(tmp_path / "connectors", CONNECTOR),
        flavour=flavour,
        retry_delay=timedelta(0),
    )
    config = {"url": request.getfixturevalue("warehouse_url")}
    destination = {
        "destinationDefinitionId": str(DESTINATION_DEFINITION_ID),
        "connectionConfiguration": config,
    }
    async with Plane.open(settings) as plane:
        judges = [description(judge) for judge in JUDGES[flavour]]
        yield CheckedBackend(plane, judges, destination)


async def test_a_life_with_every_endpoint(ask: CheckedBackend) -> None:
    """Responses are valid, and have the members that real servers' responses have."""
    await _instance(ask)
    source, destination = await _actors(ask)
    await _versions(ask, source)
    await _discovery(ask, source)
    await _connection(ask, source, destination)
    await _end(ask, source, destination)

    release = ask.backend.release
    assert {key for key, route in ROUTES.items() if route.is_in(release)} == ask.paths
    missing = "\n".join(_missing_members(ask))
    assert not missing, missing


async def _instance(ask: CheckedBackend) -> None:
    workspace: Json = {"workspaceId": ask.backend.instance.workspace_id}
    await ask("health", method="GET")
    answer = await ask("instance_configuration", method="GET")
    assert answer["defaultWorkspaceId"] == workspace["workspaceId"]
    await ask("workspaces/get", **workspace)
    await ask("workspaces/get", workspaceId=UNKNOWN, answers=404)
    is_listed = not ask.backend.release.since(1, 7)
    await ask("workspaces/list_by_organization_id", organizationId=ORGANIZATION_ID, pagination={})
    for word in ("source", "destination"):
        (*_, one) = (await ask(f"{word}_definitions/list"))[f"{word}Definitions"]
        await ask(f"{word}_definitions/list_for_workspace", **workspace)
        by_id: Json = {f"{word}DefinitionId": one[f"{word}DefinitionId"]}
        assert await ask(f"{word}_definitions/get", **by_id) == one
        await ask(f"{word}_definition_specifications/get", **by_id, **workspace)
        await ask(f"{word}_definitions/get", **{f"{word}DefinitionId": UNKNOWN}, answers=404)
    if is_listed:
        await ask("workspaces/list")


async def _actors(ask: CheckedBackend) -> tuple[str, str]:
    ids = []
    records: Json = {
        "sourceDefinitionId": HARDCODED_RECORDS,
        "connectionConfiguration": {"count": 5},
    }
    place: Json = {"workspaceId": ask.backend.instance.workspace_id}
    for word, order in (("source", records), ("destination", ask.destination)):
        created = await ask(f"{word}s/create", name="one", **place, **order)
        by_id: Json = {f"{word}Id": created[f"{word}Id"]}
        ids.append(created[f"{word}Id"])
        config = created["connectionConfiguration"]
        assert await ask(f"{word}s/get", **by_id) == created
        assert (await ask(f"{word}s/list", **place))[f"{word}s"] == [created]
        new: Json = {**by_id, "name": "two", "connectionConfiguration": config}
        assert (await ask(f"{word}s/update", **new))["name"] == "two"
        assert (await ask(f"{word}s/partial_update", **by_id, name="three"))["name"] == "three"
        answer = await ask(f"{word}s/check_connection", **by_id)
        assert (answer["status"], answer["jobInfo"]["succeeded"]) == ("succeeded", True)
        answer = await ask(f"{word}s/check_connection_for_update", **new)
        assert answer["status"] == "succeeded"
        await ask(f"{word}s/get", **{f"{word}Id": UNKNOWN}, answers=404)
        await ask(f"{word}s/get", answers=400)
        await ask(f"{word}s/get", **{f"{word}Id": "one"}, answers=422)
        invalid: Json = {**order, "connectionConfiguration": {"count": "many", "token": 5}}
        if word == "source":
            await _unsaved(ask, by_id, order, invalid)
        await ask(f"{word}s/create", name="one", **place, **invalid, answers=422)

    version = await ask("actor_definition_versions/get_for_destination", destinationId=ids[1])
    assert version["supportsRefreshes"] is True
    bad: Json = {**records, "connectionConfiguration": {"count": 13}, "name": "bad", **place}
    by_id = {"sourceId": (await ask("sources/create", **bad))["sourceId"]}
    ask.fail_check(by_id["sourceId"])
    answer = await ask("sources/check_connection", **by_id)
    if answer["jobInfo"]["succeeded"]:
        assert (answer["status"], answer["message"]) == ("failed", "No such host.")
    await ask("sources/delete", **by_id, answers=204)
    await ask("sources/get", **by_id, answers=404)
    await ask("sources/search", name="one")
    return ids[0], ids[1]


async def _unsaved(ask: CheckedBackend, by_id: Json, order: Json, invalid: Json) -> None:
    """Check an unsaved configuration, and read the specification of a source."""
    place: Json = {"workspaceId": ask.backend.instance.workspace_id}
    definition = {"sourceDefinitionId": order["sourceDefinitionId"]}
    specified = await ask("source_definition_specifications/get", **definition, **place)
    for_source = await ask("source_definition_specifications/get_for_source", **by_id)
    assert for_source["connectionSpecification"] == specified["connectionSpecification"]
    await ask("source_definition_specifications/get_for_source", sourceId=UNKNOWN, answers=404)
    before = await ask("sources/list", **place)
    answer = await ask("scheduler/sources/check_connection", **place, **order)
    assert (answer["status"], answer["jobInfo"]["succeeded"]) == ("succeeded", True)
    await ask("scheduler/sources/check_connection", **place, **invalid, answers=422)
    unknown = {**order, "sourceDefinitionId": UNKNOWN}
    await ask("scheduler/sources/check_connection", **place, **unknown, answers=404)
    assert await ask("sources/list", **place) == before


async def _versions(ask: CheckedBackend, source_id: str) -> None:
    """Versions and upgrades; only the scripted back end has versions, pins and manifests."""
    by_id: Json = {"sourceId": source_id}
    manifests = "declarative_source_definitions/list_manifests"
    definition: Json = {
        "workspaceId": ask.backend.instance.workspace_id,
        "sourceDefinitionId": HARDCODED_RECORDS,
    }
    running = await ask("actor_definition_versions/get_for_source", **by_id)
    assert (running["supportState"], running["isVersionOverrideApplied"]) == ("supported", False)
    await ask("actor_definition_versions/get_for_source", sourceId=UNKNOWN, answers=404)
    await ask("sources/upgrade_version", **by_id, answers=204)
    assert await ask("actor_definition_versions/get_for_source", **by_id) == running
    await ask("sources/upgrade_version", sourceId=UNKNOWN, answers=404)
    await ask(manifests, **definition, answers=404)
    if not isinstance(ask.backend, AirbyteServer):
        return
    change = ask.backend.publish_version("1.0.0", breaking=True, definition=HARDCODED_RECORDS)
    pinned = await ask("actor_definition_versions/get_for_source", **by_id)
    (upcoming,) = pinned["breakingChanges"]["upcomingBreakingChanges"]
    assert upcoming.items() <= change.items()
    assert (pinned["dockerImageTag"], pinned["supportState"]) == ("0.0.48", "deprecated")
    source = await ask("sources/get", **by_id)
    assert source["breakingChanges"] == pinned["breakingChanges"]
    (listed,) = (await ask("sources/list", workspaceId=definition["workspaceId"]))["sources"]
    assert listed == source
    ask.backend.pin(source_id, "0.0.48", by="connector_rollout")
    await ask("sources/upgrade_version", **by_id, answers=500)
    ask.backend.pin(source_id, "0.0.48", by="user")
    await ask("sources/upgrade_version", **by_id, answers=500)
    assert (await ask("sources/get", **by_id))["isVersionOverrideApplied"]
    ask.backend.pin(source_id, "0.0.48", by="breaking_change")
    await ask("sources/upgrade_version", **by_id, answers=204)
    upgraded = await ask("actor_definition_versions/get_for_source", **by_id)
    assert (upgraded["dockerImageTag"], upgraded["supportState"]) == ("1.0.0", "supported")
    ask.backend.publish_manifest(1, definition=HARDCODED_RECORDS)
    ask.backend.publish_manifest(2, definition=HARDCODED_RECORDS)
    listed = (await ask(manifests, **definition))["manifestVersions"]
    assert [(one["version"], one["isActive"]) for one in listed] == [(2, True), (1, False)]


async def _discovery(ask: CheckedBackend, source_id: str) -> None:
    by_id: Json = {"sourceId": source_id}
    assert await ask("sources/most_recent_source_actor_catalog", **by_id) == {}
    found = await ask("sources/discover_schema", **by_id, disable_cache=True)
    cached = await ask("sources/discover_schema", **by_id)
    assert (cached["catalogId"], cached["catalog"]) == (found["catalogId"], found["catalog"])
    await ask("sources/most_recent_source_actor_catalog", **by_id)
    await ask("sources/discover_schema", **by_id, connectionId=UNKNOWN, answers=501)
    if not ask.backend.release.since(1, 7):
        answer = await dispatch.answer(ask.backend, "POST", "/api/v1/commands/status", b"{}")
        assert answer.status == 404
        return
    for kind in ("discover", "check"):
        await ask(f"commands/run/{kind}", id=kind, actor_id=source_id)
        assert (await ask(f"commands/output/{kind}", id=kind))["status"] == "failed"
        await ask.completed(kind)
        assert (await ask(f"commands/output/{kind}", id=kind))["status"] == "succeeded"
    output = await ask("commands/output/discover", id="discover")
    assert (output["catalogId"], output["catalog"]) == (found["catalogId"], found["catalog"])
    await ask("commands/run/discover", id="cancelled", actor_id=source_id)
    await ask("commands/cancel", id="cancelled")
    assert (await ask("commands/status", id="cancelled"))["status"] == "cancelled"
    output = await ask("commands/output/discover", id="cancelled")
    assert output["failureReason"]["failureType"] == "manual_cancellation"
    await ask("commands/status", id="never", answers=403)
    await ask("commands/run/check", id="unknown", actor_id=UNKNOWN, answers=403)


async def _connection(ask: CheckedBackend, source_id: str, destination_id: str) -> None:
    found = await ask("sources/discover_schema", sourceId=source_id)
    workspace: Json = {"workspaceId": ask.backend.instance.workspace_id}
    order: Json = {
        "sourceId": source_id,
        "destinationId": destination_id,
        "status": "active",
        "namespaceDefinition": "customformat",
        "namespaceFormat": "${SOURCE_NAMESPACE}",
        "prefix": f"contract_{uuid4().hex[:8]}_",
        "syncCatalog": found["catalog"],
        "sourceCatalogId": found["catalogId"],
    }
    connection = await ask("connections/create", **order)
    assert (connection["operationIds"], connection["name"]) == ([], "three <> three")
    by_id: Json = {"connectionId": connection["connectionId"]}
    assert await ask("connections/get", **by_id) == connection
    assert (await ask("connections/list", **workspace))["connections"] == [connection]
    (item,) = (await ask("web_backend/connections/list", **workspace))["connections"]
    assert item["source"]["sourceId"] == source_id
    whole = await ask("web_backend/connections/get", **by_id)
    assert [pair["config"]["selected"] for pair in whole["syncCatalog"]["streams"]] == [True]
    assert whole["destination"]["destinationId"] == destination_id
    await ask("web_backend/connections/get", **by_id, withRefreshedCatalog=True, answers=501)
    await ask("connections/status", connectionIds=[connection["connectionId"]])
    assert (await ask("state/get", **by_id))["stateType"] == "not_set"

    hourly: Json = {"basicSchedule": {"timeUnit": "hours", "units": 720}}
    held = await ask("connections/update", **by_id, scheduleType="basic", scheduleData=hourly)
    assert held["schedule"] == hourly["basicSchedule"]
    await ask("connections/get", **by_id)
    await ask("connections/list", **workspace)
    held = await ask("connections/update", **by_id, scheduleType="manual")
    assert held.keys().isdisjoint({"schedule", "scheduleData"})
    await ask("connections/update", **by_id, name="four", prefix=f"{order['prefix']}x_")
    held = await ask("connections/get", **by_id)
    assert (held["name"], held["prefix"]) == ("four", f"{order['prefix']}x_")
    assert held["syncCatalog"] == connection["syncCatalog"]

    (pair,) = connection["syncCatalog"]["streams"]
    pair["config"] |= {
        "fieldSelectionEnabled": True,
        "selectedFields": [{"fieldPath": [name]} for name in ("At", "Id")],
    }
    changed: Json = {**by_id, "syncCatalog": {"streams": [pair]}, "breakingChange": False}
    (pair,) = (await ask("connections/update", **changed))["syncCatalog"]["streams"]
    assert list(pair["stream"]["jsonSchema"]["properties"]) == ["Id", "At"]
    assert pair["config"]["selectedFields"] == [{"fieldPath": ["Id"]}, {"fieldPath": ["At"]}]
    await ask("connections/get", **by_id)
    pair["config"]["selectedFields"] = [{"fieldPath": ["Name"]}]
    await ask("connections/update", **by_id, syncCatalog={"streams": [pair]}, answers=422)
    await _mappers(ask, by_id)
    await ask("connections/update", **by_id, schedule={}, answers=500)
    await ask("connections/update", **by_id, status="no such", answers=422)
    await ask("connections/update", connectionId=UNKNOWN, answers=404)

    await _jobs(ask, source_id, connection["connectionId"])


async def _mappers(ask: CheckedBackend, by_id: Json) -> None:
    """Mappers are validated when they are written, and their keys are never shown."""
    if not ask.backend.release.since(1, 3):
        return
    (pair,) = (await ask("connections/get", **by_id))["syncCatalog"]["streams"]
    made: Json = {"targetField": "Id", "method": "SHA-256", "fieldNameSuffix": "_hashed"}
    key: Json = {"algorithm": "AES", "mode": "CBC", "padding": "NoPadding", "key": "00ff"}
    secret: Json = {"targetField": "At", "fieldNameSuffix": "_secret", **key}
    pair["config"]["mappers"] = [
        {"type": "hashing", "mapperConfiguration": made},
        {"type": "encryption", "mapperConfiguration": secret},
    ]
    held = await ask("connections/update", **by_id, syncCatalog={"streams": [pair]})
    (shown,) = held["syncCatalog"]["streams"]
    assert shown["config"]["hashedFields"] == [{"fieldPath": ["Id"]}]
    hashing, encryption = shown["config"]["mappers"]
    assert encryption["mapperConfiguration"]["key"] == "**********"
    again = await ask("connections/update", **by_id, syncCatalog={"streams": [shown]})
    assert again["syncCatalog"] == held["syncCatalog"]

    named: Json = {"streamDescriptor": {"name": "Account", "namespace": "crm"}}
    missing: Json = {"type": "hashing", "mapperConfiguration": made | {"targetField": "gone"}}
    answer = await ask("web_backend/mappers/validate", **by_id, **named, mappers=[hashing, missing])
    assert [one.get("validationError", {}).get("type") for one in answer["mappers"]] == [
        None,
        "FIELD_NOT_FOUND",
    ]
    assert [one["name"] for one in answer["outputFields"]] == ["Id_hashed", "At"]

    shown["config"]["mappers"] = [missing]
    await ask("connections/update", **by_id, syncCatalog={"streams": [shown]}, answers=400)
    shown["config"] |= {"mappers": [], "hashedFields": []}
    held = await ask("connections/update", **by_id, syncCatalog={"streams": [shown]})
    assert held["syncCatalog"]["streams"][0]["config"]["mappers"] == []


async def _jobs(ask: CheckedBackend, source_id: str, connection_id: str) -> None:
    by_id: Json = {"connectionId": connection_id}
    ask.end_jobs(failed=False)
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    await ask("connections/sync", **by_id, answers=409)
    await ask("connections/status", connectionIds=[connection_id])
    ended = await ask.ended(job_id)
    assert ended["job"]["status"] == "succeeded", ended
    assert ended["attempts"][0]["attempt"]["recordsSynced"] == 1
    assert (await ask("state/get", **by_id))["stateType"] == "stream"
    await _refresh(ask, connection_id)
    await ask("jobs/get_light", id=job_id)
    await ask("jobs/get_without_logs", id=job_id)
    await ask("jobs/get", id=4711, answers=500)
    await ask("jobs/cancel", id=job_id, answers=500)

    await ask("sources/update", sourceId=source_id, name="x", connectionConfiguration={"count": 14})
    ask.end_jobs(failed=True)
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    ended = await ask.ended(job_id)
    (failure,) = ended["attempts"][0]["attempt"]["failureSummary"]["failures"]
    assert (ended["job"]["status"], failure["failureType"]) == ("failed", "config_error")
    (status,) = await ask("connections/status", connectionIds=[connection_id])
    assert status.get("connectionSyncStatus", "failed") == "failed"
    listed = await ask("jobs/list", configTypes=["sync"], configId=connection_id)
    workspaces = [ask.backend.instance.workspace_id]
    by_workspace: Json = {"configTypes": ["sync"], "workspaceIds": workspaces}
    assert await ask("jobs/list_for_workspaces", **by_workspace) == listed
    await ask("jobs/list_for_workspaces", configTypes=["sync"], workspaceIds=[UNKNOWN], answers=403)
    assert [one["job"]["status"] for one in listed["jobs"]] == ["failed", "succeeded", "succeeded"]
    await ask("connections/search")


async def _refresh(ask: CheckedBackend, connection_id: str) -> None:
    """A refresh is a job of its own type; it is stored while no job can be started."""
    by_id: Json = {"connectionId": connection_id}
    streams = [{"streamName": "Account", "streamNamespace": "crm"}]
    order: Json = {**by_id, "refreshMode": "Merge", "streams": streams}
    kinds: Json = {"configTypes": ["refresh"], "configId": connection_id}
    is_old = not ask.backend.release.since(1)
    for status in ("active", "inactive"):
        await ask("connections/update", **by_id, status=status)
        answer = await ask("connections/refresh", **order)
        if status == "active" and not is_old:
            assert answer["job"]["configType"] == "refresh"
        else:
            assert answer == ({"value": True} if is_old else {})
        (job, *_) = (await ask("jobs/list", **kinds))["jobs"]
        ended = await ask.ended(job["job"]["id"])
        assert ended["job"]["status"] == "succeeded"
        refreshed = {"streamsToRefresh": [{"name": "Account", "namespace": "crm"}]}
        assert ended["job"]["refreshConfig"] == refreshed
    await ask("connections/update", **by_id, status="active")
    await ask.ended((await ask("connections/sync", **by_id))["job"]["id"])
    assert (await ask("jobs/list", **kinds))["totalJobCount"] == 2
    assert (await ask("state/get", **by_id))["stateType"] == "stream"
    await _states(ask, connection_id)
    await ask("connections/refresh", **by_id, refreshMode="Reset", answers=422)
    await ask("connections/refresh", **by_id, refreshMode="Merge", streams=[{}], answers=422)
    await ask("connections/refresh", **{**order, "connectionId": UNKNOWN}, answers=404)


async def _states(ask: CheckedBackend, connection_id: str) -> None:
    """Writing states replaces only those of the given streams; the state type cannot change."""
    by_id: Json = {"connectionId": connection_id}
    (before,) = (await ask("state/get", **by_id))["streamState"]
    other = {"streamDescriptor": {"name": "Other"}, "streamState": {"At": 2}}
    order: Json = {**by_id, "stateType": "stream", "streamState": [other]}
    written = await ask("state/create_or_update_safe", **by_id, connectionState=order)
    assert sorted(written["streamState"], key=str) == sorted([before, other], key=str)
    order = {**by_id, "stateType": "global", "globalState": {"streamStates": [other]}}
    await ask("state/create_or_update_safe", **by_id, connectionState=order, answers=500)
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    await ask("state/create_or_update_safe", **by_id, connectionState=order, answers=423)
    await ask.ended(job_id)


async def _end(ask: CheckedBackend, source_id: str, destination_id: str) -> None:
    workspace: Json = {"workspaceId": ask.backend.instance.workspace_id}
    (held,) = (await ask("connections/list", **workspace))["connections"]
    by_id: Json = {"connectionId": held["connectionId"]}
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    cancelled = await ask("jobs/cancel", id=job_id)
    assert cancelled["job"]["status"] == "cancelled"
    await ask("connections/update", **by_id, status="inactive")
    await ask("connections/sync", **by_id, answers=500)
    await ask("connections/delete", **by_id, answers=204)
    await ask("connections/update", **by_id, answers=404)
    await ask("destinations/delete", destinationId=destination_id, answers=204)
    await ask("sources/delete", sourceId=source_id, answers=204)
    assert (await ask("sources/list", **workspace))["sources"] == []


async def test_what_is_not_there_is_named(ask: CheckedBackend) -> None:
    """Airbyte endpoints that are not implemented are a 501 that names them, others a 404."""
    for path in ("/api/public/v1/connections", "/api/v1/web_backend/connections/update"):
        answer = await dispatch.answer(ask.backend, "POST", path, b"{}")
        assert (answer.status, answer.content_type) == (501, "application/problem+json")
        assert path.removeprefix("/api/v1/") in answer.body["detail"]
    answer = await dispatch.answer(ask.backend, "POST", "/elsewhere", b"{}")
    assert (answer.status, answer.body["_links"]["self"]["href"]) == (404, "/elsewhere")


OMITTED = {
    "source_definition_specifications/get/advancedAuth": "logins in Airbyte's pages",
    "jobs/list/jobs[]/attempts[]/failureSummary/failures[]/stacktrace": (
        "a connector's stack trace may have secrets, so it is only in the masked job log"
    ),
}
"""Members of recorded responses that the local Airbyte omits, and why."""


def _missing_members(ask: CheckedBackend) -> list[str]:
    """Return the members of recorded responses that this back end's responses lack."""
    found = []
    for recording in recordings():
        played = ask.answers.get(recording.endpoint)
        is_for_this = recording.release == ask.backend.release.version
        if recording.kind != "recorded" or played is None or not is_for_this:
            continue
        if recording.status != 200:
            continue
        own = {member for answer in played for member in members(answer)}
        for place, kind in sorted(set(members(recording.body)) - own):
            if f"{recording.endpoint}{place}" not in OMITTED:
                found.append(f"{recording.name}: {recording.endpoint}{place} is a {kind}")
    return found
