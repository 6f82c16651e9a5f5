"""Services start without their dependencies, and become ready as these start in any order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.faults.world import ORDER, Process, World

pytestmark = pytest.mark.process

_PARTS = ("postgres", "valkey", "airbyte", "auth_broker")
# Each part is first, last, and before and after every other part.
_ROTATIONS = [(*_PARTS[turn:], *_PARTS[:turn]) for turn in range(len(_PARTS))]
_ORDERS = [*_ROTATIONS, *(order[::-1] for order in _ROTATIONS)]
_CHECK_OF = {"postgres": "registry", "airbyte": "airbyte", "auth_broker": "auth_broker"}
"""The name of each part's check in `/ready`; Valkey has none, as no response depends on it."""
_DEGRADES = ("airbyte", "auth_broker")
"""Optional dependencies: without them a service is degraded (docs/decisions/0063)."""

Parts = dict[str, Callable[[], Awaitable[object]]]


@pytest.fixture
async def absent(world: World) -> AsyncIterator[Parts]:
    """Stop all parts; the values start one each. Parts still stopped at the end are started."""
    stopped: Parts = {
        "postgres": lambda: asyncio.to_thread(world.postgres.start),
        "valkey": lambda: asyncio.to_thread(world.valkey.start),
        "airbyte": lambda: world.airbyte.start(world.airbyte_port),
        "auth_broker": lambda: world.start("auth_broker"),
    }
    world.settings = {"AUTH_BROKER_URL": f"http://127.0.0.1:{world.port_of('auth_broker')}"}
    await asyncio.to_thread(world.postgres.stop)
    await asyncio.to_thread(world.valkey.stop)
    await world.airbyte.stop()
    yield stopped
    for start in stopped.values():
        await start()
    await world.end("auth_broker")


@pytest.mark.deep
@pytest.mark.parametrize(
    "position, order", [pytest.param(n, one, id="-".join(one)) for n, one in enumerate(_ORDERS)]
)
async def test_services_start_in_any_order(
    world: World, absent: Parts, position: int, order: tuple[str, ...]
) -> None:
    """`/health` is always 200, `/ready` names the missing parts; finally onboarding works."""
    names = ("orchestrator", "drift_repair_agent")[:: 1 if position % 2 else -1]
    processes = [await world.replace(name) for name in names]
    up: set[str] = set()
    for process in processes:
        await _wait_until_ready_shows(process, up)
    for part in order:
        await absent[part]()
        del absent[part]
        up.add(part)
        for process in processes:
            await _wait_until_ready_shows(process, up)

    orchestrator = processes[names.index("orchestrator")]
    answer = await orchestrator.client.post("/connections/onboard", json=ORDER)
    assert answer.status_code == 201, answer.text
    await world.converged()


async def _wait_until_ready_shows(process: Process, up: set[str]) -> None:
    """Wait until `/ready` reports exactly these parts; it must never report a stopped one.

    It is 503 only without the registry; other missing parts are `degraded`.
    """
    async with asyncio.timeout(20):
        while True:
            assert (await process.client.get("/health")).status_code == 200
            answer = await process.client.get("/ready")
            body = answer.json()
            checks = body["checks"]
            here = {part for part, check in _CHECK_OF.items() if checks.get(check) == "ok"}
            assert here <= up
            expected = {part for part in up if _CHECK_OF.get(part) in checks}
            # API keys are in the registry.
            is_known = checks.get("access", "ok") == "ok"
            if here == expected and is_known == ("postgres" in up or "access" not in checks):
                break
            await asyncio.sleep(0.1)
    is_ready = "postgres" in up
    away = [part for part in _DEGRADES if part in checks and part not in up]
    assert (answer.status_code, body["ready"]) == (200 if is_ready else 503, is_ready)
    assert body.get("degraded", []) == (away if is_ready else [])
