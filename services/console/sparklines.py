"""The newest syncs of a connection as a small chart: one bar for each, the oldest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST: Final = 12
_HIGHEST: Final = 20
_LOWEST: Final = 2
_UNKNOWN: Final = 14
"""The height of a sync without a number of records, as a failed one."""
_STEP, _WIDTH = 7, 5
_KINDS: Final = {"succeeded": "ok", "failed": "failed", "cancelled": "skipped"}
_WORDS: Final = {
    "ok": "succeeded",
    "failed": "failed",
    "skipped": "cancelled",
    "running": "running",
}


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Bars as the path of each kind, and the same in words."""

    paths: Sequence[tuple[str, str]]
    label: str


def sparkline(syncs: Sequence[Mapping[str, Any]]) -> Sparkline | None:
    """A chart of syncs, newest first as the API lists them; None without syncs."""
    shown = list(reversed(syncs[:MOST]))
    if not shown:
        return None
    most = max((one.get("records") or 0 for one in shown), default=0)
    bars: dict[str, list[str]] = {}
    for place, one in enumerate(shown):
        kind = _KINDS.get(one["status"], "running")
        height = _height(one.get("records"), most) if kind == "ok" else _UNKNOWN
        bar = f"M{place * _STEP} {_HIGHEST}v-{height}h{_WIDTH}v{height}z"
        bars.setdefault(kind, []).append(bar)
    counts = [f"{len(bars[kind])} {word}" for kind, word in _WORDS.items() if kind in bars]
    what = "Last sync" if len(shown) == 1 else f"Last {len(shown)} syncs"
    return Sparkline(
        [(kind, "".join(each)) for kind, each in bars.items()], f"{what}: {', '.join(counts)}"
    )


def _height(records: int | None, most: int) -> int:
    return max(_LOWEST, round((records or 0) / most * _HIGHEST)) if most else _LOWEST
