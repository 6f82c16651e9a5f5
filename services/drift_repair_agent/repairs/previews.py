"""What a repair or a rollback changes: the catalog difference, and the effects of applying it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from services.drift_repair_agent.applying import preflight, reselection
from services.drift_repair_agent.applying.dry_run import NO_DIFFERENCE, difference
from services.drift_repair_agent.healing import Effect
from services.drift_repair_agent.repairs import (
    current_state,
    destination_limits,
    queries,
)
from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs.approval_choices import previewed
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.executor import renamed_streams, streams_of
from services.drift_repair_agent.repairs.planned_changes import PlannedChange
from services.drift_repair_agent.states.decision import Renamed, lost_candidates
from services.drift_repair_agent.states.effects import StateEffects
from services.drift_repair_agent.states.restorer import outcome
from shared import registry
from shared.airbyte_client import AirbyteClient
from shared.database import Database
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, InvalidCatalog, StreamId
from shared.domain.cooperative import run_cooperatively
from shared.errors import AamError
from shared.models import Repair

_STATE_WITHIN_S: Final = 5.0
"""How long a preview waits for the state in Airbyte."""


class Previews:
    """Describes what repairs and rollbacks change; records nothing, and only reads from Airbyte."""

    def __init__(self, db: Database, airbyte: AirbyteClient, effects: StateEffects) -> None:
        self._db = db
        self._airbyte = airbyte
        self._effects = effects

    async def view(self, repair_id: UUID) -> bytes:
        """One repair as JSON, with the difference between the catalog before and after it.

        Raises:
            NotFound: there is no such repair.
        """
        async with self._db.read() as session:
            text = await queries.repair_json(session, repair_id)
            repair = await queries.find_repair(session, repair_id)
        more = {"sync_state": await self._state(repair), "catalog": await self._catalog(repair)}
        return text.rstrip().removesuffix("}").encode() + b", " + msgspec.json.encode(more)[1:]

    async def of_heal(
        self,
        now: CurrentState,
        after: Catalog,
        decided: Sequence[PlannedChange],
        renamed: Sequence[Renamed],
        effects: Iterable[Effect],
    ) -> dict[str, Any]:
        """The difference and the effects of applying decided changes.

        `effects` are those of the heal itself; `renamed` are the streams that take their state
        along.
        """
        found = [
            *effects,
            *destination_limits.effects(decided),
            *await self._reselected(now, after),
            *await self._of_states(
                self._effects.of_heal(now.row, before=now.configured, after=after, renamed=renamed),
                [one.new for one in renamed],
            ),
        ]
        return await difference(now.configured, after, found)

    async def of_rollback(self, now: CurrentState, wanted: Catalog) -> dict[str, Any]:
        """The difference and the effects of restoring the catalog of an older version."""
        lost = lost_candidates(wanted, now.configured)
        found = [
            *await self._reselected(now, wanted),
            *await self._of_states(
                self._effects.of_rollback(now.row, before=now.configured, after=wanted), lost
            ),
        ]
        return await difference(now.configured, wanted, found)

    async def _state(self, repair: Repair) -> dict[str, Any] | None:
        """What became of the state before and after the repair was applied."""
        if repair.operation_id is None:
            return None
        async with self._db.read() as session:
            saved, put = await queries.state_steps(session, repair.operation_id)
        if saved is None:
            return None
        nothing: dict[str, Any] = {"put_back": [], "not_put_back": []}
        result = nothing if put is None else msgspec.json.decode(put)
        return outcome(msgspec.json.decode(saved), result).model_dump()

    async def _catalog(self, repair: Repair) -> dict[str, Any] | None:
        """The difference that the repair made or would make; None if neither is known."""
        if repair.version_number is not None:
            before = await read_catalog(self._db, repair, repair.version_number - 1)
            after = await read_catalog(self._db, repair, repair.version_number)
            return await difference(before, after)
        if repair.kind == "rollback" or repair.ended_at is not None:
            return None
        now = await current_state.read(self._db, repair.connection_id, also=streams_of(repair))
        items = changes_of.read(repair.changes)
        decided = previewed(items, repair.created_at)
        try:
            async with self._db.read() as session:
                exclusions = await registry.exclusions_of(session, repair.connection_id)
            healed = await now.healed(decided, exclusions)
            after = await run_cooperatively(catalogs.parse.steps(healed.catalog))
        except InvalidCatalog as error:
            return NO_DIFFERENCE | {"problems": preflight.problems(error)}
        return await self.of_heal(now, after, decided, renamed_streams(decided), healed.effects)

    @staticmethod
    async def _of_states(
        effects: Awaitable[list[Effect]], streams: Iterable[StreamId]
    ) -> list[Effect]:
        """These effects; if Airbyte does not return the state, that it is unknown for `streams`."""
        try:
            async with asyncio.timeout(_STATE_WITHIN_S):
                return await effects
        except (AamError, TimeoutError):
            return list(reselection.unknown_effects(streams))

    async def _reselected(self, now: CurrentState, after: Catalog) -> list[Effect]:
        """What the state that Airbyte kept means for the streams that are selected again."""
        try:
            async with asyncio.timeout(_STATE_WITHIN_S):
                again = await reselection.find(self._airbyte, now.row, after, now.configured)
        except (AamError, TimeoutError):
            before = {stream.id for stream in now.configured.streams if stream.selected}
            added = {stream.id for stream in after.streams if stream.selected} - before
            return list(reselection.unknown_effects(added))
        return list(reselection.effects(again))


async def read_catalog(db: Database, repair: Repair, number: int) -> Catalog:
    """The catalog of a version of a repair's connection.

    Raises:
        NotFound: the connection has no such version.
    """
    async with db.read() as session:
        version = await registry.read_version(session, repair.connection_id, number)
    return await run_cooperatively(catalogs.parse.steps(version.sync_catalog.encode()))
