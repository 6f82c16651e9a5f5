"""What the console says about repairs: states, kinds of changes, and confidences in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from services.console.diffs import Json, stream_name

STATES: Final = (
    *("proposed", "approved", "applying", "verifying", "rolling_back", "applied", "rejected"),
    *("expired", "superseded", "failed", "rolled_back"),
)
IN_PROGRESS: Final = ("approved", "applying", "verifying", "rolling_back")
SEVERITIES: Final = ("breaking", "needs_review", "harmless")


class Tag(NamedTuple):
    """A word with the colour of its meaning."""

    tone: str
    word: str


STATE_TAGS: Final[Mapping[str, Tag]] = {
    "proposed": Tag("warn", "Waits for a decision"),
    "approved": Tag("info", "Approved"),
    "applying": Tag("info", "Being applied"),
    "verifying": Tag("info", "Being verified by a sync"),
    "rolling_back": Tag("warn", "Being rolled back"),
    "applied": Tag("good", "Applied"),
    "rejected": Tag("", "Rejected"),
    "expired": Tag("", "Expired"),
    "superseded": Tag("", "Replaced by a newer plan"),
    "failed": Tag("bad", "Failed"),
    "rolled_back": Tag("warn", "Rolled back"),
}
SEVERITY_TAGS: Final[Mapping[str, Tag]] = {
    "breaking": Tag("bad", "Breaking"),
    "needs_review": Tag("warn", "Review"),
    "harmless": Tag("", "Harmless"),
}
ROLLBACKS: Final = {
    "applied": "The catalog of version {} was applied again, as version {}.",
    "failed": "The catalog of version {} was not applied again.",
}
"""Sentences about a rollback by its state; other states get that of `rollback`."""
OUTCOMES: Final = {
    "applied": "The new catalog is sent to Airbyte, read back, and recorded as the next version.",
    "unchanged": "The result is equivalent to the newest version: nothing is sent to Airbyte.",
    "first_approval": "This is the first of two approvals. Nothing is applied until another person "
    "approves the same changes with the same choices.",
    "failed": "The decision would be recorded, but could not be applied.",
    "superseded": "The decision would be recorded, but the plan is out of date.",
}
_WAITS: Final = {
    "sync_running": "the end of a sync",
    "not_active": "the end of what runs for the connection",
    "operation_in_progress": "the end of what runs for the connection",
    "unavailable": "the registry",
}
AFTERWARDS: Final = {
    "resumed": "The connection resumes in Airbyte.",
    "paused": "The connection stays paused in Airbyte.",
}
_KINDS: Final = {
    "field_renamed": ("field renamed", "fields renamed"),
    "stream_renamed": ("stream renamed", "streams renamed"),
    "field_removed": ("field gone", "fields gone"),
    "field_added": ("new field", "new fields"),
    "field_retyped": ("type changed", "types changed"),
    "stream_removed": ("stream gone", "streams gone"),
    "stream_added": ("new stream", "new streams"),
    "primary_key_changed": ("key changed", "keys changed"),
    "cursor_changed": ("cursor changed", "cursors changed"),
    "sync_modes_changed": ("set of sync modes changed", "sets of sync modes changed"),
    "mapper_lapsed": ("mapper without its field", "mappers without their fields"),
    "mapping_conflict": ("field against a mapping", "fields against mappings"),
}
_LIKELY: Final = ((0.95, "almost certain"), (0.8, "likely"), (0.5, "possible"), (0.0, "unlikely"))


def awaited(code: str) -> str:
    """What a repair waits for, after "Waits for": in words, or the code itself."""
    return _WAITS.get(code) or ("Airbyte" if code.startswith("upstream_") else code)


def likelihood(share: float) -> str:
    """A confidence in words; it is always an estimate, since sources declare no renames."""
    return next((words for least, words in _LIKELY if share >= least), _LIKELY[-1][1])


def rollback(repair: Json) -> str:
    """Which version comes back, and as which one."""
    known = ROLLBACKS.get(
        str(repair["state"]), "The catalog of version {} is applied again, as version {}."
    )
    version = repair.get("version_number") or repair["base_version"] + 1
    return known.format(repair["target_version"], version)


def counted(by_kind: Mapping[str, int], *, is_decided: bool = True) -> str:
    """Counts of changes: `1 field gone, 2 new fields`; a rename is likely until it is decided."""
    parts = []
    for kind, (one, several) in _KINDS.items():
        number = by_kind.get(kind, 0)
        if number:
            words = one if number == 1 else several
            if kind.endswith("_renamed") and not is_decided:
                words = words.replace("renamed", "probably renamed")
            parts.append(f"{number:,} {words}")
    return ", ".join(parts)


def is_decided(repair: Json) -> bool:
    """Whether what a repair says about renames was decided; else it is a suggestion."""
    return repair["state"] in ("approved", "applying", "verifying", "applied", "rolled_back")


def streams_of(changes: Iterable[Json]) -> list[str]:
    """The names of the changes' streams, each once."""
    return list(dict.fromkeys(stream_name(one["stream"]) for one in changes))
