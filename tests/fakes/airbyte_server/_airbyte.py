"""The rest of the fake Airbyte's state, and its endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from local.airbyte.catalog import kept, key_of
from local.airbyte.errors import Refusal, sync_is_running, uncaught
from local.airbyte.releases import Release
from tests.fakes.airbyte_server._actors import (
    DESTINATION,
    SOURCE,
    WORKSPACE_ID,
    Actors,
    Kind,
    need,
)
from tests.fakes.airbyte_server._answers import Answer, Failure, epoch_now, reason

Json = dict[str, Any]

ORGANIZATION_ID = "00000000-0000-0000-0000-000000000000"
TERMINAL = frozenset({"failed", "succeeded", "cancelled"})


class Airbyte(Actors):
    """One Airbyte instance without HTTP: a route maps a request body to an answer."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.jobs: dict[int, Json] = {}
        self.attempts: dict[int, list[Json]] = {}
        self.states: dict[str, list[Json]] = {}
        self.jobs_finish_after: int | None = None

        self._job_outcome: Json = {"status": "succeeded", "records": 0, "bytes": 0}
        self._outcomes_left: int | None = None
        self._polls: Counter[int] = Counter()

    # Scripting

    def finish_job(
        self,
        job_id: int,
        status: Literal["succeeded", "failed", "cancelled", "incomplete"] = "succeeded",
        *,
        records: int = 0,
        bytes: int = 0,
        failure: tuple[str, str] | None = None,
    ) -> None:
        """End a job's running attempt; `failure` is its failure type and message."""
        job, now = self.jobs[job_id], epoch_now()
        stats = {
            "recordsEmitted": records,
            "bytesEmitted": bytes,
            "recordsCommitted": records if status == "succeeded" else 0,
            "bytesCommitted": bytes if status == "succeeded" else 0,
        }
        if self.release.since(2):
            stats["recordsRejected"] = 0
        job.update(status=status, updatedAt=now, aggregatedStats=stats)
        attempt = self.attempts[job_id][-1]
        attempt.update(
            status="succeeded" if status == "succeeded" else "failed",
            updatedAt=now,
            endedAt=now,
            bytesSynced=bytes,
            recordsSynced=records,
            totalStats={
                "recordsEmitted": records,
                "bytesEmitted": bytes,
                "recordsCommitted": stats["recordsCommitted"],
            },
        )
        if failure is not None:
            attempt["failureSummary"] = {
                "failures": [reason(Failure(*failure, retryable=None, times=None))],
                "partialSuccess": False,
            }
        held = self.connections.get(job["configId"])
        if held is not None and status == "succeeded" and job["configType"] == "sync":
            self.states[job["configId"]] = [
                {"streamDescriptor": _descriptor(pair["stream"]), "streamState": {"job": job_id}}
                for pair in held["syncCatalog"]["streams"]
                if pair["config"]["syncMode"] == "incremental"
            ]

    def jobs_end_with(
        self,
        status: Literal["succeeded", "failed", "cancelled"] = "succeeded",
        *,
        polls: int = 1,
        records: int = 0,
        bytes: int = 0,
        failure: tuple[str, str] | None = None,
        times: int | None = None,
    ) -> None:
        """Make jobs end after `polls` status requests.

        `failure` is the failure type and message of their last attempt. After `times` jobs they
        succeed again; None: all jobs end this way.
        """
        self.jobs_finish_after = polls
        self._job_outcome = {
            "status": status,
            "records": records,
            "bytes": bytes,
            "failure": failure,
        }
        self._outcomes_left = times

    def disable(self, connection_id: str | UUID, *, breaking: bool = True) -> None:
        """Disable a connection, as Airbyte itself does after discovering a breaking change."""
        self.connections[str(connection_id)].update(status="inactive", breakingChange=breaking)

    def start_job(self, connection_id: str | UUID, config_type: str = "sync") -> Json:
        """Start a job, as Airbyte's scheduler would, or one that clears data, as a user would.

        `clear` and `reset_connection` delete the state of every stream.
        """
        job_id, now = len(self.jobs) + 1, epoch_now()
        held = self.connections[str(connection_id)]
        self.jobs[job_id] = {
            "id": job_id,
            "configType": config_type,
            "configId": held["connectionId"],
            "createdAt": now,
            "updatedAt": now,
            "startedAt": now,
            "status": "running",
            "enabledStreams": [
                _descriptor(pair["stream"]) for pair in held["syncCatalog"]["streams"]
            ],
        }
        self.attempts[job_id] = [{"id": 0, "status": "running", "createdAt": now, "updatedAt": now}]
        if config_type in _CLEARING:
            self.states.pop(held["connectionId"], None)
        return self.jobs[job_id]

    # The instance

    def _health(self, _: Json) -> Json:
        return {"available": True}

    def _workspace(self) -> Json:
        return {
            "workspaceId": WORKSPACE_ID,
            "organizationId": ORGANIZATION_ID,
            "customerId": WORKSPACE_ID,
            "name": "Default Workspace",
            "slug": "default-workspace",
            "initialSetupComplete": True,
        }

    def _workspaces(self, _: Json) -> Json:
        return {"workspaces": [self._workspace()]}

    def _workspaces_of_organization(self, body: Json) -> Json:
        found = [self._workspace()] if need(body, "organizationId") == ORGANIZATION_ID else []
        return {"workspaces": found}

    def _get_workspace(self, body: Json) -> Json:
        if need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        return self._workspace()

    # Connections

    def _create_connection(self, body: Json) -> Json:
        source_id, destination_id = need(body, "sourceId"), need(body, "destinationId")
        need(body, "status")
        if source_id not in self.sources and source_id not in self._deleted:
            raise self._unknown("SOURCE_CONNECTION", source_id)
        if destination_id not in self.destinations:
            raise self._unknown("DESTINATION_CONNECTION", destination_id)
        if body.get("schedule") and body.get("scheduleType"):
            raise Refusal(422, "Use either schedule or scheduleType, not both.")
        made: Json = {
            "connectionId": str(uuid4()),
            "name": body.get("name") or "source <> destination",
            "sourceId": source_id,
            "destinationId": destination_id,
            "workspaceId": WORKSPACE_ID,
            "status": str(body["status"]).lower(),
            "syncCatalog": {"streams": []},
            "namespaceDefinition": "source",
            "scheduleType": "manual",
            "breakingChange": False,
            "notifySchemaChanges": False,
            "notifySchemaChangesByEmail": False,
            "nonBreakingChangesPreference": "ignore",
            "backfillPreference": "disabled",
            "operationIds": [],
            "created_at": epoch_now(),
        }
        if self.release.since(1):
            made["tags"] = []
        self._patch(made, body)
        self.connections[made["connectionId"]] = made
        return made

    def _update_connection(self, body: Json) -> Json:
        held = self._connection(body)
        if body.get("schedule") is not None:
            raise uncaught("schedule is deprecated.")
        patched = dict(held)
        self._patch(patched, body)
        self._forget_states(held, patched)
        held.clear()
        held.update(patched)
        return held

    def _patch(self, held: Json, body: Json) -> None:
        for name in _CONNECTION_FIELDS:
            if body.get(name) is not None:
                held[name] = body[name]
        if body.get("syncCatalog") is not None:
            held["syncCatalog"] = {"streams": kept(body["syncCatalog"], self.release)}

    def _forget_states(self, before: Json, after: Json) -> None:
        """Delete the state of streams that are deselected or whose sync mode changed."""
        modes = _sync_modes(before)
        kept = [name for name, mode in _sync_modes(after).items() if modes.get(name) == mode]
        connection_id = after["connectionId"]
        self.states[connection_id] = [
            state
            for state in self.states.get(connection_id, [])
            if key_of(state["streamDescriptor"]) in kept
        ]

    def _get_state(self, body: Json) -> Json:
        connection_id = self._connection(body)["connectionId"]
        states = self.states.get(connection_id)
        told: Json = {"connectionId": connection_id, "stateType": "not_set"}
        return told | {"stateType": "stream", "streamState": states} if states else told

    def _connection(self, body: Json) -> Json:
        connection_id = str(need(body, "connectionId"))
        held = self.connections.get(connection_id)
        if held is None:
            raise self._unknown("STANDARD_SYNC", connection_id)
        return held

    def _get_connection(self, body: Json) -> Json:
        connection_id = str(need(body, "connectionId"))
        if connection_id in self._deleted:
            return self._deleted[connection_id]
        return self._connection(body)

    def _list_connections(self, body: Json) -> Json:
        if need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        return {"connections": list(self.connections.values())}

    def _list_connection_items(self, body: Json) -> Json:
        """List connections without catalogs, as for the web app; paged since 1.8."""
        if need(body, "workspaceId") != WORKSPACE_ID:
            raise self._unknown("STANDARD_WORKSPACE", body["workspaceId"])
        wanted = body.get("sourceId")
        found = [
            self._connection_item(held)
            for held in self.connections.values()
            if not wanted or held["sourceId"] in wanted
        ]
        if not self.release.since(1, 8):
            return {"connections": found}
        found.sort(key=lambda one: (one["name"].lower(), one["connectionId"]))
        total, cursor = len(found), body.get("cursor")
        if cursor is not None:
            ids = [one["connectionId"] for one in found]
            if cursor not in ids:
                raise self._unknown("STANDARD_SYNC", cursor)
            found = found[ids.index(cursor) + 1 :]
        size = body.get("pageSize") or 20
        return {"connections": found[:size], "page_size": size, "num_connections": total}

    def _connection_item(self, held: Json) -> Json:
        jobs = self._jobs_of(held["connectionId"])
        item: Json = {
            **{name: held[name] for name in ("connectionId", "name", "status", "scheduleType")},
            "isSyncing": self._running(held["connectionId"]) is not None,
            "schemaChange": "breaking" if held["breakingChange"] else "no_change",
        }
        for kind in (SOURCE, DESTINATION):
            actor_id = held[f"{kind.word}Id"]
            actor = self._held(kind).get(actor_id) or self._deleted[actor_id]
            definition = self._definition(kind, actor[f"{kind.word}DefinitionId"])
            names = (f"{kind.word}Id", "name", f"{kind.word}DefinitionId", f"{kind.word}Name")
            item[kind.word] = {name: actor[name] for name in names}
            version: Json = {
                "dockerRepository": definition["dockerRepository"],
                "dockerImageTag": definition["dockerImageTag"],
                "supportsRefreshes": False,
                "supportState": "supported",
                "isVersionOverrideApplied": False,
            }
            if self.release.since(2):
                version |= {"supportsFileTransfer": False, "supportsDataActivation": False}
            item[f"{kind.word}ActorDefinitionVersion"] = version
        if jobs:
            item["latestSyncJobCreatedAt"] = jobs[0]["createdAt"]
            item["latestSyncJobStatus"] = jobs[0]["status"]
        if self.release.since(1):
            item["tags"] = []
        if self.version == "head":
            item["onDemandEnabled"] = False
        return item

    def _delete_connection(self, body: Json) -> Answer:
        self._tombstone(self._connection(body))
        return Answer(204)

    def _search_connections(self, _: Json) -> Json:
        return {"connections": []}

    # Jobs

    def _sync(self, body: Json) -> Json:
        held = self._connection(body)
        if held["status"] != "active":
            raise uncaught("Can only sync an active connection")
        if self._running(held["connectionId"]) is not None:
            raise sync_is_running(held["connectionId"])
        return self._job_info_read(self.start_job(held["connectionId"])["id"])

    def _running(self, connection_id: str) -> Json | None:
        return next((job for job in self._jobs_of(connection_id) if _runs(job)), None)

    def _jobs_of(self, connection_id: str) -> list[Json]:
        newest_first = sorted(self.jobs.values(), key=lambda job: -job["id"])
        return [job for job in newest_first if job["configId"] == connection_id]

    def _poll(self, job: Json) -> None:
        if self.jobs_finish_after is None or not _runs(job):
            return
        self._polls[job["id"]] += 1
        if self._polls[job["id"]] < self.jobs_finish_after:
            return
        self.finish_job(job["id"], **self._job_outcome)
        if self._outcomes_left is not None:
            self._outcomes_left -= 1
            if self._outcomes_left == 0:
                self.jobs_end_with(polls=self.jobs_finish_after)

    def _job(self, body: Json) -> Json:
        job_id = need(body, "id")
        if job_id not in self.jobs:
            raise uncaught(f"Could not find job with id: {job_id}", "java.lang.RuntimeException")
        return self.jobs[job_id]

    def _get_job(self, body: Json) -> Json:
        job = self._job(body)
        self._poll(job)
        return self._job_info_read(job["id"])

    def _get_job_light(self, body: Json) -> Json:
        job = self._job(body)
        self._poll(job)
        return {"job": job}

    def _job_info_read(self, job_id: int) -> Json:
        logs: Json = {"logs": {"logLines": []}}
        if self.release.since(2):
            logs["logType"] = "formatted"
        attempts = [{"attempt": attempt, **logs} for attempt in self.attempts[job_id]]
        return {"job": self.jobs[job_id], "attempts": attempts}

    def _list_jobs(self, body: Json) -> Json:
        types, config_id = need(body, "configTypes"), body.get("configId")
        since = body.get("createdAtStart")
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: -job["id"])
            if job["configType"] in types
            and config_id in (None, job["configId"])
            and (not body.get("statuses") or job["status"] in body["statuses"])
            and (since is None or job["createdAt"] >= datetime.fromisoformat(since).timestamp() - 1)
        ]
        for job in found:
            self._poll(job)
        page = body.get("pagination") or {}
        start, size = page.get("rowOffset") or 0, page.get("pageSize") or 200
        listed = [
            {"job": job, "attempts": self.attempts[job["id"]]} for job in found[start:][:size]
        ]
        return {"jobs": listed, "totalJobCount": len(found)}

    def _cancel_job(self, body: Json) -> Json:
        job = self._job(body)
        if not _runs(job):
            raise uncaught("Transitioning Job out of a terminal state")
        self.finish_job(job["id"], "cancelled")
        return self._job_info_read(job["id"])

    def _statuses(self, body: Json) -> list[Json]:
        ids = need(body, "connectionIds")
        return [self._status(self._connection({"connectionId": one})) for one in ids]

    def _status(self, held: Json) -> Json:
        connection_id = held["connectionId"]
        jobs = self._jobs_of(connection_id)
        for job in jobs:
            self._poll(job)
        succeeded = next((job for job in jobs if job["status"] == "succeeded"), None)
        told: Json = {"connectionId": connection_id}
        if jobs:
            told |= {"lastSyncJobId": jobs[0]["id"], "lastSyncAttemptNumber": 0}
        if succeeded is not None:
            told["lastSuccessfulSync"] = succeeded["updatedAt"]
        running = self._running(connection_id)
        if not self.release.since(1):
            told["isRunning"] = running is not None
            ended = next((job for job in jobs if not _runs(job)), None)
            told["isLastCompletedJobReset"] = ended is not None and ended["configType"] in _CLEARING
            if jobs:
                told["lastSyncJobStatus"] = jobs[0]["status"]
            return told
        if jobs:
            told["lastSyncJobCreatedAt"] = jobs[0]["createdAt"]
        if running is not None:
            told["activeJob"] = running
        told["connectionSyncStatus"] = _sync_status(held, jobs, running)
        return told


