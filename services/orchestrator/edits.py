"""Validates a change of a connection's settings and records it, before its operation runs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import edit_queries
from services.orchestrator.catalog_reconciler import naming_in
from services.orchestrator.credential_queries import digests_given
from services.orchestrator.credentials import OrderNote, expect_own_credential, expect_unused, fetch
from services.orchestrator.destination_fit import DestinationFit, expect_unclaimed
from services.orchestrator.edit_schemas import ConnectionEdit
from services.orchestrator.labels import MOST_LABELS
from services.orchestrator.preflight import answered_soon, nothing_recorded
from services.orchestrator.sagas.edit import (
    MARKER,
    Edit,
    EditSaga,
    NewCredential,
    Own,
    answer,
    difference,
    expect_settable,
    renamed,
)
from services.orchestrator.schedule_validation import airbyte_schedule
from services.orchestrator.source_configurations import SourceConfigurations
from shared import registry, source_types
from shared.airbyte_client import (
    AirbyteClient,
    AirbyteConnection,
    ConnectionSettings,
    schedule_members,
)
from shared.auth import label_limits, scopes
from shared.auth.scopes import LabelLimited, Scope
from shared.config import Settings
from shared.credential_digests import Digests
from shared.database import Database
from shared.destinations import TableClaim
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog
from shared.domain.cooperative import run_cooperatively
from shared.domain.destination import Naming
from shared.errors import (
    Conflict,
    Invalid,
    NotActive,
    SyncRunning,
)
from shared.models import Connection, ConnectionStatus
from shared.operations import HttpResult, Intent, Key, Operations
from shared.saved_states.store import StateStore
from shared.service_clients import AuthBroker

_IN_AIRBYTE = frozenset(
    {"name", "schedule", "prefix", "namespace_definition", "namespace_format", "paused"}
)
"""The members of a request that Airbyte has to be read for."""
_TABLES = frozenset({"prefix", "namespace_definition", "namespace_format"})
"""Those that decide which tables are written to."""

NEW_TABLES = OrderNote(
    "new_tables",
    "The next sync writes to other tables, which are new or another connection's. The tables "
    "written until now keep their rows and get no more. A stream that is synced incrementally "
    "continues from its cursor, so its new table lacks the earlier rows until it is refreshed.",
)
PAUSE_TAKEN_OVER = OrderNote(
    "pause_taken_over",
    "The connection was paused already; from now on only a person resumes it, and no repair does.",
)
REPAIR_STAYS_OPEN = OrderNote(
    "repair_stays_open",
    "A repair keeps the connection paused until it is decided. It still waits for a decision, and "
    "its changes do not pause the connection again.",
)
BREAKING_CHANGE_FLAGGED = OrderNote(
    "breaking_change_flagged",
    "Airbyte has flagged a breaking change and may disable the connection again; applying a "
    "catalog clears the flag.",
)


@dataclass
class _Draft:
    """An edit while its parts are put together; only real changes are in it."""

    held: AirbyteConnection | None
    wanted: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    effects: list[OrderNote] = field(default_factory=list)

    def change(self, name: str, before: object, after: object) -> bool:
        """Add a setting if its value changes; whether it does."""
        if before == after:
            return False
        self.changed[name] = {"from": before, "to": after}
        return True

    @property
    def settings(self) -> ConnectionSettings:
        """What Airbyte holds."""
        return ConnectionSettings() if self.held is None else self.held.settings


@dataclass(frozen=True, slots=True)
class _NewTables:
    """How a connection names its tables from then on, and the tables that it then writes."""

    naming: Naming
    claim: TableClaim
    compared_at: float
    """When the tables were compared with others, by the monotonic clock."""

    async def expect_unclaimed(self, session: AsyncSession) -> None:
        """Check, in the edit's transaction, that no other operation has claimed them.

        Raises:
            Invalid: `destination_cannot_hold`; another one has.
        """
        since = timedelta(seconds=time.monotonic() - self.compared_at)
        await expect_unclaimed(session, self.claim, within=since)


class Editor:
    """Changes settings of connections, each change as an operation."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        configurations: SourceConfigurations,
        operations: Operations,
        digests: Digests | None,
        states: StateStore,
        fit: DestinationFit,
    ) -> None:
        self._fit = fit
        self._db = db
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self._configurations = configurations
        self._operations = operations
        self._digests = digests
        saga = EditSaga(settings, db, airbyte, auth_broker, configurations, digests, states)
        operations.register("edit", saga)

    async def edit(
        self, connection_id: UUID, order: ConnectionEdit, *, key: Key | None, wait: float
    ) -> HttpResult:
        """Change the settings that a request names; the response shows what was changed.

        Raises:
            NotFound: there is no such connection.
            Invalid: the request changes nothing, or a value does not fit the others.
            NotActive: the connection is archived, not in Airbyte, or busy.
            NameTaken: another live connection has the name.
            SyncRunning: the tables change while a sync is running.
            Invalid: `destination_cannot_hold`; a table would be another connection's, too.
            Forbidden: it takes over or ends a repair's pause, or changes the policy by a label, and
                the caller may not decide repairs.
            Conflict: the credential cannot be replaced, or the connection has just been changed.
            CheckFailed: the new credential does not work; nothing was changed.
            Unavailable: Airbyte or the registry is unavailable; nothing was recorded.
        """
        replay = await self._operations.replayed(key)
        if replay is not None:
            return replay
        given = order.model_fields_set - {"by"}
        if not given:
            raise Invalid(
                "The request names no setting to change.",
                code="empty_change",
            )
        async with self._db.read() as session:
            row = await registry.find_connection(session, connection_id)
        airbyte_connection_id = _expect_editable(row)
        held = await self._read(airbyte_connection_id) if given & _IN_AIRBYTE else None
        draft = _Draft(held)
        own = _own(draft, order, row)
        await self._expect_labels_allowed(draft)
        _settings(draft, order, row)
        credential = await self._credential(draft, order, row)
        pausing = await self._pausing_repair(order, row)
        paused = _pause(draft, order, row, pausing=pausing)
        if draft.changed.keys() & _TABLES:
            draft.effects.insert(0, NEW_TABLES)
            await self._expect_no_job(connection_id, airbyte_connection_id)
        new_tables = await self._new_tables(draft, row)
        wanted = ConnectionSettings(**draft.wanted)
        edit = Edit(
            airbyte_connection_id=airbyte_connection_id,
            wanted=wanted,
            before=_before(draft.settings, wanted),
            own=own,
            changed=draft.changed,
            effects=draft.effects,
            name=order.name if "name" in draft.changed else None,
            paused=paused,
            overruled=pausing if paused is False else None,
            naming=None if new_tables is None else new_tables.naming,
            credential=credential,
            by=order.by,
        )
        intent = Intent("edit", connection_id, edit, key=key)

        async def gate(session: AsyncSession, _operation_id: UUID) -> HttpResult | None:
            now = await registry.lock_connection(session, connection_id)
            _expect_editable(now)
            is_same = _facts(now) == _facts(row)
            if is_same and edit.paused is False:
                is_same = await edit_queries.pausing_repair(session, connection_id) == pausing
            if not is_same:
                raise Conflict(
                    f"Connection {connection_id} was changed in the meantime: try again.",
                    code="changed_meanwhile",
                )
            if not edit.changed:
                shown = await registry.connection_json(session, connection_id)
                return HttpResult(200, answer(None, edit, shown))
            if edit.name is not None:
                await edit_queries.expect_free(session, connection_id, edit.name)
            if new_tables is not None:
                await new_tables.expect_unclaimed(session)
            return None

        if edit.name is not None:
            with label_limits.registry_wide():
                async with self._db.read() as session:
                    await edit_queries.expect_free(session, connection_id, edit.name)
        begun = await self._operations.begin(intent, gate)
        return await self._operations.outcome(begun, wait=wait)

    async def _expect_labels_allowed(self, draft: _Draft) -> None:
        """Check that no label changes the policy of the connection without the scope for that.

        Raises:
            Forbidden: it does, and the caller may not decide repairs.
        """
        change = draft.changed.get("labels")
        if change is None:
            return
        labels = set(change["from"].items()) ^ set(change["to"].items())
        async with self._db.read() as session:
            if await registry.labels_with_policies(session, labels):
                scopes.require(Scope.REPAIRS_DECIDE)

    async def _pausing_repair(self, order: ConnectionEdit, row: Connection) -> UUID | None:
        """The repair that a request to resume overrules, if it is open; None without one."""
        if "paused" not in order.model_fields_set or order.paused:
            return None
        async with self._db.read() as session:
            return await edit_queries.pausing_repair(session, row.id)

    async def _read(self, airbyte_connection_id: UUID) -> AirbyteConnection:
        async with answered_soon():
            return await self._airbyte.get_connection(airbyte_connection_id)

    async def _expect_no_job(self, connection_id: UUID, airbyte_connection_id: UUID) -> None:
        """Check that no job is running, which could write to both the old and the new tables.

        Raises:
            SyncRunning: one is.
        """
        async with answered_soon():
            statuses = await self._airbyte.connection_statuses([airbyte_connection_id])
        for status in statuses:
            if status.is_working:
                raise SyncRunning(
                    f"A sync of connection {connection_id} is running: change its tables when it "
                    "has ended.",
                    airbyte_job_id=status.active_job_id,
                )

    async def _new_tables(self, draft: _Draft, row: Connection) -> _NewTables | None:
        """The tables under their new names, compared with all others; None if they stay.

        What is only to be known of them is added to the effects.

        Raises:
            Invalid: `destination_cannot_hold`; two streams get one table, or one that another
                connection writes.
        """
        if draft.held is None or not draft.changed.keys() & _TABLES:
            return None
        compared_at = time.monotonic()
        before = naming_in(draft.held)
        after = renamed(before, draft.changed)
        head = Catalog(())
        if row.catalog_version:
            async with self._db.read() as session:
                version = await registry.read_version(session, row.id, row.catalog_version)
            head = await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
        with label_limits.registry_wide():
            async with answered_soon():
                claim, notes = await self._fit.renamed(
                    head,
                    connection_id=row.id,
                    destination_id=row.airbyte_destination_id,
                    before=before,
                    after=after,
                )
        draft.effects += [OrderNote(note.code, note.message) for note in notes]
        return _NewTables(after, claim, compared_at)

    async def _credential(
        self, draft: _Draft, order: ConnectionEdit, row: Connection
    ) -> NewCredential | None:
        """The source's new credential, if the request names another than it has."""
        if "credential_id" not in order.model_fields_set or order.credential_id == (
            row.credential_id
        ):
            return None
        reference = order.credential_id
        if row.imported or row.airbyte_source_id is None:
            raise Invalid.of(
                "credential_id",
                f"Connection {row.id} was imported, and AAM does not change its source.",
                code="source_not_managed",
            )
        with nothing_recorded():
            specification = await self._configurations.definitions.specification_of_source(
                row.airbyte_source_id
            )
        if not specification.secrets:
            raise Invalid.of(
                "credential_id",
                f"{row.source_type} does not take a `credential_id`.",
                code="credential_not_used",
            )
        if self._digests is None:
            raise Conflict(
                "A credential cannot be replaced: ROTATION_DIGEST_KEY is not set.",
                code="no_digest_key",
            )
        await expect_own_credential(self._db, reference)
        with label_limits.registry_wide():
            async with self._db.read() as session:
                others = await edit_queries.others_of_source(session, row.id, row.airbyte_source_id)
        if others:
            async with self._db.read() as session:
                visible = await registry.connection_names(session, others)
            raise Conflict(
                f"{len(others)} other connections use the source of connection {row.id}, and would "
                "get the credential, too.",
                code="source_shared",
                connection_ids=[one for one in others if one in visible],
            )
        configuration = msgspec.json.decode(row.source_configuration or "{}", type=dict[str, Any])
        source_type = source_types.SOURCE_TYPES.get(row.source_type)
        if source_type is not None and source_type.renewed_fields:
            with nothing_recorded():
                credential = await fetch(self._auth_broker, row.source_type, reference)
                whole = await self._configurations.built(
                    specification, row.source_type, configuration, reference, credential
                )
            draft.effects += await expect_unused(
                self._db, self._digests, source_type, reference, whole
            )
        draft.change("credential_id", row.credential_id, reference)
        return NewCredential(
            credential_id=reference,
            source_type=row.source_type,
            airbyte_source_id=row.airbyte_source_id,
            given=sorted(digests_given(row)),
            configuration=configuration,
        )


