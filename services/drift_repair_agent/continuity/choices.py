"""The choice between a renamed field's former column and a new one: by a person or the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec.structs import replace

from services.drift_repair_agent.continuity.support import MapperSupport
from services.drift_repair_agent.continuity.views import view_of
from services.drift_repair_agent.healing import (
    is_key_or_cursor,
    kept_message,
    renamings,
    why_not_kept,
)
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.planned_changes import ContinuityOption, PlannedChange
from services.drift_repair_agent.repairs.policy import Policy, Reaction
from services.drift_repair_agent.repairs.schemas import Approve
from shared import airbyte_reads
from shared.destinations import DestinationReader
from shared.domain.catalog import ConfiguredStream, read_stream
from shared.errors import Invalid, Unavailable

_Asked = Literal["keep_column", "new_column", "ask"]
_UNSUPPORTED: Final = "this Airbyte does not accept mappers"
_ON_REQUEST: Final = "it is the cursor or in the key, so that a person has to ask for it"


class Continuity:
    """Offers and settles what becomes of the columns of renamed fields."""

    def __init__(self, support: MapperSupport, destinations: DestinationReader) -> None:
        self._support = support
        self._destinations = destinations

    async def planned(
        self, now: CurrentState, items: Sequence[PlannedChange], policy: Policy
    ) -> list[PlannedChange]:
        """A plan with what may be chosen about each suggested rename of a field.

        The policy applies a rename only if it also says what becomes of the column.

        Raises:
            Unavailable: Airbyte does not say now whether it supports mappers, and the policy would
                apply a rename.
        """
        asking: set[str | None] = set()
        planned = []
        for item in items:
            suggestion = item.suggestion
            if item.change.kind != "field_removed" or suggestion is None:
                planned.append(item)
                continue
            try:
                reason = await self._why_not(now, item, suggestion.became)
            except Unavailable:
                if item.reaction is Reaction.APPLY:
                    raise
                planned.append(item)
                continue
            offered = await self._options(now, item, suggestion.became, reason)
            is_kept = reason is None and policy.continuity != "new_column"
            if not (is_kept or self._is_renamed_already(now, item)):
                offered = offered[::-1]
            planned.append(replace(item, continuity=offered))
            is_possible = reason is None or reason == _ON_REQUEST
            is_asked = policy.continuity == "ask" or (
                reason == _ON_REQUEST and policy.continuity == "keep_column"
            )
            if is_possible and is_asked and not self._is_renamed_already(now, item):
                asking |= {item.id, item.pair}
        return [
            replace(item, reaction=Reaction.PROPOSE)
            if item.id in asking and item.reaction is Reaction.APPLY
            else item
            for item in planned
        ]

    async def settled(
        self, now: CurrentState, decided: Sequence[PlannedChange], order: Approve, policy: Policy
    ) -> list[PlannedChange]:
        """The decisions of an approval, with what becomes of each renamed field's column.

        Raises:
            Invalid: a choice is missing, or is not about a rename, or Airbyte cannot do it.
            Unavailable: Airbyte does not say now whether it supports mappers.
        """
        return [await self._settled(now, item, order, policy) for item in decided]

    async def _settled(
        self, now: CurrentState, item: PlannedChange, order: Approve, policy: Policy
    ) -> PlannedChange:
        choice = order.choices.get(item.id)
        named = None if choice is None else choice.continuity
        made = item.decision
        if item.is_conflict and made is not None:
            ends = named == "new_column"
            return item.decided(replace(made, action="apply")) if ends else item
        became = None if made is None else made.became
        if item.change.kind != "field_removed" or made is None or became is None:
            if named is not None:
                message = f"Change {item.id} of {item.change.stream} is not the rename of a field."
                raise Invalid.of(f"choices.{item.id}", message, code="not_renamed")
            return item
        wanted: _Asked = named or order.continuity or policy.continuity
        if named is None and order.continuity is None and self._is_renamed_already(now, item):
            wanted = "keep_column"
        if wanted == "new_column":
            return item.decided(replace(made, continuity=wanted))
        reason = await self._why_not(now, item, became)
        if named == "keep_column" and reason in (None, _ON_REQUEST):
            return item.decided(replace(made, continuity=named))
        if named == "keep_column":
            message = f"The column of change {item.id} cannot be kept: {reason}."
            raise Invalid.of(f"choices.{item.id}", message, code="column_not_keepable")
        if reason is not None:
            return item.decided(replace(made, continuity="new_column"))
        if wanted == "ask":
            message = (
                f"Change {item.id} of {item.change.stream} needs a choice: continuity keep_column "
                "or new_column."
            )
            raise Invalid.of(f"choices.{item.id}", message, code="continuity_required")
        return item.decided(replace(made, continuity=wanted))

    @staticmethod
    def _is_renamed_already(now: CurrentState, item: PlannedChange) -> bool:
        """Whether a mapper already writes the field into another column, which is kept."""
        configured = now.configured.by_id().get(item.change.stream)
        return configured is not None and item.change.path[0] in renamings(configured.config)

    async def _why_not(
        self, now: CurrentState, item: PlannedChange, became: tuple[str, ...]
    ) -> str | None:
        """Why the column cannot be kept without a person, as half a sentence; None if it can."""
        found = _definitions(now, item)
        if found is None or now.row.airbyte_connection_id is None:
            return "the source does not offer the stream"
        configured, offered = found
        reason = why_not_kept(configured, offered.stream, item.change.path, became)
        if reason is not None:
            return reason
        try:
            is_given = await self._support.is_given(now.row.airbyte_connection_id, configured.id)
        except airbyte_reads.READ_FAILURES as error:
            raise airbyte_reads.nothing_recorded(error) from None
        if not is_given:
            return _UNSUPPORTED
        return _ON_REQUEST if is_key_or_cursor(configured, item.change.path) else None

    async def _options(
        self, now: CurrentState, item: PlannedChange, became: tuple[str, ...], reason: str | None
    ) -> tuple[ContinuityOption, ...]:
        new = ContinuityOption("new_column", " ".join(one.message for one in item.destination))
        found = _definitions(now, item)
        if found is None or len(became) != 1:
            return (new,)
        configured = found[0]
        if reason in (None, _ON_REQUEST):
            column = renamings(configured.config).get(item.change.path[0], item.change.path[0])
            kept = kept_message(configured.id, became[0], column)
            return ContinuityOption("keep_column", kept), new
        sql = await view_of(self._destinations, now.row, *found, item.change.path[0], became[0])
        effect = f"{new.effect} The column cannot be kept, since {reason}.".strip()
        return (replace(new, effect=effect, view=sql),)


def _definitions(
    now: CurrentState, item: PlannedChange
) -> tuple[ConfiguredStream, ConfiguredStream] | None:
    """The stream as it is synced, and as the source offers it."""
    configured = now.configured.by_id().get(item.change.stream)
    body = now.offered.get(item.change.stream)
    return None if configured is None or body is None else (configured, read_stream(body))
