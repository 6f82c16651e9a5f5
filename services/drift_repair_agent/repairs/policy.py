"""The policy: which changes are applied without a person, and which fields are never selected."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

from shared.domain.catalog import NEVER_SELECT, Exclusions
from shared.domain.drift import Severity, Verdict
from shared.domain.policy_layers import LayeredPolicy, flat


class Reaction(StrEnum):
    """How the service reacts to a change."""

    APPLY = "apply"
    """Follow the source at once."""
    PROPOSE = "propose"
    """Ask a person; the catalog stays as it is until they decide."""
    IGNORE = "ignore"
    """Leave the catalog as it is, and notify no one."""
    PAUSE = "pause"
    """Pause the connection in Airbyte, and ask a person."""


Verify = Literal["read_back", "sync"]
OnSuspiciousVolume = Literal["report", "rollback"]
Credentials = Literal["apply", "propose", "ignore"]
SyncAfterHeal = Literal["never", "once"]
ColumnContinuity = Literal["keep_column", "new_column", "ask"]
Reactions = Mapping[str, Mapping[str, Reaction]]

DEFAULT: Final[dict[str, dict[str, Reaction]]] = {
    "stream": {
        "added": Reaction.IGNORE,
        "removed": Reaction.PROPOSE,
        "renamed": Reaction.PROPOSE,
    },
    "field": {
        "added": Reaction.APPLY,
        "removed": Reaction.PROPOSE,
        "renamed": Reaction.PROPOSE,
    },
    "type": {
        "widened": Reaction.APPLY,
        "narrowed": Reaction.PROPOSE,
        "clashing": Reaction.PROPOSE,
    },
    "key": {"changed": Reaction.PROPOSE, "lost": Reaction.PAUSE},
    "cursor": {"changed": Reaction.PROPOSE, "lost": Reaction.PAUSE},
    "mode": {"lost": Reaction.PAUSE},
    "mapper": {"lapsed": Reaction.PAUSE},
}
"""By entity, then by what happened to it."""
RENAME_MIN_CONFIDENCE: Final = 0.9


class PolicyOverrides(msgspec.Struct, frozen=True, omit_defaults=True):
    """The entries that override the default, of one layer or of all, as they are stored."""

    reactions: dict[str, dict[str, Reaction]] = {}
    never_select: tuple[str, ...] | None = None
    verify: Verify | None = None
    rename_min_confidence: float | None = None
    discoveries_per_day: int | None = None
    on_suspicious_volume: OnSuspiciousVolume | None = None
    credentials: Credentials | None = None
    continuity: ColumnContinuity | None = None
    sync_after_heal: SyncAfterHeal | None = None
    two_approvals_from: Severity | None = None


class Policy:
    """The policy in effect: the default with the overrides of all layers."""

    def __init__(
        self, own: PolicyOverrides, authors: Mapping[str, str | None] | None = None
    ) -> None:
        self.own = own
        self.authors = authors or {}
        """Who set each entry of `own`, by `entity.what` or the setting's name."""
        self.reactions: dict[str, dict[str, Reaction]] = {
            entity: whats | own.reactions.get(entity, {}) for entity, whats in DEFAULT.items()
        }
        self.never_select = NEVER_SELECT if own.never_select is None else own.never_select
        self.exclusions = Exclusions(self.never_select)
        self.verify: Verify = own.verify or "read_back"
        self.rename_min_confidence = (
            RENAME_MIN_CONFIDENCE
            if own.rename_min_confidence is None
            else own.rename_min_confidence
        )
        self.discoveries_per_day = own.discoveries_per_day
        self.on_suspicious_volume: OnSuspiciousVolume = own.on_suspicious_volume or "report"
        self.credentials: Credentials = own.credentials or "apply"
        self.continuity: ColumnContinuity = own.continuity or "ask"
        self.sync_after_heal: SyncAfterHeal = own.sync_after_heal or "never"
        self.two_approvals_from = own.two_approvals_from

    @classmethod
    def of(cls, stored: LayeredPolicy) -> Policy:
        """The policy that results from the layers."""
        return cls(msgspec.convert(stored.settings, type=PolicyOverrides), stored.authors())

    def set_by(self, entity: str, what: str) -> str | None:
        """Who set this entry; None if it is the default."""
        return self.authors.get(f"{entity}.{what}")

    def reaction(self, verdict: Verdict) -> Reaction:
        """The reaction to a change.

        An override is used as it is. A default entry is adjusted to the severity: a harmless change
        is applied instead of proposed, and any other is proposed instead of applied.
        """
        reaction = self.named(verdict.entity, verdict.what)
        if verdict.what in self.own.reactions.get(verdict.entity, {}):
            return reaction
        harmless = verdict.severity is Severity.HARMLESS
        if reaction is Reaction.APPLY and not harmless:
            return Reaction.PROPOSE
        if reaction is Reaction.PROPOSE and harmless:
            return Reaction.APPLY
        return reaction

    def named(self, entity: str, what: str) -> Reaction:
        """The matrix's entry; PROPOSE by default."""
        return self.reactions.get(entity, {}).get(what, Reaction.PROPOSE)

    def excludes(self, name: str) -> bool:
        """Whether a field of this name is never selected; case is ignored."""
        return self.exclusions.match(name)


def authored(
    before: Mapping[str, str | None], old: PolicyOverrides, new: PolicyOverrides, author: str
) -> dict[str, str | None]:
    """Who set each entry of the new policy; `author` set those that differ from the old one."""
    was, is_ = flat(msgspec.to_builtins(old)), flat(msgspec.to_builtins(new))
    return {
        name: before.get(name) if name in was and was[name] == value else author
        for name, value in is_.items()
    }


def changed(own: PolicyOverrides, order: Mapping[str, object]) -> PolicyOverrides:
    """Apply an update to the overrides of one layer; None in `order` removes an entry.

    The reactions in `order` must be entries of the matrix.
    """
    settings = msgspec.to_builtins(own)
    reactions = {entity: dict(whats) for entity, whats in own.reactions.items()}
    for name, value in order.items():
        if name == "reactions":
            for entity, whats in (value or {}).items():  # type: ignore[attr-defined]
                reactions.setdefault(entity, {}).update(whats)
        else:
            settings[name] = value
    without_defaults = {
        entity: {what: reaction for what, reaction in whats.items() if reaction is not None}
        for entity, whats in reactions.items()
    }
    settings["reactions"] = {entity: whats for entity, whats in without_defaults.items() if whats}
    return msgspec.convert(settings, type=PolicyOverrides)
