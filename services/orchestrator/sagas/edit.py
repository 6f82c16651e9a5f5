"""The saga that changes a connection's settings: check, save the state, update, record.

A new credential is checked first, and given to the source last: if Airbyte refuses an
earlier step, only settings without secrets have to be restored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import credential_queries, edit_queries
from services.orchestrator.credentials import OrderNote, fetch, merged
from services.orchestrator.source_configurations import SourceConfigurations
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient, ConnectionSettings
from shared.airbyte_reads import reading_back
from shared.config import Settings
from shared.credential_digests import Digests
from shared.database import Database
from shared.domain.destination import Naming
from shared.domain.specification import Specification
from shared.errors import (
    Conflict,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamMismatch,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamUnknown,
)
from shared.models import Connection
from shared.operations import Operation
from shared.outbox import EventType
from shared.saved_states.store import StateStore
from shared.service_clients import AuthBroker

MARKER = re.compile(r" ?(\[aam:[0-9a-f-]{36}\])$")
"""The marker at the end of the name of what AAM created in Airbyte."""
_SET_BY_AAM = frozenset({"active", "inactive"})
"""The statuses that AAM may set and may replace; Airbyte alone sets the others."""


class NewCredential(msgspec.Struct, frozen=True):
    """The credential that a source is to use; its values are fetched when they are needed."""

    credential_id: str
    source_type: str
    airbyte_source_id: UUID
    given: list[str]
    """The values that the source was given until now, by their pointers."""
    configuration: dict[str, Any] = {}
    """The part of the source's configuration that is not in the credential."""


class Own(msgspec.Struct, frozen=True, omit_defaults=True):
    """The settings that only AAM has; those that are not given stay unchanged."""

    description: str | msgspec.UnsetType | None = msgspec.UNSET
    labels: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Edit(msgspec.Struct, frozen=True):
    """What to change, in Airbyte and in the registry."""

    airbyte_connection_id: UUID
    wanted: ConnectionSettings
    """What Airbyte is to hold; None where that is not changed."""
    before: ConnectionSettings
    """What it held of these settings before."""
    own: Own
    changed: dict[str, dict[str, Any]]
    """Each changed setting with its values before (`from`) and after (`to`), as it is shown."""
    effects: list[OrderNote]
    name: str | None = None
    paused: bool | None = None
    overruled: UUID | None = None
    """The open repair that would keep the connection paused, which a person resumes."""
    naming: Naming | None = None
    """How the tables are named from then on; None if that does not change. While the operation is
    running, these tables are claimed: see `registry.claimed_streams`."""
    credential: NewCredential | None = None
    by: str | None = None


