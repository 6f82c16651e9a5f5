"""Applying a catalog: HEALING, Airbyte's update, a read-back, the next version, ACTIVE."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Final, Self
from uuid import UUID, uuid4

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from shared import events, logs, registry
from shared.airbyte_client import AirbyteClient, AirbyteConnection
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, InvalidCatalog, StreamId
from shared.domain.steps import in_slices
from shared.errors import (
    AamError,
    Invalid,
    NotActive,
    NotFound,
    StaleCatalog,
    Unavailable,
    UpstreamConflict,
    UpstreamMismatch,
    UpstreamMissing,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.events import EventType
from shared.models import Connection, ConnectionStatus, Snapshot, VersionOrigin

log = logs.get(__name__)

_MAX_TOLD: Final = 50
_PAUSED_BY_A_CHANGE: Final = ("inactive", "locked")


class ApplyOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The order to make a catalog the one that Airbyte syncs."""

    connection_id: UUID
    sync_catalog: msgspec.Raw
    expected_version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    """The head that the caller read; another one means that somebody was faster."""
    snapshot_id: UUID | None = None
    """The discovery that the catalog was made from, as /discover told it."""
    notes: msgspec.Raw = msgspec.Raw()
    """What /discover remarked, so that its answer can be posted as it is; not read."""

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The order that a body holds, its catalog left as the bytes it came in.

        Raises:
            Invalid: the body is no JSON, or no order.
        """
        try:
            return msgspec.json.decode(body, type=cls)
        except msgspec.ValidationError as error:
            raise Invalid(f"The order is not valid: {_told(error)}.") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Invalid("The body is not valid JSON.", code="invalid_json") from None


def _told(error: msgspec.ValidationError) -> str:
    """The place, and what was expected there; an unknown field's name is the caller's word."""
    message = str(error)
    return "it has an unknown field" if "unknown field" in message else message


class Applied(msgspec.Struct, frozen=True):
    """What came of it; `changed` is false where the catalog means what the head means."""

    connection_id: UUID
    previous_version: int
    version_number: int
    status: ConnectionStatus
    changed: bool


@dataclass(frozen=True, slots=True)
class _Heal:
    """A repair under way: whose connection it is, and what to go back to."""

    id: UUID
    connection_id: UUID
    airbyte_connection_id: UUID
    base_version: int
    base_status: ConnectionStatus
    source_catalog_id: UUID | None


class DriftRepairAgent:
    """Gives Airbyte new catalogs, and the registry the record of it."""

    def __init__(self, db: Database, airbyte: AirbyteClient) -> None:
        self._db = db
        self._airbyte = airbyte

    async def apply_new_catalog(self, order: ApplyOrder) -> Applied:
        """Make a catalog the one that Airbyte syncs, and record it as the next version.

        Raises:
            NotFound: there is no such connection.
            Invalid: the catalog cannot be meant; `problems` names streams and fields.
            StaleCatalog: the head is not `expected_version`.
            NotActive: the connection is HEALING, PENDING or archived.
            UpstreamRefused: Airbyte said no; it still holds the old catalog.
            UpstreamMismatch: Airbyte said yes and holds something else; the old one was put back.
            UpstreamUnknown: nobody knows what Airbyte holds; putting the old one back was tried.
        """
        wanted, fingerprint = await _readable(order.sync_catalog)
        heal = await self._begin(order, wanted, fingerprint)
        if isinstance(heal, Applied):
            return heal
        document = catalogs.dump(wanted)
        try:
            await self._give(heal, document, fingerprint)
        except AamError as error:
            await self._settle(heal, error)
            raise
        except BaseException:
            await self._settle(heal, AamError("The repair was interrupted.", code="interrupted"))
            raise
        return await self._finish(heal, order, document, fingerprint)

    async def _begin(self, order: ApplyOrder, wanted: Catalog, fingerprint: str) -> _Heal | Applied:
        """Take the connection, unless it has this catalog already.

        ACTIVE, or FAILED with an Airbyte connection, becomes HEALING.
        """
        heal_id, begun = uuid4(), list[_Heal]()

        async def write(session: AsyncSession) -> _Heal | Applied:
            row = await registry.lock_connection(session, order.connection_id)
            if row.heal_id == heal_id:
                return begun[0]  # an earlier commit, whose answer was lost
            airbyte_connection_id = _expect_healable(row, order)
            version, status = row.catalog_version, row.status
            is_active = status is ConnectionStatus.ACTIVE
            if is_active and await registry.head_fingerprint(session, row) == fingerprint:
                return Applied(row.id, version, version, status, changed=False)
            heal = _Heal(
                id=heal_id,
                connection_id=row.id,
                airbyte_connection_id=airbyte_connection_id,
                base_version=version,
                base_status=status,
                source_catalog_id=await _source_catalog_id(session, row, order.snapshot_id, wanted),
            )
            begun[:] = [heal]
            registry.begin_heal(row, heal_id)
            events.record(session, EventType.CATALOG_HEALING, row, ref=heal_id)
            return heal

        try:
            async with self._db.transaction() as session:
                return await write(session)
        except UpstreamUnknown:
            return await self._db.insist(write)

    async def _give(self, heal: _Heal, document: bytes, fingerprint: str) -> None:
        """Have Airbyte hold the catalog, and look whether it does."""
        held = await self._send(heal, document, fingerprint)
        if not held.breaking_change:
            return
        # A schema change made Airbyte flag, and perhaps pause, what is healed now. A pause without
        # the flag is a person's, and stays.
        status = "active" if held.status in _PAUSED_BY_A_CHANGE else None
        try:
            await self._send(heal, document, fingerprint, status=status, breaking_change=False)
        except UpstreamUnreachable:
            raise UpstreamUnknown("Airbyte went away between two requests.") from None

    async def _send(
        self,
        heal: _Heal,
        document: bytes,
        fingerprint: str,
        *,
        status: str | None = None,
        breaking_change: bool | None = None,
    ) -> AirbyteConnection:
        """Update the connection, and return what Airbyte holds then: a catalog of this meaning.

        An error may come after its effect, so what Airbyte holds decides, not what it said.
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
            if not await _means(held, fingerprint):
                raise
            return held
        held = await self._held(heal)
        if not await _means(held, fingerprint):
            raise UpstreamMismatch("Airbyte accepted the catalog and holds a different one.")
        return held

    async def _held(self, heal: _Heal) -> AirbyteConnection:
        """What Airbyte holds, after it was sent something.

        Raises:
            UpstreamUnknown: it cannot be asked; so nobody knows.
        """
        try:
            return await self._airbyte.get_connection(heal.airbyte_connection_id)
        except UpstreamUnreachable:
            raise UpstreamUnknown("Airbyte went away before it could be looked at.") from None

    async def _settle(self, heal: _Heal, reason: AamError) -> None:
        """After a failure: the old version where Airbyte holds it (again), else FAILED."""
        status, code = heal.base_status, reason.code
        was_sent = not isinstance(reason, UpstreamUnreachable)
        if isinstance(reason, UpstreamMissing):
            status = ConnectionStatus.FAILED
        elif was_sent and not await self._holds_base(heal):
            status, code = ConnectionStatus.FAILED, "catalog_unknown"

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, heal.connection_id, even_archived=True)
            registry.end_heal(row, heal.id, status=status)
            if status is ConnectionStatus.FAILED:
                row.failure_code, row.failure_detail = code, reason.detail
            events.record(session, EventType.CATALOG_REFUSED, row, ref=heal.id, code=reason.code)

        try:
            await self._db.insist(write)
        except (Unavailable, UpstreamUnknown, NotActive) as error:
            log.warning("heal_not_settled", connection=str(heal.connection_id), code=error.code)

    async def _holds_base(self, heal: _Heal) -> bool:
        """Whether Airbyte holds the base version, after putting it back where it does not."""
        try:
            async with self._db.read() as session:
                head = await registry.read_version(session, heal.connection_id, heal.base_version)
            if await _means(await self._held(heal), head.fingerprint):
                return True
            await self._airbyte.update_connection(
                heal.airbyte_connection_id, head.sync_catalog.encode()
            )
            return await _means(await self._held(heal), head.fingerprint)
        except AamError as error:
            log.warning("base_not_confirmed", connection=str(heal.connection_id), code=error.code)
            return False

    async def _finish(
        self, heal: _Heal, order: ApplyOrder, document: bytes, fingerprint: str
    ) -> Applied:
        """Record what Airbyte holds now as the next version.

        Raises:
            UpstreamUnknown: the registry stayed away; Airbyte holds the new catalog.
        """
        number = heal.base_version + 1

        async def write(session: AsyncSession) -> None:
            row = await registry.lock_connection(session, heal.connection_id, even_archived=True)
            if row.heal_id is None and row.catalog_version == number:
                return  # an earlier commit, whose answer was lost
            registry.end_heal(row, heal.id, status=ConnectionStatus.ACTIVE)
            row.failure_code = row.failure_detail = None
            await registry.append_version(
                session,
                row,
                document,
                expected_version=heal.base_version,
                fingerprint=fingerprint,
                origin=VersionOrigin.REPAIR,
                snapshot_id=order.snapshot_id,
            )
            events.record(session, EventType.CATALOG_APPLIED, row, ref=heal.id)

        try:
            await self._db.insist(write)
        except Unavailable:
            raise UpstreamUnknown(
                "Airbyte holds the new catalog, and the registry went away before it was recorded.",
                code="not_recorded",
            ) from None
        log.info("catalog_applied", connection=str(heal.connection_id), version=number)
        return Applied(
            heal.connection_id, heal.base_version, number, ConnectionStatus.ACTIVE, changed=True
        )


