"""Prints what was assumed and measured."""

from __future__ import annotations

import statistics as stats
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from tests.bench.results_table import Line
from tests.scale import rates
from tests.scale.fill import Filled
from tests.scale.fleet import REPLICAS
from tests.scale.measures import Lateness, percentile
from tests.scale.simulation import DAYS, LOAD, Level, Plan, Run

MEMORY_GROWTH = 1.1
CLAIM_RATIO = 3.0
STARVATION = 2.0
_SERVERS = ("postgres", "valkey", "airbyte")


def assumptions(out: Console, connections: int, workspaces: int, plan: Plan) -> None:
    """Print the table of rates, and how time is compressed."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "value", "why"):
        table.add_column(name)
    for rate in rates.RATES:
        table.add_row(rate.what, f"{rate.value:,g}", rate.reason)
    out.print(table)
    interval = timedelta(seconds=rates.INTERVAL_S.value)
    out.print(
        f"{connections:,} connections of {rates.sources(connections):,} sources in {workspaces} "
        f"workspaces. Observed once a day, {rates.in_flight(connections, interval):.1f} "
        f"discoveries of {rates.MEAN_S:.0f} s on average run at once.\n"
        f"{DAYS} days pass in {plan.run_s:,.0f} s: time is compressed {plan.compression:,.0f} "
        "times. Discoveries become as much shorter as they become more frequent, so that as many "
        "run at once as in reality. Not compressed: the search for due sources (1 s), the "
        "enrolment of sources (10 s), the periodic passes, timeouts, leases, and the pauses after "
        "failures.",
        soft_wrap=True,
    )


def filled(out: Console, found: Filled, connections: int, thin: int) -> None:
    """Print how long the fill took, and how large the database is; `thin` as in `fill`."""
    thinned = sum(found.sizes[name] for name in ("job_history", "sync_volumes"))
    whole = found.bytes_ + thinned * (thin - 1)
    table = Table(box=None, pad_edge=False)
    words = (
        f"Filled in {found.seconds:,.0f} s: {found.bytes_ / 1e9:,.2f} GB, "
        f"{found.bytes_ / connections / 1e3:,.0f} kB per connection"
    )
    for name in ("table", "rows", "MB"):
        table.add_column(name, justify="left" if name == "table" else "right")
    if thin > 1:
        words += (
            f". Only one in {thin} connections has its syncs; with all, about "
            f"{whole / 1e9:,.1f} GB, {whole / connections / 1e3:,.0f} kB per connection"
        )
    out.print(words, soft_wrap=True)
    for name in list(found.rows)[:12]:
        table.add_row(name, f"{found.rows[name]:,}", f"{found.sizes[name] / 1e6:,.1f}")
    out.print(table)


def calibrated(
    out: Console, capacity: Level, base: timedelta, plan: Plan, connections: int
) -> None:
    """Print the capacity that was measured, and the load that follows from it."""
    real = base * plan.compression
    out.print(
        f"Capacity: {capacity.rate:,.0f} observations a second, with "
        f"{capacity.cores['others']:.1f} cores used by others. The base load is at most {LOAD:g} "
        f"of it: every source every {base.total_seconds():,.0f} s, which is every "
        f"{real.total_seconds() / 3600:,.0f} simulated hours; "
        f"{rates.in_flight(connections, real):.1f} discoveries run at once.",
        soft_wrap=True,
    )


def lateness_lines(
    found: Lateness, interval: timedelta, *, rate: float, demanded: float
) -> list[Line]:
    """Whether observations are on time, in every workspace; `rate` and `demanded` per second."""
    late, tenth = found.all, interval.total_seconds() / 10
    median = stats.median(late) if late else 0.0
    return [
        Line(
            job="observations ended; baseline: became due",
            measured=rate,
            unit="/s",
            baseline=demanded,
            limit=0.9,
            at_least=True,
        ),
        Line(
            job=f"later than a tenth of the interval ({tenth:.1f} s)",
            measured=found.late(interval),
            unit="sources",
            limit=0,
        ),
        Line(job="lateness p50", measured=median, unit="s"),
        Line(job="lateness p99", measured=percentile(late, 0.99), unit="s", limit=tenth),
        Line(job="lateness max", measured=max(late, default=0.0), unit="s", limit=tenth),
        Line(
            job="worst workspace's median lateness; baseline: of all",
            measured=found.worst_workspace,
            unit="s",
            baseline=max(median, 0.001),
            limit=STARVATION,
        ),
    ]


def load_lines(run: Run) -> list[Line]:
    """Whether observations are on time, fair and quick to claim, and memory is flat."""
    claims = run.statements.claims()
    times, pages = [one.ms for one in claims], [one.pages for one in claims]
    lines = lateness_lines(
        run.level.lateness,
        run.level.interval,
        rate=run.level.rate,
        demanded=run.level.demanded,
    )
    lines += [
        Line(
            job=f"time of a claim, p99 of {len(claims):,}; baseline: p50",
            measured=percentile(times, 0.99),
            baseline=percentile(times, 0.5),
            # Of a few hundred claims, the slowest show what else runs on the machine.
            limit=CLAIM_RATIO if len(claims) > 1000 else None,
        ),
        Line(
            job="pages of the registry that a claim reads, p99; baseline: p50",
            measured=percentile(pages, 0.99),
            unit="",
            baseline=percentile(pages, 0.5),
            limit=CLAIM_RATIO,
        ),
    ]
    lines += [
        Line(
            job=f"resident memory of {name} after {DAYS} days; baseline: after 2",
            measured=run.late.resident[name],
            unit="MB",
            baseline=run.early.resident[name],
            limit=MEMORY_GROWTH,
        )
        for name in run.late.memory
        if name not in _SERVERS
    ]
    return lines


def page_lines(run: Run) -> list[Line]:
    """The 95th percentile of each page, and how many could not be opened."""
    failures = run.pages.failures
    return [
        Line(
            job="requests that failed" + (f": {failures[0][:60]}" if failures else ""),
            measured=len(failures),
            unit="",
            limit=0,
        ),
        *(
            Line(
                job=f"{page}, p95 of {len(ms)}",
                measured=percentile(ms, 0.95),
                limit=run.pages.budget(page),
            )
            for page, ms in run.pages.ms.items()
        ),
    ]


def cost_lines(run: Run, connections: int) -> list[Line]:
    """Processor time, memory, connections to the registry, and growth."""
    lines = [
        Line(
            job=f"{name}: processor time of 1,000 observations",
            measured=cores / (run.level.rate or 1.0) * 1000,
            unit="s",
        )
        for name, cores in run.level.cores.items()
        if name != "others"
    ]
    lines += [
        Line(job="cores used by others meanwhile", measured=run.level.cores["others"], unit=""),
        Line(
            job=f"memory of all {REPLICAS} replicas of all services",
            measured=sum(mb for name, mb in run.late.memory.items() if name not in _SERVERS),
            unit="MB",
        ),
        Line(
            job="registry connections: "
            + ", ".join(f"{name} {count}" for name, count in run.registry_connections.items()),
            measured=sum(run.registry_connections.values()),
            unit="",
        ),
        Line(
            job=f"database growth of one connection in {DAYS} days, without syncs",
            measured=run.grown / connections / 1e3,
            unit="kB",
        ),
    ]
    lines += [Line(job=f"{name} made", measured=count, unit="") for name, count in run.rows.items()]
    airbyte = run.level.airbyte
    lines += [
        Line(job="most discoveries at once", measured=airbyte["most_in_flight"], unit=""),
        Line(
            job="most discoveries that waited for a thread",
            measured=airbyte["most_waiting"],
            unit="",
        ),
    ]
    return lines


def statements(out: Console, run: Run) -> None:
    """Print what Postgres spent its time on."""
    out.print("What took most of Postgres's time during the load, of a sample of its statements:")
    for text, share, found in run.statements.costliest(8):
        times = [one.ms for one in found]
        out.print(
            f"  {share:4.0%}  {len(found):6,} x {stats.mean(times):7.2f} ms, p99 "
            f"{percentile(times, 0.99):7.2f} ms, {stats.mean(one.pages for one in found):5,.0f} "
            f"pages  {text[:70]}",
            soft_wrap=True,
            markup=False,
        )


def curve(out: Console, levels: Sequence[Level]) -> None:
    """Print what each load led to."""
    table = Table(box=None, pad_edge=False)
    for name in (
        *("load", "due/s", "ended/s", "late p99 s", "limit s", "late", "worst median s"),
        *("postgres", "observers", "agents", "airbyte", "others", "at once"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for level in levels:
        found = level.lateness
        table.add_row(
            f"{level.load:g} x",
            f"{level.demanded:,.1f}",
            f"{level.rate:,.1f}",
            f"{percentile(found.all, 0.99):,.1f}",
            f"{level.interval.total_seconds() / 10:,.1f}",
            f"{found.late(level.interval):,}",
            f"{found.worst_workspace:,.1f}",
            *(
                f"{level.cores[name]:.2f}"
                for name in (
                    "postgres",
                    "schema_observer",
                    "drift_repair_agent",
                    "airbyte",
                    "others",
                )
            ),
            f"{level.airbyte['most_in_flight']:,.0f}",
        )
    out.print(table)


def breaking(out: Console, levels: Sequence[Level]) -> None:
    """Print the first load that is not carried, and what was busiest then."""
    for level in levels:
        late = level.lateness.late(level.interval)
        if not late and level.rate >= 0.9 * level.demanded:
            continue
        cores = {name: used for name, used in level.cores.items() if name != "others"}
        busiest = max(cores, key=cores.__getitem__)
        out.print(
            f"Breaks first: at {level.load:g} times the base load {level.rate:,.1f} of "
            f"{level.demanded:,.1f} observations a second end, and {late:,} are late. Most of the "
            f"processor goes to {busiest}: {cores[busiest]:.2f} of {sum(cores.values()):.2f} "
            f"cores; others use {level.cores['others']:.2f}. "
            f"{level.airbyte['most_in_flight']:,.0f} discoveries ran at once, of "
            f"{REPLICAS * rates.THREADS.value:,.0f} that the observers may run.",
            soft_wrap=True,
        )
        return
    out.print("No load of the curve broke it.")


def meaning(out: Console, capacity: Level) -> None:
    """Print how many sources this capacity and the slots suffice for, by interval."""
    slots = REPLICAS * rates.THREADS.value
    out.print("What that means, with half of each as a reserve:")
    for name, seconds in (("a day", rates.DAY_S), ("an hour", 3600.0), ("15 minutes", 900.0)):
        out.print(
            f"  once in {name}: {LOAD * capacity.rate * seconds:,.0f} sources by this "
            f"machine's processor; {LOAD * slots / rates.MEAN_S * seconds:,.0f} by the {slots:.0f} "
            f"discoveries that {REPLICAS} observers run at once (AIRBYTE_SLOW_CALLS=25)",
            soft_wrap=True,
        )