class EditSaga:
    """Changes a connection's settings; every step can be resumed."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        configurations: SourceConfigurations,
        digests: Digests | None,
        states: StateStore,
    ) -> None:
        self._states = states
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._check_s = settings.check_timeout.total_seconds()
        self._peer_s = settings.peer_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self._configurations = configurations
        self._digests = digests

    async def run(self, operation: Operation) -> None:
        """Check a new credential, change the settings in Airbyte, and record them.

        Before a pause, Airbyte's state of the connection is saved.
        """
        edit = msgspec.json.decode(operation.request, type=Edit)
        if edit.credential is not None:
            await self._check(operation, edit.credential)
        if edit.wanted.status == "inactive":
            await self._save_state(operation, edit)
        if edit.wanted != ConnectionSettings():
            await self._update(operation, edit)
        if edit.credential is not None:
            await self._replace(operation, edit.credential)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            await self._record(session, operation, row, edit)
            await session.flush()
            shown = await registry.connection_json(session, row.id)
            body = answer(operation.id, edit, shown)
            await operation.finish(session, status=200, body=body)

    async def _check(self, operation: Operation, new: NewCredential) -> None:
        """Have the connector test the new credential.

        Raises:
            CheckFailed: it does not work; nothing has been changed.
        """

        async def check() -> dict[str, Any]:
            specification, configuration = await self._built(new)
            digests = self._digests_of(new, configuration)
            source = await self._airbyte.get_configured_source(new.airbyte_source_id)
            whole = merged(
                source.connection_configuration,
                configuration,
                specified=specification,
                changed=digests,
                dropped=_dropped(new, digests),
                keep_secrets=False,
            )
            renewed = await self._airbyte.check_source_update(
                new.airbyte_source_id, whole, name=source.name
            )
            return {"renewed": renewed, "digests": digests}

        within = self._peer_s + 4 * self._call_s + self._check_s
        await operation.once("check", check, within=within)

    async def _save_state(self, operation: Operation, edit: Edit) -> None:
        async with self._db.read() as session:
            row = await registry.find_connection(session, operation.connection_id)
        await self._states.save(
            operation,
            edit.airbyte_connection_id,
            kind="pause",
            catalog_version=row.catalog_version,
        )

    async def _update(self, operation: Operation, edit: Edit) -> None:
        """Send what differs, and read it back.

        Raises:
            UpstreamMismatch: Airbyte accepted the settings, but holds others.
        """

        async def update() -> bool:
            return await self._give(edit.airbyte_connection_id, edit.wanted)

        async def took_effect() -> bool | None:
            held = await self._held(edit.airbyte_connection_id)
            return True if difference(held, edit.wanted) == ConnectionSettings() else None

        if not await operation.once("settings", update, find=took_effect, within=4 * self._call_s):
            raise UpstreamMismatch("Airbyte accepted the settings, but has different ones.")

    async def _give(self, airbyte_connection_id: UUID, wanted: ConnectionSettings) -> bool:
        """Send the settings that Airbyte does not have yet; whether it has them all then.

        A status is sent only if it changes, since Airbyte records an event for each that it gets.
        """
        held = (await self._airbyte.get_connection(airbyte_connection_id)).settings
        patch = difference(held, wanted)
        if patch == ConnectionSettings():
            return True
        if patch.status is not None:
            expect_settable(held)
        try:
            await self._airbyte.update_settings(airbyte_connection_id, patch)
        except (UpstreamUnknown, UpstreamConflict):
            if difference(await self._held(airbyte_connection_id), wanted) != ConnectionSettings():
                raise
        held = await self._held(airbyte_connection_id)
        return difference(held, wanted) == ConnectionSettings()

    async def _held(self, airbyte_connection_id: UUID) -> ConnectionSettings:
        """Read the settings from Airbyte after they may have been sent."""
        with reading_back():
            return (await self._airbyte.get_connection(airbyte_connection_id)).settings

    async def _replace(self, operation: Operation, new: NewCredential) -> None:
        """Give the source the values that were checked; its name shows which operation wrote it."""
        checked = operation.results["check"]

        async def update() -> bool:
            specification, configuration = await self._built(new)
            digests = self._digests_of(new, configuration)
            if digests != checked["digests"]:
                raise Conflict(
                    f"Credential {new.credential_id} has changed since it was checked.",
                    code="credential_changed",
                )
            source = await self._airbyte.get_configured_source(new.airbyte_source_id)
            whole = merged(
                source.connection_configuration,
                configuration,
                specified=specification,
                changed=digests,
                dropped=_dropped(new, digests),
                # What the connector renewed in the check is newer than what the store has.
                keep_secrets=checked["renewed"],
            )
            name = f"{MARKER.sub('', source.name)} {operation.marker}"
            await self._airbyte.update_source(new.airbyte_source_id, whole, name=name)
            if not await took_effect():
                raise UpstreamMismatch(
                    "Airbyte accepted the configuration, but has a different one."
                )
            return True

        async def took_effect() -> bool | None:
            with reading_back():
                return await self._is_replaced(operation, new) or None

        await operation.once(
            "source", update, find=took_effect, within=self._peer_s + 6 * self._call_s
        )

    async def _is_replaced(self, operation: Operation, new: NewCredential) -> bool:
        held = await self._airbyte.get_source(new.airbyte_source_id)
        return held.name.endswith(operation.marker)

    async def _built(self, new: NewCredential) -> tuple[Specification, dict[str, Any]]:
        """The source's specification, and its whole configuration with the new credential.

        Raises:
            Invalid: they do not fit, or there is no such credential.
        """
        credential = await fetch(self._auth_broker, new.source_type, new.credential_id)
        specification = await self._configurations.definitions.specification_of_source(
            new.airbyte_source_id
        )
        built = await self._configurations.built(
            specification, new.source_type, new.configuration, new.credential_id, credential
        )
        return specification, built

    def _digests_of(self, new: NewCredential, configuration: dict[str, Any]) -> dict[str, str]:
        if self._digests is None:
            raise Conflict("ROTATION_DIGEST_KEY is not set any more.", code="no_digest_key")
        return self._digests.of(new.credential_id, configuration)

    async def _record(
        self, session: AsyncSession, operation: Operation, row: Connection, edit: Edit
    ) -> None:
        """Record the settings, who changed them, and the events."""
        if edit.name is not None:
            await edit_queries.rename(session, row, edit.name)
        _note_naming(row, edit)
        if edit.own.description is not msgspec.UNSET:
            row.description = edit.own.description
        if edit.own.labels is not msgspec.UNSET:
            row.labels = msgspec.json.encode(edit.own.labels).decode()
        if edit.credential is not None:
            await _note_credential(session, operation, row, edit.credential)
        if edit.paused is not None:
            _note_pause(row, edit, requested_by=operation.requested_by)
            paused, resumed = EventType.CONNECTION_PAUSED, EventType.CONNECTION_RESUMED
            event = paused if edit.paused else resumed
            outbox.record(session, event, row, ref=operation.id, code=outbox.BY_REQUEST)
        if edit.changed.keys() - {"paused"}:
            outbox.record(session, EventType.CONNECTION_EDITED, row, ref=operation.id)
        await registry.record_setting_change(
            session,
            "connection",
            row.id,
            edit.changed,
            by=edit.by,
            requested_by=operation.requested_by,
        )

    async def undo(self, operation: Operation) -> None:
        """Restore the settings in Airbyte, if they may have been changed.

        A credential is not taken back; whether the source has got it is looked up first, since the
        response to the update may have been lost.
        """
        edit = msgspec.json.decode(operation.request, type=Edit)
        if operation.has_tried("settings"):
            operation.results["settings"] = False  # the next step would hide the attempt
        if edit.credential is not None and _has_reached_source(operation, edit):
            await self._look_up(operation, edit.credential)

        async def put_back() -> bool:
            try:
                return await self._give(edit.airbyte_connection_id, edit.before)
            except UpstreamMissing:
                return True

        was_sent = "settings" in operation.results
        if was_sent and not await operation.once("undo", put_back, within=4 * self._call_s):
            operation.forget("undo")
            raise UpstreamMismatch("Airbyte accepted the settings, but has different ones.")
        await self.abandon(operation)

    async def _look_up(self, operation: Operation, new: NewCredential) -> None:
        """Find out whether the source has got the credential, as far as Airbyte shows it."""

        async def replaced() -> bool:
            try:
                return await self._is_replaced(operation, new)
            except (UpstreamRefused, UpstreamDenied):
                return False

        await operation.once("replaced", replaced, within=2 * self._call_s)

    async def abandon(self, operation: Operation) -> None:
        """End the operation; the registry keeps the settings of before.

        A credential that the source has got already is recorded, since it is not taken back: by the
        update, after which the name can still be taken by an onboarding, or by a check in which the
        connector renewed a secret.
        """
        edit = msgspec.json.decode(operation.request, type=Edit)
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            if edit.credential is not None and _is_given(operation):
                await _note_credential(session, operation, row, edit.credential)
                outbox.record(session, EventType.CONNECTION_EDITED, row, ref=operation.id)
                await registry.record_setting_change(
                    session,
                    "connection",
                    row.id,
                    {"credential_id": edit.changed["credential_id"]},
                    by=edit.by,
                    requested_by=operation.requested_by,
                )
            await operation.finish(session)


def _has_reached_source(operation: Operation, edit: Edit) -> bool:
    """Whether every step before the source's update is done, so that it may have been sent."""
    results = operation.results
    is_set = edit.wanted == ConnectionSettings() or bool(results.get("settings"))
    return "check" in results and is_set and "source" not in results