def _own(draft: _Draft, order: ConnectionEdit, row: Connection) -> Own:
    """The changes of settings that only AAM has."""
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    labels: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    given = order.model_fields_set
    if "description" in given and draft.change("description", row.description, order.description):
        description = order.description
    if "labels" in given:
        before = msgspec.json.decode(row.labels, type=dict[str, str])
        merged = {name: value for name, value in (before | order.labels).items() if value}
        if len(merged) > MOST_LABELS:
            raise Invalid.of(
                "labels",
                f"The connection would have {len(merged)} labels, and may have {MOST_LABELS}.",
                code="too_many_labels",
            )
        if missing := [name for name, value in label_limits.current() if merged.get(name) != value]:
            raise LabelLimited(
                f"The API key is limited by the label {missing[0]}: the connection must keep it."
            )
        if draft.change("labels", before, merged):
            labels = merged
    return Own(description=description, labels=labels)


def _settings(draft: _Draft, order: ConnectionEdit, row: Connection) -> None:
    """The changes of name, schedule and tables, compared with what Airbyte holds."""
    given, held = order.model_fields_set, draft.settings
    if "name" in given:
        marked = MARKER.search(held.name or "")
        draft.change("name", row.name, order.name)
        draft.wanted["name"] = f"{order.name} {marked[1]}" if marked else order.name
    if "schedule" in given:
        members = schedule_members(airbyte_schedule(order.schedule))
        wanted = ConnectionSettings(
            schedule_type=members["scheduleType"], schedule_data=members.get("scheduleData")
        )
        if difference(held, wanted) != ConnectionSettings():
            draft.change("schedule", _shown(held), _shown(wanted))
            draft.wanted["schedule_type"] = wanted.schedule_type
            draft.wanted["schedule_data"] = wanted.schedule_data
    if "prefix" in given and draft.change("prefix", held.prefix or "", order.prefix or ""):
        draft.wanted["prefix"] = order.prefix or ""
    if given & {"namespace_definition", "namespace_format"}:
        _namespace(draft, order)
    # Only what Airbyte does not have yet.
    wanted = difference(held, ConnectionSettings(**draft.wanted))
    draft.wanted = {
        name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None
    }


