"""Reactions to lapsed mappers in a plan: no policy decides that a hash or encryption is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.planned_changes import (
    MapperChoice,
    PlannedChange,
    removal_of,
)
from services.drift_repair_agent.repairs.policy import Reaction
from shared.domain.catalog import (
    MAPPER_FIELD_EXISTS,
    MAPPER_WITHOUT_FIELD,
    Exclusions,
    InvalidCatalog,
    StreamId,
)
from shared.domain.catalog._mappers import PROTECTING
from shared.domain.drift import Change, has_mappers
from shared.domain.drift._lapses import lapsed_types


def with_lapses(
    planned: Sequence[PlannedChange], changes: Collection[Change], kept: Collection[str] = ()
) -> list[PlannedChange]:
    """The planned changes, with the reactions that lapsed mappers require.

    - Mappers of a field whose rename the policy applies follow it at once.
    - Otherwise a person chooses: neither the lapse nor the removal of its field is applied by the
      policy, and while a hash or encryption lapses, no new field of the stream is either, since it
      may be the field under another name.
    - Lapses in `kept`, which a person decided to leave as they are, pause nothing again.
    """
    items = {item.id: item for item in planned}
    for lapse in [item for item in planned if item.is_lapse]:
        removal = removal_of(lapse, items.values())
        if removal is not None and removal.reaction is Reaction.APPLY and removal.pair is not None:
            items[lapse.id] = replace(
                lapse,
                reaction=Reaction.APPLY,
                pair=removal.pair,
                suggestion=removal.suggestion,
                choices=_choices(lapse, changes),
            )
            continue
        is_kept = lapse.identity in kept
        reaction = Reaction.PROPOSE if is_kept else lapse.reaction
        if is_kept and removal is None:
            reaction = Reaction.IGNORE
        items[lapse.id] = replace(
            lapse, reaction=_not_applied(reaction), choices=_choices(lapse, changes)
        )
        if removal is not None:
            items[removal.id] = replace(removal, reaction=_not_applied(removal.reaction))
        if not is_kept and lapsed_types(lapse.change) & PROTECTING:
            _hold_additions(items, lapse.change.stream)
    return list(items.values())


def _not_applied(reaction: Reaction) -> Reaction:
    return Reaction.PROPOSE if reaction is Reaction.APPLY else reaction


def _hold_additions(items: dict[str, PlannedChange], stream: StreamId) -> None:
    for item in list(items.values()):
        if item.change.stream == stream and item.change.kind == "field_added":
            items[item.id] = replace(item, reaction=_not_applied(item.reaction))


def _choices(lapse: PlannedChange, changes: Collection[Change]) -> tuple[MapperChoice, ...]:
    """What a person may choose for a lapse."""
    of_stream = [one for one in changes if one.stream == lapse.change.stream]
    choices: list[MapperChoice] = ["drop"]
    if any(one.kind == "field_added" for one in of_stream):
        choices.append("follow")
    if any(
        one.kind == "field_removed" and tuple(one.path) == tuple(lapse.change.path)
        for one in of_stream
    ):
        choices.append("keep_field")
    return tuple(choices)


async def applicable(
    planned: list[PlannedChange],
    now: CurrentState,
    exclusions: Exclusions,
    *,
    decide: Callable[[PlannedChange], PlannedChange],
) -> list[PlannedChange]:
    """The plan, whose safe changes wait for a person if Airbyte would refuse a mapper with them.

    Airbyte refuses a whole catalog for one invalid mapper, of whichever stream. `decide` is the
    policy's decision on a safe change.
    """
    safe = [item for item in planned if item.reaction is Reaction.APPLY]
    if not safe or not any(map(has_mappers, now.configured.streams)):
        return planned
    try:
        await now.healed([decide(item) for item in safe], exclusions)
    except InvalidCatalog as error:
        codes = {problem.code for problem in error.problems}
        if not codes.isdisjoint({MAPPER_WITHOUT_FIELD, MAPPER_FIELD_EXISTS}):
            return [replace(item, reaction=_not_applied(item.reaction)) for item in planned]
    return planned
