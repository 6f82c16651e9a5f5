"""The layers of a connection's policy, and which of them each value comes from.

For each value, the nearest layer that sets it applies. The patterns of `never_select` are merged
instead: a layer adds to those above it, and only the installation's replace the default patterns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from shared.domain.catalog import NEVER_SELECT

Level: TypeAlias = Literal["installation", "source_type", "label", "connection"]
"""What a layer applies to, the farthest first."""
PATTERNS: Final = "never_select"


@dataclass(frozen=True, slots=True)
class PolicyLayer:
    """The policy entries of one layer."""

    level: Level
    settings: Mapping[str, Any]
    """As stored: `reactions` by entity and by what happened to it, and the other settings."""
    name: str = ""
    """The source type, or the name of the label; empty otherwise."""
    value: str = ""
    """The value of the label; empty otherwise."""
    authors: Mapping[str, str | None] = field(default_factory=dict)
    """Who set each entry, by `entity.what` or the setting's name."""
    updated_by: str | None = None
    requested_by: str | None = None
    updated_at: datetime | None = None

    def author(self, entry: str) -> str | None:
        """Who set an entry; for entries older than `authors`, who changed the layer last."""
        return self.authors.get(entry, self.updated_by)


@dataclass(frozen=True)
class LayeredPolicy:
    """The layers that apply to one connection, the nearest first."""

    layers: tuple[PolicyLayer, ...] = ()

    @property
    def own(self) -> PolicyLayer | None:
        """The connection's own layer; None if it has none."""
        return next((layer for layer in self.layers if layer.level == "connection"), None)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The entries of all layers together, in the form of a layer's `settings`."""
        merged: dict[str, Any] = {}
        reactions: dict[str, dict[str, Any]] = {}
        for layer in reversed(self.layers):
            merged |= {name: value for name, value in layer.settings.items() if name != "reactions"}
            for entity, whats in layer.settings.get("reactions", {}).items():
                reactions.setdefault(entity, {}).update(whats)
        if reactions:
            merged["reactions"] = reactions
        if PATTERNS in merged:
            merged[PATTERNS] = list(self.patterns)
        return merged

    @cached_property
    def patterns(self) -> dict[str, PolicyLayer | None]:
        """The patterns of `never_select`, each with the farthest layer that has it.

        None for the default patterns.
        """
        found: dict[str, PolicyLayer | None] = {}
        if not any(_replaces_default(layer) for layer in self.layers):
            found = dict.fromkeys(NEVER_SELECT)
        for layer in reversed(self.layers):
            for pattern in layer.settings.get(PATTERNS, ()):
                found.setdefault(pattern, layer)
        return found

    def setting(self, entry: str) -> list[tuple[PolicyLayer, Any]]:
        """The layers that set an entry, the nearest first, with the value that each sets."""
        return [
            (layer, entries[entry])
            for layer in self.layers
            if entry in (entries := flat(layer.settings))
        ]

    def authors(self) -> dict[str, str | None]:
        """Who set each entry that applies, by `entity.what` or the setting's name."""
        return {
            entry: layer.author(entry)
            for layer in reversed(self.layers)
            for entry in flat(layer.settings)
        }


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The entries by `entity.what` for reactions, and by the setting's name for the others."""
    reactions = {
        f"{entity}.{what}": reaction
        for entity, whats in settings.get("reactions", {}).items()
        for what, reaction in whats.items()
    }
    return {name: value for name, value in settings.items() if name != "reactions"} | reactions


def _replaces_default(layer: PolicyLayer) -> bool:
    return layer.level == "installation" and PATTERNS in layer.settings