def _namespace(draft: _Draft, order: ConnectionEdit) -> None:
    """The change of the namespace, whose definition and format must fit each other.

    Raises:
        Invalid: there is a format without the definition `customformat`, or the reverse.
    """
    given, held = order.model_fields_set, draft.settings
    definition = held.namespace_definition or "source"
    if "namespace_definition" in given:
        definition = order.namespace_definition
    namespace_format = held.namespace_format or ""
    if "namespace_format" in given:
        namespace_format = order.namespace_format
        if definition != "customformat":
            raise Invalid.of(
                "namespace_format",
                "`namespace_format` needs the `namespace_definition` `customformat`.",
                code="namespace_format_not_used",
            )
    if definition == "customformat" and not namespace_format:
        raise Invalid.of(
            "namespace_definition",
            "The `namespace_definition` `customformat` needs a `namespace_format`.",
            code="namespace_format_required",
        )
    before = held.namespace_definition or "source"
    if draft.change("namespace_definition", before, definition):
        draft.wanted["namespace_definition"] = definition
    if draft.change("namespace_format", held.namespace_format or "", namespace_format):
        draft.wanted["namespace_format"] = namespace_format


def _pause(
    draft: _Draft, order: ConnectionEdit, row: Connection, *, pausing: UUID | None
) -> bool | None:
    """Whether a person pauses or resumes the connection; None if it stays as it is.

    `pausing` is the open repair that keeps the connection paused until it is decided. Where a
    person had paused the connection before, it has not paused it itself.

    Raises:
        UpstreamRefused: Airbyte itself has locked or deleted the connection.
        Forbidden: it takes over a repair's pause, or ends one, and the caller may not decide
            repairs.
    """
    if "paused" not in order.model_fields_set or draft.held is None:
        return None
    is_paused = draft.settings.status != "active"
    by = row.pause_requested_by
    if order.paused:
        is_done = is_paused and by is not None
    else:
        is_done = not is_paused and by is None and row.paused_by is None
    if is_done:
        return None
    expect_settable(draft.settings)
    # Who takes a repair's pause over can also end it, so both overrule the policy.
    overrules = row.paused_by is not None or pausing not in (None, row.unpaused_repair_id)
    if overrules:
        scopes.require(Scope.REPAIRS_DECIDE)
    if order.paused and is_paused:
        draft.effects.append(PAUSE_TAKEN_OVER)
    if not order.paused and overrules:
        draft.effects.append(REPAIR_STAYS_OPEN)
    if not order.paused and draft.held.breaking_change:
        draft.effects.append(BREAKING_CHANGE_FLAGGED)
    draft.changed["paused"] = {"from": is_paused, "to": order.paused}
    if is_paused is not order.paused:
        draft.wanted["status"] = "inactive" if order.paused else "active"
    return order.paused


