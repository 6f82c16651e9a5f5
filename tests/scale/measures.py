"""Measures the simulation from outside: by the registry's rows, its server's log, and /proc."""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, Self
from uuid import UUID

import asyncpg
import msgspec

from tests.processes import family

_POLL_S: Final = 2.0
_OVERLAP: Final = timedelta(seconds=30)
"""What is committed later than it was recorded is read again; on a busy machine, seconds later."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed; 0 without values."""
    if not values:
        return 0.0
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


# Lateness


@dataclass(slots=True)
class _Known:
    """When a source is due, and when its newest observation began."""

    workspace: UUID
    due: datetime
    started: datetime | None


@dataclass(slots=True)
class Lateness:
    """How long after they were due observations began; in seconds, by workspace.

    A source that is due and not yet observed counts with the time that it has waited so far.
    """

    by_workspace: dict[UUID, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: int = 0
    """Observations that ended meanwhile."""
    waiting: int = 0
    """Sources that were due and not being observed at the end."""
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def all(self) -> list[float]:
        """The lateness of every observation."""
        return [one for each in self.by_workspace.values() for one in each]

    @property
    def worst_workspace(self) -> float:
        """The median lateness of the workspace that has the highest."""
        return max(map(statistics.median, self.by_workspace.values()), default=0.0)

    def late(self, interval: timedelta) -> int:
        """How many began more than a tenth of the interval after they were due."""
        limit = interval.total_seconds() / 10
        return sum(one > limit for one in self.all)


class LatenessSampler:
    """Reads which sources were claimed since the last reading, and when each had been due.

    A source is observed once in an interval, which is many readings long, so none is missed.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._known: dict[UUID, _Known] = {}
        self.found = Lateness()

    async def __aenter__(self) -> Self:
        """Read when each source is due; what is observed from now on counts."""
        self._sql = await asyncpg.connect(self._url)
        self._seen: datetime = await self._sql.fetchval("SELECT clock_timestamp()")
        for source, workspace, due, started in await self._sql.fetch(_ALL):
            self._known[source] = _Known(workspace, due, started)
        self._reading = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._sql.close()

    async def end(self) -> Lateness:
        """Count the sources that are still waiting, too, and return what was found."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._read()
        for workspace, late_s in await self._sql.fetch(_WAITING):
            self.found.by_workspace[workspace].append(late_s)
            self.found.waiting += 1
        return self.found

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            await self._read()

    async def _read(self) -> None:
        """Count the observations that began or ended since the last reading."""
        now: datetime = await self._sql.fetchval("SELECT clock_timestamp()")
        rows = await self._sql.fetch(_CHANGED, self._seen)
        self._seen = now - _OVERLAP
        for source, due, started, observed, outcome in rows:
            known = self._known[source]
            if started is not None and started != known.started:
                late_s = max((started - known.due).total_seconds(), 0.0)
                self.found.by_workspace[known.workspace].append(late_s)
                known.started = started
            is_ended = observed is not None and started is not None and observed >= started
            if is_ended and due != known.due:
                known.due = due
                self.found.ended += 1
                self.found.outcomes[outcome] += 1


_ALL: Final = """
    SELECT airbyte_source_id, airbyte_workspace_id, next_at, started_at FROM observations
"""
_WAITING: Final = """
    SELECT airbyte_workspace_id, CAST(extract(epoch FROM now() - next_at) AS float8)
    FROM observations
    WHERE next_at < now() AND (claimed_until IS NULL OR claimed_until <= now())
"""
_CHANGED: Final = """
    SELECT airbyte_source_id, next_at, started_at, observed_at, outcome FROM observations
    WHERE started_at >= $1 OR observed_at >= $1
"""


# What processes use


@dataclass(frozen=True, slots=True)
class Used:
    """Processor time in seconds and memory in MB, by group of processes."""

    at: float
    cpu: Mapping[str, float]
    memory: Mapping[str, float]
    """PSS: what processes share is divided among them."""
    resident: Mapping[str, float]
    """RSS, which does not grow when a forked process no longer shares what it has."""
    machine: float
    """Processor time of everything on this machine."""

    def cores_since(self, before: Used) -> dict[str, float]:
        """How many cores each group used on average; `others` is all else on this machine."""
        passed = self.at - before.at
        cores = {name: (cpu - before.cpu[name]) / passed for name, cpu in self.cpu.items()}
        return cores | {"others": (self.machine - before.machine) / passed - sum(cores.values())}


def used(groups: Mapping[str, Iterable[int]]) -> Used:
    """What groups of processes have used; each with its descendants."""
    members = {
        name: {each for pid in pids for each in family(pid)} for name, pids in groups.items()
    }
    return Used(
        time.monotonic(),
        {name: sum(map(_cpu_s, pids)) for name, pids in members.items()},
        {name: sum(_mb(pid, "Pss") for pid in pids) for name, pids in members.items()},
        {name: sum(_mb(pid, "Rss") for pid in pids) for name, pids in members.items()},
        _machine_s(),
    )


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def _machine_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(map(int, fields[:8])) - idle) / _TICKS


