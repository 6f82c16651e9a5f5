"""Services start with nothing there, and become ready when it comes, in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from tests.faults.world import Process, World

_ORDERS = [*permutations(("postgres", "valkey", "airbyte"))]
_SERVICES = ("orchestrator", "drift_repair_agent")


async def _ready(process: Process) -> tuple[int, dict[str, str]]:
    assert (await process.client.get("/health")).status_code == 200
    answer = await process.client.get("/ready")
    return answer.status_code, dict(answer.json()["checks"])


@pytest.mark.parametrize("order", [pytest.param(one, id="-".join(one)) for one in _ORDERS])
@pytest.mark.parametrize("services", [_SERVICES, _SERVICES[::-1]], ids=["first", "last"])
async def test_any_order(world: World, order: tuple[str, ...], services: tuple[str, ...]) -> None:
    """`/health` is 200 throughout; `/ready` names what is missing, and nothing in the end."""
    loop = asyncio.get_running_loop()
    servers: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "postgres": (world.postgres.stop, world.postgres.start),
        "valkey": (world.valkey.stop, world.valkey.start),
    }
    for stop, _ in servers.values():
        await loop.run_in_executor(None, stop)
    await world.airbyte.stop()
    up: list[str] = []
    try:
        processes = [await world.replace(name) for name in services]
        for part in order:
            for process in processes:
                status, checks = await _ready(process)
                assert status == 503
                assert (checks["registry"] == "ok") is ("postgres" in up)
                assert (checks["airbyte"] == "ok") is ("airbyte" in up)
            if part == "airbyte":
                await world.airbyte.start(world.airbyte_port)
            else:
                await loop.run_in_executor(None, servers[part][1])
            up.append(part)
            if {"postgres", "airbyte"} <= set(up):
                break  # Redis away keeps nobody from being ready
    finally:
        for part, (_, start) in servers.items():
            if part not in up:
                await loop.run_in_executor(None, start)
        if "airbyte" not in up:
            await world.airbyte.start(world.airbyte_port)
    for process in processes:
        await _becomes_ready(process)


async def _becomes_ready(process: Process) -> None:
    async with asyncio.timeout(15):
        while (await _ready(process))[0] != 200:  # noqa: ASYNC110 (another process's doing)
            await asyncio.sleep(0.1)
