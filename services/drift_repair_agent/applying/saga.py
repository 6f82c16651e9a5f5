"""The saga that applies a catalog: update Airbyte, read it back, append the next version.

If streams have to be refreshed, that is a step of its own between the last two.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying.openapi import Applied
from services.drift_repair_agent.applying.pause import SET_BY_AAM, note_foreign
from services.drift_repair_agent.states.decision import Renamed, lost_candidates
from services.drift_repair_agent.states.restorer import StateRestorer, outcome
from services.drift_repair_agent.states.schemas import StreamName
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection
from shared.airbyte_reads import reading_back
from shared.catalog_comparison import matches
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import (
    Upstream,
    UpstreamConflict,
    UpstreamMismatch,
    UpstreamMissing,
    UpstreamUnknown,
)
from shared.models import Connection, ConnectionStatus, VersionOrigin
from shared.operations import Operation
from shared.outbox import EventType
from shared.saved_states.store import StateStore

_TRIES = 3
"""Attempts before the saga fails because Airbyte accepts the catalog but holds another."""


class Heal(msgspec.Struct, frozen=True):
    """What to apply, and to which connection; the catalog itself is the operation's document."""

    airbyte_connection_id: UUID
    fingerprint: str
    base_version: int
    base_status: ConnectionStatus
    snapshot_id: UUID | None
    source_catalog_id: UUID | None
    origin: VersionOrigin = VersionOrigin.REPAIR
    repair_id: UUID | None = None
    """The repair that is carried out; None if a caller sent the catalog."""
    decided_by: str | None = None
    policy_set_by: str | None = None
    """Who set the policy entries that decided; None for the defaults and for a person."""
    requested_by: str | None = None
    """Whose credentials requested the decision; None if a policy decided."""
    is_paused: bool = False
    """Whether AAM has paused the connection, or is to: the changes that wait for a decision may be
    why Airbyte flags a breaking change."""
    is_paused_by_person: bool = False
    """Whether a person has paused the connection through AAM, which only a person ends."""
    afterwards: Literal["as_it_is", "resumed", "paused"] = "as_it_is"
    """The state that AAM sets on the Airbyte connection once it holds the catalog."""
    resumed: tuple[StreamId, ...] = ()
    """The streams that are selected again and resume from the state that Airbyte kept."""
    refresh: tuple[StreamId, ...] = ()
    """The streams that are read from their start again once Airbyte holds the catalog."""
    lost: tuple[StreamId, ...] = ()
    """Of a rollback: the streams whose state may be lost, and is then put back."""
    renamed: tuple[Renamed, ...] = ()
    """The streams that take the state of their old name along."""


class OnApplied(Protocol):
    """Records that the repair with this id was applied as catalog version `number`."""

    async def __call__(
        self, session: AsyncSession, row: Connection, repair_id: UUID, /, *, base: int, number: int
    ) -> None: ...


class OnRefused(Protocol):
    """Records that Airbyte did not accept the catalog of the repair with this id, and why."""

    async def __call__(
        self, session: AsyncSession, row: Connection, repair_id: UUID, failure: dict[str, Any], /
    ) -> None: ...


