"""Heals of documents, for the tests of repairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
import pytest

from services.drift_repair_agent import healing
from services.drift_repair_agent.healing import Healed, HealImpossible, Instruction
from shared.domain import catalog, drift
from shared.domain.catalog import StreamId
from tests.unit.catalogs import (
    MOMENT,
    TEXT,
    Json,
    document,
)

Path = tuple[str, ...]

ORDERS = StreamId(None, "orders")
PLAIN: Json = {"sourceDefinedCursor": False, "sourceDefinedPrimaryKey": []}
FIELDS: Json = {"id": TEXT, "updated": MOMENT, "total": TEXT}
# What decisions can lead to that Airbyte would refuse: a person has to decide otherwise.
DEAD_ENDS = {
    "compound_cursor",
    "compound_key",
    "cursor_lost",
    "excluded_field_needed",
    "missing_selected_fields",
    "no_selected_stream",
}


def decided(
    before: Sequence[Json], after: Sequence[Json], action: str = "apply"
) -> list[Instruction]:
    """The same decision on everything that concerns the connection or is new."""
    changes = drift.diff(document(*before), document(*after))
    return [
        msgspec.convert({"change": change, "action": action}, Instruction) for change in changes
    ]


def healed(
    before: Json, after: Json, became: dict[Path, Path] | None = None, **choice: Any
) -> tuple[Json, list[str]]:
    """One stream after all its changes were applied, and the codes of what came with it."""
    decisions = [
        msgspec.structs.replace(decision, became=(became or {}).get(decision.change.path), **choice)
        for decision in decided([before], [after])
    ]
    result = heal([before], [after], decisions)
    return orjson.loads(result.catalog)["streams"][0], [effect.code for effect in result.effects]


def heal(before: Sequence[Json], after: Sequence[Json], decisions: Sequence[Instruction]) -> Healed:
    """The heal of documents; what comes out can be applied."""
    result = healing.heal(catalog.parse(document(*before)), document(*after), decisions)
    catalog.validate(catalog.parse(result.catalog))
    return result


def attempt(
    before: Sequence[Json], after: Sequence[Json], decisions: Sequence[Instruction]
) -> Healed | None:
    """The heal; None where the decisions lead to one of those dead ends."""
    try:
        return heal(before, after, decisions)
    except HealImpossible as impossible:
        if {problem.code for problem in impossible.problems} <= DEAD_ENDS:
            return None
        raise


def refused(before: Sequence[Json], after: Sequence[Json], *decisions: Instruction) -> list[str]:
    """The codes of why these decisions lead nowhere."""
    with pytest.raises(HealImpossible) as impossible:
        heal(before, after, decisions)
    return [problem.code for problem in impossible.value.problems]


# -- laws
