"""One connection's trouble is not another's: what hangs takes its own slots, and no more."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from shared.airbyte_client import AirbyteClient
from shared.errors import UpstreamTimeout, UpstreamUnreachable
from tests.fakes.airbyte_server import SALESFORCE, WORKSPACE_ID, AirbyteServer
from tests.faults.world import ORDER, World

_SECONDS, _PER_SECOND = 4.0, 50


async def test_slow_calls_take_their_own_slots(airbyte: AirbyteServer) -> None:
    """With every slot hanging, the next one is not sent, and reads go through at once."""
    airbyte.auth = "none"
    airbyte.fault("sources/create", "hang", times=None)
    async with AirbyteClient(airbyte.url, timeout=0.5, slow_calls=3) as client:

        async def create() -> None:
            await client.create_source(
                UUID(WORKSPACE_ID), {}, name="x", source_definition_id=UUID(SALESFORCE)
            )

        hanging = [asyncio.create_task(create()) for _ in range(3)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await client.list_sources(UUID(WORKSPACE_ID))
        assert time.monotonic() - began < 0.3
        ended = await asyncio.gather(*hanging, return_exceptions=True)
        assert [type(one) for one in ended] == [UpstreamTimeout] * 3

        airbyte.heal()
        airbyte.fault("sources/create", "slow", times=3, seconds=0.45)
        slow = [asyncio.create_task(create()) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert len(airbyte.called("sources/create")) == 6
        late = AirbyteClient(airbyte.url, timeout=0.1, slow_calls=1)
        late._slots = client._slots
        with pytest.raises(UpstreamUnreachable) as busy:
            await late.create_source(
                UUID(WORKSPACE_ID), {}, name="x", source_definition_id=UUID(SALESFORCE)
            )
        assert busy.value.code == "airbyte_busy"
        await asyncio.gather(*slow, return_exceptions=True)  # refused: {} is no configuration
        await late.aclose()
    assert len(airbyte.called("sources/create")) == 6


async def test_what_hangs_delays_nobody_else(world: World) -> None:
    """50 requests a second of other connections, while every call for one of them hangs."""
    world.settings = {"AIRBYTE_TIMEOUT": "5", "DISCOVER_TIMEOUT": "5", "OPERATION_DEADLINE": "60"}
    process = await world.replace("orchestrator")
    made = [
        (await process.client.post("/connections/onboard", json={**ORDER, "connection_name": name}))
        for name in ("hanging", "other")
    ]
    hanging, other = (one.json()["id"] for one in made)
    world.airbyte.fault("commands/run/discover", "hang", times=None)
    stuck = [
        asyncio.create_task(process.client.post(f"/connections/{hanging}/discover"))
        for _ in range(8)
    ]
    await asyncio.sleep(0.2)

    async def asked(path: str) -> float:
        began = time.monotonic()
        assert (await process.client.get(path)).status_code == 200
        return time.monotonic() - began

    paths = [f"/connections/{other}", f"/connections/{other}/jobs", "/connections", "/health"]
    asking: list[asyncio.Task[float]] = []
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        asking.append(asyncio.create_task(asked(paths[len(asking) % len(paths)])))
        await asyncio.sleep(1 / _PER_SECOND)
    times = sorted(await asyncio.gather(*asking))
    assert len(times) > _SECONDS * _PER_SECOND / 2
    assert times[int(len(times) * 0.99)] < 0.3

    world.airbyte.heal()
    await asyncio.gather(*stuck, return_exceptions=True)
    world.settings = {}
