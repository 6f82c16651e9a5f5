"""The plane itself: sources, discoveries, connections and commands, with Airbyte's behaviour.

It invents nothing: whether a source works, and what it offers, is what its connector reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg
import orjson

from local.airbyte import DESTINATION_DEFINITION_ID, DESTINATION_ID, catalog, specification
from local.airbyte.errors import Refusal, forbidden, not_found, sync_is_running, uncaught
from local.airbyte.job_logs import JobLog, JobLogs
from local.airbyte.jobs import Jobs, failure_reason, reason_of, renew_config, target_of
from local.airbyte.metadata import Metadata, Row, dump, packed
from local.airbyte.releases import Release
from local.airbyte.runner import ConnectorFailed, Runner
from local.airbyte.settings import Settings
from local.airbyte.store import BY_DEFINITION, Connector, Store
from local.airbyte.verbs import Check, Verbs
from local.airbyte.writer import refuse_unwritable
from shared.observability import logs

log = logs.get(__name__)

Json = dict[str, Any]

SCHEDULE_SECONDS = 2.0
PRUNE_SECONDS = 3600.0
UNIT_SECONDS = {"minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800, "months": 2592000}

DESTINATION_SPECIFICATION: Json = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Postgres, written to by the local plane",
    "type": "object",
    "required": ["url"],
    "additionalProperties": True,
    "properties": {
        "url": {
            "type": "string",
            "title": "URL",
            "description": "postgresql:// URL of the warehouse",
            "airbyte_secret": True,
            "order": 0,
        },
        "schema": {
            "type": "string",
            "title": "Default schema",
            "default": "public",
            "order": 1,
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a check or a discovery; both API styles are rendered from it."""

    job_id: str
    started_at: int
    ended_at: int
    renewed: bool
    check: Check | None = None
    catalog_id: str | None = None
    failure: Json | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the connector reached a verdict, even a negative one."""
        return self.failure is None


class Plane:
    """The state of one local Airbyte process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metadata = Metadata(settings.state_dir)
        runner = Runner(settings.state_dir / "run", asyncio.Semaphore(settings.max_connectors))
        runner.sweep()
        self.verbs = Verbs(settings, Store(settings.connectors_dir), runner)
        self.job_logs = JobLogs(settings.job_logs)
        self.jobs = Jobs(self.metadata, self.verbs, self.job_logs)
        self._commands: dict[str, asyncio.Task[None]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        """Open the plane with its stored state; no connector survives the end of the block."""
        plane = cls(settings)
        reason = failure_reason("airbyte_platform", "system_error", "The server restarted.")
        plane.metadata.end_what_was_open({"failures": [reason]}, _now())
        if settings.warehouse_url is not None:
            plane._keep_warehouse(settings.warehouse_url.get_secret_value())
        tasks = [asyncio.create_task(work) for work in (plane._follow_schedules(), plane._prune())]
        try:
            yield plane
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await plane.jobs.stop()
            for task in list(plane._commands.values()):
                task.cancel()
            await asyncio.gather(*plane._commands.values(), return_exceptions=True)
            plane.metadata.close()

    def _keep_warehouse(self, url: str) -> None:
        self.metadata.write(
            "INSERT INTO actors VALUES (?, 'destination', ?, 'Local warehouse', ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET config = excluded.config",
            str(DESTINATION_ID),
            str(DESTINATION_DEFINITION_ID),
            dump({"url": url, "schema": "public"}),
            _now(),
        )

    # Actors: sources and destinations

    def actor(self, kind: str, actor_id: UUID) -> Row:
        """Return a source or destination.

        Raises:
            Refusal: 404.
        """
        row = self.metadata.one(
            "SELECT * FROM actors WHERE kind = ? AND id = ?", kind, str(actor_id)
        )
        if row is None:
            raise not_found(f"{kind.upper()}_CONNECTION", str(actor_id))
        return row

    async def schema_of(self, row: Row) -> Json:
        """Return the connection specification of an actor's definition."""
        if row["kind"] == "destination":
            return DESTINATION_SPECIFICATION
        return await self.specification(connector_of(UUID(row["definition_id"])))

    async def specification(self, connector: Connector) -> Json:
        """Return a connector's connection specification; installs the connector if necessary.

        Raises:
            Refusal: 500, the connector did not provide one.
        """
        try:
            spec = await self.verbs.spec(connector)
        except ConnectorFailed as error:
            log.warning("connector_unusable", connector=connector.name, reason=str(error))
            raise uncaught(f"Could not get the specification of {connector.name}.") from error
        schema: Json = spec["connectionSpecification"]
        return schema

    async def create_actor(self, kind: str, definition_id: UUID, name: str, config: Json) -> Row:
        """Add a source or destination; the configuration is validated, but not checked.

        Raises:
            Refusal: 404, 422.
        """
        if kind == "source":
            schema = await self.specification(connector_of(definition_id))
        elif definition_id == DESTINATION_DEFINITION_ID:
            schema = DESTINATION_SPECIFICATION
        else:
            raise not_found("STANDARD_DESTINATION_DEFINITION", str(definition_id))
        _validate(config, schema)
        actor_id = uuid4()
        self.metadata.write(
            "INSERT INTO actors VALUES (?, ?, ?, ?, ?, ?)",
            str(actor_id),
            kind,
            str(definition_id),
            name,
            dump(config),
            _now(),
        )
        return self.actor(kind, actor_id)

    async def update_actor(self, row: Row, *, name: str | None, config: Json | None) -> Row:
        """Change the name or the whole configuration; masked values keep the stored secret.

        Raises:
            Refusal: 422.
        """
        if config is not None:
            schema = await self.schema_of(row)
            config = specification.unmasked(config, row["config"], schema)
            _validate(config, schema)
        self.metadata.write(
            "UPDATE actors SET name = coalesce(?, name), config = coalesce(?, config) WHERE id = ?",
            name,
            None if config is None else dump(config),
            row["id"],
        )
        return self.actor(row["kind"], UUID(row["id"]))

    async def delete_actor(self, row: Row) -> None:
        """Delete an actor and all its connections."""
        column = f"{row['kind']}_id"
        for connection in self.metadata.all(
            f"SELECT id FROM connections WHERE {column} = ?",  # noqa: S608 - one of two literals
            row["id"],
        ):
            await self.delete_connection(connection["id"])
        self.metadata.write("DELETE FROM actors WHERE id = ?", row["id"])

    # Running connectors

    async def check(self, row: Row) -> Outcome:
        """Check an actor's configuration."""
        if row["kind"] == "destination":
            return await _check_warehouse(row["config"]["url"])
        return await self._ask(row, self._check)

    async def check_update(self, row: Row, config: Json) -> Outcome:
        """Check a new configuration of a source; a masked value means the stored secret.

        A configuration that the connector renews during the check is saved, as in Airbyte.

        Raises:
            Refusal: 422.
        """
        schema = await self.schema_of(row)
        _validate(config, schema)
        whole = specification.unmasked(config, row["config"], schema)
        return await self._ask({**row, "config": whole}, self._check)

    async def check_config(self, definition_id: UUID, config: Json) -> Outcome:
        """Check a configuration that belongs to no source yet."""
        row = {"id": "", "definition_id": str(definition_id), "config": config}
        return await self._ask(row, self._check)

    async def discover(self, row: Row) -> Outcome:
        """Discover a source's catalog and store it under an id derived from its content."""
        return await self._ask(row, self._discover)

    async def _check(self, connector: Connector, row: Row, renew: Any, job_log: JobLog) -> Json:
        return {"check": await self.verbs.check(connector, row["config"], renew, job_log)}

    async def _discover(self, connector: Connector, row: Row, renew: Any, job_log: JobLog) -> Json:
        protocol = await self.verbs.discover(connector, row["config"], renew, job_log)

        def keep() -> UUID:
            catalog_id = catalog.content_id(protocol)
            config_hash = _config_hash(row["config"])
            self.metadata.keep_discovery(
                row["id"], connector.version, config_hash, catalog_id, protocol, _now()
            )
            return catalog_id

        return {"catalog_id": str(await asyncio.to_thread(keep))}

    async def _ask(self, row: Row, verb: Any) -> Outcome:
        connector = connector_of(UUID(row["definition_id"]))
        schema = await self.specification(connector)
        started, renewed = _now(), False
        secrets = specification.secrets(row["config"], schema)
        job_id = str(uuid4())

        def renew(config: Mapping[str, Any]) -> None:
            nonlocal renewed
            renewed = True
            job_log.masks.add(specification.secrets(config, schema))
            if row["id"]:
                renew_config(self.metadata, row["id"], config)

        told: Json = {}
        with self.job_logs.open(job_id, secrets) as job_log:
            try:
                told = await verb(connector, row, renew, job_log)
            except ConnectorFailed as error:
                told["failure"] = reason_of(error, secrets)
                job_log.write("platform", str(error), level="error")
        return Outcome(job_id=job_id, started_at=started, ended_at=_now(), renewed=renewed, **told)

    def cached_catalog(self, row: Row) -> str | None:
        """Return the catalog id of an earlier discovery with the same configuration and version."""
        found = self.metadata.one(
            "SELECT catalog_id FROM discoveries"
            " WHERE source_id = ? AND version = ? AND config_hash = ?",
            row["id"],
            connector_of(UUID(row["definition_id"])).version,
            _config_hash(row["config"]),
        )
        return None if found is None else str(found["catalog_id"])

    async def shown(self, row: Row, catalog_id: str) -> bytes:
        """Return a discovered catalog as a syncCatalog, serialized."""
        connector = connector_of(UUID(row["definition_id"]))

        def show() -> bytes:
            return catalog.discovered(
                self.metadata.catalog(catalog_id),
                suggested=connector.suggested_streams,
                release=self.settings.flavour.release,
            )

        return await asyncio.to_thread(show)

    # Commands: check and discover in the background, under an id that the client chose

    def run_command(
        self, command_id: str, kind: str, source_id: str | None, work: Coroutine[Any, Any, Outcome]
    ) -> None:
        """Start a check or a discovery, unless a command with this id exists."""
        created = self.metadata.write(
            "INSERT OR IGNORE INTO commands VALUES (?, ?, 'pending', ?, ?)",
            command_id,
            kind,
            dump({"sourceId": source_id}),
            _now(),
        )
        if not created:
            work.close()
            return
        self._commands[command_id] = asyncio.create_task(self._command(command_id, source_id, work))

    async def _command(
        self, command_id: str, source_id: str | None, work: Coroutine[Any, Any, Outcome]
    ) -> None:
        self._set_command(command_id, "running", {})
        try:
            outcome = await work
        except asyncio.CancelledError:
            reason = failure_reason("airbyte_platform", "manual_cancellation", "It was cancelled.")
            self._set_command(command_id, "cancelled", {"failureReason": reason})
        except Refusal as refusal:
            reason = failure_reason("airbyte_platform", "system_error", refusal.message)
            self._set_command(command_id, "completed", {"failureReason": reason})
        else:
            told = {
                "sourceId": source_id,
                "jobId": outcome.job_id,
                "connectorConfigurationUpdated": outcome.renewed,
            }
            if outcome.check is not None:
                told |= {"succeeded": outcome.check.succeeded, "message": outcome.check.message}
            if outcome.catalog_id is not None:
                told |= {"succeeded": True, "catalogId": outcome.catalog_id}
            self._set_command(command_id, "completed", told | {"failureReason": outcome.failure})
        finally:
            del self._commands[command_id]

    def _set_command(self, command_id: str, status: str, output: Json) -> None:
        self.metadata.write(
            "UPDATE commands SET status = ?, output = ? WHERE id = ?",
            status,
            dump(output),
            command_id,
        )

    def command(self, command_id: str) -> Row:
        """Return a command with its status.

        Raises:
            Refusal: 403, as Airbyte answers for an unknown id.
        """
        row = self.metadata.one("SELECT * FROM commands WHERE id = ?", command_id)
        if row is None:
            raise forbidden()
        return row

    async def cancel_command(self, command_id: str) -> None:
        """Cancel a command that is still running."""
        self.command(command_id)
        task = self._commands.get(command_id)
        if task is not None:
            await asyncio.sleep(0)  # cancelled before its first step, it would record nothing
            task.cancel()
            await asyncio.wait([task])

    # Connections

    def connection(self, connection_id: UUID) -> Row:
        """Return a connection.

        Raises:
            Refusal: 404.
        """
        row = self.metadata.one("SELECT * FROM connections WHERE id = ?", str(connection_id))
        if row is None:
            raise not_found("STANDARD_SYNC", str(connection_id))
        return row

    async def create_connection(
        self, source: Row, destination: Row, settings: Json, sync_catalog: Json
    ) -> Row:
        """Connect a source to a destination.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """
        release = self.settings.flavour.release
        streams = await asyncio.to_thread(_kept, sync_catalog, settings, destination, release)
        connection_id = uuid4()
        self.metadata.write(
            "INSERT INTO connections VALUES (?, ?, ?, ?, ?, ?)",
            str(connection_id),
            source["id"],
            destination["id"],
            dump(settings),
            await asyncio.to_thread(packed, streams),
            _now(),
        )
        return self.connection(connection_id)

    async def update_connection(self, row: Row, settings: Json, sync_catalog: Json | None) -> Row:
        """Change the given settings; a given catalog replaces the stored one.

        A stream that is deselected, or whose sync mode changes, loses its state; nothing else is
        reset, whatever the new catalog or status is.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """
        merged = row["settings"] | settings
        destination = self.actor("destination", UUID(row["destination_id"]))
        streams = row["streams"]
        if sync_catalog is not None:
            release = self.settings.flavour.release
            streams = await asyncio.to_thread(_kept, sync_catalog, merged, destination, release)
        else:
            target_of(merged, destination["config"]).refuse_collisions(streams)
        content = await asyncio.to_thread(packed, streams)
        with self.metadata.transaction():
            self.metadata.write(
                "UPDATE connections SET settings = ?, streams = ? WHERE id = ?",
                dump(merged),
                content,
                row["id"],
            )
            for namespace, name in catalog.starting_anew(row["streams"], streams):
                self.metadata.write(
                    "DELETE FROM states WHERE connection_id = ? AND namespace = ? AND name = ?",
                    row["id"],
                    namespace or "",
                    name,
                )
        return self.connection(UUID(row["id"]))

    async def delete_connection(self, connection_id: str) -> None:
        """Cancel its job and delete the connection; its tables remain in the warehouse."""
        job = self.open_job(connection_id)
        if job is not None:
            await self.jobs.cancel(job["id"])
        self.metadata.write("DELETE FROM connections WHERE id = ?", connection_id)

    def open_job(self, connection_id: str) -> Row | None:
        """Return a connection's open job, if any."""
        return self.metadata.one(
            "SELECT * FROM jobs WHERE connection_id = ?"
            " AND status IN ('pending', 'running', 'incomplete')",
            connection_id,
        )

    def sync(self, row: Row) -> int:
        """Start a sync and return the job id.

        Raises:
            Refusal: 409 while another job is running, 500 for a connection that is not active.
        """
        if row["settings"].get("status") != "active":
            raise uncaught("Can only sync an active connection")
        try:
            return self.jobs.start(row)
        except sqlite3.IntegrityError as error:
            raise sync_is_running(row["id"]) from error

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
                        self.sync(self.connection(UUID(row["id"])))
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


def connector_of(definition_id: UUID) -> Connector:
    """Return the connector of a source definition.

    Raises:
        Refusal: 404.
    """
    connector = BY_DEFINITION.get(definition_id)
    if connector is None:
        raise not_found("STANDARD_SOURCE_DEFINITION", str(definition_id))
    return connector


def _validate(config: Json, schema: Json) -> None:
    faults = specification.faults(config, schema)
    if faults:
        told = ", ".join(faults)
        raise Refusal(
            422, f"The provided configuration does not fulfill the specification. Errors: {told}"
        )


def _kept(sync_catalog: Json, settings: Json, destination: Row, release: Release) -> list[Json]:
    streams = catalog.kept(sync_catalog, release)
    refuse_unwritable(streams)
    target_of(settings, destination["config"]).refuse_collisions(streams)
    return streams


async def _check_warehouse(url: str) -> Outcome:
    started = _now()
    try:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            may = await connection.fetchval(
                "SELECT has_database_privilege(current_database(), 'TEMP')"
            )
        finally:
            await connection.close(timeout=5)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        verdict = Check(False, f"Could not connect ({type(error).__name__}).")
    else:
        verdict = Check(may, None if may else "The user may not make temporary tables.")
    return Outcome(
        job_id=str(uuid4()), started_at=started, ended_at=_now(), renewed=False, check=verdict
    )


def _config_hash(config: Json) -> str:
    text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def _now() -> int:
    return int(time.time())
