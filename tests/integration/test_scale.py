"""What `make scale` generates and measures: a small fleet, with one observer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from local.processes import fork_server
from tests.bench.environment import REPOSITORY, Stage, stage
from tests.scale import catalogs, fill, fleet, report
from tests.scale.measures import Lateness, LatenessSampler
from tests.waiting import until

# The simulation forks its services from one process, and reads their memory from /proc.
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(  # only Linux has what the simulation measures
        not fork_server.is_available(),
        reason="The services of the simulation are forked, on Linux.",
    ),
]
CONNECTIONS = 60
WORKSPACES = 3
COMPRESSION = 10_000
INTERVAL = timedelta(minutes=10)
"""A source is late a minute after it was due."""


@pytest.fixture(scope="module")
def simulated() -> Iterator[Stage]:
    """A registry with a small fleet, and the scripted Airbyte."""
    with stage(
        postgres_options=fleet.POSTGRES,
        airbyte=fleet.airbyte(WORKSPACES, COMPRESSION),
    ) as on:
        asyncio.run(
            fill.fill(on.registry_url, CONNECTIONS, workspaces=WORKSPACES, interval=INTERVAL)
        )
        yield on


def command(on: Stage, name: str) -> dict[str, object]:
    """Run a pass over the registry by its command, and return what it prints."""
    run = subprocess.run(
        [sys.executable, "-m", "services.orchestrator.maintenance_command", name],
        cwd=REPOSITORY,
        env=on.environment,
        capture_output=True,
        check=True,
        timeout=120,
    )
    found: dict[str, object] = msgspec.json.decode(run.stdout)
    return found


def test_generated_registry_is_consistent(simulated: Stage) -> None:
    """The reconciler finds every catalog in Airbyte, and health follows from the other tables."""
    reconciled = command(simulated, "reconcile")
    assert (reconciled["compared"], reconciled["drifted"], reconciled["unknown"]) == (
        CONNECTIONS,
        {},
        {},
    )
    first, second = command(simulated, "health"), command(simulated, "health")
    assert first["connections"] == CONNECTIONS
    assert second["corrected"] == 0


async def test_ids_are_the_same_in_sql(simulated: Stage) -> None:
    """The scripted Airbyte knows a source's number and catalog by its id alone."""
    sql = await asyncpg.connect(simulated.registry_url)
    known = set(await sql.fetchval("SELECT array_agg(airbyte_source_id) FROM observations"))
    await sql.close()
    assert known == {catalogs.object_id(number, "source") for number in range(1, len(known) + 1)}
    assert catalogs.number_of(str(catalogs.object_id(7, "source"))) == 7


async def make_due(on: Stage, ago: timedelta) -> int:
    """Make every source due so long ago; returns how many there are."""
    sql = await asyncpg.connect(on.registry_url)
    await sql.execute(
        "UPDATE observations SET next_at = now() - CAST($1 AS interval), claimed_by = NULL,"
        " claimed_until = NULL",
        ago,
    )
    sources: int = await sql.fetchval("SELECT count(*) FROM observations")
    await sql.close()
    return sources


def missed(found: Lateness, sources: int) -> list[str]:
    """The rows of the report whose limits are missed, of a minute in which all became due."""
    lines = report.lateness_lines(found, INTERVAL, rate=found.ended / 60, demanded=sources / 60)
    return [line.job for line in lines if line.is_missed]


async def test_stopped_observers_are_late(simulated: Stage) -> None:
    """Without an observer, sources that are due count as late; with one, the same rows pass."""
    with fleet.fleet(simulated, compression=COMPRESSION, replicas=1) as services:
        sources = await make_due(simulated, timedelta(0))
        async with LatenessSampler(simulated.registry_url) as sampler:
            services.observe_every(INTERVAL)
            await until(lambda: sampler.found.ended == sources)
            assert missed(await sampler.end(), sources) == []

        services.stop_observers()
        await make_due(simulated, INTERVAL / 5)
        async with LatenessSampler(simulated.registry_url) as sampler:
            rows = missed(await sampler.end(), sources)
    assert any("later than a tenth" in row for row in rows), rows
    assert any("observations ended" in row for row in rows), rows


def test_starved_workspace_is_found() -> None:
    """One slow workspace makes its row fail, although most observations are in time."""
    fair, slow = [0.5] * 100, [2.0] * 5
    found = Lateness(by_workspace={uuid4(): fair, uuid4(): fair, uuid4(): slow}, ended=205)
    lines = report.lateness_lines(found, INTERVAL, rate=1, demanded=1)
    assert ["worst" in line.job for line in lines if line.is_missed] == [True]
