"""Targets of hostile input: the whole mesh, and one service as a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from local.processes import servers
from local.processes.exit_with_parent import ChildProcess
from shared.outbox import STREAM
from tests import access, leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.hostile.attempts import World
from tests.integration.conftest import (
    ORDER,
    REPOSITORY,
    add_destination,
    empty,
    registry_url,
    running,
    settings_for,
)

__all__ = ["registry_url"]


@pytest.fixture(scope="module")
async def world(postgres_url: str, registry_url: str, redis_url: str) -> AsyncIterator[World]:
    """A mesh with one connection for a whole module, since no attempt may change it."""
    sql = await asyncpg.connect(postgres_url)
    await empty(sql)
    redis = Redis.from_url(redis_url, decode_responses=True, protocol=3)
    await redis.delete(STREAM)
    async with AirbyteServer(version="2.0.0", auth="token") as airbyte:
        add_destination(airbyte)
        settings = settings_for(airbyte, registry_url, redis_url, observe_interval="86400")
        parts: dict[str, Any] = {"sql": sql, "redis": redis, "order": ORDER}
        async with running(settings, airbyte, repairs=False, **parts) as mesh:
            yield await World.of(mesh)
    await leaks.add_entries(redis)
    await leaks.add_rows(sql)
    await redis.aclose()
    await sql.close()


@dataclass(frozen=True)
class Process:
    """A drift_repair_agent process configured as in production, but with shorter deadlines."""

    pid: int
    port: int
    log: Path


@pytest.fixture(scope="module")
def process(server_dir: Path, registry_url: str, redis_url: str) -> Iterator[Process]:
    """One process for a whole module; no request may end it."""
    port, log = servers.free_port(), server_dir / "hostile.log"
    command = ["uvicorn", "services.drift_repair_agent.main:app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    command += ["--http", "tests.hostile.quick:Http", "--ws", "none", "--limit-concurrency", "1000"]
    environment = os.environ | {
        "SUPABASE_DB_URL": servers.as_service(registry_url, "drift_repair_agent"),
        "REDIS_URL": redis_url,
        "AIRBYTE_API_URL": "http://127.0.0.1:9/api/v1",
        "BODY_DEADLINE": "1",
        **access.environment(),
    }
    with log.open("wb") as out:
        running = ChildProcess(
            [sys.executable, "-m", *command], log=out, env=environment, cwd=REPOSITORY
        )
    try:
        deadline = time.monotonic() + 120
        while not servers.is_taken(port):
            if running.exit_code() is not None or time.monotonic() > deadline:
                raise subprocess.SubprocessError(log.read_text())
            time.sleep(0.05)
        yield Process(running.pid, port, log)
        assert running.exit_code() is None, "A hostile input has ended the process."
    finally:
        running.stop()
        leaks.add_files("the log", [log])