async def _means(held: AirbyteConnection, fingerprint: str) -> bool:
    """Whether Airbyte's catalog means the wanted one, both cut to their selected fields."""
    try:
        return await in_slices(catalogs.meaning_of.steps(held.sync_catalog)) == fingerprint
    except InvalidCatalog:
        return False


async def _readable(document: msgspec.Raw) -> tuple[Catalog, str]:
    """The selected streams, checked, and what they mean; what is wrong is told all at once."""
    try:
        catalog = await in_slices(catalogs.parse.steps(memoryview(document)))
        await in_slices(catalogs.validate.steps(catalog))
        wanted = catalog.selected()
        return wanted, await in_slices(catalogs.fingerprint_of.steps(wanted))
    except InvalidCatalog as error:
        told = [
            {
                "stream": None if problem.stream is None else msgspec.to_builtins(problem.stream),
                "field": problem.field,
                "code": problem.code,
                "message": problem.message,
            }
            for problem in error.problems[:_MAX_TOLD]
        ]
        raise Invalid(str(error), code=error.code, problems=told) from None


def _expect_healable(row: Connection, order: ApplyOrder) -> UUID:
    """The Airbyte connection to give the catalog to, if that may be done now."""
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.status is ConnectionStatus.HEALING:
        raise NotActive(f"Connection {row.id} is HEALING already.", code="heal_in_progress")
    healable = (ConnectionStatus.ACTIVE, ConnectionStatus.FAILED)
    if row.status not in healable or row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; Airbyte does not hold it.")
    if order.expected_version is not None and order.expected_version != row.catalog_version:
        raise StaleCatalog(row.id, expected=order.expected_version, current=row.catalog_version)
    return row.airbyte_connection_id