def _before(held: ConnectionSettings, wanted: ConnectionSettings) -> ConnectionSettings:
    """What Airbyte held of the wanted settings, so that it can be restored.

    Airbyte leaves null members unchanged, so what was unset is restored as an empty text.
    """
    has_schedule = wanted.schedule_type is not None
    return ConnectionSettings(
        name=None if wanted.name is None else held.name,
        status=None if wanted.status is None else held.status,
        schedule_type=(held.schedule_type or "manual") if has_schedule else None,
        schedule_data=held.schedule_data if has_schedule else None,
        namespace_definition=None
        if wanted.namespace_definition is None
        else held.namespace_definition or "source",
        namespace_format=None if wanted.namespace_format is None else held.namespace_format or "",
        prefix=None if wanted.prefix is None else held.prefix or "",
    )


def _facts(row: Connection) -> tuple[object, ...]:
    """What an edit was computed from."""
    return (
        row.name,
        row.description,
        row.labels,
        row.credential_id,
        row.credential_digests,
        row.airbyte_source_id,
        row.paused_by,
        row.pause_requested_by,
    )


def _expect_editable(row: Connection) -> UUID:
    """The id of the Airbyte connection whose settings may be changed.

    Raises:
        NotActive: it is archived, HEALING, or not in Airbyte.
    """
    if row.archived_at is not None:
        raise NotActive(f"Connection {row.id} is archived.")
    if row.status is ConnectionStatus.HEALING:
        raise NotActive(
            f"Connection {row.id} is HEALING; try again when it is ACTIVE.", code="healing"
        )
    editable: Iterable[ConnectionStatus] = (ConnectionStatus.ACTIVE, ConnectionStatus.FAILED)
    if row.status not in editable or row.airbyte_connection_id is None:
        raise NotActive(f"Connection {row.id} is {row.status}; it does not exist in Airbyte.")
    return row.airbyte_connection_id


def _shown(settings: ConnectionSettings) -> dict[str, Any] | None:
    """A schedule of Airbyte's in the form of AAM's API; None for a manual one."""
    data = settings.schedule_data or {}
    cron, basic = data.get("cron") or {}, data.get("basicSchedule") or {}
    match settings.schedule_type:
        case "cron":
            return {"cron": cron.get("cronExpression"), "time_zone": cron.get("cronTimeZone")}
        case "basic":
            return {"units": basic.get("units"), "time_unit": basic.get("timeUnit")}
    return None