def _mb(pid: int, what: str) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(text.partition(f"\n{what}:")[2].split()[0]) * 1024 / 1e6


# Statements


class Statement(NamedTuple):
    """One execution of a statement of the services, as the registry's server saw it."""

    ms: float
    rows: float
    """The rows that it returned."""
    pages: int
    """The pages of tables and indexes that it read, in memory or not."""


@dataclass(slots=True)
class Statements:
    """A sample of the statements of the services, by their beginning."""

    by_text: dict[str, list[Statement]] = field(default_factory=lambda: defaultdict(list))

    def claims(self) -> list[Statement]:
        """The claims that found a source."""
        return [
            one
            for text, found in self.by_text.items()
            if text.startswith(_CLAIM)
            for one in found
            if one.rows
        ]

    def costliest(self, count: int) -> list[tuple[str, float, list[Statement]]]:
        """Beginning and share of all time of the statements that take the most."""
        spent = {text: sum(one.ms for one in found) for text, found in self.by_text.items()}
        total = sum(spent.values()) or 1.0
        most = sorted(spent, key=lambda text: -spent[text])[:count]
        return [(text, spent[text] / total, self.by_text[text]) for text in most]


_CLAIM: Final = "WITH used AS"
PRELOADED: Final = "auto_explain"
"""The module of Postgres that logs plans with their times; it has to be loaded from the start."""
_LOGGED: Final = {
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_parameter_max_length": "0",
    "auto_explain.log_min_duration": "0",
}
_PLAN: Final = re.compile(r"LOG:  duration: ([\d.]+) ms  plan:$")
_NEXT: Final = re.compile(r"^\d{4}-\d\d-\d\d ")


async def log_statements(url: str, share: float) -> None:
    """Have the registry's server log this share of all statements; 0 ends it."""
    sql = await asyncpg.connect(url)
    try:
        for name, value in (_LOGGED | {"auto_explain.sample_rate": str(share)}).items():
            await sql.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await sql.execute("SELECT pg_reload_conf()")
    finally:
        await sql.close()


def statements(log: Path, since: int) -> Statements:
    """The statements that were logged after the first `since` bytes of the log."""
    found, ms, plan = Statements(), 0.0, list[str]()
    with log.open("rb") as lines:
        lines.seek(since)
        for line in chain(lines, [b"0000-00-00 "]):
            text = line.decode(errors="replace").rstrip("\n")
            if not _NEXT.match(text):
                plan.append(text.removeprefix("\t"))
                continue
            if ms and plan:
                read = msgspec.json.decode("\n".join(plan).encode(), strict=False)
                node = read["Plan"]
                found.by_text[" ".join(read["Query Text"].split())[:90]].append(
                    Statement(
                        ms,
                        node.get("Actual Rows", 0),
                        node.get("Shared Hit Blocks", 0) + node.get("Shared Read Blocks", 0),
                    )
                )
            match = _PLAN.search(text)
            ms, plan = float(match[1]) if match else 0.0, []
    return found
