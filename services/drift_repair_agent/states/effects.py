"""Say before a decision what happens to the states of streams, and what a full read costs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.drift_repair_agent.healing import Effect
from services.drift_repair_agent.states import queries
from services.drift_repair_agent.states.decision import Renamed, losing, lost_candidates
from services.drift_repair_agent.states.queries import FullRead
from services.drift_repair_agent.states.restorer import StateRestorer
from services.drift_repair_agent.states.schemas import Reason
from shared import registry
from shared.config import Settings
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import NotFound
from shared.models import Connection

_WHY: Final[dict[Reason, str]] = {
    "global_state": "the connection's state is global (CDC), or has a type without a state of each "
    "stream",
    "not_deduplicated": "the stream is not deduplicated, so rows would be there twice",
    "not_saved": "AAM has not saved it",
    "cursor_changed": "the stream has another cursor",
    "connector_changed": "the connector has another major version, or its version is unknown",
    "synced_since": "a sync may have replaced the stream's rows since it was saved",
}
_MINUTE: Final = timedelta(minutes=1)


class StateEffects:
    """Describes what a heal or a rollback does to the states of streams."""

    def __init__(self, settings: Settings, db: Database, restorer: StateRestorer) -> None:
        self._db = db
        self._restorer = restorer
        self._kept = settings.job_retention

    async def of_heal(
        self, row: Connection, *, before: Catalog, after: Catalog, renamed: Sequence[Renamed]
    ) -> list[Effect]:
        """The effects of a heal: which streams lose their state, and which take it along.

        Raises:
            Upstream: Airbyte does not return the state.
        """
        effects = []
        for stream in losing(after, before):
            cost = await self._cost(row, stream, full_version=None)
            how = (
                "AAM saves it before, and a rollback puts it back if the stream is then "
                "deduplicated and no sync has read it in full in between."
                if self._restorer.saves
                else "AAM does not save it, since STATE_ENCRYPTION_KEYS is not set."
            )
            effects.append(
                Effect(
                    stream,
                    "state_lost",
                    f"{stream} loses its sync state. {how} Otherwise, a rollback reads the stream "
                    f"from its start.{cost}",
                )
            )
        if renamed:
            planned = await self._restorer.plan(
                row, wanted=after, before=before, lost=(), renamed=renamed
            )
            effects += [_taken_along(one) for one in planned.renamed]
            effects += [await self._refused(row, *one) for one in planned.refused]
        return effects

    async def of_rollback(
        self, row: Connection, *, before: Catalog, after: Catalog
    ) -> list[Effect]:
        """The effects of a rollback: which states it puts back, and which it cannot.

        Raises:
            Upstream: Airbyte does not return the state.
        """
        lost = lost_candidates(after, before)
        if not lost:
            return []
        planned = await self._restorer.plan(row, wanted=after, before=before, lost=lost)
        return [
            *(_put_back(stream) for stream, _ in planned.saved),
            *[await self._refused(row, *one) for one in planned.refused],
        ]

    async def _refused(self, row: Connection, stream: StreamId, reason: Reason) -> Effect:
        cost = await self._cost(row, stream, full_version=row.catalog_version)
        return Effect(
            stream,
            "state_not_put_back",
            f"{stream} is read from its start, since its sync state cannot be put back: "
            f"{_WHY.get(reason, reason)}.{cost}",
        )

    async def _cost(self, row: Connection, stream: StreamId, *, full_version: int | None) -> str:
        """What the stream's last full read took, as a sentence; empty if that is unknown.

        `full_version` counts only if that version reads the stream in full.
        """
        if full_version is not None and not await self._is_selected(
            row, stream, full_version, sync_mode="full_refresh"
        ):
            full_version = None
        async with self._db.read() as session:
            found = await queries.last_full_read(
                session,
                row.id,
                full_version=full_version,
                is_since_first=await self._is_selected(row, stream, 1),
                kept=self._kept,
            )
        return "" if found is None else _described(found)

    async def _is_selected(
        self, row: Connection, stream: StreamId, number: int, *, sync_mode: str | None = None
    ) -> bool:
        """Whether a version selects a stream, in a mode if one is given."""
        try:
            async with self._db.read() as session:
                version = await registry.read_version(session, row.id, number)
        except NotFound:
            return False
        catalog = await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
        found = catalog.by_id().get(stream)
        if found is None or not found.selected:
            return False
        return sync_mode is None or found.config.sync_mode == sync_mode


def _taken_along(renamed: Renamed) -> Effect:
    return Effect(
        renamed.new,
        "state_taken_along",
        f"{renamed.new} resumes from the sync state of {renamed.old}: rows that were read before "
        f"are only in the table of {renamed.old}. With on_renamed_stream `read_again`, all rows "
        "are read again into the new table.",
    )


def _put_back(stream: StreamId) -> Effect:
    return Effect(
        stream,
        "state_put_back",
        f"{stream} resumes from the sync state that was saved before it was lost.",
    )


def _described(read: FullRead) -> str:
    minutes = max(1, round(read.took / _MINUTE))
    rows = "" if read.records is None else f" and read {read.records} rows"
    return (
        f" The last sync that read it in full took {minutes} min{rows}, of all streams of the "
        "connection."
    )
