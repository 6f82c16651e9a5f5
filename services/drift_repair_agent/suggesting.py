"""Asking the rag_engine what became of what is gone; without an answer the plan goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.drift_repair_agent.items import Suggestion
from services.drift_repair_agent.situation import Situation
from shared.domain.catalog import StreamId
from shared.domain.drift import Change, Verdict


@dataclass(frozen=True, slots=True)
class Asked:
    """What was answered."""

    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    """By the identity of the removal."""
    unanswered: frozenset[StreamId] = frozenset()
    """Streams of which nobody could be asked."""


class Suggesting:
    """Asks the rag_engine."""

    async def ask(self, situation: Situation, changes: Sequence[tuple[Change, Verdict]]) -> Asked:
        """What the removed fields and streams probably became."""
        return Asked()
