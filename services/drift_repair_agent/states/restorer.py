"""Put states back into Airbyte: those that were lost, and those of streams with a new name."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec

from services.drift_repair_agent.states.decision import (
    MOST_JOBS,
    Renamed,
    expect_deduplicated,
    expect_put_back,
    expect_taken_along,
)
from services.drift_repair_agent.states.schemas import NotPutBack, Reason, StateOutcome, StreamName
from shared import registry
from shared.airbyte_client import AirbyteClient, ConnectionState, Job
from shared.config import Settings
from shared.connectors import Connectors
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import (
    UpstreamConflict,
    UpstreamDenied,
    UpstreamRefused,
    UpstreamUnknown,
)
from shared.models import Connection
from shared.observability import logs
from shared.operations import Operation
from shared.saved_states.store import Saved, StateStore

log = logs.get(__name__)

WAIT_S: Final = 30.0
"""How long to wait for the end of a job that keeps Airbyte from taking a state (423)."""
_PAUSE_S: Final = 0.5
_TRIES: Final = 3
_MOST_STATES: Final = 10
"""Saved states that are searched for those of streams, newest first."""
_MOST_VERSIONS: Final = 20


class Planned(msgspec.Struct, frozen=True):
    """What is to be put back; ids only, so that it can be the result of a step."""

    saved: tuple[tuple[StreamId, UUID], ...] = ()
    """The streams that lost their state, and the saved state that has it."""
    renamed: tuple[Renamed, ...] = ()
    refused: tuple[tuple[StreamId, Reason], ...] = ()
    newest_job: int = 0
    """Airbyte's newest job of those that the plan considers; 0 without one."""

    @property
    def streams(self) -> list[StreamId]:
        """The streams whose state is to be written."""
        return [*(stream for stream, _ in self.saved), *(one.new for one in self.renamed)]


@dataclass(slots=True)
class _Progress:
    """What was put back so far, and what was not."""

    put: list[StreamId] = field(default_factory=list)
    refused: list[tuple[StreamId, Reason]] = field(default_factory=list)

    @property
    def result(self) -> dict[str, Any]:
        return {
            "put_back": [msgspec.to_builtins(stream) for stream in self.put],
            "not_put_back": [
                {"stream": msgspec.to_builtins(stream), "reason": reason}
                for stream, reason in self.refused
            ],
        }


