"""The one table that every benchmark's numbers come out in, each beside its floor and its limit."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

ROUNDS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A measurement; `limit` is of the ratio to `floor`, or of the measurement without one.

    No limit means that the line is there to be read. `at_least` turns the limit round.
    """

    job: str
    measured: float
    unit: str = "ms"
    floor: float | None = None
    limit: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times the floor it is."""
        return None if self.floor is None else self.measured / self.floor

    @property
    def is_missed(self) -> bool:
        """Whether it is on the wrong side of its limit."""
        if self.limit is None:
            return False
        judged = self.measured if self.ratio is None else self.ratio
        return judged < self.limit if self.at_least else judged > self.limit


def show(part: str, lines: Iterable[Line], table: Table) -> None:
    """Add a part's lines."""
    table.add_section()
    table.add_row(f"[bold]{part}[/]")
    for line in lines:
        limit = ""
        if line.limit is not None:
            unit = line.unit if line.ratio is None else "x"
            limit = f"{'≥' if line.at_least else '≤'} {line.limit:g} {unit}"
            limit = f"[red]{limit}  missed[/]" if line.is_missed else f"[green]{limit}[/]"
        floor = "" if line.floor is None else f"{line.floor:,.1f} {line.unit}"
        ratio = "" if line.ratio is None else f"{line.ratio:.2f} x"
        table.add_row("  " + line.job, f"{line.measured:,.1f} {line.unit}", floor, ratio, limit)


def empty() -> Table:
    """The table's head."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for head in ("measured", "floor", "ratio"):
        table.add_column(head, justify="right")
    table.add_column("limit")
    return table


def console() -> Console:
    """A console wide enough for the table, also where the output is a file."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def best_ms(work: Callable[[], object], *, rounds: int = 3) -> float:
    """The best of a few rounds, each from a collected heap."""
    times = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        del result
    return min(times) * 1000