async def _source_catalog_id(
    session: AsyncSession, row: Connection, snapshot_id: UUID | None, wanted: Catalog
) -> UUID | None:
    """Airbyte's id of the discovery that the catalog was made from, if it can be made from it."""
    if snapshot_id is None:
        return None
    try:
        snapshot = await registry.find_snapshot(session, snapshot_id)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_snapshot") from None
    if snapshot.airbyte_source_id != row.airbyte_source_id:
        raise Invalid(f"Snapshot {snapshot_id} is of another source.", code="unknown_snapshot")
    names = [stream.id.name for stream in wanted.streams]
    offered = await registry.offered_streams(session, snapshot, names=names)
    for stream in wanted.streams:
        if (stream.id.namespace, stream.id.name) not in offered:
            raise await _not_offered(session, snapshot, stream.id)
    return snapshot.airbyte_catalog_id


async def _not_offered(session: AsyncSession, snapshot: Snapshot, missing: StreamId) -> Invalid:
    offered = await registry.offered_streams(session, snapshot)
    alike = get_close_matches(missing.name, [name for _, name in offered], n=1)
    hint = f" Did you mean {StreamId(None, alike[0])}?" if alike else ""
    return Invalid(f"The source offers no stream {missing}.{hint}", code="unknown_stream")