class StateRestorer:
    """Finds out which states can be put back, and puts them back as steps of an operation."""

    def __init__(
        self, settings: Settings, db: Database, airbyte: AirbyteClient, store: StateStore
    ) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._store = store
        self._connectors = Connectors(settings, db, airbyte)

    @property
    def saves(self) -> bool:
        """Whether states are saved before changes."""
        return self._store.is_able

    async def put_back(
        self,
        operation: Operation,
        airbyte_connection_id: UUID,
        *,
        wanted: Catalog,
        before: Catalog,
        lost: Collection[StreamId] = (),
        renamed: Sequence[Renamed] = (),
        prefix: str = "",
    ) -> dict[str, Any]:
        """Put back the states of `lost` streams, and copy those of `renamed` ones.

        Runs after Airbyte holds `wanted`, the catalog, instead of `before`. What cannot be put back
        is in the result with its reason; it does not fail the operation. `prefix` distinguishes the
        steps from those of an earlier call.

        Raises:
            UpstreamUnreachable, UpstreamUnknown: Airbyte is away; the operation tries again.
        """
        if not lost and not renamed:
            return _Progress().result

        async def plan() -> Any:
            async with self._db.read() as session:
                row = await registry.find_connection(session, operation.connection_id)
            try:
                found = await self.plan(
                    row, wanted=wanted, before=before, lost=lost, renamed=renamed
                )
            except (UpstreamRefused, UpstreamDenied, UpstreamUnknown, UpstreamConflict) as error:
                _raise_unless_given_up(operation, error)
                streams = [*lost, *(one.new for one in renamed)]
                found = Planned(refused=tuple((stream, "refused") for stream in streams))
            return msgspec.to_builtins(found)

        async def put() -> dict[str, Any]:
            return await self._put(operation, airbyte_connection_id, planned)

        within = 4 * self._call_s
        step = f"{prefix}lost_state"
        planned = msgspec.convert(await operation.once(step, plan, within=within), Planned)
        step = f"{prefix}put_state"
        result: dict[str, Any] = await operation.once(step, put, within=within)
        return result

    async def plan(
        self,
        row: Connection,
        *,
        wanted: Catalog,
        before: Catalog,
        lost: Collection[StreamId],
        renamed: Sequence[Renamed] = (),
    ) -> Planned:
        """Which states can be put back now, and why not the others; changes nothing.

        A stream that still has a state in Airbyte is in neither list. One that `before` does not
        select may never have had a state, so it is listed only if a saved one can be put back.

        Raises:
            Upstream: Airbyte does not return the state or the jobs.
        """
        if row.airbyte_connection_id is None:
            return Planned()
        held = await self._airbyte.connection_state(row.airbyte_connection_id)
        taken: list[Renamed] = []
        refused: list[tuple[StreamId, Reason]] = []
        for one in renamed:
            if held.of(one.new) is not None:
                continue  # it resumes from its own
            reason = expect_taken_along(one, held=held, before=before, after=wanted)
            if reason is None:
                taken.append(one)
            elif reason not in ("not_saved", "not_incremental"):
                refused.append((one.new, reason))
        missing = [stream for stream in lost if held.of(stream) is None]
        jobs: list[Job] = []
        if missing:
            jobs = await self._airbyte.list_jobs(row.airbyte_connection_id, limit=MOST_JOBS)
        found, unsaved = await self._search(row, held, wanted, before, missing, jobs)
        selected = {stream.id for stream in before.streams if stream.selected}
        refused += [(stream, reason) for stream, reason in unsaved if stream in selected]
        newest_job = jobs[0].id if jobs else 0
        return Planned(tuple(found), tuple(taken), tuple(refused), newest_job)

    async def _search(
        self,
        row: Connection,
        held: ConnectionState,
        wanted: Catalog,
        before: Catalog,
        missing: Collection[StreamId],
        jobs: Sequence[Job],
    ) -> tuple[list[tuple[StreamId, UUID]], list[tuple[StreamId, Reason]]]:
        """Find the newest saved state of each stream, and decide whether it may be put back."""
        by_id = wanted.by_id()
        refused: dict[StreamId, Reason] = {}
        for stream in missing:
            reason = expect_deduplicated(by_id.get(stream))
            if reason is not None:
                refused[stream] = reason
        open_ = [stream for stream in missing if stream not in refused]
        found: list[tuple[StreamId, UUID]] = []
        if not open_:
            return found, list(refused.items())
        connector = await self._connector(row)
        for saved_id in await self._store.saved_ids(row.id, limit=_MOST_STATES):
            saved = await self._store.read(saved_id)
            if saved is None or not open_:
                continue
            # A refused catalog may have been in effect, too, although it is no version.
            since = [*await self._versions(row, saved), before]
            for stream in list(open_):
                reason = expect_put_back(
                    by_id[stream], saved, held=held, jobs=jobs, since=since, connector=connector
                )
                if reason is None:
                    found.append((stream, saved_id))
                if reason != "not_saved":
                    open_.remove(stream)
                if reason not in (None, "not_saved"):
                    refused[stream] = reason
        is_global = held.type not in ("stream", "not_set")
        refused |= dict.fromkeys(open_, "global_state" if is_global else "not_saved")
        return found, list(refused.items())

    async def _connector(self, row: Connection) -> str | None:
        if row.airbyte_source_id is None:
            return None
        found = await self._connectors.try_read(row.airbyte_source_id)
        if found is None:
            return None
        return found.tag if found.manifest is None else f"manifest {found.manifest}"

    async def _versions(self, row: Connection, saved: Saved) -> list[Catalog]:
        """The versions from that of a saved state to the head; empty if there are too many."""
        numbers = range(saved.catalog_version, row.catalog_version + 1)
        if not 0 < len(numbers) <= _MOST_VERSIONS:
            return []
        async with self._db.read() as session:
            versions = [await registry.read_version(session, row.id, number) for number in numbers]
        return [
            await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
            for version in versions
        ]

    async def _put(
        self, operation: Operation, airbyte_connection_id: UUID, planned: Planned
    ) -> dict[str, Any]:
        """Write the planned states, and read them back.

        A stream that has a state meanwhile keeps it. Safe to repeat: what is there is not written.
        """
        progress = _Progress(refused=list(planned.refused))
        until = asyncio.get_running_loop().time() + min(WAIT_S, 2 * self._call_s)
        values: dict[StreamId, bytes] = {}
        try:
            values |= await self._values(airbyte_connection_id, planned, progress)
            for _ in range(_TRIES):
                await self._write(airbyte_connection_id, values, planned, progress, until=until)
                if not values:
                    break
            refused: Reason = "refused"  # accepted, but not kept
        except UpstreamConflict:
            refused = "sync_running"
        except (UpstreamRefused, UpstreamDenied, UpstreamUnknown) as error:
            _raise_unless_given_up(operation, error)
            refused = "refused"
        settled = {*progress.put, *(stream for stream, _ in progress.refused)}
        progress.refused += [
            (stream, refused) for stream in planned.streams if stream not in settled
        ]
        if progress.refused:
            codes = ",".join(sorted({reason for _, reason in progress.refused}))
            connection = str(operation.connection_id)
            log.warning("state_not_put_back", connection=connection, code=codes)
        return progress.result

    async def _write(
        self,
        airbyte_connection_id: UUID,
        values: dict[StreamId, bytes],
        planned: Planned,
        progress: _Progress,
        *,
        until: float,
    ) -> None:
        """Write the states of the streams that have none, and remove those that have one.

        A saved state is not written after a job since the plan that may have emptied its stream.

        Raises:
            UpstreamConflict: a job of the connection is open, and was until `until`.
            Upstream: Airbyte does not return or take them.
        """
        while True:
            if planned.saved and await self._was_cleared(airbyte_connection_id, planned):
                for stream, _ in planned.saved:
                    if values.pop(stream, None) is not None:
                        progress.refused.append((stream, "synced_since"))
            _settle(values, await self._airbyte.connection_state(airbyte_connection_id), progress)
            if not values:
                return
            try:
                await self._airbyte.put_stream_states(airbyte_connection_id, values)
            except UpstreamConflict:
                if asyncio.get_running_loop().time() >= until:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                break
        _settle(values, await self._airbyte.connection_state(airbyte_connection_id), progress)

    async def _was_cleared(self, airbyte_connection_id: UUID, planned: Planned) -> bool:
        """Whether a job other than a sync has begun since the plan."""
        jobs = await self._airbyte.list_jobs(airbyte_connection_id, limit=MOST_JOBS)
        later = [job for job in jobs if job.id > planned.newest_job]
        return any(job.config_type != "sync" for job in later)

    async def _values(
        self, airbyte_connection_id: UUID, planned: Planned, progress: _Progress
    ) -> dict[StreamId, bytes]:
        """The states to write, by stream; those that have gone meanwhile are refused."""
        states: dict[UUID, Saved | None] = {
            saved_id: await self._store.read(saved_id)
            for saved_id in {id_ for _, id_ in planned.saved}
        }
        values: dict[StreamId, bytes] = {}
        for stream, saved_id in planned.saved:
            saved = states[saved_id]
            value = None if saved is None else saved.state.of(stream)
            if value is None:
                progress.refused.append((stream, "not_saved"))
            else:
                values[stream] = value
        if planned.renamed:
            held = await self._airbyte.connection_state(airbyte_connection_id)
            for one in planned.renamed:
                value = held.of(one.old)
                if value is None or held.type != "stream":
                    progress.refused.append((one.new, "not_saved"))
                else:
                    values[one.new] = value
        return values


