"""The scripted back end: sources, connections and jobs that a test sets, without connectors."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import orjson

from local.airbyte import specification
from local.airbyte.api import defaults, reads
from local.airbyte.api.backend import (
    Check,
    Command,
    Definition,
    Instance,
    Kind,
    Outcome,
    Refresh,
)
from local.airbyte.api.definitions import definition_of
from local.airbyte.catalog import (
    config_read,
    read_from_start,
    stored_streams,
    stream_read,
    streams_with_another_mode,
)
from local.airbyte.errors import Refusal, forbidden, not_found, sync_is_running, uncaught
from local.airbyte.releases import MOST_STREAMS, ErrorStyle, Release
from tests.fakes.airbyte_server._catalogs import proposed
from tests.fakes.airbyte_server._connector_failures import Failure, epoch_now, reason
from tests.fakes.airbyte_server._definitions import (
    DEFINITIONS,
    POSTGRES,
    SALESFORCE,
    SPECIFICATIONS,
    WORKSPACE_ID,
)
from tests.fakes.airbyte_server._versions import Versions

Json = dict[str, Any]
Auth = Literal["none", "basic", "token", "bearer"]


class ScriptedBackend(Versions):
    """An Airbyte without HTTP, whose state is in plain attributes."""

    page_size = defaults.PAGE_SIZE
    port = 0
    auth: Auth = "none"

    def __init__(self, version: str) -> None:
        super().__init__()
        self.version = version
        self.error_style: ErrorStyle | None = None
        self.workspaces: dict[str, str] = {WORKSPACE_ID: "Default Workspace"}
        """The names of workspaces by their ids; the login may not use one that is removed."""
        self.mixes_workspaces = False
        """Whether lists of sources and connections include those of other workspaces."""
        self.sources: dict[str, Json] = {}
        self.destinations: dict[str, Json] = {}
        self.connections: dict[str, Json] = {}
        self.jobs: dict[int, Json] = {}
        self.attempts: dict[int, list[Json]] = {}
        self.states: dict[str, list[Json]] = {}
        self.logs: dict[tuple[int | str, int], list[str]] = {}
        """The lines of logs, by the job's id and the number of the attempt."""
        self.state_type: Literal["stream", "global"] = "stream"
        self.supports_refreshes = True
        self.refreshes: dict[str, list[Refresh]] = {}
        self.commands: dict[str, Json] = {}
        self.discoveries: Counter[str] = Counter()
        self.unknown_is_forbidden = False
        self.command_statuses: list[str | None] = ["running"]
        self.jobs_finish_after: int | None = None

        self._added: list[Definition] = []
        self._specifications: dict[str, Json] = {}
        self._deleted: dict[str, Json] = {}
        self._catalogs: dict[str, Any] = {}
        self._newest: dict[str, str] = {}
        self._open_discoveries: set[str] = set()
        self._most_open = 0
        self._failing_checks: dict[str | None, Failure] = {}
        self._accepted: Json = {}
        self._renewed: Json = {}
        self._renewed_by_discovery: dict[str, Json] = {}
        self._job_outcome: Json = {"status": "succeeded", "records": 0, "bytes": 0}
        self._outcomes_left: int | None = None
        self._polls: Counter[int] = Counter()

    # Scripting

    @property
    def version(self) -> str:
        """The emulated release; setting it switches the release and keeps all state."""
        return self.release.version

    @version.setter
    def version(self, version: str) -> None:
        self.release = Release(version)

    def fail_check(
        self,
        message: str = "Authentication failed.",
        *,
        failure_type: str = "config_error",
        job: bool = False,
        source: str | UUID | None = None,
        times: int | None = None,
    ) -> None:
        """Make checks answer `failed`; with `job` the check itself fails, and has no status."""
        key = None if source is None else str(source)
        self._failing_checks[key] = Failure(failure_type, message, None, times, job)

    def accept_only(self, **fields: Any) -> None:
        """Make checks succeed only for configurations with these values."""
        self._accepted = fields

    def renew(self, source_id: str | UUID, **fields: Any) -> None:
        """Simulate a token renewal by a connector: Airbyte stores the new token in the source."""
        held = self.sources[str(source_id)]
        held["connectionConfiguration"] = held["connectionConfiguration"] | fields

    def renew_on_check(self, **fields: Any) -> None:
        """Make the next successful check renew these fields; then only the new values are valid."""
        self._renewed = fields

    def renew_on_discovery(self, source_id: str | UUID, **fields: Any) -> None:
        """Make the source's next successful discovery renew these fields.

        Only sources/discover_schema reports this; the discover command, since 1.7, does not: a
        client has to read the source's configuration.
        """
        self._renewed_by_discovery[str(source_id)] = fields

    def add_workspace(self, name: str) -> str:
        """Add a workspace, and return its id."""
        workspace_id = str(uuid4())
        self.workspaces[workspace_id] = name
        return workspace_id

    def add_source(
        self,
        name: str,
        definition_id: str = SALESFORCE,
        *,
        workspace: str = WORKSPACE_ID,
        **configuration: Any,
    ) -> Json:
        """Add a source, as if it were created manually."""
        definition = definition_of(self, "source", definition_id)
        return self.create_actor(definition, name, configuration, workspace_id=workspace)

    def add_definition(self, name: str, schema: Json, *, tag: str = "1.0.0") -> str:
        """Add a custom source definition with this specification, and return its id."""
        definition_id = str(uuid4())
        self._added.append(
            Definition(
                kind="source",
                id=definition_id,
                name=name,
                repository="example/source-custom",
                tag=tag,
                documentation="https://docs.example.org/custom",
                support_level="none",
                custom=True,
            )
        )
        self._specifications[definition_id] = schema
        return definition_id

    def specify(self, definition_id: str, schema: Json) -> None:
        """Replace the specification of a definition."""
        self._specifications[definition_id] = schema

    def add_destination(
        self,
        name: str = "Warehouse",
        definition_id: str = POSTGRES,
        *,
        workspace: str = WORKSPACE_ID,
        **configuration: Any,
    ) -> Json:
        """Add a destination, as if it were created manually."""
        definition = definition_of(self, "destination", definition_id)
        return self.create_actor(definition, name, configuration, workspace_id=workspace)

    def disable(self, connection_id: str | UUID, *, breaking: bool = True) -> None:
        """Disable a connection, as Airbyte itself does after discovering a breaking change."""
        self.connections[str(connection_id)].update(status="inactive", breakingChange=breaking)

    def start_job(self, connection_id: str | UUID, config_type: str = "sync") -> Json:
        """Start a job, as Airbyte's scheduler would, or one that clears data, as a user would.

        `clear` and `reset_connection` delete the state of every stream. A `sync` is a `refresh` if
        one is stored for the connection.
        """
        job_id, now = len(self.jobs) + 1, epoch_now()
        held = self.connections[str(connection_id)]
        refreshed: list[Json] = []
        if config_type == "sync":
            stored = self.refreshes.pop(held["connectionId"], [])
            refreshed = [stream for refresh in stored for stream in refresh.streams]
            config_type = "refresh" if refreshed else "sync"
            streams = held["syncCatalog"]["streams"]
            self._forget_states(held["connectionId"], read_from_start(streams, refreshed))
        self.jobs[job_id] = reads.job(
            job_id=job_id,
            config_type=config_type,
            connection_id=held["connectionId"],
            streams=[reads.descriptor(pair["stream"]) for pair in held["syncCatalog"]["streams"]],
            status="queued" if self.release.is_cloud else "running",
            created_at=now,
            updated_at=now,
            started_at=now,
            refreshed=refreshed,
        )
        self.attempts[job_id] = [
            reads.attempt(
                number=0, status="running", created_at=now, updated_at=now, release=self.release
            )
        ]
        if config_type in reads.CLEARING:
            self.states.pop(held["connectionId"], None)
        return self.jobs[job_id]

    def finish_job(
        self,
        job_id: int,
        status: Literal["succeeded", "failed", "cancelled", "incomplete"] = "succeeded",
        *,
        records: int = 0,
        bytes: int = 0,
        streams: Mapping[str, int] | None = None,
        failure: tuple[str, str] | None = None,
    ) -> None:
        """End a job's running attempt; `failure` is its failure type and message.

        `streams` are the records by stream's name, of which Airbyte leaves out a stream that sent
        nothing; without it, all records are those of the job's first stream.
        """
        if streams is not None:
            records = sum(streams.values())
        job, attempt, now = self.jobs[job_id], self.attempts[job_id][-1], epoch_now()
        succeeded = status == "succeeded"
        counted = reads.counts(records, bytes, *((records, bytes) if succeeded else (0, 0)))
        job.update(
            status=status,
            updatedAt=now,
            aggregatedStats=reads.job_counts(counted, self.release),
        )
        counts = _stream_counts(job, streams, counted, succeeded=succeeded)
        job["streamAggregatedStats"] = [
            {**names, **reads.job_counts(stats, self.release)} for names, stats in counts
        ]
        failures = [reason(Failure(*failure, retryable=None, times=None))] if failure else []
        attempt.update(
            reads.attempt(
                number=attempt["id"],
                status="succeeded" if succeeded else "failed",
                created_at=attempt["createdAt"],
                updated_at=now,
                ended_at=now,
                counted=counted,
                streams=[{**names, "stats": stats} for names, stats in counts],
                failure={"failures": failures, "partialSuccess": False} if failures else None,
                release=self.release,
            )
        )
        held = self.connections.get(job["configId"])
        if held is not None and succeeded and job["configType"] in ("sync", "refresh"):
            read = [
                reads.descriptor(pair["stream"])
                for pair in held["syncCatalog"]["streams"]
                if pair["config"]["syncMode"] == "incremental"
            ]
            self._forget_states(job["configId"], [_key_of(stream) for stream in read])
            self.states.setdefault(job["configId"], []).extend(
                {"streamDescriptor": stream, "streamState": {"job": job_id}} for stream in read
            )

    def jobs_end_with(
        self,
        status: Literal["succeeded", "failed", "cancelled"] = "succeeded",
        *,
        polls: int = 1,
        records: int = 0,
        bytes: int = 0,
        streams: Mapping[str, int] | None = None,
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
            "streams": streams,
            "failure": failure,
        }
        self._outcomes_left = times

    @property
    def instance(self) -> Instance:
        """Return the instance's own information."""
        return Instance(
            url=f"http://127.0.0.1:{self.port}",
            auth_mode="simple" if self.auth in ("token", "bearer") else "none",
            email="somebody@example.org",
            workspace_id=WORKSPACE_ID,
            workspaces=self.workspaces,
        )

    def unknown(self, kind: str, given: str) -> Refusal:
        """Return the error for an unknown object, depending on `unknown_is_forbidden`."""
        return forbidden() if self.unknown_is_forbidden else not_found(kind, given)

    # Definitions

    def definitions(self, kind: Kind) -> list[Definition]:
        """Return the connectors, each with its newest version.

        `supports_refreshes` holds for all destinations.
        """
        supports = self.supports_refreshes and kind == "destination"
        known = [*DEFINITIONS[kind], *(one for one in self._added if one.kind == kind)]
        return [replace(self.published(one), supports_refreshes=supports) for one in known]

    async def specification(self, definition: Definition) -> Json:
        """Return a connector's specification."""
        return self._specifications.get(definition.id) or SPECIFICATIONS[definition.id]

    def destination_sync_modes(self, definition: Definition) -> list[str]:  # noqa: ARG002
        """Return the modes of Airbyte's Postgres destination."""
        return ["overwrite", "append", "append_dedup"]

    def config_faults(self, config: Json, schema: Json) -> list[str]:
        """List the faults of a configuration and quote it, so that tests can search for it."""
        faults = specification.faults(config, schema)
        return [*faults, f"in {config}"] if faults else []

    def log_lines(self, job_id: int | str, attempt: int = 0) -> list[str]:
        """Return the scripted lines of an attempt's log."""
        return self.logs.get((job_id, attempt), [])

    # Sources and destinations

    def _held(self, kind: Kind) -> dict[str, Json]:
        return self.sources if kind == "source" else self.destinations

    def list_actors(self, kind: Kind, workspace_id: str | None = None) -> list[Json]:
        """Return the sources or destinations of a workspace, or of all."""
        return self._of(self._held(kind).values(), workspace_id)

    def _of(self, held: Iterable[Json], workspace_id: str | None) -> list[Json]:
        if workspace_id is None or self.mixes_workspaces:
            return list(held)
        return [one for one in held if one["workspaceId"] == workspace_id]

    def actor(self, kind: Kind, actor_id: str, *, with_deleted: bool = False) -> Json:
        """Return a source or destination as it is stored."""
        held = self._held(kind).get(actor_id)
        if held is None and with_deleted:
            held = self._deleted.get(actor_id)
        if held is None:
            raise self.unknown(f"{kind.upper()}_CONNECTION", actor_id)
        return held

    def create_actor(
        self, definition: Definition, name: str, config: Json, *, workspace_id: str
    ) -> Json:
        """Add a source or destination."""
        actor_id = str(uuid4())
        self._held(definition.kind)[actor_id] = created = reads.actor(
            definition,
            actor_id=actor_id,
            workspace_id=workspace_id,
            name=name,
            config=config,
            created_at=epoch_now(),
            release=self.release,
        )
        return created

    def update_actor(self, kind: Kind, actor: Json, name: str, config: Json) -> Json:  # noqa: ARG002
        """Change the name and the whole configuration."""
        actor.update(name=name, connectionConfiguration=config)
        return actor

    async def delete_actor(self, kind: Kind, actor: Json) -> None:
        """Delete a source or destination and its connections."""
        actor_id = actor[f"{kind}Id"]
        for connection in list(self.connections.values()):
            if connection[f"{kind}Id"] == actor_id:
                await self.delete_connection(connection)
        self._deleted[actor_id] = self._held(kind).pop(actor_id)

    # Connector runs

    async def check(self, definition: Definition, actor: Json | None, config: Json) -> Outcome:
        """Return the scripted verdict."""
        actor_id = str(actor and actor[f"{definition.kind}Id"])
        failure = _taken(self._failing_checks, actor_id)
        if failure is None and not self._accepted.items() <= config.items():
            failure = Failure("config_error", "invalid_grant", None, None)
        if failure is None:
            renewed = bool(self._renewed)
            if renewed and actor is not None:
                # Airbyte stores the whole configuration that the connector returns.
                actor["connectionConfiguration"] = {**config, **self._renewed}
            if renewed:
                self._accepted, self._renewed = self._accepted | self._renewed, {}
            return _outcome(check=Check(True, None), renewed=renewed)
        if failure.job:
            return _outcome(failure=reason(failure))
        return _outcome(check=Check(False, failure.message))

    async def discover(self, source: Json) -> Outcome:
        """Return the catalog that is offered next, or the scripted failure."""
        source_id = source["sourceId"]
        self.discoveries[source_id] += 1
        failure = _taken(self._failing_discoveries, source_id)
        if failure is not None:
            return _outcome(failure=reason(failure))
        renewed = source_id in self._renewed_by_discovery
        if renewed:
            self.renew(source_id, **self._renewed_by_discovery.pop(source_id))
        found = self._offer_of_version(source) or self._next_offer(source_id)
        if self.release.is_cloud and isinstance(found, dict):
            number = len(found.get("streams", []))
            if number > MOST_STREAMS:
                message = f"The source has {number} streams, more than {MOST_STREAMS}."
                return _outcome(failure=reason(Failure("config_error", message, None, None)))
        if isinstance(found, dict):
            streams = found.get("streams", [])
            found = {"streams": [self._proposed(pair, streams) for pair in streams]}
        digest = hashlib.sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()
        catalog_id = str(uuid5(NAMESPACE_URL, digest))
        self._catalogs[catalog_id], self._newest[source_id] = found, catalog_id
        return _outcome(catalog_id=catalog_id, renewed=renewed)

    def _proposed(self, pair: Json, pairs: list[Json]) -> Json:
        if pair.get("config") is None:
            return proposed(pair["stream"], [one["stream"] for one in pairs], self.release)
        return {
            "stream": stream_read(pair["stream"], self.release),
            "config": config_read(pair["config"], self.release),
        }

    def cached_catalog(self, source: Json) -> str | None:
        """Return the id of the newest catalog, whatever has changed since."""
        return self._newest.get(source["sourceId"])

    async def discovered(self, source: Json, catalog_id: str) -> Any:  # noqa: ARG002
        """Return a discovered catalog."""
        return self._catalogs[catalog_id]

    def newest_discovery(self, source: Json) -> Json:
        """Return a time if there was a discovery."""
        return {"updatedAt": epoch_now()} if source["sourceId"] in self._newest else {}

    # Commands

    async def run_command(
        self,
        command_id: str,
        kind: str,
        source_id: str | None,
        run: Callable[[], Awaitable[Outcome]],
    ) -> None:
        """Run the command at once; its statuses are those of `command_statuses`."""
        if command_id in self.commands:
            return
        self.commands[command_id] = {
            "kind": kind,
            "source_id": source_id,
            "statuses": [*self.command_statuses, "completed"],
            "outcome": await run(),
        }
        if kind == "discover":
            self._open_discoveries.add(command_id)
            self._most_open = max(self._most_open, len(self._open_discoveries))

    def command(self, command_id: str) -> Command | None:
        """Return a command; it has an outcome when a client has seen its last status."""
        held = self.commands.get(command_id)
        if held is None:
            return None
        status = held["statuses"][0]
        return Command(
            id=command_id,
            kind=held["kind"],
            source_id=held["source_id"],
            status=status,
            outcome=held["outcome"] if status in ("completed", "cancelled") else None,
        )

    def command_status(self, command_id: str) -> str | None:
        """Return the next status."""
        statuses: list[str | None] = self.commands[command_id]["statuses"]
        status = statuses[0]
        if len(statuses) > 1:
            statuses.pop(0)
        if status in ("completed", "cancelled"):
            self._open_discoveries.discard(command_id)
        return status

    async def cancel_command(self, command_id: str) -> None:
        """Cancel a command, unless a client has seen it completed."""
        command = self.commands[command_id]
        self._open_discoveries.discard(command_id)
        if command["statuses"][0] != "completed":
            command["statuses"] = ["cancelled"]
            cancelled = Failure("manual_cancellation", "The command was cancelled.", None, None)
            command["outcome"] = _outcome(failure=reason(cancelled))

    # Connections

    def list_connections(self, workspace_id: str) -> list[Json]:
        """Return all connections of a workspace."""
        return self._of(self.connections.values(), workspace_id)

    def connection(self, connection_id: str, *, with_deleted: bool = False) -> Json:
        """Return a connection as it is stored."""
        held = self.connections.get(connection_id)
        if held is None and with_deleted:
            held = self._deleted.get(connection_id)
        if held is None:
            raise self.unknown("STANDARD_SYNC", connection_id)
        return held

    async def create_connection(
        self, source: Json, destination: Json, settings: Json, sync_catalog: Json
    ) -> Json:
        """Connect a source to a destination."""
        connection_id = str(uuid4())
        self.connections[connection_id] = created = reads.connection(
            connection_id=connection_id,
            source_id=source["sourceId"],
            destination_id=destination["destinationId"],
            workspace_id=source["workspaceId"],
            settings=settings,
            streams=stored_streams(sync_catalog, self.release),
            created_at=epoch_now(),
            release=self.release,
        )
        return created

    async def update_connection(
        self, connection: Json, settings: Json, sync_catalog: Json | None
    ) -> Json:
        """Change the given settings and, if it is given, the catalog."""
        before = connection["syncCatalog"]["streams"]
        after = before
        if sync_catalog is not None:
            after = stored_streams(sync_catalog, self.release, before)
        if self.release.since(1, 8):
            changed = streams_with_another_mode(before, after)
            self._forget_states(connection["connectionId"], changed)
        connection.update(settings, syncCatalog={"streams": after})
        for name in [name for name, value in settings.items() if value is None]:
            del connection[name]
        return connection

    async def delete_connection(self, connection: Json) -> None:
        """Delete a connection; reading it shows it as deprecated."""
        connection_id = connection["connectionId"]
        del self.connections[connection_id]
        self._deleted[connection_id] = {**connection, "status": "deprecated"}

    def state(self, connection_id: str) -> Json:
        """Return the state of each stream, of the type `state_type`."""
        states = self.states.get(connection_id)
        if not states:
            return {"stateType": "not_set"}
        if self.state_type == "global":
            newest = max(state["streamState"].get("job", 0) for state in states)
            whole = {"shared_state": {"job": newest}, "streamStates": states}
            return {"stateType": "global", "globalState": whole}
        return {"stateType": "stream", "streamState": states}

    def put_states(
        self, connection_id: str, kind: str, states: Mapping[tuple[str | None, str], Any]
    ) -> None:
        """Write states of streams; a shared one is computed from theirs."""
        self.state_type = "global" if kind == "global" else "stream"
        written = {key: state for key, state in states.items() if key[1]}
        self._forget_states(connection_id, written)
        self.states[connection_id] += [
            {
                "streamDescriptor": reads.descriptor({"name": name, "namespace": namespace}),
                "streamState": state,
            }
            for (namespace, name), state in written.items()
        ]

    def _forget_states(
        self, connection_id: str, streams: Collection[tuple[str | None, str]]
    ) -> None:
        self.states[connection_id] = [
            state
            for state in self.states.get(connection_id, [])
            if _key_of(state["streamDescriptor"]) not in streams
        ]

    # Jobs

    def before_read(self, job: Json) -> None:
        """End the job if it has been read often enough; a queued one starts to run."""
        if job["status"] == "queued":
            job["status"] = "running"
            return
        if self.jobs_finish_after is None or not reads.is_open(job):
            return
        self._polls[job["id"]] += 1
        if self._polls[job["id"]] < self.jobs_finish_after:
            return
        self.finish_job(job["id"], **self._job_outcome)
        if self._outcomes_left is not None:
            self._outcomes_left -= 1
            if self._outcomes_left == 0:
                self.jobs_end_with(polls=self.jobs_finish_after)

    def list_jobs(
        self, connection_id: str | None = None, *, workspaces: Collection[str] | None = None
    ) -> list[Json]:
        """Return the jobs of a connection, or all, or those of workspaces, newest first."""
        newest_first = sorted(self.jobs.values(), key=lambda job: -job["id"])
        found = [job for job in newest_first if connection_id in (None, job["configId"])]
        if workspaces is None:
            return found
        return [job for job in found if self._workspace_of(job["configId"]) in workspaces]

    def _workspace_of(self, connection_id: str) -> str | None:
        held = self.connections.get(connection_id) or self._deleted.get(connection_id, {})
        return held.get("workspaceId")

    def job(self, job_id: int) -> Json:
        """Return a job as it is stored."""
        if job_id not in self.jobs:
            raise uncaught(f"Could not find job with id: {job_id}", "java.lang.RuntimeException")
        return self.jobs[job_id]

    def list_attempts(self, job_id: int) -> list[Json]:
        """Return a job's attempts."""
        return self.attempts[job_id]

    def start_sync(self, connection: Json) -> int:
        """Start a sync."""
        connection_id: str = connection["connectionId"]
        if any(reads.is_open(job) for job in self.list_jobs(connection_id)):
            raise sync_is_running(connection_id)
        job_id: int = self.start_job(connection_id)["id"]
        return job_id

    def refresh(self, connection: Json, refresh: Refresh) -> int | None:
        """Store a refresh and start the job that carries it out, unless none can be started."""
        connection_id: str = connection["connectionId"]
        self.refreshes.setdefault(connection_id, []).append(refresh)
        is_busy = any(reads.is_open(job) for job in self.list_jobs(connection_id))
        if is_busy or connection["status"] != "active":
            return None
        job_id: int = self.start_job(connection_id)["id"]
        return job_id

    async def cancel_job(self, job_id: int) -> bool:
        """Cancel an open job."""
        is_open = reads.is_open(self.jobs[job_id])
        if is_open:
            self.finish_job(job_id, "cancelled")
        return is_open