def _is_given(operation: Operation) -> bool:
    """Whether the source has the new credential, as far as AAM knows.

    After a renewal in the check it has, since Airbyte stores the whole configuration with it.
    """
    results = operation.results
    is_replaced = "source" in results or bool(results.get("replaced"))
    return is_replaced or bool(results.get("check", {}).get("renewed"))


def _note_naming(row: Connection, edit: Edit) -> None:
    """Record the changes of how tables are named."""
    naming = edit.naming or renamed(registry.naming_of(row), edit.changed)
    if naming != registry.naming_of(row):
        registry.save_naming(row, naming)


def renamed(naming: Naming, changed: Mapping[str, dict[str, Any]]) -> Naming:
    """How tables are named after the changes of settings."""
    members = {"namespace_definition": "definition", "namespace_format": "format"}
    changes = {
        members.get(name, name): changed[name]["to"] or None
        for name in ("prefix", *members)
        if name in changed
    }
    return msgspec.structs.replace(naming, **changes)


def difference(held: ConnectionSettings, wanted: ConnectionSettings) -> ConnectionSettings:
    """The wanted settings that differ from those that Airbyte holds; the others are None."""
    is_new_schedule = wanted.schedule_type is not None and not _is_same_schedule(held, wanted)
    return ConnectionSettings(
        name=_new(held.name, wanted.name),
        status=_new(held.status, wanted.status),
        schedule_type=wanted.schedule_type if is_new_schedule else None,
        schedule_data=wanted.schedule_data if is_new_schedule else None,
        namespace_definition=_new(held.namespace_definition, wanted.namespace_definition),
        namespace_format=_new(held.namespace_format or "", wanted.namespace_format),
        prefix=_new(held.prefix or "", wanted.prefix),
    )


