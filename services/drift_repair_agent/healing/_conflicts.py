"""Decisions about a field that comes back while another field is written into its column."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from services.drift_repair_agent.healing._continuity import protects, renamings
from services.drift_repair_agent.healing._model import Instruction
from shared.domain.catalog import ConfiguredStream
from shared.domain.drift import MAPPING_CONFLICT


def resolved(
    decisions: Sequence[Instruction], current: ConfiguredStream
) -> tuple[list[Instruction], frozenset[str]]:
    """The decisions about conflicts as decisions about new fields, and the renamings that end.

    If the renaming ends, the field that came back is selected, unless mappers hash or encrypt the
    values that were written under its name: they follow the other field, so that the field would be
    written in plain.
    """
    found: list[Instruction] = []
    adopted: set[str] = set()
    for decision in decisions:
        if decision.change.kind != MAPPING_CONFLICT:
            found.append(decision)
        elif decision.action != "keep":
            column, action = decision.change.path[0], decision.action
            fields = {field for field, name in renamings(current.config).items() if name == column}
            if action == "apply":
                adopted |= fields
                is_protected = any(protects(current.config, field) for field in fields)
                action = "exclude" if is_protected else "apply"
            change = replace(decision.change, kind="field_added", before=None)
            found.append(replace(decision, change=change, action=action, continuity=None))
    return found, frozenset(adopted)
