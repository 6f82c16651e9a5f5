"""Prunes history that is older than its retention setting, in small batches.

What something still refers to is kept whatever its age, and catalog versions and knowledge are kept
for ever: see `migrations/retention.sql`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy.exc import DBAPIError

from shared import batches, registry
from shared.config import Settings
from shared.database import Database
from shared.observability import logs, metrics
from shared.periodic import PeriodicTask

log = logs.get(__name__)

_EVERY: Final = timedelta(minutes=10)
_AT_MOST: Final = 500
_SCHEMAS_AT_MOST: Final = 50_000
_BATCHES: Final = 20
"""Most batches of one table in one run; what is left is for the next."""


@dataclass(frozen=True, slots=True)
class History:
    """A table whose old rows are pruned."""

    table: str
    kept: timedelta | None
    """For how long; None for ever."""
    every: timedelta = _EVERY
    """How often, over all replicas."""
    batches: int = _BATCHES
    at_most: int | None = None
    """Rows of a batch, where they are not as many as of the others."""


def histories(settings: Settings) -> Sequence[History]:
    """What is pruned, in an order in which what refers to others goes first."""
    unused_schemas = None if settings.snapshot_retention is None else timedelta(days=1)
    return (
        History("events", settings.event_retention),
        History("job_history", settings.job_retention),
        History("operations", settings.operation_retention),
        History("webhook_deliveries", settings.delivery_retention),
        History("repairs", settings.repair_retention),
        History("drifts", settings.drift_retention),
        History("snapshots", settings.snapshot_retention),
        # One statement that reads the hashes of every snapshot, and so deletes more at once: a
        # connector's update may give each stream of every source another schema.
        History(
            "stream_schemas",
            unused_schemas,
            every=timedelta(days=1),
            batches=1,
            at_most=_SCHEMAS_AT_MOST,
        ),
        History("api_keys", settings.api_key_retention),
        History("credential_audit", settings.audit_retention),
    )


class Retention:
    """The periodic task that prunes; one replica prunes a table for all of them."""

    def __init__(self, db: Database, kept: Sequence[History]) -> None:
        self._db = db
        self._kept = kept
        self._is_starting = True

    @property
    def look(self) -> PeriodicTask:
        """When it runs: not at the process's start, which has more urgent work."""
        return PeriodicTask(self._prune_later, _EVERY)

    async def _prune_later(self) -> None:
        if not self._is_starting:
            await self.prune()
        self._is_starting = False

    async def prune(self) -> None:
        """Prune each table whose turn it is; one that fails does not stop the others."""
        await batches.each(
            self._kept,
            self._prune,
            log_event="history_not_pruned",
            fields=lambda history: {"table": history.table},
        )

    async def _prune(self, history: History) -> None:
        if history.kept is None:
            return
        try:
            await self._prune_older(history, history.kept)
        except DBAPIError as error:
            # Such as a row that something began to refer to meanwhile: it is kept.
            cause = type(error.orig).__name__
            log.warning("history_not_pruned", table=history.table, cause=cause)

    async def _prune_older(self, history: History, kept: timedelta) -> None:
        at_most = history.at_most or _AT_MOST
        async with self._db.transaction() as session:
            name = f"prune.{history.table}"
            if not await registry.take_turn(session, name, every=history.every * 0.9):
                return
        rows = 0
        for _ in range(history.batches):
            async with self._db.transaction() as session:
                pruned = await registry.prune_history(
                    session, history.table, kept=kept, at_most=at_most
                )
            rows += pruned
            metrics.PRUNED.add(pruned, table=history.table)
            if pruned < at_most:
                break
        if rows:
            log.info("history_pruned", table=history.table, rows=rows)