def _new(held: str | None, wanted: str | None) -> str | None:
    return None if wanted == held else wanted


def _is_same_schedule(held: ConnectionSettings, wanted: ConnectionSettings) -> bool:
    if (held.schedule_type or "manual") != wanted.schedule_type:
        return False
    data = held.schedule_data or {}
    return all(data.get(name) == value for name, value in (wanted.schedule_data or {}).items())


def expect_settable(held: ConnectionSettings) -> None:
    """Check that AAM may pause or resume a connection with these settings.

    Raises:
        UpstreamRefused: Airbyte itself has locked or deleted it.
    """
    if held.status not in _SET_BY_AAM:
        raise UpstreamRefused(
            "Airbyte itself has locked or deleted the connection, so it can be neither paused nor "
            "resumed.",
            code="connection_locked",
        )


def answer(operation_id: UUID | None, edit: Edit, connection: str) -> str:
    """The response body; `connection` is JSON text."""
    return msgspec.json.encode(
        {
            "operation_id": operation_id,
            "changed": edit.changed,
            "effects": edit.effects,
            "connection": msgspec.Raw(connection.encode()),
        }
    ).decode()


def _note_pause(row: Connection, edit: Edit, *, requested_by: str | None) -> None:
    """Record the pause or its end as a person's, which takes precedence over a repair's pause."""
    if edit.paused:
        row.pause_requested_by = edit.by or requested_by or "AAM"
    else:
        row.pause_requested_by = None
        row.unpaused_repair_id = edit.overruled or row.paused_by
    row.paused_by = None


async def _note_credential(
    session: AsyncSession, operation: Operation, row: Connection, new: NewCredential
) -> None:
    """Record the credential that the source has now."""
    checked = operation.results["check"]
    row.credential_id = new.credential_id
    credential_queries.save_digests(row, checked["digests"])
    credential_queries.accept(row)
    await registry.forget_renewals(session, new.airbyte_source_id)
    if checked["renewed"]:
        registry.record_discovery(session, new.airbyte_source_id, "check", is_renewed=True)


def _dropped(new: NewCredential, digests: dict[str, str]) -> list[str]:
    """The values that the source was given and that the new configuration does not have."""
    return sorted(set(new.given) - digests.keys())
