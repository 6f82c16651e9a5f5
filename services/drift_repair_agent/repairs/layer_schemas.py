"""Request and response classes of the policies above connections, and of explained policies."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from services.drift_repair_agent.repairs.policy import Policy
from shared.domain.policy_layers import PATTERNS, LayeredPolicy, PolicyLayer

_AT = "2026-11-24T09:30:00.123456Z"
_LAYER: dict[str, Any] = {
    "level": "label",
    "name": "team",
    "value": "sales",
    "policy": {"reactions": {"field": {"added": "propose"}}},
    "updated_by": "Ada",
    "requested_by": "ada@example.com (key ab12cd34)",
    "updated_at": _AT,
}


class LayerName(BaseModel):
    """A layer of policies; `default` for the built-in policy."""

    level: Literal["default", "installation", "source_type", "label", "connection"]
    name: str | None = None
    """The source type, or the name of the label."""
    value: str | None = None
    """The value of the label."""


class LayerView(BaseModel):
    """The policy entries that are set for the installation, a source type or a label."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LAYER]})

    level: Literal["installation", "source_type", "label"]
    name: str | None = None
    """The source type, or the name of the label."""
    value: str | None = None
    """The value of the label."""
    policy: dict[str, Any]
    """Only the entries that are set here; empty if there are none."""
    updated_by: str | None = None
    requested_by: str | None = None
    """Whose credentials requested the newest change."""
    updated_at: datetime | None = None


class LayerPage(BaseModel):
    """The layers that are set, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_LAYER], "next": None}]})

    items: list[LayerView]
    next: str | None = None


class Overridden(BaseModel):
    """A value that a nearer layer overrides."""

    layer: LayerName
    value: Any = None


class ExplainedValue(BaseModel):
    """A value of a policy, and where it comes from."""

    value: Any = None
    layer: LayerName
    set_by: str | None = None
    """Who set it; null for the default."""
    overrides: list[Overridden] = []
    """The values of the other layers that set it, the nearest first."""


class ExplainedPattern(BaseModel):
    """A pattern of `never_select`, and the layer that adds it."""

    pattern: str
    layer: LayerName


class PolicyExplanation(BaseModel):
    """Which layer each value of a policy comes from."""

    values: dict[str, ExplainedValue]
    """By `entity.what` for reactions, and by name for the other settings."""
    never_select: list[ExplainedPattern]
    """Patterns are merged, so that each comes from a layer of its own."""


def explained(policy: Policy, stored: LayeredPolicy) -> PolicyExplanation:
    """Which layer each value of a policy in effect comes from."""
    in_effect: dict[str, Any] = {
        f"{entity}.{what}": reaction
        for entity, whats in policy.reactions.items()
        for what, reaction in whats.items()
    }
    settings = [
        name for name in policy.own.__struct_fields__ if name not in ("reactions", PATTERNS)
    ]
    in_effect |= {name: getattr(policy, name) for name in settings}
    return PolicyExplanation(
        values={name: _value(name, value, stored) for name, value in in_effect.items()},
        never_select=[
            ExplainedPattern(pattern=pattern, layer=_name(layer))
            for pattern, layer in stored.patterns.items()
        ],
    )


def _value(name: str, value: Any, stored: LayeredPolicy) -> ExplainedValue:
    setting = stored.setting(name)
    nearest = setting[0][0] if setting else None
    return ExplainedValue(
        value=msgspec.to_builtins(value),
        layer=_name(nearest),
        set_by=None if nearest is None else nearest.author(name),
        overrides=[Overridden(layer=_name(layer), value=other) for layer, other in setting[1:]],
    )


def _name(layer: PolicyLayer | None) -> LayerName:
    if layer is None:
        return LayerName(level="default")
    return LayerName(level=layer.level, name=layer.name or None, value=layer.value or None)
