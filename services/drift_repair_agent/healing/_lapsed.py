"""Decisions about lapsed mappers: what they mean for a stream's settings, and which are refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from services.drift_repair_agent.healing._model import Instruction
from services.drift_repair_agent.healing._stream_settings import Choices
from shared.domain.catalog import ConfiguredStream
from shared.domain.catalog._mappers import effective_mappers, lapsed, source_fields
from shared.domain.catalog._model import shown
from shared.domain.drift import Change


def with_mapping(choices: Choices, decisions: Sequence[Instruction]) -> Choices:
    """The choices about a stream with the decisions about its lapsed mappers."""
    mapped: dict[str, str] = {}
    unmapped: set[str] = set()
    for decision in decisions:
        field, became = decision.change.path[0], decision.became
        if decision.action == "drop_mapper":
            unmapped.add(field)
        elif decision.action == "apply" and isinstance(became, tuple) and len(became) == 1:
            mapped[field] = became[0]
    return replace(choices, mapped=mapped, unmapped=frozenset(unmapped))


def refused_mapping(
    decisions: Sequence[Instruction],
    current: ConfiguredStream,
    offered: ConfiguredStream,
    choices: Choices,
) -> Iterator[tuple[Change, str, str]]:
    """The decisions about lapsed mappers that cannot be applied, each with a code and a reason.

    One about mappers that the catalog no longer has is fulfilled already.
    """
    named = frozenset().union(*source_fields(effective_mappers(current.config)))
    missing = lapsed(current, offered.stream)
    moved = {old[0]: new for old, new in choices.renamed.items() if len(old) == 1}
    for decision in decisions:
        field = decision.change.path[0]
        if decision.action == "keep" or field not in named:
            continue
        if field not in missing:
            yield decision.change, "decision_outdated", "the source offers the field again"
        elif decision.action == "drop_mapper":
            continue
        elif decision.action != "apply" or not (field in choices.mapped or field in moved):
            reason = "say whether the mapper is dropped or which field it follows"
            yield decision.change, "mapper_choice_required", reason
        elif field in choices.mapped and moved.get(field) not in (None, (choices.mapped[field],)):
            reason = f"{shown(field)} was renamed to another field"
            yield decision.change, "mapper_choice_required", reason
