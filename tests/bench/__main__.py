"""`python -m tests.bench [PART …]`: the benchmarks in one table; exit 1 when a limit is missed.

Everything is measured beside a floor of the same run, since absolute times move with the machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench import (
    apply,
    client,
    decisions,
    domain,
    fleet,
    gate,
    guard,
    heal,
    lists,
    observe,
    operation,
    org,
    page,
    renames,
    snapshot,
    volume,
)
from tests.bench.stage import Stage, stage
from tests.bench.table import Line, console, empty, show

Part = Callable[[Stage, Path], Iterable[Line]]
PARTS: dict[str, Part] = {
    "apply": apply.measure,
    "guard": guard.measure,
    "gate": lambda stage, _document: gate.measure(stage),
    "operation": lambda stage, _document: operation.measure(stage),
    "snapshot": snapshot.measure,
    "observe": observe.measure,
    "fleet": lambda stage, _document: fleet.measure(stage),
    "heal": lambda stage, _document: heal.measure(stage),
    "client": lambda stage, _document: client.measure(stage),
    "page": lambda stage, _document: page.measure(stage),
    "lists": lambda stage, _document: lists.measure(stage),
    "domain": lambda _stage, document: domain.measure(document.read_bytes()),
    "renames": lambda _stage, _document: renames.measure(),
    "decisions": lambda _stage, _document: decisions.measure(),
    "volume": lambda _stage, _document: volume.measure(),
}


def main(chosen: list[str]) -> int:
    """Run the parts that were named, or all."""
    out, table, missed = console(), empty(), 0
    started = time.monotonic()
    with stage() as set_up, out.status("Measuring …") as status:
        document = set_up.folder / "discovered.json"
        document.write_bytes(org.discovered())
        for name in chosen or PARTS:
            status.update(f"Measuring {name} …")
            lines = list(PARTS[name](set_up, document))
            show(name, lines, table)
            missed += sum(line.is_missed for line in lines)
    out.print(table)
    out.print(f"\n{time.monotonic() - started:.0f} s; {missed or 'no'} limit(s) missed.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