class ApplySaga:
    """Saga that applies a catalog and records it as the next version; resumable at every line."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        states: StateStore,
        restorer: StateRestorer,
        *,
        on_applied: OnApplied,
        on_refused: OnRefused,
    ) -> None:
        self._on_applied = on_applied
        self._on_refused = on_refused
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._states = states
        self._restorer = restorer

    async def run(self, operation: Operation) -> None:
        """Save the state, update Airbyte, verify the catalog, and record the new version."""
        heal = msgspec.json.decode(operation.request, type=Heal)
        document = operation.document or b""
        saved = await self._states.save(
            operation,
            heal.airbyte_connection_id,
            kind="rollback" if heal.origin is VersionOrigin.ROLLBACK else "heal",
            catalog_version=heal.base_version,
        )
        put = await self._give(operation, heal, document)
        refresh_job = await self._refresh(operation, heal) if heal.refresh else None
        number = heal.base_version + 1
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            registry.end_heal(row, operation.id, status=ConnectionStatus.ACTIVE)
            row.failure_code = row.failure_detail = row.drifted_upstream_at = None
            row.upstream_code = None
            version = registry.append_version(
                session,
                row,
                document,
                expected_version=heal.base_version,
                fingerprint=heal.fingerprint,
                origin=heal.origin,
                snapshot_id=heal.snapshot_id,
                requested_by=heal.requested_by or operation.requested_by,
            )
            version.repair_id, version.decided_by = heal.repair_id, heal.decided_by
            version.policy_set_by = heal.policy_set_by
            outbox.record(session, EventType.CATALOG_APPLIED, row, ref=operation.id)
            looked = operation.results["look"]
            self._note_pause(session, row, heal, looked, at=await registry.now(session))
            if heal.repair_id is not None:
                await self._on_applied(
                    session, row, heal.repair_id, base=heal.base_version, number=number
                )
            answer = Applied(
                connection_id=row.id,
                previous_version=heal.base_version,
                version_number=number,
                status=ConnectionStatus.ACTIVE,
                changed=True,
                resumed=[StreamName.of(stream) for stream in heal.resumed],
                refreshed=[StreamName.of(stream) for stream in heal.refresh],
                refresh_job=refresh_job,
                sync_state=outcome(saved, put),
            )
            await operation.finish(session, status=200, body=answer.model_dump_json())

    async def _give(self, operation: Operation, heal: Heal, document: bytes) -> dict[str, Any]:
        """Update Airbyte until it holds the catalog, then pause or resume the connection.

        In between, states are put back; returns which. A resumed connection may sync at once.

        Raises:
            UpstreamMismatch: Airbyte accepted the catalog but holds a different one.
        """
        while not (held := await self._given(operation, heal, document))["as_wanted"]:
            refused = operation.results.get("mismatches", 0) + 1
            if refused == _TRIES:
                raise UpstreamMismatch("Airbyte accepted the catalog, but has a different one.")
            operation.results["mismatches"] = refused
            operation.forget("update", "look")
        put = await self._put_states(operation, heal, document)
        await self._set_afterwards(operation, heal, document, held)
        return put

    async def _put_states(
        self, operation: Operation, heal: Heal, document: bytes
    ) -> dict[str, Any]:
        """Put back the states that the connection lost, and take along those of renamed streams."""
        wanted = before = Catalog(())
        if heal.lost or heal.renamed:
            wanted = await run_cooperatively(catalogs.parse.steps(document))
            before = await self._base(operation.connection_id, heal)
        return await self._restorer.put_back(
            operation,
            heal.airbyte_connection_id,
            wanted=wanted,
            before=before,
            lost=heal.lost,
            renamed=heal.renamed,
        )

    async def _base(self, connection_id: UUID, heal: Heal) -> Catalog:
        async with self._db.read() as session:
            base = await registry.read_version(session, connection_id, heal.base_version)
        return await run_cooperatively(catalogs.parse.steps(base.sync_catalog.encode()))

    async def _set_afterwards(
        self, operation: Operation, heal: Heal, document: bytes, held: dict[str, Any]
    ) -> None:
        is_foreign = held["status"] not in SET_BY_AAM
        status: str | None = None
        if heal.afterwards == "paused":
            status, breaking_change = "inactive", None
        elif heal.afterwards == "resumed":
            status, breaking_change = "active", False
        elif held["breaking_change"] and not heal.is_paused:
            # A pause without the flag was set by a person and stays.
            is_airbytes = held["status"] == "inactive" and not heal.is_paused_by_person
            status = "active" if is_airbytes else None
            breaking_change = False
        else:
            return
        # What Airbyte has locked or deleted stays so. For each status that it gets, it records an
        # event, even if the status does not change.
        status = None if is_foreign or status == held["status"] else status
        if status is not None or breaking_change is not None:
            await self._set(
                operation, heal, document, status=status, breaking_change=breaking_change
            )

    async def _given(self, operation: Operation, heal: Heal, document: bytes) -> dict[str, Any]:
        async def update() -> bool:
            await self._update(heal, document)
            return True

        async def read_back() -> dict[str, Any]:
            held = await self._held(heal)
            return {
                "as_wanted": await matches(held, heal.fingerprint),
                "breaking_change": held.breaking_change,
                "status": held.status,
            }

        async def holds() -> bool | None:
            return True if await matches(await self._held(heal), heal.fingerprint) else None

        await operation.once("update", update, find=holds, within=2 * self._call_s)
        held: dict[str, Any] = await operation.once("look", read_back, within=self._call_s)
        return held

    async def _set(
        self,
        operation: Operation,
        heal: Heal,
        document: bytes,
        *,
        status: str | None,
        breaking_change: bool | None,
    ) -> None:
        """Pause or resume the connection, and clear Airbyte's breaking-change flag."""

        async def set_() -> bool:
            await self._update(heal, document, status=status, breaking_change=breaking_change)
            return await matches(await self._held(heal), heal.fingerprint)

        if not await operation.once("unpause", set_, within=2 * self._call_s):
            raise UpstreamMismatch("Airbyte accepted the catalog, but has a different one.")

    async def _refresh(self, operation: Operation, heal: Heal) -> int | None:
        """Have streams read from their start again; return Airbyte's id of the job.

        None if Airbyte started no job now, because the connection is inactive or another job runs:
        it has stored the refresh, and the next job carries it out. A stream that is refreshed twice
        loses nothing, so a refresh that cannot be found is sent again. The job follower of the
        orchestrator tracks the job to its end; one that fails leaves the stream without state, so
        the next sync reads it from its start.
        """

        async def newest() -> int:
            jobs = await self._airbyte.list_jobs(heal.airbyte_connection_id, limit=1)
            return jobs[0].id if jobs else 0

        before: int = await operation.once("newest_job", newest, within=self._call_s)

        async def find() -> dict[str, int | None] | None:
            jobs = await self._airbyte.list_jobs(heal.airbyte_connection_id, limit=10)
            ours = [job for job in jobs if job.id > before and job.refreshed >= set(heal.refresh)]
            return {"job": ours[-1].id} if ours else None

        async def send() -> dict[str, int | None]:
            job = await self._airbyte.refresh_streams(heal.airbyte_connection_id, heal.refresh)
            if job is not None:
                return {"job": job.id}
            try:
                return await find() or {"job": None}
            except Upstream:
                return {"job": None}

        sent = await operation.once("refresh", send, find=find, within=3 * self._call_s)
        job_id: int | None = sent["job"]
        return job_id

    async def _update(
        self,
        heal: Heal,
        document: bytes,
        *,
        status: str | None = None,
        breaking_change: bool | None = None,
    ) -> None:
        """Update the connection; ignore an error if the update took effect.

        Airbyte writes the catalog before it notifies its scheduler, so what it holds decides, not
        what it answered (ConnectionsHandler.kt of 310e6cb6ac).
        """
        try:
            await self._airbyte.update_connection(
                heal.airbyte_connection_id,
                document,
                source_catalog_id=heal.source_catalog_id,
                status=status,
                breaking_change=breaking_change,
            )
        except (UpstreamUnknown, UpstreamConflict):
            held = await self._held(heal)
            if (
                not await matches(held, heal.fingerprint)
                or (breaking_change is not None and held.breaking_change is not breaking_change)
                or (status is not None and held.status != status)
            ):
                raise

    async def _held(self, heal: Heal) -> AirbyteConnection:
        """Read the connection from Airbyte after an update may have been sent.

        Raises:
            UpstreamMissing: Airbyte has no such connection.
            UpstreamUnknown: it cannot be read, so the outcome is unknown.
        """
        with reading_back():
            return await self._airbyte.get_connection(heal.airbyte_connection_id)

    @staticmethod
    def _note_pause(
        session: AsyncSession, row: Connection, heal: Heal, looked: dict[str, Any], *, at: datetime
    ) -> None:
        status = str(looked["status"])
        # A pause without Airbyte's flag was set by a person, who ends it.
        is_unflagged = status == "inactive" and not looked["breaking_change"]
        is_persons = is_unflagged and row.paused_by is None
        if status not in SET_BY_AAM:
            row.paused_by = None
            note_foreign(session, row, status, at=at)
        elif heal.afterwards == "resumed":
            row.paused_by = None
            outbox.record(session, EventType.CONNECTION_RESUMED, row, ref=heal.repair_id)
        elif heal.afterwards == "paused" and not is_persons:
            row.paused_by = heal.repair_id
            outbox.record(session, EventType.CONNECTION_PAUSED, row, ref=heal.repair_id)

    async def undo(self, operation: Operation) -> None:
        """Restore the base version in Airbyte; mark the connection FAILED if that does not work."""
        heal = msgspec.json.decode(operation.request, type=Heal)

        async def put_back() -> str:
            # Airbyte still returns a deleted connection but refuses to update it.
            if (operation.failure or {}).get("code") == UpstreamMissing.code:
                return "missing"
            try:
                return await self._put_back(operation.connection_id, heal)
            except UpstreamMissing:
                return "missing"

        found = await operation.once("undo", put_back, within=4 * self._call_s)
        if found == "base":
            await self._put_states_of_base(operation, heal)
            await self._settle(operation, heal.base_status, code=None)
        else:
            code = "upstream_missing" if found == "missing" else "catalog_unknown"
            await self._settle(operation, ConnectionStatus.FAILED, code=code)

    async def _put_states_of_base(self, operation: Operation, heal: Heal) -> None:
        """Put back the states that the refused catalog may have cost streams of the base."""
        if operation.document is None:
            return
        base = await self._base(operation.connection_id, heal)
        refused = await run_cooperatively(catalogs.parse.steps(operation.document))
        await self._restorer.put_back(
            operation,
            heal.airbyte_connection_id,
            wanted=base,
            before=refused,
            lost=lost_candidates(base, refused, only_changed=True),
            prefix="undo_",
        )

    async def abandon(self, operation: Operation) -> None:
        """Mark the connection FAILED, since it is unknown what Airbyte holds.

        A FAILED connection may be healed again.
        """
        code = (operation.failure or {}).get("code")
        await self._settle(operation, ConnectionStatus.FAILED, code=code)

    async def _put_back(self, connection_id: UUID, heal: Heal) -> str:
        """Restore the base version; `base` if Airbyte then holds it, `other` if it does not."""
        async with self._db.read() as session:
            head = await registry.read_version(session, connection_id, heal.base_version)
        held = await self._held(heal)
        if await matches(held, head.fingerprint):
            return "base"
        is_resumed = heal.afterwards == "resumed" and held.status in SET_BY_AAM
        await self._airbyte.update_connection(
            heal.airbyte_connection_id,
            head.sync_catalog.encode(),
            status="inactive" if is_resumed else None,
        )
        return "base" if await matches(await self._held(heal), head.fingerprint) else "other"

    async def _settle(
        self, operation: Operation, status: ConnectionStatus, *, code: str | None
    ) -> None:
        heal = msgspec.json.decode(operation.request, type=Heal)
        failure = operation.failure or {}
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            registry.end_heal(row, operation.id, status=status)
            if status is ConnectionStatus.FAILED and code is not None:
                row.failure_code, row.failure_detail = code, failure.get("detail")
            outbox.record(
                session,
                EventType.CATALOG_REFUSED,
                row,
                ref=operation.id,
                code=failure.get("code"),
            )
            if heal.repair_id is not None:
                await self._on_refused(session, row, heal.repair_id, failure)
            await operation.finish(session)