Route = Callable[[Airbyte, Json], Any]


def _of(kind: Kind, method: Callable[[Airbyte, Kind, Json], Any]) -> Route:
    return lambda server, body: method(server, kind, body)


def _actor_routes(kind: Kind) -> dict[tuple[str, str], Route]:
    methods: dict[str, Callable[[Airbyte, Kind, Json], Any]] = {
        "create": Airbyte._create_actor,
        "get": lambda server, kind, body: server._read_actor(kind, server._actor(kind, body)),
        "list": Airbyte._list_actors,
        "update": Airbyte._update_actor,
        "partial_update": Airbyte._patch_actor,
        "delete": Airbyte._delete_actor,
        "check_connection": Airbyte._check_actor,
        "check_connection_for_update": Airbyte._check_actor_update,
    }
    return {("POST", f"{kind.word}s/{verb}"): _of(kind, act) for verb, act in methods.items()}


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "health"): Airbyte._health,
    ("POST", "workspaces/list"): Airbyte._workspaces,
    ("POST", "workspaces/list_by_organization_id"): Airbyte._workspaces_of_organization,
    ("POST", "workspaces/get"): Airbyte._get_workspace,
    ("POST", "source_definitions/list"): Airbyte._list_source_definitions,
    ("POST", "source_definitions/list_for_workspace"): Airbyte._list_source_definitions,
    ("POST", "source_definitions/get"): Airbyte._get_source_definition,
    ("POST", "source_definition_specifications/get"): Airbyte._source_specification,
    ("POST", "destination_definitions/list"): Airbyte._list_destination_definitions,
    (
        "POST",
        "destination_definitions/list_for_workspace",
    ): Airbyte._list_destination_definitions,
    ("POST", "destination_definitions/get"): Airbyte._get_destination_definition,
    ("POST", "destination_definition_specifications/get"): Airbyte._destination_specification,
    **_actor_routes(SOURCE),
    **_actor_routes(DESTINATION),
    ("POST", "sources/discover_schema"): Airbyte._discover,
    ("POST", "sources/most_recent_source_actor_catalog"): Airbyte._most_recent_catalog,
    ("POST", "sources/search"): Airbyte._search_sources,
    ("POST", "commands/run/discover"): Airbyte._run_discover_command,
    ("POST", "commands/run/check"): Airbyte._run_check_command,
    ("POST", "commands/status"): Airbyte._command_status,
    ("POST", "commands/output/discover"): Airbyte._discover_output,
    ("POST", "commands/output/check"): Airbyte._check_output,
    ("POST", "commands/cancel"): Airbyte._cancel_command,
    ("POST", "connections/create"): Airbyte._create_connection,
    ("POST", "connections/update"): Airbyte._update_connection,
    ("POST", "connections/get"): Airbyte._get_connection,
    ("POST", "connections/list"): Airbyte._list_connections,
    ("POST", "web_backend/connections/list"): Airbyte._list_connection_items,
    ("POST", "connections/search"): Airbyte._search_connections,
    ("POST", "connections/delete"): Airbyte._delete_connection,
    ("POST", "connections/sync"): Airbyte._sync,
    ("POST", "connections/status"): Airbyte._statuses,
    ("POST", "state/get"): Airbyte._get_state,
    ("POST", "jobs/get"): Airbyte._get_job,
    ("POST", "jobs/get_light"): Airbyte._get_job_light,
    ("POST", "jobs/get_without_logs"): Airbyte._get_job,
    ("POST", "jobs/list"): Airbyte._list_jobs,
    ("POST", "jobs/cancel"): Airbyte._cancel_job,
}


