"""Apply a catalog: check it and mark the connection HEALING before the operation runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Self
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.applying import reselection
from services.drift_repair_agent.applying.destination_check import expect_holdable
from services.drift_repair_agent.applying.dry_run import DryRun, difference
from services.drift_repair_agent.applying.openapi import Applied
from services.drift_repair_agent.applying.preflight import (
    expect_healable,
    expect_no_sync,
    expect_selectable,
    readable,
)
from services.drift_repair_agent.applying.saga import ApplySaga, Heal
from services.drift_repair_agent.repairs import transitions
from services.drift_repair_agent.states.effects import StateEffects
from services.drift_repair_agent.states.restorer import StateRestorer
from services.drift_repair_agent.states.schemas import StreamName
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import airbyte_answers_by, airbyte_deadline
from shared.config import Settings
from shared.database import Database
from shared.destinations import DestinationReader
from shared.domain import catalog as catalogs
from shared.domain.catalog import (
    COMPOUND,
    FORWARD,
    Catalog,
    InvalidCatalog,
    StreamId,
    ToleratedSettings,
)
from shared.domain.cooperative import run_cooperatively
from shared.domain.did_you_mean import nearest
from shared.errors import Conflict, Invalid, NotFound, StaleCatalog
from shared.http.validation import unknown
from shared.kept_state import Reselection
from shared.models import Connection, ConnectionStatus, Snapshot
from shared.operations import HttpResult, Intent, Key, Operations
from shared.outbox import EventType
from shared.saved_states.store import StateStore


class ApplyOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request to make a catalog the one that Airbyte syncs."""

    connection_id: UUID
    sync_catalog: msgspec.Raw
    expected_version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    """The catalog version that the caller read; the request fails if it is no longer the head."""
    snapshot_id: UUID | None = None
    """The discovery that the catalog was made from, as returned by /discover."""
    accept_clashes: bool = False
    """Whether a field or stream may get another name in the destination, as its own is taken, or
    the column of a removed field."""
    on_global_state: reselection.OnGlobalState | None = None
    """What to do about streams that are selected again while the connection's state is global."""
    notes: msgspec.Raw = msgspec.Raw()
    """Ignored; accepted so that a response of /discover can be posted unchanged."""

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Decode a request body, leaving its catalog as raw bytes.

        Raises:
            Invalid: the body is empty or does not match the schema.
        """
        try:
            return msgspec.json.decode(body, type=cls)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        except msgspec.DecodeError:
            raise Invalid("The body is not valid JSON.", code="invalid_json") from None


_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_MISPLACED = re.compile(r"(.*) - at `\$\.(\w+)`")


def _invalid(message: str) -> Invalid:
    """Turn msgspec's message into an error that names the member and what was expected."""
    kind, member, text = "invalid_order", "", message
    if found := _UNKNOWN.match(message):
        kind = "extra_forbidden"
        member, text = unknown("member", found[1], ApplyOrder.__struct_fields__)
    elif found := _MISSING.match(message):
        kind, member, text = "missing", found[1], "Field required"
    elif found := _MISPLACED.fullmatch(message):
        text, member = found[1], found[2]
    field = f"body.{member}" if member else "body"
    problem = {"field": field, "type": kind, "message": text}
    return Invalid(f"{field}: {text.rstrip('.')}.".replace("?.", "?"), fields=[problem])


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request that has passed its checks, and the operation that carries it out."""

    row: Connection
    wanted: Catalog
    head: Catalog
    again: Reselection
    heal: Heal
    intent: Intent
    take: Callable[[AsyncSession, UUID], Awaitable[HttpResult | None]]
    """Checks the request again under locks, and marks the connection HEALING."""


class DriftRepairAgent:
    """Applies catalogs in Airbyte and records them in the registry."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        operations: Operations,
        states: StateStore,
        restorer: StateRestorer,
        destinations: DestinationReader,
        effects: StateEffects,
    ) -> None:
        self._effects = effects
        self._destinations = destinations
        self._db = db
        self._airbyte = airbyte
        self._operations = operations
        saga = ApplySaga(
            settings,
            db,
            airbyte,
            states,
            restorer,
            on_applied=transitions.mark_catalog_applied,
            on_refused=transitions.mark_catalog_refused,
        )
        operations.register("apply", saga)

    async def apply_new_catalog(
        self, order: ApplyOrder, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Apply a catalog in Airbyte and record it as the connection's next version.

        A connection that is ACTIVE, or FAILED with an Airbyte connection, becomes HEALING in the
        transaction that records the operation.

        Raises:
            NotFound: there is no such connection.
            Invalid: the catalog is invalid, selects a field that the policy never selects, or
                what the destination cannot hold; `problems` names streams and fields.
            StaleCatalog: the head is not `expected_version`.
            NotActive: the connection is HEALING, PENDING or archived.
            SyncRunning: a sync is running and would finish with parts of the old catalog.
            GlobalStateUndecided: it selects streams again that depend on a global state.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        prepared = await self._prepared(order, key)
        begun = await self._operations.begin(prepared.intent, prepared.take)
        return await self._operations.outcome(begun, wait=wait)

    async def dry_run(self, order: ApplyOrder) -> DryRun:
        """What `apply_new_catalog` would do; nothing is recorded, and nothing is sent to Airbyte.

        Raises:
            AamError: what `apply_new_catalog` raises.
        """
        prepared = await self._prepared(order, None)
        unchanged = await self._operations.rehearse(prepared.intent, prepared.take)
        row, heal = prepared.row, prepared.heal
        effects = list(reselection.effects(prepared.again))
        effects += await self._effects.of_heal(
            row, before=prepared.head, after=prepared.wanted, renamed=()
        )
        return DryRun(
            connection_id=row.id,
            outcome="applied" if unchanged is None else "unchanged",
            base_version=heal.base_version,
            catalog=await difference(prepared.head, prepared.wanted, effects),
            resumed=[StreamName.of(one) for one in heal.resumed],
            refreshed=[StreamName.of(one) for one in heal.refresh],
            afterwards=heal.afterwards if unchanged is None else "as_it_is",
        )

    async def _prepared(self, order: ApplyOrder, key: Key | None) -> _Prepared:
        """Check a request.

        Raises:
            AamError: as `apply_new_catalog`.
        """
        deadline = airbyte_deadline()
        wanted, fingerprint = await self._checked(order)
        async with self._db.read() as session:
            row = await registry.find_connection(session, order.connection_id)
            exclusions = await registry.exclusions_of(session, row.id)
            airbyte_connection_id = expect_healable(row, order.expected_version)
            source_catalog_id = await _source_catalog_id(session, row, order.snapshot_id, wanted)
            is_new = await registry.head_fingerprint(session, row) != fingerprint
            bodies = await _offered(session, row, wanted)
        await expect_selectable(wanted, exclusions, bodies=bodies)
        if is_new:
            async with airbyte_answers_by(deadline):
                await expect_no_sync(self._airbyte, row.id, airbyte_connection_id)
        head = await self._head(row) if is_new else wanted
        if is_new:
            await expect_holdable(
                self._db,
                self._destinations,
                row,
                wanted,
                head,
                accept_clashes=order.accept_clashes,
                deadline=deadline,
            )
        async with airbyte_answers_by(deadline):
            again = await reselection.find(self._airbyte, row, wanted, head)
            refresh = await reselection.to_refresh(self._airbyte, row, again, order.on_global_state)
        heal = Heal(
            airbyte_connection_id=airbyte_connection_id,
            fingerprint=fingerprint,
            base_version=row.catalog_version,
            base_status=row.status,
            snapshot_id=order.snapshot_id,
            source_catalog_id=source_catalog_id,
            is_paused_by_person=row.pause_requested_by is not None,
            afterwards="as_it_is" if row.paused_by is None else "resumed",
            resumed=again.resumed,
            refresh=refresh,
        )

        async def take(session: AsyncSession, operation_id: UUID) -> HttpResult | None:
            row = await registry.lock_connection(session, order.connection_id)
            expect_healable(row, order.expected_version)
            version, status = row.catalog_version, row.status
            if (version, status) != (heal.base_version, heal.base_status):
                raise StaleCatalog(row.id, expected=heal.base_version, current=version)
            if (row.pause_requested_by is not None) is not heal.is_paused_by_person:
                raise Conflict(
                    f"Connection {row.id} was paused or resumed in the meantime: try again.",
                    code="changed_meanwhile",
                )
            is_active = status is ConnectionStatus.ACTIVE
            if is_active and await registry.head_fingerprint(session, row) == fingerprint:
                unchanged = Applied(
                    connection_id=row.id,
                    previous_version=version,
                    version_number=version,
                    status=status,
                    changed=False,
                )
                return HttpResult(200, unchanged.model_dump_json())
            registry.begin_heal(row, operation_id)
            outbox.record(session, EventType.CATALOG_HEALING, row, ref=operation_id)
            return None

        intent = Intent("apply", order.connection_id, heal, catalogs.dump(wanted), key)
        return _Prepared(row, wanted, head, again, heal, intent, take)

    async def _head(self, row: Connection) -> Catalog:
        """The newest version's catalog; empty before the first version."""
        try:
            async with self._db.read() as session:
                head = await registry.read_version(session, row.id, row.catalog_version)
        except NotFound:
            return Catalog(())
        return await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))

    async def _checked(self, order: ApplyOrder) -> tuple[Catalog, str]:
        """Validate a request's catalog; return its selected streams and their fingerprint.

        A newer Airbyte may have settings and modes that AAM does not know. They are accepted if
        they already occur in the head or in the latest snapshot. So is a compound key or cursor
        of a stream that the head has in the same form.
        """
        document = memoryview(order.sync_catalog)
        try:
            return await readable(document)
        except Invalid as error:
            if error.code not in FORWARD | COMPOUND:
                raise
            familiar, held = await self._familiar(order)
        return await readable(document, familiar=familiar, held=held)

    async def _familiar(self, order: ApplyOrder) -> tuple[ToleratedSettings, frozenset[bytes]]:
        """The settings and modes that head and latest snapshot use; the head's streams' digests."""
        try:
            asked = await run_cooperatively(catalogs.parse.steps(memoryview(order.sync_catalog)))
            async with self._db.read() as session:
                row = await registry.find_connection(session, order.connection_id)
                head = await registry.read_version(session, row.id, row.catalog_version)
                bodies = await _offered(session, row, asked)
            configured = await run_cooperatively(catalogs.parse.steps(head.sync_catalog.encode()))
            offered = [catalogs.read_stream(body) for body in bodies]
        except (InvalidCatalog, NotFound):
            return ToleratedSettings(), frozenset()
        held = frozenset(stream.digest for stream in configured.streams)
        return ToleratedSettings.of([*configured.streams, *offered]), held


