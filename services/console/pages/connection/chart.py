"""The chart of a connection's last syncs: one bar for each, as high as its number of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from services.console.pages.connection.words import counted

MOST_BARS: Final = 30
_HIGHEST: Final = 56
_LOWEST: Final = 3
_UNKNOWN: Final = 42
"""The height of a sync without a number of records, as a failed one."""
_KINDS: Final = {"succeeded": "ok", "failed": "failed", "cancelled": "skipped"}


@dataclass(frozen=True, slots=True)
class Bar:
    """One sync: its place and height in units of the drawing, which is 64 high."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars from the oldest to the newest sync, and what they show in words."""

    bars: Sequence[Bar]
    label: str
    summary: str
    first_at: str
    last_at: str

    @property
    def is_full(self) -> bool:
        """Whether the bars fill the drawing."""
        return len(self.bars) == MOST_BARS


def chart_of(jobs: Sequence[Mapping[str, Any]]) -> Chart | None:
    """A chart of jobs, newest first as the API lists them; None without jobs."""
    shown = list(reversed(jobs[:MOST_BARS]))
    if not shown:
        return None
    brought = [
        one["records"]
        for one in shown
        if one["status"] == "succeeded" and one.get("records") is not None
    ]
    most = max(brought, default=0)
    bars = tuple(_bar(place, one, most) for place, one in enumerate(shown))
    kinds = [bar.kind for bar in bars]
    counts = [
        f"{kinds.count(kind)} {word}"
        for kind, word in (
            ("ok", "succeeded"),
            ("failed", "failed"),
            ("skipped", "cancelled"),
            ("running", "running"),
        )
        if kind in kinds
    ]
    summary = ", ".join(counts)
    if brought:
        summary += f" · median {counted(round(median(brought)), 'record')}"
    return Chart(
        bars=bars,
        label=f"Records of the last {counted(len(shown), 'sync')}: {', '.join(counts)}.",
        summary=summary,
        first_at=shown[0]["started_at"],
        last_at=shown[-1]["started_at"],
    )


def _bar(place: int, job: Mapping[str, Any], most: int) -> Bar:
    kind = _KINDS.get(job["status"], "running")
    records = job.get("records")
    if kind == "ok":
        share = (records or 0) / most if most else 0
        height = max(_LOWEST, round(share * _HIGHEST))
    else:
        height = _UNKNOWN
    inset = 0.5 if kind == "failed" else 0  # its border is drawn half outside
    return Bar(kind, place * 30 + inset, 63 - height - inset, 20 - 2 * inset, height)
