"""Jobs: a connector reads, the writer publishes, and only then the state is saved.

A job syncs all streams of a connection. If refreshes are stored for the connection, it forgets the
state of their streams before, and is of type `refresh`, else of type `sync`.

A job has one attempt, or up to three if failures are transient. A connection has at most one open
job. Jobs that were running when the plane stopped are failed at the next start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from local.airbyte import catalog, specification
from local.airbyte.api import reads
from local.airbyte.connector_commands import ConnectorCommands
from local.airbyte.connector_process import ConnectorFailed, Message
from local.airbyte.job_logs import JobLog, JobLogs, name_of
from local.airbyte.mapped_rows import MappedStream
from local.airbyte.metadata import Metadata, Row, dump
from local.airbyte.releases import Release
from local.airbyte.source_definitions import SourceDefinitions
from local.airbyte.warehouse_writer import Key, Target, Writer
from shared.observability import logs

log = logs.get(__name__)

MOST_ATTEMPTS = 3
CHECKPOINT_SECONDS = 2.0
"""Minimum time between two publications; states that follow faster are published together."""

COUNT_SECONDS = 1.0


def failure_reason(origin: str, kind: str, message: str, **more: Any) -> dict[str, Any]:
    """Build Airbyte's FailureReason; only transient failures are worth another attempt."""
    is_transient = kind == "transient_error"
    return reads.failure_reason(origin, kind, message, retryable=is_transient, **more)


FAILURE_TYPES = frozenset(
    {"config_error", "system_error", "transient_error", "heartbeat_timeout", "manual_cancellation"}
)


def reason_of(error: ConnectorFailed, secrets: list[str]) -> dict[str, Any]:
    """Build the FailureReason of a connector's failure, with the configuration's secrets masked."""

    def clean(text: str | None) -> str | None:
        for secret in secrets:
            text = text and text.replace(secret, specification.MASK)
        return text

    return failure_reason(
        "source",
        error.kind if error.kind in FAILURE_TYPES else "system_error",
        clean(error.external) or "",
        internal=clean(error.internal),
        fromTraceMessage=error.from_trace,
        streamDescriptor=None if error.stream is None else dict(error.stream),
    )


@dataclass
class Counts:
    """Records and bytes of one stream in one attempt."""

    records: int = 0
    size: int = 0
    committed_records: int = 0
    committed_size: int = 0

    def commit(self) -> None:
        """Count everything emitted so far as committed, that is, visible in the warehouse."""
        self.committed_records, self.committed_size = self.records, self.size


@dataclass
class Attempt:
    """One attempt of a job: its counts, and the states that wait to be saved."""

    job_id: int
    number: int
    counts: dict[Key, Counts]
    truncated: frozenset[Key] = frozenset()
    """Streams whose older rows are replaced at the end; then nothing is published before."""

    states: dict[Key, Any] = field(default_factory=dict)
    state_kind: str = "stream"
    state_messages: int = 0
    published_at: float = field(default_factory=time.monotonic)
    counted_at: float = 0.0

    def stats(self) -> dict[str, Any]:
        """Return the counts as they are stored."""
        return {
            "states": self.state_messages,
            "streams": [
                [*key, each.records, each.size, each.committed_records, each.committed_size]
                for key, each in self.counts.items()
            ],
        }


