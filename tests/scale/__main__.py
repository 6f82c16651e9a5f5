"""`python -m tests.scale 100000`: a fleet of so many connections on this machine; see `make scale`.

Exit code 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console

from local.processes import fork_server
from tests.bench.environment import Stage, stage
from tests.bench.results_table import Line, add_rows, console, new_table
from tests.scale import fill, fleet, passes, rates, report
from tests.scale.simulation import LOADS, Plan, Simulation


def main() -> int:
    """Fill, calibrate, simulate ten days, draw the curve; print what was measured."""
    parser = argparse.ArgumentParser(prog="scale", description=__doc__)
    parser.add_argument("connections", type=int, nargs="?", default=1000)
    parser.add_argument(
        "--thin",
        type=int,
        default=1,
        help="give only every n-th connection its syncs, to save time and space",
    )
    given = parser.parse_args()
    if not fork_server.is_available():
        parser.error("it needs Linux, whose /proc it reads and on which the services are forked")
    connections: int = given.connections
    out, plan = console(), Plan.for_(connections)
    workspaces = rates.workspaces(connections, timedelta(seconds=rates.INTERVAL_S.value))
    report.assumptions(out, connections, workspaces, plan)
    with stage(
        postgres_options=fleet.POSTGRES,
        airbyte=fleet.airbyte(workspaces, plan.compression),
    ) as on:
        filled = asyncio.run(
            fill.fill(
                on.registry_url,
                connections,
                workspaces=workspaces,
                interval=timedelta(days=1),
                thin=given.thin,
            )
        )
        report.filled(out, filled, connections, given.thin)
        timed = list(passes.run(on, connections))
        with fleet.fleet(on, compression=plan.compression) as services:
            return asyncio.run(_measure(out, on, services, connections, plan, timed))


async def _measure(
    out: Console,
    on: Stage,
    services: fleet.Fleet,
    connections: int,
    plan: Plan,
    timed: Sequence[Line],
) -> int:
    simulation = Simulation(on, services, connections, plan)
    services.start(timedelta(days=1))
    capacity = await simulation.calibrate()
    base = simulation.base_interval(capacity.rate)
    report.calibrated(out, capacity, base, plan, connections)
    run = await simulation.run(base)
    sections = {
        "The load": report.load_lines(run),
        "Pages during the load": report.page_lines(run),
        "Cost": report.cost_lines(run, connections),
        "Passes that are not compressed, on an idle registry": list(timed),
    }
    table = new_table()
    for name, lines in sections.items():
        add_rows(name, lines, table)
    out.print(table)
    report.statements(out, run)
    levels = []
    for load in LOADS if plan.level_s else ():
        levels.append(await simulation.level(load, base))
        report.curve(out, levels[-1:])
    if levels:
        report.curve(out, levels)
        report.breaking(out, levels)
    report.meaning(out, capacity)
    return int(any(line.is_missed for lines in sections.values() for line in lines))


if __name__ == "__main__":
    sys.exit(main())
