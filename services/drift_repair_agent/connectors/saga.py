"""The saga that upgrades a source's connector: save the state, upgrade, read back, observe."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from services.drift_repair_agent.connectors.schemas import Observed, Upgraded
from services.drift_repair_agent.repairs.queries import newest_drift
from services.drift_repair_agent.states.schemas import StateOutcome
from shared import outbox, registry
from shared.airbyte_client import AirbyteClient
from shared.airbyte_reads import reading_back
from shared.config import Settings
from shared.connectors import Connectors
from shared.database import Database
from shared.domain.connector_versions import ConnectorVersion, Guide, Step, passed
from shared.errors import (
    AamError,
    Conflict,
    UpstreamConflict,
    UpstreamMismatch,
    UpstreamRefused,
    UpstreamUnknown,
)
from shared.http.connector_step import ConnectorStep
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import Operation
from shared.outbox import EventType
from shared.saved_states.store import StateStore
from shared.service_clients import SchemaObserver

log = logs.get(__name__)

_TRIES: Final = 3
"""Attempts before the saga fails because Airbyte refuses, or accepts without any effect."""
_PLAN: Final = "plan"
_MARGIN_S: Final = 30.0
"""Time allowed for an observation beyond its discovery."""
_FIRST_POLL_S: Final = 0.1
_SLOWEST_POLL_S: Final = 5.0
UPGRADE_REFUSED: Final = "connector_upgrade_refused"


class ConnectorPinned(Conflict):
    """A user has pinned the source to a version in Airbyte: remove the pin there first."""

    code = "connector_pinned"


class UpgradeOrder(msgspec.Struct, frozen=True):
    """What to upgrade, and what it was before."""

    airbyte_connection_id: UUID
    source_id: UUID
    version: str
    manifest: int | None
    catalog_version: int
    guides: tuple[Guide, ...]
    """The breaking changes ahead."""
    by: str
    reason: str | None


class UpgradeSaga:
    """Saga that upgrades a connector; resumable at every line. An upgrade cannot be undone.

    The connection stays ACTIVE. Its plan is made when the operation has ended, since a connection
    with an open operation is not planned for.
    """

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        jobs: Jobs,
        observer: SchemaObserver,
        states: StateStore,
    ) -> None:
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._peer_s = settings.peer_timeout.total_seconds()
        discover_s = settings.discover_timeout.total_seconds()
        self._observe_s = discover_s + min(discover_s, _MARGIN_S)
        self._db = db
        self._airbyte = airbyte
        self._states = states
        self._jobs = jobs
        self._observer = observer
        self._connectors = Connectors(settings, db, airbyte)

    async def run(self, operation: Operation) -> None:
        """Save the state, upgrade, verify that the version changed, observe, and request a plan."""
        order = msgspec.json.decode(operation.request, type=UpgradeOrder)
        saved = await self._states.save(
            operation,
            order.airbyte_connection_id,
            kind="upgrade",
            catalog_version=order.catalog_version,
        )
        now = await self._upgrade(operation, order)
        observed = await operation.once(
            "observe",
            lambda: self._observe(operation.connection_id),
            within=self._observe_s + 2 * self._peer_s,
        )
        step = Step(
            from_version=order.version,
            to_version=now["version"],
            from_manifest=order.manifest,
            to_manifest=now["manifest"],
            breaking_changes=passed(order.guides, order.version, now["version"]),
        )
        async with self._db.transaction() as session:
            row = await registry.lock_connection(
                session, operation.connection_id, even_archived=True
            )
            drift = await newest_drift(session, row.id)
            is_new = drift is not None and drift.first_seen_at >= datetime.fromisoformat(
                saved["at"]
            )
            outbox.record(
                session,
                EventType.CONNECTOR_UPGRADED,
                row,
                ref=operation.id,
                code=step.in_words,
            )
            await self._jobs.enqueue(session, _PLAN, str(row.id), after=timedelta(0))
            answer = Upgraded(
                connection_id=row.id,
                operation_id=operation.id,
                connector_step=ConnectorStep.model_validate(msgspec.to_builtins(step)),
                catalog_version=order.catalog_version,
                observation=Observed.model_validate(observed),
                drift_id=drift.id if drift is not None and is_new else None,
                sync_state=StateOutcome(saved=saved["saved"], not_saved=saved["reason"]),
                by=order.by,
                reason=order.reason,
            )
            await operation.finish(session, status=200, body=answer.model_dump_json())

    async def undo(self, operation: Operation) -> None:
        """End the operation: nothing was changed, or what was changed cannot be undone."""
        await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """End the operation; the next check of the connector finds out which version it has."""
        async with self._db.transaction() as session:
            await operation.finish(session)

    async def _upgrade(self, operation: Operation, order: UpgradeOrder) -> dict[str, Any]:
        """Upgrade until the source runs another version, and return that.

        Raises:
            ConnectorPinned: a user has pinned the source.
            UpstreamMismatch: Airbyte accepts the upgrade, but the version stays the same.
        """

        async def read_back() -> dict[str, Any]:
            now = await self._version(order)
            if not _is_another(now, order) and now.is_pinned:
                raise _pinned(order)
            return {
                "version": now.tag,
                "manifest": now.manifest,
                "is_another": _is_another(now, order),
            }

        while True:
            await operation.once(
                "upgrade",
                lambda: self._send(operation, order),
                find=lambda: self._took_effect(order),
                within=3 * self._call_s,
            )
            now: dict[str, Any] = await operation.once("look", read_back, within=3 * self._call_s)
            if now["is_another"]:
                return now
            _count_refusal(
                operation,
                UpstreamMismatch(
                    "Airbyte accepted the upgrade, but the source has the same version."
                ),
            )
            operation.forget("upgrade", "look")

    async def _send(self, operation: Operation, order: UpgradeOrder) -> bool:
        """Send the upgrade; ignore an error if it took effect.

        Airbyte answers 500 for a source with a pin of a user or of a rollout, as for other failures
        (ActorDefinitionVersionUpdater.kt of 310e6cb6ac), so what the source runs then decides.
        """
        try:
            await self._airbyte.upgrade_source_version(order.source_id)
        except (UpstreamUnknown, UpstreamConflict) as error:
            now = await self._version(order)
            if _is_another(now, order):
                return True
            if now.is_pinned:
                raise _pinned(order) from None
            if error.is_over:
                _count_refusal(
                    operation,
                    UpstreamRefused(
                        f"Airbyte refuses to upgrade source {order.source_id}: its version may be "
                        "pinned by a rollout.",
                        code=UPGRADE_REFUSED,
                    ),
                )
            raise
        return True

    async def _took_effect(self, order: UpgradeOrder) -> bool | None:
        return True if _is_another(await self._version(order), order) else None

    async def _version(self, order: UpgradeOrder) -> ConnectorVersion:
        """Read and record what the source runs, after an upgrade may have been sent.

        Raises:
            UpstreamMissing: Airbyte has no such source.
            UpstreamUnknown: it cannot be read, so the outcome is unknown.
        """
        with reading_back():
            return await self._connectors.read(order.source_id)

    async def _observe(self, connection_id: UUID) -> dict[str, Any]:
        """Have the source observed, and wait for the end; an error does not fail the upgrade.

        The source is observed on schedule, too, so the code of the error is all that is recorded.
        """
        try:
            async with asyncio.timeout(self._observe_s):
                before = await self._observer.observation(connection_id)
                found = await self._observer.observe(connection_id)
                pause_s = _FIRST_POLL_S
                while found.get("status") == "observing" or found.get("observing"):
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _SLOWEST_POLL_S)
                    found = await self._observer.observation(connection_id)
                    found["observing"] = found["observed_at"] == before["observed_at"]
                return {"outcome": found["outcome"], "code": found["code"]}
        except AamError as error:
            code = error.code
        except TimeoutError:
            code = "observing"
        log.warning("upgrade_not_observed", connection=str(connection_id), code=code)
        return {"outcome": None, "code": code}


def _is_another(now: ConnectorVersion, order: UpgradeOrder) -> bool:
    return now.tag != order.version


def _pinned(order: UpgradeOrder) -> ConnectorPinned:
    return ConnectorPinned(
        f"Source {order.source_id} is pinned to version {order.version} in Airbyte by a user: "
        "remove the pin there to upgrade it."
    )


def _count_refusal(operation: Operation, error: AamError) -> None:
    """Count a refusal, and raise the error after too many."""
    refused = operation.results.get("refusals", 0) + 1
    operation.results["refusals"] = refused
    if refused >= _TRIES:
        raise error from None
