"""Fixtures for every test: a real Postgres and a real Valkey, created for this run."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from local.processes import servers
from local.settings import Settings
from tests import leaks

_LONGEST = (
    "tests/browser/",
    "tests/journeys/",
    "tests/contract/test_schemathesis.py",
    "tests/faults/",
    "tests/security/test_leaks.py",
    "tests/security/test_secret_scan.py",
    "tests/test_leftovers.py",
)

pytest_plugins = [
    "tests.depth",
    "tests.fakes.fixtures",
    "tests.leaks",
    "tests.leftovers",
    "tests.pools",
    "tests.routes",
]


def pytest_configure(config: pytest.Config) -> None:
    """Assign each pytest-xdist worker its own range of ports."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        first, last = map(int, Settings().free_ports.split("-"))
        share = (last - first) // worker["workercount"]
        start = first + share * int(worker["workerid"].removeprefix("gw"))
        os.environ["AAM_FREE_PORTS"] = f"{start}-{start + share}"


def pytest_report_header() -> str | None:
    """Report the fault rate of the run, and how to reproduce it."""
    rate = float(os.environ.get("AAM_FAULT_RATE", "0"))
    seed = os.environ.get("AAM_SEED", "20261123")
    return f"faults: {rate:.0%} of Airbyte calls, seed {seed}" if rate else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slowest modules.

    Otherwise a worker that starts such a module last would run alone after the others have ended.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(_LONGEST))


def pytest_collection_finish() -> None:
    """Create the services' keys before the first test, which would report them as leftovers.

    Also exempts the collected tests and modules from garbage collection.
    """
    gc.freeze()
    if (access := sys.modules.get("tests.access")) is not None:
        access.service_keys()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape surrogates: workers send their reports as UTF-8."""
    report = yield
    report.sections = [
        (name, text if text.isascii() else text.encode(errors="backslashreplace").decode())
        for name, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A folder for servers' data that the Postgres user can reach, unlike pytest's own."""
    folder = servers.temporary_dir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[servers.Postgres]:
    """The run's Postgres, shared by every test: never stop it."""
    with servers.start_postgres(
        server_dir / "postgres", options=servers.THROWAWAY_OPTIONS
    ) as server:
        yield server
        asyncio.run(_add_databases(server))


async def _add_databases(server: servers.Postgres) -> None:
    """Scan the rows that the last tests left in any database for secrets."""
    connection = await asyncpg.connect(server.url)
    names = await connection.fetch("SELECT datname FROM pg_database WHERE datallowconn")
    await connection.close()
    for (name,) in names:
        connection = await asyncpg.connect(server.url_of(name))
        await leaks.add_rows(connection)
        await connection.close()


async def _add_entries(server: servers.Valkey) -> None:
    redis = Redis.from_url(server.url)
    await leaks.add_entries(redis)
    await redis.aclose()


@pytest.fixture(scope="session")
def valkey(server_dir: Path) -> Iterator[servers.Valkey]:
    """The run's Valkey, shared by every test: never stop it."""
    with servers.start_valkey(server_dir / "valkey") as server:
        yield server
        asyncio.run(_add_entries(server))


@pytest.fixture(scope="session")
def postgres_url(postgres: servers.Postgres) -> str:
    """The URL of the run's empty database `aam`, as superuser."""
    return postgres.url


@pytest.fixture(scope="session")
def warehouse_url(postgres: servers.Postgres) -> str:
    """The database that connectors write to, separate from the registry."""
    return postgres.url_of("warehouse")


@pytest.fixture(scope="session")
def redis_url(valkey: servers.Valkey) -> str:
    """Database 0 of the run's Valkey."""
    return valkey.url


@pytest.fixture
def own_postgres(server_dir: Path) -> Iterator[servers.Postgres]:
    """A Postgres for one test, which may stop, kill and restart it."""
    folder = Path(tempfile.mkdtemp(dir=server_dir))
    folder.chmod(0o711)
    with servers.start_postgres(folder, options=servers.THROWAWAY_OPTIONS) as server:
        yield server


@pytest.fixture
def own_valkey(server_dir: Path) -> Iterator[servers.Valkey]:
    """A Valkey for one test, which may stop, kill and restart it."""
    with servers.start_valkey(Path(tempfile.mkdtemp(dir=server_dir))) as server:
        yield server
