"""Prunes history that is older than its retention setting, in small batches.

Rows that are still referenced are never pruned, and neither are catalog versions and knowledge: see
`migrations/prune_history.sql`.
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
_BATCHES: Final = 200
"""Maximum batches per table and run; the rest is left for the next run."""


@dataclass(frozen=True, slots=True)
class History:
    """A table whose old rows are pruned."""

    table: str
    max_age: timedelta | None
    """How long rows are kept; None for ever."""
    every: timedelta = _EVERY
    """Interval between runs, across all replicas."""
    batches: int = _BATCHES
    at_most: int | None = None
    """Rows per batch; None for the default."""


def histories(settings: Settings) -> Sequence[History]:
    """The tables to prune, referencing tables before those that they refer to."""
    unused_schemas = None if settings.snapshot_retention is None else timedelta(days=1)
    return (
        History("events", settings.event_retention),
        History("timeline_events", settings.timeline_retention),
        History("job_history", settings.job_retention),
        History("sync_volumes", settings.volume_retention),
        History("operations", settings.operation_retention),
        History("webhook_deliveries", settings.delivery_retention),
        History("repairs", settings.repair_retention),
        History("drifts", settings.drift_retention),
        History("stream_states", settings.state_retention),
        History("snapshots", settings.snapshot_retention),
        # A single statement that reads the hashes of all snapshots, so it deletes more at once:
        # a connector update may change the schema of every stream of every source.
        History(
            "stream_schemas",
            unused_schemas,
            every=timedelta(days=1),
            batches=1,
            at_most=_SCHEMAS_AT_MOST,
        ),
        History("api_keys", settings.api_key_retention),
        History("refusals", settings.refusal_retention),
        History("credential_audit", settings.audit_retention),
    )


class Retention:
    """The periodic task that prunes; each table is pruned by one replica at a time."""

    def __init__(self, db: Database, tables: Sequence[History]) -> None:
        self._db = db
        self._tables = tables

    @property
    def task(self) -> PeriodicTask:
        """The task's schedule."""
        return PeriodicTask(self.prune, _EVERY)

    async def prune(self) -> None:
        """Prune each table that is due; one that fails does not stop the others."""
        await batches.each(
            self._tables,
            self._prune,
            log_event="history_not_pruned",
            fields=lambda history: {"table": history.table},
        )

    async def _prune(self, history: History) -> None:
        if history.max_age is None:
            return
        try:
            await self._prune_older(history, history.max_age)
        except DBAPIError as error:
            # For example, a row was referenced in the meantime, so it is not deleted.
            cause = type(error.orig).__name__
            log.warning("history_not_pruned", table=history.table, cause=cause)

    async def _prune_older(self, history: History, max_age: timedelta) -> None:
        at_most = history.at_most or _AT_MOST
        async with self._db.transaction() as session:
            name = f"prune.{history.table}"
            if not await registry.take_turn(session, name, every=history.every * 0.9):
                return
        rows = 0
        for _ in range(history.batches):
            async with self._db.transaction() as session:
                pruned = await registry.prune_history(
                    session, history.table, max_age=max_age, at_most=at_most
                )
            rows += pruned
            metrics.PRUNED.labels(table=history.table).inc(pruned)
            if pruned < at_most:
                break
        if rows:
            log.info("history_pruned", table=history.table, rows=rows)
