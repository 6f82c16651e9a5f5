"""`python -m tests.bench [NAME …]`: run benchmarks, print one table, exit 1 if a limit is missed.

Results are compared with a baseline measured in the same run, since absolute times vary.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench import (
    airbyte_client,
    apply,
    authentication,
    catalog_functions,
    catalog_pages,
    connection_lists,
    decisions,
    heal,
    large_catalog,
    limited_lists,
    list_connections,
    list_versions,
    observe_large_org,
    observe_many,
    operation_steps,
    renames,
    snapshot,
    strict_json,
    volume,
)
from tests.bench.environment import Stage, stage
from tests.bench.results_table import Line, add_rows, console, new_table

Benchmark = Callable[[Stage, Path], Iterable[Line]]
BENCHMARKS: dict[str, Benchmark] = {
    "apply": apply.measure,
    "strict_json": strict_json.measure,
    "authentication": lambda stage, _document: authentication.measure(stage),
    "operation_steps": lambda stage, _document: operation_steps.measure(stage),
    "snapshot": snapshot.measure,
    "observe_large_org": observe_large_org.measure,
    "observe_many": lambda stage, _document: observe_many.measure(stage),
    "heal": lambda stage, _document: heal.measure(stage),
    "airbyte_client": lambda stage, _document: airbyte_client.measure(stage),
    "list_connections": lambda stage, _document: list_connections.measure(stage),
    "catalog_pages": catalog_pages.measure,
    "connection_lists": lambda stage, _document: connection_lists.measure(stage),
    "limited_lists": lambda stage, _document: limited_lists.measure(stage),
    "list_versions": lambda stage, _document: list_versions.measure(stage),
    "catalog_functions": lambda _stage, document: catalog_functions.measure(document.read_bytes()),
    "renames": lambda _stage, _document: renames.measure(),
    "decisions": lambda _stage, _document: decisions.measure(),
    "volume": lambda _stage, _document: volume.measure(),
}


def main(chosen: list[str]) -> int:
    """Run the named benchmarks, or all of them."""
    out, table, missed = console(), new_table(), 0
    started = time.monotonic()
    with stage() as set_up, out.status("Measuring …") as status:
        document = set_up.folder / "discovered.json"
        document.write_bytes(large_catalog.discovered())
        for name in chosen or BENCHMARKS:
            status.update(f"Measuring {name} …")
            lines = list(BENCHMARKS[name](set_up, document))
            add_rows(name, lines, table)
            missed += sum(line.is_missed for line in lines)
    out.print(table)
    out.print(f"\n{time.monotonic() - started:.0f} s; {missed or 'no'} limit(s) missed.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
