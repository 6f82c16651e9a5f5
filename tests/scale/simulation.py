"""Runs the fleet: a calibration, ten simulated days, and the curve of loads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec

from tests.bench.environment import Http, Stage
from tests.scale import measures, rates
from tests.scale.fleet import Fleet
from tests.scale.measures import Lateness, LatenessSampler, Statements, Used
from tests.scale.pages import Reader

DAYS: Final = 10
"""How many days are simulated."""
SHORTEST_INTERVAL_S: Final = 30.0
"""Of wall time: due sources are looked for once a second, which is not compressed."""
LOAD: Final = 0.5
"""Share of the machine's measured capacity that the base load uses."""
LOADS: Final = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""The loads of the curve, as multiples of the base load."""
_FIRST_RATE: Final = 10.0
"""Observations per second with which the calibration begins."""
_CARRIED: Final = 0.9
"""The share of due observations that must end for a load to count as carried."""
_EARLY: Final = 0.2
"""When memory is measured the first time, as a share of the run."""
_SAMPLED: Final = 0.05
"""Share of the statements whose duration Postgres logs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part of a run takes, in seconds of wall time."""

    calibration_s: float
    run_s: float
    level_s: float

    @classmethod
    def for_(cls, connections: int) -> Plan:
        """The parts for this many connections: two minutes in all for a few, else half an hour."""
        return cls(8, 45, 0) if connections < 10_000 else cls(20, 900, 60)

    @property
    def compression(self) -> float:
        """How many simulated seconds pass in one second."""
        return DAYS * rates.DAY_S / self.run_s


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured at one load."""

    load: float
    """As a multiple of the base load; 0 in the calibration."""
    demanded: float
    """Observations that become due per second."""
    interval: timedelta
    """Of wall time."""
    lateness: Lateness
    rate: float
    """Discoveries per second that ended."""
    cores: Mapping[str, float]
    airbyte: Mapping[str, float]
    """The counts of the scripted Airbyte."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured in the ten simulated days."""

    level: Level
    pages: Reader
    statements: Statements
    early: Used
    late: Used
    grown: int
    """Bytes by which the database grew."""
    registry_connections: Mapping[str, int]
    rows: Mapping[str, int]
    """Drifts, repairs and versions that were made."""


