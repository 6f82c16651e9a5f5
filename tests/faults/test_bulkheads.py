"""Bulkheads: hanging Airbyte requests for one connection do not delay others."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from shared.airbyte_client import AirbyteClient
from shared.errors import UpstreamTimeout, UpstreamUnreachable
from tests.fakes.airbyte_server import SALESFORCE, WORKSPACE_ID, AirbyteServer
from tests.faults.world import ORDER, World
from tests.waiting import until

_TIMES = 25


async def _until_called(airbyte: AirbyteServer, times: int) -> None:
    await until(lambda: len(airbyte.called("sources/create")) >= times)


async def test_slow_calls_use_slots_of_their_own(airbyte: AirbyteServer) -> None:
    """With all slow-call slots in use, the next one is not sent; reads are not delayed."""
    airbyte.auth = "none"
    airbyte.fault("sources/create", "hang", times=None)
    async with AirbyteClient(airbyte.url, timeout=2, slow_calls=3) as client:

        async def create() -> None:
            await client.create_source(
                UUID(WORKSPACE_ID), {}, name="x", source_definition_id=UUID(SALESFORCE)
            )

        hanging = [asyncio.create_task(create()) for _ in range(3)]
        await _until_called(airbyte, 3)
        await client.list_sources(UUID(WORKSPACE_ID))
        assert not any(one.done() for one in hanging)
        ended = await asyncio.gather(*hanging, return_exceptions=True)
        assert [type(one) for one in ended] == [UpstreamTimeout] * 3

        airbyte.heal()
        airbyte.fault("sources/create", "slow", times=3, seconds=1.5)
        slow = [asyncio.create_task(create()) for _ in range(3)]
        await _until_called(airbyte, 6)
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


async def test_hanging_calls_delay_no_other_connection(world: World) -> None:
    """Requests for other connections succeed while all Airbyte calls for one of them hang."""
    world.settings = {"AIRBYTE_TIMEOUT": "10", "DISCOVER_TIMEOUT": "10", "OPERATION_DEADLINE": "90"}
    process = await world.replace("orchestrator")
    connections = [
        await process.client.post(
            "/connections/onboard",
            json={**ORDER, "connection_name": name, "prefix": f"{name}_"},
        )
        for name in ("hanging", "other")
    ]
    hanging, other = (one.json()["id"] for one in connections)
    world.airbyte.requests.clear()
    world.airbyte.fault("commands/run/discover", "hang", times=None)
    stuck = [
        asyncio.create_task(process.client.post(f"/connections/{hanging}/discover"))
        for _ in range(8)
    ]
    await until(lambda: world.airbyte.called("commands/run/discover"))

    paths = [f"/connections/{other}", f"/connections/{other}/jobs", "/connections", "/health"]
    answers = await asyncio.gather(*(process.client.get(path) for path in paths * _TIMES))

    assert {answer.status_code for answer in answers} == {200}
    assert not any(one.done() for one in stuck)
    world.airbyte.heal()
    await asyncio.gather(*stuck, return_exceptions=True)
    world.settings = {}