def _outcome(**members: Any) -> Outcome:
    now = epoch_now()
    return Outcome(
        **{
            "job_id": str(uuid4()),
            "started_at": now,
            "ended_at": now,
            "renewed": False,
            **members,
        }
    )


def _stream_counts(
    job: Json, streams: Mapping[str, int] | None, counted: Json, *, succeeded: bool
) -> list[tuple[Json, Json]]:
    """The names and counts of a job's streams that sent anything."""
    found = []
    for number, stream in enumerate(job["enabledStreams"]):
        if streams is None and number > 0:
            break
        records = counted["recordsEmitted"] if streams is None else streams.get(stream["name"], 0)
        if streams is not None and not records:
            continue
        size = counted["bytesEmitted"] if streams is None else 10 * records
        stats = reads.counts(records, size, *((records, size) if succeeded else (0, 0)))
        names = {"streamName": stream["name"], "streamNamespace": stream.get("namespace")}
        found.append((reads.present(names), stats))
    return found


def _taken(failing: dict[str | None, Failure], actor_id: str) -> Failure | None:
    """Return the failure that is scripted for an actor or for all, and count it."""
    key = actor_id if actor_id in failing else None
    failure = failing.get(key)
    if failure is not None and failure.times is not None:
        failure.times -= 1
        if failure.times <= 0:
            del failing[key]
    return failure


def _key_of(descriptor: Json) -> tuple[str | None, str]:
    return descriptor.get("namespace"), descriptor["name"]