class Simulation:
    """Drives the services of a stage at different loads."""

    def __init__(self, stage: Stage, services: Fleet, connections: int, plan: Plan) -> None:
        self._stage = stage
        self._services = services
        self._sources = rates.sources(connections)
        self._plan = plan

    async def calibrate(self) -> Level:
        """Double the load until this machine falls behind; return the fastest level."""
        best, rate = None, _FIRST_RATE
        while True:
            interval = timedelta(seconds=self._sources / rate)
            level = await self._level(0.0, interval, self._plan.calibration_s)
            if best is None or level.rate > best.rate:
                best = level
            if level.rate < _CARRIED * rate:
                return best
            rate *= 2

    def base_interval(self, capacity: float) -> timedelta:
        """The interval, in wall time, at which the load is `LOAD` of a capacity per second."""
        return timedelta(seconds=max(self._sources / (LOAD * capacity), SHORTEST_INTERVAL_S))

    async def run(self, interval: timedelta) -> Run:
        """Simulate ten days while people open pages."""
        url = self._stage.registry_url
        self._services.observe_every(interval)
        await self._spread(interval)
        await self._airbyte("scale/reset_maxima")
        log, reader = self._stage.postgres.log, Reader(self._services, url)
        since, size = log.stat().st_size, await self._value(_SIZE)
        rows = await self._rows()
        await measures.log_statements(url, _SAMPLED)
        before, discovered = measures.used(self.groups), await self._counts()
        async with LatenessSampler(url) as sampler, _reading(reader):
            await asyncio.sleep(self._plan.run_s * _EARLY)
            early = measures.used(self.groups)
            await asyncio.sleep(self._plan.run_s * (1 - _EARLY))
            late = measures.used(self.groups)
            lateness = await sampler.end()
        await measures.log_statements(url, 0)
        counts = await self._counts()
        return Run(
            Level(
                1.0,
                self._sources / interval.total_seconds(),
                interval,
                lateness,
                (counts["discoveries"] - discovered["discoveries"]) / (late.at - before.at),
                late.cores_since(before),
                counts,
            ),
            reader,
            measures.statements(log, since),
            early,
            late,
            await self._value(_SIZE) - size,
            dict(await self._fetch(_REGISTRY_CONNECTIONS)),
            {name: count - rows[name] for name, count in (await self._rows()).items()},
        )

    async def level(self, load: float, base: timedelta) -> Level:
        """Measure one load of the curve, as if the fleet were `load` times as large."""
        return await self._level(load, base / load, self._plan.level_s)

    async def _level(self, load: float, interval: timedelta, seconds: float) -> Level:
        self._services.observe_every(interval)
        await self._spread(interval)
        await self._airbyte("scale/reset_maxima")
        before, discovered = measures.used(self.groups), await self._counts()
        async with LatenessSampler(self._stage.registry_url) as sampler:
            await asyncio.sleep(seconds)
            lateness = await sampler.end()
        after, counts = measures.used(self.groups), await self._counts()
        return Level(
            load,
            self._sources / interval.total_seconds(),
            interval,
            lateness,
            (counts["discoveries"] - discovered["discoveries"]) / (after.at - before.at),
            after.cores_since(before),
            counts,
        )

    @property
    def groups(self) -> dict[str, list[int]]:
        """The process ids of each service and server."""
        return self._services.pids() | {
            "postgres": [self._stage.postgres.pid],
            "valkey": [self._stage.valkey.pid],
            "airbyte": [self._stage.airbyte.pid],
        }

    async def _spread(self, interval: timedelta) -> None:
        """Spread the next observations over an interval, as they are after some time."""
        sql = await asyncpg.connect(self._stage.registry_url)
        await sql.execute(_SPREAD, interval)
        await sql.close()

    async def _counts(self) -> dict[str, float]:
        found: dict[str, float] = await self._airbyte("scale/counts")
        return found

    async def _airbyte(self, path: str) -> Any:
        port = int(self._stage.airbyte_url.rpartition(":")[2].partition("/")[0])
        http = await Http.to(port)
        try:
            answer = await http.request(f"/api/v1/{path}", b"{}")
        finally:
            http.close()
        return msgspec.json.decode(answer)

    async def _rows(self) -> dict[str, int]:
        return dict(await self._fetch(_ROWS))

    async def _value(self, query: str) -> Any:
        return (await self._fetch(query))[0][0]

    async def _fetch(self, query: str) -> list[Any]:
        sql = await asyncpg.connect(self._stage.registry_url)
        try:
            found: list[Any] = await sql.fetch(query)
        finally:
            await sql.close()
        return found


@asynccontextmanager
async def _reading(reader: Reader) -> AsyncIterator[None]:
    """Open pages within the block."""
    reading = asyncio.create_task(reader.read())
    try:
        yield
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading


_SIZE: Final = "SELECT pg_database_size(current_database())"
_SPREAD: Final = """
    UPDATE observations SET next_at = now() + random() * CAST($1 AS interval),
        overdue_at = now() + 3 * CAST($1 AS interval), claimed_by = NULL, claimed_until = NULL
"""
_ROWS: Final = """
    SELECT 'drifts' AS name, count(*) AS count FROM drifts
    UNION ALL SELECT 'repairs', count(*) FROM repairs
    UNION ALL SELECT 'applied repairs', count(*) FROM repairs WHERE state = 'applied'
    UNION ALL SELECT 'catalog versions', count(*) FROM sync_catalog_versions
"""
_REGISTRY_CONNECTIONS: Final = """
    SELECT application_name AS name, count(*) AS count FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> '' GROUP BY 1 ORDER BY 1
"""