class Jobs:
    """Starts, tracks and ends sync jobs."""

    def __init__(
        self,
        metadata: Metadata,
        sources: SourceDefinitions,
        connectors: ConnectorCommands,
        job_logs: JobLogs,
        release: Release,
    ) -> None:
        self._release = release
        self._metadata = metadata
        self._sources = sources
        self._connectors = connectors
        self._job_logs = job_logs
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._unwanted: set[int] = set()

    def start(self, connection: Row) -> int:
        """Start a job for a connection and return its id.

        Raises:
            sqlite3.IntegrityError: another job of this connection is open.
        """
        streams = [reads.descriptor(pair["stream"]) for pair in connection["streams"]]
        job_id = self._metadata.begin_job(connection["id"], streams, _now())
        self._tasks[job_id] = asyncio.create_task(self._run(job_id, connection["id"]))
        return job_id

    async def cancel(self, job_id: int) -> bool:
        """Cancel an open job; return False if it had already ended."""
        task = self._tasks.get(job_id)
        if task is None:
            return False
        self._unwanted.add(job_id)
        await asyncio.sleep(0)  # cancelled before its first step, it would record nothing
        task.cancel()
        await asyncio.wait([task])
        return True

    async def stop(self) -> None:
        """End every job, when the plane stops."""
        await asyncio.sleep(0)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, job_id: int, connection_id: str) -> None:
        number = 0
        try:
            for number in range(MOST_ATTEMPTS):
                if number:
                    self._metadata.set_job(job_id, "incomplete", _now())
                    await asyncio.sleep(self._connectors.settings.retry_delay.total_seconds())
                    self._metadata.begin_attempt(job_id, number, _now())
                reason = await self._try(job_id, number, connection_id)
                if reason is None:
                    self._metadata.end_attempt(job_id, number, "succeeded", None, _now())
                    self._metadata.set_job(job_id, "succeeded", _now())
                    log.info("sync_succeeded", job=job_id, connection=connection_id)
                    return
                self._fail_attempt(job_id, number, reason)
                if not reason["retryable"]:
                    break
            self._metadata.set_job(job_id, "failed", _now())
            log.warning("sync_failed", job=job_id, connection=connection_id, attempts=number + 1)
        except asyncio.CancelledError:
            wanted = job_id not in self._unwanted
            why = "The server is stopping." if wanted else "The sync was cancelled."
            kind = "system_error" if wanted else "manual_cancellation"
            self._fail_attempt(job_id, number, failure_reason("airbyte_platform", kind, why))
            self._metadata.set_job(job_id, "failed" if wanted else "cancelled", _now())
            log.info("sync_ended_early", job=job_id, cancelled=not wanted)
        finally:
            del self._tasks[job_id]
            self._unwanted.discard(job_id)

    def _fail_attempt(self, job_id: int, number: int, reason: Mapping[str, Any]) -> None:
        row = self._metadata.one(
            "SELECT stats FROM attempts WHERE job_id = ? AND number = ?", job_id, number
        )
        streams = (row or {"stats": {}})["stats"].get("streams", [])
        failure = {"failures": [reason], "partialSuccess": any(each[4] for each in streams)}
        self._metadata.end_attempt(job_id, number, "failed", failure, _now())

    async def _try(self, job_id: int, number: int, connection_id: str) -> dict[str, Any] | None:
        """Run one attempt and log it; return its failure, or None."""
        with self._job_logs.open(name_of(job_id, number), ()) as job_log:
            reason = await self._attempt(job_id, number, connection_id, job_log)
            if reason is not None:
                job_log.write("platform", reason["externalMessage"], level="error")
            return reason

    async def _attempt(
        self, job_id: int, number: int, connection_id: str, job_log: JobLog
    ) -> dict[str, Any] | None:
        """Run one attempt; return its failure, or None. Catches every exception."""
        config_schema: Message = {}
        config: Mapping[str, Any] = {}
        try:
            connection = self._metadata.one("SELECT * FROM connections WHERE id = ?", connection_id)
            source = connection and self._actor(connection["source_id"])
            destination = connection and self._actor(connection["destination_id"])
            if not connection or not source or not destination:
                return failure_reason("airbyte_platform", "system_error", "The connection is gone.")
            connector = self._sources.connector(source["definition_id"])
            config = source["config"]
            config_schema = (await self._connectors.spec(connector))["connectionSpecification"]
            job_log.masks.add(specification.secrets(config, config_schema))
            counts = {_key(pair["stream"]): Counts() for pair in connection["streams"]}
            attempt = Attempt(job_id, number, counts, self._truncated(job_id))
            await self._sync(attempt, connection, source, destination, job_log, config_schema)
        except ConnectorFailed as error:
            return reason_of(error, specification.secrets(config, config_schema))
        except asyncpg.PostgresError as error:
            transient = (error.sqlstate or "").startswith(("08", "40", "53", "57"))
            kind = "transient_error" if transient else "config_error"
            message = f"The warehouse refused ({error.sqlstate}, {type(error).__name__})."
            return failure_reason("destination", kind, message)
        except (OSError, asyncpg.InterfaceError) as error:
            message = f"The warehouse cannot be reached ({type(error).__name__})."
            return failure_reason("destination", "transient_error", message)
        except Exception as error:  # the outermost loop of a job: log it and fail the job
            log.exception("sync_broke", job=job_id)
            message = f"The local plane has a fault ({type(error).__name__})."
            return failure_reason("airbyte_platform", "system_error", message)
        return None

    async def _sync(
        self,
        attempt: Attempt,
        connection: Row,
        source: Row,
        destination: Row,
        job_log: JobLog,
        schema: Message,
    ) -> None:
        streams = connection["streams"]
        if attempt.number == 0:
            self._forget_states(attempt.job_id, connection)
        target = target_of(connection["settings"], destination["config"])
        mapped = {_key(pair["stream"]): MappedStream(pair, self._release) for pair in streams}

        def renew(config: Mapping[str, Any]) -> None:
            job_log.masks.add(specification.secrets(config, schema))
            renew_config(self._metadata, source["id"], config)

        async with (
            self._connectors.read(
                self._sources.connector(source["definition_id"]),
                source["config"],
                catalog.configured(streams),
                self._state_for(connection),
                renew,
                job_log,
            ) as reading,
            await Writer.open(
                destination["config"]["url"],
                [stream.pair for stream in mapped.values()],
                target,
                replaced=attempt.truncated,
            ) as writer,
        ):
            self._metadata.set_job(attempt.job_id, "running", _now())
            async for message, size in reading.messages():
                if message["type"] == "RECORD":
                    await self._record(attempt, writer, mapped, message["record"], size)
                else:
                    await self._checkpoint(attempt, writer, connection["id"], message["state"])
            await writer.finish()
            for each in attempt.counts.values():
                each.commit()
            self._save(attempt, connection["id"])

    async def _record(
        self,
        attempt: Attempt,
        writer: Writer,
        mapped: Mapping[Key, MappedStream],
        record: Mapping[str, Any],
        size: int,
    ) -> None:
        key = (record.get("namespace"), record["stream"])
        if not writer.accepts(key):
            return
        data = mapped[key].record(record["data"])
        if data is None:
            return
        await writer.add(key, data, record["emitted_at"])
        counts = attempt.counts[key]
        counts.records += 1
        counts.size += size
        if time.monotonic() - attempt.counted_at > COUNT_SECONDS:
            attempt.counted_at = time.monotonic()
            self._metadata.count(attempt.job_id, attempt.number, attempt.stats(), _now())

    async def _checkpoint(
        self, attempt: Attempt, writer: Writer, connection_id: str, state: Mapping[str, Any]
    ) -> None:
        """Publish the rows that a state covers; the state may be saved only after that."""
        attempt.state_messages += 1
        kind = str(state.get("type") or "LEGACY").lower()
        if kind == "stream":
            descriptor = state["stream"]["stream_descriptor"]
            key = _key(descriptor)
            if not writer.accepts(key) or (
                writer.is_published_at_end(key) and key not in attempt.truncated
            ):
                return
            covered: list[Key] | None = [key]
            attempt.states[key] = state["stream"].get("stream_state")
        elif kind == "global":
            covered = None
            attempt.states = {(None, ""): state["global"].get("shared_state")} | {
                _key(each["stream_descriptor"]): each.get("stream_state")
                for each in state["global"].get("stream_states") or []
            }
        else:
            covered = None
            attempt.states = {(None, ""): state.get("data")}
        attempt.state_kind = kind
        if attempt.truncated or time.monotonic() - attempt.published_at < CHECKPOINT_SECONDS:
            return
        published = await writer.publish(covered)
        for key in published:
            attempt.counts[key].commit()
        self._save(attempt, connection_id, covered)
        attempt.published_at = time.monotonic()

    def _save(self, attempt: Attempt, connection_id: str, covered: list[Key] | None = None) -> None:
        states = {
            key: state for key, state in attempt.states.items() if covered is None or key in covered
        }
        if states:
            self._metadata.save_state(connection_id, attempt.state_kind, states)
        self._metadata.count(attempt.job_id, attempt.number, attempt.stats(), _now())

    def _truncated(self, job_id: int) -> frozenset[Key]:
        refreshed = self._metadata.refreshes(job_id)
        return frozenset(_key(each) for each in refreshed if each["mode"] == "Truncate")

    def _forget_states(self, job_id: int, connection: Row) -> None:
        """Delete the states of the streams that this job reads from their start."""
        refreshed = map(reads.descriptor, self._metadata.refreshes(job_id))
        with self._metadata.transaction():
            self._metadata.delete_states(
                connection["id"], catalog.read_from_start(connection["streams"], refreshed)
            )

    def _state_for(self, connection: Row) -> list[Message]:
        """Build the state messages for the connector; full refreshes get none."""
        incremental = {
            _key(pair["stream"])
            for pair in connection["streams"]
            if pair["config"]["syncMode"] == "incremental"
        }
        rows = self._metadata.states(connection["id"])
        streams = [
            {"stream_descriptor": reads.descriptor(row), "stream_state": row["state"]}
            for row in rows
            if (row["namespace"] or None, row["name"]) in incremental
        ]
        shared = [row for row in rows if not row["name"]]
        if shared and shared[0]["kind"] == "global":
            state = {"shared_state": shared[0]["state"], "stream_states": streams}
            return [{"type": "GLOBAL", "global": state}]
        if shared:
            return [{"type": "LEGACY", "data": shared[0]["state"]}]
        return [{"type": "STREAM", "stream": each} for each in streams]

    def _actor(self, actor_id: str) -> Row | None:
        return self._metadata.one("SELECT * FROM actors WHERE id = ?", actor_id)


def renew_config(metadata: Metadata, source_id: str, config: Mapping[str, Any]) -> None:
    """Store a configuration that the connector has renewed; the old one is no longer valid."""
    metadata.write("UPDATE actors SET config = ? WHERE id = ?", dump(config), source_id)
    log.info("source_configuration_renewed", source=source_id)


def target_of(settings: Mapping[str, Any], destination_config: Mapping[str, Any]) -> Target:
    """Return where a connection writes."""
    return Target(
        schema=destination_config.get("schema") or "public",
        definition=settings.get("namespaceDefinition") or "source",
        format=settings.get("namespaceFormat") or "${SOURCE_NAMESPACE}",
        prefix=settings.get("prefix") or "",
    )


def _key(stream: Mapping[str, Any]) -> Key:
    return stream.get("namespace") or None, stream["name"]


def _now() -> int:
    return int(time.time())