async def _offered(session: AsyncSession, row: Connection, asked: Catalog) -> list[bytes]:
    """The streams of a catalog as the latest snapshot of the connection's source has them."""
    if row.airbyte_source_id is None:
        return []
    snapshot = await registry.latest_snapshot(session, row.airbyte_source_id)
    if snapshot is None:
        return []
    names = sorted({stream.id.name for stream in asked.streams})
    return await registry.stream_bodies(session, snapshot, names=names)


async def _source_catalog_id(
    session: AsyncSession, row: Connection, snapshot_id: UUID | None, wanted: Catalog
) -> UUID | None:
    """Airbyte's catalog id for `snapshot_id`; None if no snapshot was given.

    Raises:
        Invalid: the snapshot is unknown, is of another source, or lacks a stream of `wanted`.
    """
    if snapshot_id is None:
        return None
    try:
        snapshot = await registry.find_snapshot(session, snapshot_id)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_snapshot") from None
    if snapshot.airbyte_source_id != row.airbyte_source_id:
        raise Invalid(f"Snapshot {snapshot_id} belongs to another source.", code="unknown_snapshot")
    names = [stream.id.name for stream in wanted.streams]
    offered = await registry.offered_streams(session, snapshot, names=names)
    for stream in wanted.streams:
        if (stream.id.namespace, stream.id.name) not in offered:
            raise await _not_offered(session, snapshot, stream.id)
    return snapshot.airbyte_catalog_id


async def _not_offered(session: AsyncSession, snapshot: Snapshot, missing: StreamId) -> Invalid:
    offered = await registry.offered_streams(session, snapshot)
    alike = nearest(missing.name, (name for _, name in offered))
    hint = f" Did you mean {StreamId(None, alike[0])}?" if alike else ""
    return Invalid(f"The source offers no stream {missing}.{hint}", code="unknown_stream")