def offers(release: Release, path: str) -> bool:
    """Whether a release has a path, of those in `ROUTES`."""
    if path == "workspaces/list":
        return not release.since(1, 7)
    return release.since(1, 7) or not path.startswith("commands/")


_CONNECTION_FIELDS = (
    "name",
    "namespaceDefinition",
    "namespaceFormat",
    "prefix",
    "operationIds",
    "scheduleType",
    "scheduleData",
    "status",
    "resourceRequirements",
    "sourceCatalogId",
    "breakingChange",
    "notifySchemaChanges",
    "notifySchemaChangesByEmail",
    "nonBreakingChangesPreference",
    "backfillPreference",
    "tags",
)


_CLEARING = frozenset({"clear", "reset_connection"})


def _sync_modes(connection: Json) -> dict[tuple[str | None, str], str]:
    return {
        key_of(pair["stream"]): pair["config"]["syncMode"]
        for pair in connection["syncCatalog"]["streams"]
    }


def _runs(job: Json) -> bool:
    return job["status"] not in TERMINAL


def _sync_status(held: Json, jobs: list[Json], running: Json | None) -> str:
    if running is not None:
        return "running"
    if held["breakingChange"]:
        return "failed"
    if held["status"] != "active":
        return "paused"
    if not jobs:
        return "pending"
    return "synced" if jobs[0]["status"] == "succeeded" else "incomplete"


def _descriptor(offered: Json) -> Json:
    return {name: offered[name] for name in ("name", "namespace") if offered.get(name) is not None}
