"""Apply a person's request to a repair's changes: which are decided, and how."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from msgspec.structs import replace

from services.drift_repair_agent.applying.reselection import OnGlobalState
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.planned_changes import (
    Decision,
    PlannedChange,
    identity,
    removal_of,
    selected,
)
from services.drift_repair_agent.repairs.policy import Reaction
from services.drift_repair_agent.repairs.schemas import Approve, Choice, Decide
from services.drift_repair_agent.states.decision import OnRenamedStream
from shared.auth import scopes
from shared.domain.catalog import StreamId
from shared.domain.drift._lapses import is_tolerated
from shared.errors import Invalid
from shared.http.validation import unknown

_MOST_NAMED = 20
"""Most change ids that an error message lists."""

Place = tuple[StreamId, tuple[str, ...]]
"""A stream, or a field of it; the path is empty for the stream itself."""


def chosen(items: Sequence[PlannedChange], order: Decide) -> list[PlannedChange]:
    """The changes that a request selects, and those that are decided together with them.

    These are the new names of strong suggestions, and the lapsed mappers of removed fields.
    """
    known = {item.id: item for item in items}
    if order.changes is None:
        return list(items)
    _expect_known("changes", order.changes, known, of="The repair")
    ids = set(order.changes)
    for item in items:
        # A removal is decided together with its new name; an addition may be decided alone.
        is_sure = item.suggestion is not None and item.suggestion.taken_by_approve
        if item.id in ids and item.is_removal and is_sure and item.pair in known:
            ids.add(item.pair)
    for item in items:
        # Without a decision about its mappers, the removal of a field cannot be applied.
        removal = removal_of(item, items) if item.is_lapse else None
        if removal is not None and removal.id in ids:
            ids.add(item.id)
    return [item for item in items if item.id in ids]


def _expect_known(member: str, given: Iterable[str], known: Collection[str], *, of: str) -> None:
    ids = set(known)
    wrong = next((one for one in given if one not in ids), None)
    if wrong is None:
        return
    listed = [*known][:_MOST_NAMED]
    more = ", …" if len(ids) > _MOST_NAMED else ""
    shown, message = unknown("change", wrong, listed)
    if shown:
        message = f"{message} {of} has {', '.join(listed)}"
    field = {"field": f"body.{member}", "type": "unknown_change", "message": f"{message}{more}"}
    raise Invalid(
        f"body.{member}: {message}{more}.".replace("….", "…"), code="unknown_change", fields=[field]
    )


async def approved(
    items: Sequence[PlannedChange], order: Approve, now: CurrentState, at: datetime
) -> list[PlannedChange]:
    """Decide the selected changes, and the additions that removed fields were renamed to."""
    about = chosen(items, order)
    by = scopes.named(order.by)
    among = "The repair" if order.changes is None else "What is decided"
    _expect_known("choices", order.choices, [item.id for item in about], of=among)
    named = {
        _new_place(item, tuple(choice.became))
        for item in about
        if not item.is_lapse
        and (choice := order.choices.get(item.id)) is not None
        and choice.became
    }
    decided = {
        item.id: item.decided(
            as_suggested(
                item,
                by,
                at,
                reason=order.reason,
                choice=order.choices.get(item.id),
                named=named,
                on_renamed_stream=order.on_renamed_stream,
                on_global_state=order.on_global_state,
            )
        )
        for item in about
        if not item.is_lapse
    }
    for item in about:
        if item.is_lapse:
            choice = order.choices.get(item.id)
            lapse, removal = decide_lapse(
                item, by, at, list(decided.values()), reason=order.reason, choice=choice
            )
            decided[item.id] = lapse
            if removal is not None:
                decided[removal.id] = removal
        elif (choice := order.choices.get(item.id)) is not None and choice.mapper is not None:
            message = f"Change {item.id} of {item.change.stream} is not a lapsed mapper."
            raise Invalid.of(f"choices.{item.id}", message, code="not_a_mapper")
    taken = {(item.change.stream, tuple(item.change.path)) for item in decided.values()}
    for item in list(decided.values()):
        became = item.decision.became if item.decision else None
        if became is None or item.change.kind != "field_removed":
            continue
        if (item.change.stream, became) in taken:
            continue
        half = await _new_half(items, item, became, now)
        if half is not None:
            decided[half.id] = half.decided(as_suggested(half, by, at, reason=order.reason))
    return list(decided.values())


async def _new_half(
    items: Sequence[PlannedChange], gone: PlannedChange, became: tuple[str, ...], now: CurrentState
) -> PlannedChange | None:
    """The added field that a person chose as the new name of a removed one.

    The plan lacks it if the stream's fields are hand-picked. None if the catalog has the field
    already or the source does not offer it; `heal` reports which.
    """
    place = (gone.change.stream, became)
    for change, verdict in await now.changes():
        if change.kind == "field_added" and (change.stream, tuple(change.path)) == place:
            known = next((item for item in items if item.identity == identity(change)), None)
            return known or PlannedChange(
                id=f"{gone.id}n", change=change, verdict=verdict, reaction=Reaction.PROPOSE
            )
    return None


def as_suggested(
    item: PlannedChange,
    by: str,
    at: datetime,
    *,
    reason: str | None = None,
    choice: Choice | None = None,
    named: Collection[Place] = (),
    on_renamed_stream: OnRenamedStream = "take_state",
    on_global_state: OnGlobalState | None = None,
) -> Decision:
    """Decide to follow the source, by the caller's choice or else by a strong suggestion.

    A weak suggestion is used only if the caller names it; otherwise the field is removed, and the
    new one is a separate addition. The same holds for a suggested new name that is in `named`,
    the names that the caller chose for other removals.
    """
    suggestion = item.suggestion
    is_free = suggestion is not None and _new_place(item, suggestion.became) not in named
    is_named = choice is not None and "became" in choice.model_fields_set
    if choice is not None and is_named:
        became = None if choice.became is None else tuple(choice.became)
    elif suggestion is not None and suggestion.taken_by_approve and is_free:
        became = suggestion.became
    else:
        became = None
    cursor = choice.cursor if choice else None
    key = choice.primary_key if choice else None
    stream = selected(item.change, became)
    return Decision(
        action="exclude" if item.excluded or item.is_conflict else "apply",
        by=by,
        at=at,
        became=became,
        cursor=None if cursor is None else tuple(cursor),
        primary_key=None if key is None else tuple(tuple(path) for path in key),
        on_renamed_stream=on_renamed_stream if item.is_removal and stream else None,
        on_global_state=on_global_state if stream else None,
        reason=reason,
        is_named=is_named,
        requested_by=scopes.requested_by(),
    )


def previewed(items: Sequence[PlannedChange], at: datetime) -> list[PlannedChange]:
    """The changes as an approval without choices would decide them; lapsed mappers stay.

    The columns of renamed fields are as the policy takes them, or as it would ask about first.
    """
    decided = [
        item
        if item.decision or item.is_lapse
        else item.decided(_with_first_option(item, as_suggested(item, "", at)))
        for item in items
    ]
    return [
        decide_lapse(item, "", at, decided, is_preview=True)[0] if item.decision is None else item
        for item in decided
    ]


def _with_first_option(item: PlannedChange, made: Decision) -> Decision:
    if made.became is None or not item.continuity:
        return made
    return replace(made, continuity=item.continuity[0].choice)


def decide_lapse(
    item: PlannedChange,
    by: str,
    at: datetime,
    decided: Sequence[PlannedChange],
    *,
    reason: str | None = None,
    choice: Choice | None = None,
    is_preview: bool = False,
) -> tuple[PlannedChange, PlannedChange | None]:
    """Decide about lapsed mappers, and if that changes it, about the removal of their field.

    Without a choice, the mappers follow a rename that is among the `decided` changes, and row
    filters stay, which Airbyte accepts. Nothing else is chosen for the caller.

    Raises:
        Invalid: the caller has to choose, or chose what is not possible. With `is_preview`, the
            mappers stay as they are instead.
    """
    removal = removal_of(item, decided)
    decision = None if removal is None else removal.decision
    renamed = None if decision is None or decision.action == "keep" else decision.became
    made = Decision("keep", by, at, reason=reason, requested_by=scopes.requested_by())
    wanted = None if choice is None else choice.mapper
    if wanted is not None and wanted not in item.choices:
        raise _choice_required(item, f"allows {' or '.join(item.choices)}, not {wanted}.")
    named = None if choice is None or choice.became is None else tuple(choice.became)
    if wanted == "drop":
        return item.decided(replace(made, action="drop_mapper")), None
    if wanted == "keep_field":
        kept = None if removal is None else removal.decided(made)
        return item.decided(made), kept
    became = renamed or named
    if became is not None:
        return item.decided(replace(made, action="apply", became=became)), None
    if wanted is None and (is_preview or is_tolerated(item.change)):
        return item.decided(made), None
    if wanted is None:
        raise _choice_required(item, f"needs a choice: {' or '.join(item.choices)}.")
    raise _choice_required(item, "needs `became`, the field that the mappers follow.")


def _choice_required(item: PlannedChange, what: str) -> Invalid:
    message = f"Change {item.id} of {item.change.stream} {what}"
    return Invalid.of(f"choices.{item.id}", message, code="mapper_choice_required")


def new_names(items: Sequence[PlannedChange], order: Approve) -> set[StreamId]:
    """The streams that the caller chose as the new names of removed ones."""
    known = {item.id: item.change for item in items}
    return {
        StreamId(known[id_].stream.namespace, choice.became[-1])
        for id_, choice in order.choices.items()
        if id_ in known and choice.became and known[id_].kind == "stream_removed"
    }


def _new_place(gone: PlannedChange, became: tuple[str, ...]) -> Place:
    """The place of the field or stream that a removed one became."""
    stream = gone.change.stream
    if gone.change.kind == "stream_removed":
        return StreamId(stream.namespace, became[-1]), ()
    return stream, became
