"""Times the periodic passes over the whole registry, which run by wall time: not compressed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import asyncpg

from services.orchestrator.history_retention import History, histories
from shared.config import Settings
from tests.bench.environment import REPOSITORY, Stage
from tests.bench.results_table import Line

_COMMANDS: Final = ("health", "sweep", "reconcile")
_LONGEST_S: Final = 240.0
"""A pass that takes longer is ended, and its duration is estimated where its progress is known."""
_BATCH: Final = 500
_DAY: Final = timedelta(days=1)


def run(on: Stage, connections: int) -> Iterator[Line]:
    """Run each pass once, before the services start."""
    for name in _COMMANDS:
        yield _command(on, name, connections)
    yield from asyncio.run(_retention(on))


def _command(on: Stage, name: str, connections: int) -> Line:
    """Run a pass by its command."""
    began, read = time.monotonic(), _read(on)
    note = ""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "services.orchestrator.maintenance_command", name],
            cwd=REPOSITORY,
            env=on.environment,
            capture_output=True,
            check=False,
            timeout=_LONGEST_S,
        )
        took_s = time.monotonic() - began
        if ended.returncode:
            note = f", exit code {ended.returncode}: {ended.stderr.decode()[-80:]}"
    except subprocess.TimeoutExpired:
        took_s = time.monotonic() - began
        compared = _read(on) - read
        note = f", ended after {took_s:.0f} s"
        if compared:
            note += f" with {compared:,} of {connections:,} compared: estimated"
            took_s *= connections / compared
    return Line(job=f"{name}{note}", measured=took_s, unit="s")


def _read(on: Stage) -> int:
    """How many connections were read from Airbyte."""
    url = f"{on.airbyte_url}/scale/counts"
    request = urllib.request.Request(url, data=b"null", method="POST")  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: int = json.loads(answer.read())["read"]
    return found


async def _retention(on: Stage) -> Iterator[Line]:
    """Prune one batch of each table, as if its retention were a day shorter, and roll it back."""
    settings = Settings(supabase_db_url=on.services_url)
    sql = await asyncpg.connect(on.registry_url, command_timeout=_LONGEST_S)
    try:
        return iter([await _prune(sql, one) for one in histories(settings) if one.max_age])
    finally:
        await sql.close()


async def _prune(sql: asyncpg.Connection[asyncpg.Record], history: History) -> Line:
    assert history.max_age is not None
    at_most = history.at_most or _BATCH
    transaction = sql.transaction()
    await transaction.start()
    began = time.monotonic()
    rows = await sql.fetchval(
        "SELECT prune_history($1, $2, $3)",
        history.table,
        max(history.max_age - _DAY, _DAY),
        at_most,
    )
    took_ms = (time.monotonic() - began) * 1000
    await transaction.rollback()
    a_day = at_most * history.batches * (_DAY / history.every)
    return Line(
        job=f"retention: a batch of {rows:,} {history.table}; at most {a_day:,.0f} a day",
        measured=took_ms,
    )