def _raise_unless_given_up(
    operation: Operation,
    error: UpstreamRefused | UpstreamDenied | UpstreamUnknown | UpstreamConflict,
) -> None:
    """Raise an error after which the operation tries again, but not for the third time."""
    if isinstance(error, UpstreamRefused | UpstreamDenied):
        return
    missed = operation.results.get("state_not_written", 0) + 1
    operation.results["state_not_written"] = missed
    if missed < _TRIES:
        raise error


def _settle(values: dict[StreamId, bytes], held: ConnectionState, progress: _Progress) -> None:
    """Remove the streams that have a state from `values`, and record whether it is that one."""
    if held.type not in ("stream", "not_set"):
        progress.refused += [(stream, "global_state") for stream in values]
        values.clear()
    for stream in list(values):
        there = held.of(stream)
        if there is None:
            continue
        if msgspec.json.decode(there) == msgspec.json.decode(values.pop(stream)):
            progress.put.append(stream)
        else:
            progress.refused.append((stream, "has_state"))


def outcome(saved: Mapping[str, Any], put: Mapping[str, Any]) -> StateOutcome:
    """The outcome of an operation, from the results of its steps."""
    return StateOutcome(
        saved=saved["saved"],
        not_saved=saved["reason"],
        put_back=_named(put["put_back"]),
        not_put_back=[NotPutBack.model_validate(one) for one in put["not_put_back"]],
    )


def _named(streams: Iterable[Any]) -> list[StreamName]:
    return [StreamName.model_validate(one) for one in streams]
