"""What the inbox shows: proposals with equal ones as one item, what healed, and the fleet's bar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from services.console import text
from services.console.connection_filter import ATTENTION

Json = Mapping[str, Any]

HEALED_WITHIN: Final = timedelta(hours=24)
_SEVERITIES: Final = {"breaking": 0, "needs_review": 1, "harmless": 2}
_BAR: Final = 1000.0
_GAP: Final = 3.0
_LEAST: Final = 8.0
"""The shortest part of the bar, so that one connection of thousands is visible."""
_PARTS: Final = (
    ("bad", "failing", ("failed", "sync_failing")),
    ("warn", "needing a person", ("paused_by_repair", "needs_review", "differs", "suspicious")),
    ("info", "syncing or healing", ("healing", "syncing")),
    ("idle", "paused or not checked", ("paused", "overdue")),
    ("good", "healthy", ("healthy",)),
)

_NEEDS: Final[Mapping[str, str]] = dict.fromkeys(
    ATTENTION, "The connection does not work: it needs a fix."
) | {
    "paused_by_repair": "The connection is paused until a repair is decided.",
    "needs_review": "A repair of the connection needs a decision.",
    "differs": "The connection was changed in Airbyte, and needs a look.",
    "suspicious": "The last schema check was suspicious, and needs a look.",
    "overdue": "The schema check is overdue, and needs a look.",
}


@dataclass(frozen=True, slots=True)
class Group:
    """The same changes in several connections: one item of the inbox."""

    source_type: str
    severity: str
    connection_count: int
    changes: tuple[Json, ...]
    members: tuple[Json, ...]
    """The repairs; the first 100 by the connection's name."""


class Waiting(NamedTuple):
    """What waits for review, the most urgent first."""

    groups: Sequence[Group]
    repairs: Sequence[Json]
    """Those whose open changes are not all in groups."""


class Healed(NamedTuple):
    """The repairs that ended within a day, the newest first."""

    repairs: Sequence[Json]
    is_whole: bool
    """Whether there are no more of them."""


class Part(NamedTuple):
    """A part of the bar: its class, where it begins, and its width, of 1000."""

    kind: str
    x: str
    width: str


class Fleet(NamedTuple):
    """All connections by health: the parts of a bar, and the same in words."""

    parts: Sequence[Part]
    words: str
    total: int
    waiting: int
    """How many connections need a person."""
    needs: str
    """What a person should do about the connection; shown only if there is one in all."""


def waiting(repairs: Sequence[Json], groups: Sequence[Json]) -> Waiting:
    """Proposals in the order of their urgency; changes of the same connections are one group."""
    merged: dict[tuple[Any, ...], list[Json]] = {}
    for one in groups:
        ids = tuple(sorted(str(member["repair_id"]) for member in one["members"]))
        merged.setdefault((one["source_type"], one["connection_count"], ids), []).append(one)
    grouped = Counter(str(member["repair_id"]) for one in groups for member in one["members"])
    alone = [
        one for one in repairs if one["change_count"] - one["decided_count"] > grouped[one["id"]]
    ]
    return Waiting(
        sorted(
            (_group(same) for same in merged.values()),
            key=lambda one: (_urgency(one.severity), -one.connection_count),
        ),
        sorted(
            alone,
            key=lambda one: (not one["paused"], _urgency(one.get("severity")), one["created_at"]),
        ),
    )


def _group(same: Sequence[Json]) -> Group:
    first = same[0]
    return Group(
        source_type=first["source_type"],
        severity=min((one["severity"] for one in same), key=_urgency),
        connection_count=first["connection_count"],
        changes=tuple(same),
        members=tuple(first["members"]),
    )


def _urgency(severity: str | None) -> int:
    return _SEVERITIES.get(severity or "", len(_SEVERITIES))


def healed(repairs: Sequence[Json], *, now: datetime | None = None) -> list[Json]:
    """The repairs that ended within a day, the newest first."""
    since = (now or datetime.now(UTC)) - HEALED_WITHIN
    ended = [one for one in repairs if one.get("ended_at")]
    recent = [one for one in ended if text.moment(one["ended_at"]) >= since]
    return sorted(recent, key=lambda one: text.moment(one["ended_at"]), reverse=True)


def fleet(counts: Mapping[str, int]) -> Fleet:
    """The bar of all connections, by health word."""
    total = sum(counts.values())
    found = [
        (kind, words, sum(counts.get(word, 0) for word in members))
        for kind, words, members in _PARTS
    ]
    shown = [(kind, words, number) for kind, words, number in found if number]
    room = _BAR - _GAP * max(len(shown) - 1, 0) - _LEAST * len(shown)
    parts, x = [], 0.0
    for kind, _, number in shown:
        width = _LEAST + room * number / total
        parts.append(Part(kind, f"{x:.1f}", f"{width:.1f}"))
        x += width + _GAP
    noun = "connection" if total == 1 else "connections"
    listed = ", ".join(f"{number:,} {words}" for _, words, number in shown)
    return Fleet(
        parts,
        f"{total:,} {noun}: {listed}",
        total,
        sum(counts.get(word, 0) for word in ATTENTION),
        next((_NEEDS[word] for word in ATTENTION if counts.get(word)), ""),
    )
