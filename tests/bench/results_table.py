"""The table of benchmark results, with each result's baseline, ratio and limit."""

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
    """A measurement; `limit` applies to its ratio to `baseline`, or to `measured` without one.

    The limit is a maximum, or a minimum with `at_least`. A line without a limit is informational.
    """

    job: str
    measured: float
    unit: str = "ms"
    baseline: float | None = None
    limit: float | None = None
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """The measurement divided by the baseline; None without a baseline."""
        return None if self.baseline is None else self.measured / self.baseline

    @property
    def is_missed(self) -> bool:
        """Whether the limit is exceeded, or not reached with `at_least`."""
        if self.limit is None:
            return False
        judged = self.measured if self.ratio is None else self.ratio
        return judged < self.limit if self.at_least else judged > self.limit


def add_rows(name: str, lines: Iterable[Line], table: Table) -> None:
    """Add the lines of one benchmark to the table."""
    table.add_section()
    table.add_row(f"[bold]{name}[/]")
    for line in lines:
        limit = ""
        if line.limit is not None:
            unit = line.unit if line.ratio is None else "x"
            limit = f"{'≥' if line.at_least else '≤'} {line.limit:g} {unit}"
            limit = f"[red]{limit}  missed[/]" if line.is_missed else f"[green]{limit}[/]"
        baseline = "" if line.baseline is None else f"{line.baseline:,.1f} {line.unit}"
        ratio = "" if line.ratio is None else f"{line.ratio:.2f} x"
        table.add_row("  " + line.job, f"{line.measured:,.1f} {line.unit}", baseline, ratio, limit)


def new_table() -> Table:
    """Create a table with its header."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for head in ("measured", "baseline", "ratio"):
        table.add_column(head, justify="right")
    table.add_column("limit")
    return table


def console() -> Console:
    """Create a console wide enough for the table, even when the output is not a terminal."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=120)


def best_ms(work: Callable[[], object], *, rounds: int = 3) -> float:
    """Return the fastest of a few rounds, with a garbage collection before each."""
    times = []
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
        del result
    return min(times) * 1000
