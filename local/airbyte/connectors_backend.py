"""The back end with connectors: sources, discoveries and connections.

It invents nothing: whether a source works, and what it offers, is what its connector reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import UUID, uuid4

import orjson

from local.airbyte import (
    DESTINATION_DEFINITION_ID,
    DESTINATION_ID,
    WORKSPACE_ID,
    catalog,
    specification,
)
from local.airbyte.api import reads
from local.airbyte.api.backend import (
    ActorVersion,
    Definition,
    Instance,
    Kind,
    Outcome,
    Refresh,
)
from local.airbyte.api.defaults import UNIT_SECONDS
from local.airbyte.background_commands import BackgroundCommands
from local.airbyte.connector import Connector, Manifest
from local.airbyte.connector_commands import ConnectorCommands
from local.airbyte.connector_process import ConnectorFailed, Runner
from local.airbyte.connector_store import Store
from local.airbyte.destination import DESTINATION, DESTINATION_SPECIFICATION, check_warehouse
from local.airbyte.errors import Refusal, not_found, sync_is_running, uncaught
from local.airbyte.job_logs import JobLog, JobLogs, name_of
from local.airbyte.jobs import Jobs, failure_reason, reason_of, renew_config, target_of
from local.airbyte.metadata import Metadata, Row, dump, packed
from local.airbyte.releases import ErrorStyle, Release
from local.airbyte.settings import Settings
from local.airbyte.source_definitions import SourceDefinitions
from local.airbyte.stored_jobs import StoredJobs
from local.airbyte.warehouse_writer import DESTINATION_SYNC_MODES, refuse_unwritable
from shared.observability import logs

log = logs.get(__name__)

Json = dict[str, Any]

SCHEDULE_SECONDS = 2.0
PRUNE_SECONDS = 3600.0


class Plane(BackgroundCommands, StoredJobs):
    """The state of one local Airbyte process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        metadata = Metadata(settings.state_dir)
        BackgroundCommands.__init__(self, metadata)
        StoredJobs.__init__(self, metadata, settings.flavour.release)
        runner = Runner(settings.state_dir / "run", asyncio.Semaphore(settings.max_connectors))
        runner.sweep()
        store = Store(settings.connectors_dir)
        self.sources = SourceDefinitions(store, self.metadata)
        self.connectors = ConnectorCommands(settings, store, runner)
        self.job_logs = JobLogs(settings.job_logs)
        self.jobs = Jobs(
            self.metadata, self.sources, self.connectors, self.job_logs, settings.flavour.release
        )
        self.error_style: ErrorStyle | None = settings.error_style
        self.page_size = settings.page_size
        self.instance = Instance(
            url=f"http://127.0.0.1:{settings.port}/",
            auth_mode="simple",
            email="local-plane@aam.invalid",
            workspace_id=str(WORKSPACE_ID),
            workspaces={str(WORKSPACE_ID): "Local workspace"},
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, manifests: Sequence[Manifest] = ()
    ) -> AsyncIterator[Self]:
        """Open the plane with its stored state; no connector survives the end of the block."""
        plane = cls(settings)
        plane.sources.offer(settings.connectors, manifests, _now())
        reason = failure_reason("airbyte_platform", "system_error", "The server restarted.")
        plane.metadata.fail_interrupted({"failures": [reason]}, _now())
        if settings.warehouse_url is not None:
            plane._save_warehouse(settings.warehouse_url.get_secret_value())
        tasks = [asyncio.create_task(work) for work in (plane._follow_schedules(), plane._prune())]
        try:
            yield plane
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await plane.jobs.stop()
            await plane.stop_commands()
            plane.metadata.close()

    def _save_warehouse(self, url: str) -> None:
        self.metadata.write(
            "INSERT INTO actors VALUES (?, 'destination', ?, 'Local warehouse', ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET config = excluded.config",
            str(DESTINATION_ID),
            str(DESTINATION_DEFINITION_ID),
            dump({"url": url, "schema": "public"}),
            _now(),
        )

    def unknown(self, kind: str, given: str) -> Refusal:
        """Return the refusal of an unknown object."""
        return not_found(kind, given)

    def log_lines(self, job_id: int | str, attempt: int = 0) -> list[str]:
        """Return the path of a log and its last lines; empty without a log."""
        return self.job_logs.lines(name_of(job_id, attempt))

    # Definitions

    def definitions(self, kind: Kind) -> list[Definition]:
        """Return the connectors that can be run, or the writer."""
        return [DESTINATION] if kind == "destination" else self.sources.definitions()

    async def specification(self, definition: Definition) -> Json:
        """Return a connector's connection specification; installs the connector if necessary.

        Raises:
            Refusal: 500, the connector did not provide one.
        """
        if definition.kind == "destination":
            return DESTINATION_SPECIFICATION
        return await self._connector_specification(self._connector(definition.id))

    async def _connector_specification(self, connector: Connector) -> Json:
        try:
            spec = await self.connectors.spec(connector)
        except ConnectorFailed as error:
            log.warning("connector_unusable", connector=connector.name, reason=str(error))
            raise uncaught(f"Could not get the specification of {connector.name}.") from error
        schema: Json = spec["connectionSpecification"]
        return schema

    def _connector(self, definition_id: str) -> Connector:
        """Return the connector of a definition.

        Raises:
            Refusal: 500, this plane does not have it.
        """
        try:
            return self.sources.connector(definition_id)
        except ConnectorFailed as error:
            raise uncaught(str(error)) from error

    def _connector_of(self, source: Json) -> Connector:
        return self._connector(source["sourceDefinitionId"])

    def destination_sync_modes(self, definition: Definition) -> list[str]:  # noqa: ARG002
        """Return the writer's sync modes."""
        return list(DESTINATION_SYNC_MODES)

    def config_faults(self, config: Json, schema: Json) -> list[str]:
        """List where a configuration violates its schema, without its values."""
        return specification.faults(config, schema)

    # Actors: sources and destinations

    def list_actors(self, kind: Kind, workspace_id: str | None = None) -> list[Json]:  # noqa: ARG002
        """Return all sources or destinations, by name; there is one workspace."""
        rows = self.metadata.all(
            "SELECT * FROM actors WHERE kind = ? ORDER BY lower(name), id", kind
        )
        return [self._actor(row) for row in rows]

    def actor(self, kind: Kind, actor_id: str, *, with_deleted: bool = False) -> Json:  # noqa: ARG002
        """Return a source or destination; a deleted one is not kept.

        Raises:
            Refusal: 404.
        """
        row = self.metadata.one("SELECT * FROM actors WHERE kind = ? AND id = ?", kind, actor_id)
        if row is None:
            raise not_found(f"{kind.upper()}_CONNECTION", actor_id)
        return self._actor(row)

    def _actor(self, row: Row) -> Json:
        definition = DESTINATION
        if row["kind"] == "source":
            definition = self.sources.definition(self._connector(row["definition_id"]))
        return reads.actor(
            definition,
            actor_id=row["id"],
            workspace_id=str(WORKSPACE_ID),
            name=row["name"],
            config=row["config"],
            created_at=row["created_at"],
            release=self.release,
        )

    def create_actor(
        self,
        definition: Definition,
        name: str,
        config: Json,
        *,
        workspace_id: str,  # noqa: ARG002
    ) -> Json:
        """Add a source or destination to the only workspace."""
        actor_id = str(uuid4())
        self.metadata.write(
            "INSERT INTO actors VALUES (?, ?, ?, ?, ?, ?)",
            actor_id,
            definition.kind,
            definition.id,
            name,
            dump(config),
            _now(),
        )
        return self.actor(definition.kind, actor_id)

    def update_actor(self, kind: Kind, actor: Json, name: str, config: Json) -> Json:
        """Change the name and the whole configuration."""
        actor_id = actor[f"{kind}Id"]
        self.metadata.write(
            "UPDATE actors SET name = ?, config = ? WHERE id = ?", name, dump(config), actor_id
        )
        return self.actor(kind, actor_id)

    async def delete_actor(self, kind: Kind, actor: Json) -> None:
        """Delete an actor and all its connections."""
        actor_id = actor[f"{kind}Id"]
        for connection in self.metadata.all(
            f"SELECT id FROM connections WHERE {kind}_id = ?",  # noqa: S608 - one of two literals
            actor_id,
        ):
            await self._delete_connection(connection["id"])
        self.metadata.write("DELETE FROM actors WHERE id = ?", actor_id)

    def actor_version(self, kind: Kind, actor: Json) -> ActorVersion:
        """Return the installed version, the only one that there is of a connector."""
        definition_id = actor[f"{kind}DefinitionId"]
        (definition,) = [one for one in self.definitions(kind) if one.id == definition_id]
        return ActorVersion(tag=definition.tag)

    def unpin_source(self, source: Json) -> None:
        """Do nothing: no source is pinned."""

    def manifests(self, definition: Definition) -> list[Json] | None:
        """Return the versions of a low-code manifest, newest first; None for other connectors."""
        manifest = self._connector(definition.id).manifest
        if manifest is None:
            return None
        return [
            {
                "version": version,
                "isActive": version == manifest.version,
                "description": f"Version {version}",
            }
            for version in range(manifest.version, 0, -1)
        ]

    # Running connectors

    async def check(self, definition: Definition, actor: Json | None, config: Json) -> Outcome:
        """Check a configuration; one that the connector renews is saved in the actor."""
        if definition.kind == "destination":
            return await check_warehouse(config["url"])

        async def verb(connector: Connector, renew: Any, job_log: JobLog) -> Json:
            return {"check": await self.connectors.check(connector, config, renew, job_log)}

        connector = self._connector(definition.id)
        source_id = None if actor is None else str(actor["sourceId"])
        return await self._run_connector(connector, source_id, config, verb)

    async def discover(self, source: Json) -> Outcome:
        """Discover a source's catalog and store it under an id derived from its content."""
        source_id, config = source["sourceId"], source["connectionConfiguration"]
        connector = self._connector_of(source)

        async def verb(connector: Connector, renew: Any, job_log: JobLog) -> Json:
            protocol = await self.connectors.discover(connector, config, renew, job_log)

            def keep() -> UUID:
                catalog_id = catalog.content_id(protocol)
                self.metadata.store_discovery(
                    source_id, connector.release, _config_hash(config), catalog_id, protocol, _now()
                )
                return catalog_id

            return {"catalog_id": str(await asyncio.to_thread(keep))}

        return await self._run_connector(connector, source_id, config, verb)

    async def _run_connector(
        self, connector: Connector, source_id: str | None, config: Json, verb: Any
    ) -> Outcome:
        schema = await self._connector_specification(connector)
        started, renewed = _now(), False
        secrets = specification.secrets(config, schema)
        job_id = str(uuid4())

        def renew(config: Mapping[str, Any]) -> None:
            nonlocal renewed
            renewed = True
            job_log.masks.add(specification.secrets(config, schema))
            if source_id is not None:
                renew_config(self.metadata, source_id, config)

        found: Json = {}
        with self.job_logs.open(job_id, secrets) as job_log:
            try:
                found = await verb(connector, renew, job_log)
            except ConnectorFailed as error:
                found["failure"] = reason_of(error, secrets)
                job_log.write("platform", str(error), level="error")
        return Outcome(job_id=job_id, started_at=started, ended_at=_now(), renewed=renewed, **found)

    def cached_catalog(self, source: Json) -> str | None:
        """Return the catalog id of an earlier discovery with the same configuration and version."""
        found = self.metadata.one(
            "SELECT catalog_id FROM discoveries"
            " WHERE source_id = ? AND version = ? AND config_hash = ?",
            source["sourceId"],
            self._connector_of(source).release,
            _config_hash(source["connectionConfiguration"]),
        )
        return None if found is None else str(found["catalog_id"])

    async def discovered(self, source: Json, catalog_id: str) -> orjson.Fragment:
        """Return a discovered catalog as a syncCatalog, serialized."""

        def build() -> bytes:
            return catalog.discovered(
                self.metadata.catalog(catalog_id),
                suggested=self._connector_of(source).suggested_streams,
                release=self.release,
            )

        return orjson.Fragment(await asyncio.to_thread(build))

    def newest_discovery(self, source: Json) -> Json:
        """Return the time of the newest discovery and the catalog as the connector wrote it."""
        newest = self.metadata.one(
            "SELECT * FROM discoveries WHERE source_id = ?"
            " ORDER BY created_at DESC, rowid DESC LIMIT 1",
            source["sourceId"],
        )
        if newest is None:
            return {}
        protocol = orjson.Fragment(self.metadata.catalog(newest["catalog_id"]))
        return {"updatedAt": newest["created_at"], "catalog": protocol}

    # Connections

    def list_connections(self, workspace_id: str) -> list[Json]:  # noqa: ARG002
        """Return all connections, oldest first."""
        rows = self.metadata.all("SELECT * FROM connections ORDER BY created_at, id")
        return [self._connection(row) for row in rows]

    def connection(self, connection_id: str, *, with_deleted: bool = False) -> Json:  # noqa: ARG002
        """Return a connection; a deleted one is not kept.

        Raises:
            Refusal: 404.
        """
        return self._connection(self._connection_row(connection_id))

    def _connection_row(self, connection_id: str) -> Row:
        row = self.metadata.one("SELECT * FROM connections WHERE id = ?", connection_id)
        if row is None:
            raise not_found("STANDARD_SYNC", connection_id)
        return row

    def _connection(self, row: Row) -> Json:
        return reads.connection(
            connection_id=row["id"],
            source_id=row["source_id"],
            destination_id=row["destination_id"],
            workspace_id=str(WORKSPACE_ID),
            settings=row["settings"],
            streams=row["streams"],
            created_at=row["created_at"],
            release=self.release,
        )

    async def create_connection(
        self, source: Json, destination: Json, settings: Json, sync_catalog: Json
    ) -> Json:
        """Connect a source to a destination.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """
        target = destination["connectionConfiguration"]
        streams = await asyncio.to_thread(
            _writable_streams, sync_catalog, settings, target, self.release, ()
        )
        connection_id = str(uuid4())
        self.metadata.write(
            "INSERT INTO connections VALUES (?, ?, ?, ?, ?, ?)",
            connection_id,
            source["sourceId"],
            destination["destinationId"],
            dump(settings),
            await asyncio.to_thread(packed, streams),
            _now(),
        )
        return self.connection(connection_id)

    async def update_connection(
        self, connection: Json, settings: Json, sync_catalog: Json | None
    ) -> Json:
        """Change the given settings; a given catalog replaces the stored one.

        Nothing is reset, and a deselected stream keeps its state. Since 1.8, a stream whose sync
        mode changes loses it.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """
        row = self._connection_row(connection["connectionId"])
        merged = reads.present(row["settings"] | settings)
        target = self.actor("destination", row["destination_id"])["connectionConfiguration"]
        streams = row["streams"]
        if sync_catalog is not None:
            streams = await asyncio.to_thread(
                _writable_streams, sync_catalog, merged, target, self.release, row["streams"]
            )
        else:
            target_of(merged, target).refuse_collisions(streams)
        content = await asyncio.to_thread(packed, streams)
        changed = catalog.streams_with_another_mode(row["streams"], streams)
        with self.metadata.transaction():
            self.metadata.write(
                "UPDATE connections SET settings = ?, streams = ? WHERE id = ?",
                dump(merged),
                content,
                row["id"],
            )
            self.metadata.delete_states(row["id"], changed if self.release.since(1, 8) else ())
        return self.connection(row["id"])

    async def delete_connection(self, connection: Json) -> None:
        """Cancel its job and delete the connection; its tables remain in the warehouse."""
        await self._delete_connection(connection["connectionId"])

    async def _delete_connection(self, connection_id: str) -> None:
        job = self.metadata.one(
            "SELECT * FROM jobs WHERE connection_id = ?"
            " AND status IN ('pending', 'running', 'incomplete')",
            connection_id,
        )
        if job is not None:
            await self.jobs.cancel(job["id"])
        self.metadata.write("DELETE FROM connections WHERE id = ?", connection_id)

    def state(self, connection_id: str) -> Json:
        """Return the saved state of a connection."""
        states = self.metadata.states(connection_id)
        if not states:
            return {"stateType": "not_set"}
        streams = [
            {"streamDescriptor": reads.descriptor(each), "streamState": each["state"]}
            for each in states
            if each["name"]
        ]
        shared = next((each["state"] for each in states if not each["name"]), None)
        match states[0]["kind"]:
            case "stream":
                return {"stateType": "stream", "streamState": streams}
            case "global":
                whole = reads.present({"shared_state": shared, "streamStates": streams})
                return {"stateType": "global", "globalState": whole}
        return {"stateType": "legacy", "state": shared}

    def put_states(
        self, connection_id: str, kind: str, states: Mapping[tuple[str | None, str], Any]
    ) -> None:
        """Write states of streams, and the shared one."""
        self.metadata.save_state(connection_id, kind, states)

    # Jobs

    def before_read(self, job: Json) -> None:
        """Do nothing: a job's row is current."""

    def start_sync(self, connection: Json) -> int:
        """Start a sync and return the job's id.

        Raises:
            Refusal: 409 while another job is running.
        """
        row = self._connection_row(connection["connectionId"])
        try:
            return self.jobs.start(row)
        except sqlite3.IntegrityError as error:
            raise sync_is_running(row["id"]) from error

    def refresh(self, connection: Json, refresh: Refresh) -> int | None:
        """Store a refresh and start the job that carries it out, unless none can be started."""
        row = self._connection_row(connection["connectionId"])
        self.metadata.store_refresh(row["id"], refresh.streams, refresh.mode)
        if connection["status"] != "active":
            return None
        with contextlib.suppress(sqlite3.IntegrityError):
            return self.jobs.start(row)
        return None

    async def cancel_job(self, job_id: int) -> bool:
        """Cancel an open job; return False if it had already ended."""
        return await self.jobs.cancel(job_id)

    async def _prune(self) -> None:
        """Delete old data, now and every hour."""
        while True:
            self.metadata.prune(_now())
            self.job_logs.prune()
            await asyncio.sleep(PRUNE_SECONDS)

    async def _follow_schedules(self) -> None:
        """Start syncs that are due by a basic schedule; cron schedules are stored but ignored."""
        while True:
            for row in self.metadata.all("SELECT id, settings FROM connections"):
                if self._is_due(row):
                    with contextlib.suppress(Refusal):  # deleted or already started meanwhile
                        self.start_sync(self.connection(row["id"]))
            await asyncio.sleep(SCHEDULE_SECONDS)

    def _is_due(self, row: Row) -> bool:
        settings = row["settings"]
        basic = (settings.get("scheduleData") or {}).get("basicSchedule")
        if not basic or settings["scheduleType"] != "basic" or settings["status"] != "active":
            return False
        last = self.metadata.one(
            "SELECT max(created_at) AS at FROM jobs WHERE connection_id = ?", row["id"]
        )
        interval = basic["units"] * UNIT_SECONDS[basic["timeUnit"]]
        return last is None or last["at"] is None or last["at"] + interval <= _now()


def _writable_streams(
    sync_catalog: Json, settings: Json, target: Json, release: Release, held: Sequence[Json]
) -> list[Json]:
    streams = catalog.stored_streams(sync_catalog, release, held)
    refuse_unwritable(streams)
    target_of(settings, target).refuse_collisions(streams)
    return streams


def _config_hash(config: Json) -> str:
    text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def _now() -> int:
    return int(time.time())
