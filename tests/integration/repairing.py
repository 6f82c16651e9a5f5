"""Repairs and the policies that decide them, over the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.integration.applying import held
from tests.integration.conftest import (
    Mesh,
)
from tests.integration.drifting import (
    drift,
    post,
    repairs_until,
)

Json = dict[str, Any]


async def put(mesh: Mesh, connection: Json, order: Json) -> tuple[int, Json]:
    """Change a connection's policy; the answer's status and body."""
    answer = await mesh.drift_repair_agent.put(
        f"/connections/{connection['id']}/policy", json=order
    )
    return answer.status_code, answer.json()


def upstream(mesh: Mesh, connection: Json) -> Json:
    """The connection as Airbyte has it."""
    found: Json = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    return found


def fields(mesh: Mesh, connection: Json) -> set[str]:
    """The fields of Account that Airbyte holds."""
    return set(held(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"])


def nothing_was_reset(mesh: Mesh) -> bool:
    """Whether Airbyte ran no job that resets, clears or refreshes anything."""
    return {job["configType"] for job in mesh.airbyte.jobs.values()} <= {"sync"}


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that another task does."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 (Airbyte's doing)
            await asyncio.sleep(0.02)


async def proposal(mesh: Mesh, connection: Json, offered: Json) -> Json:
    """Let the source change; the repair that then waits for a person."""
    await drift(mesh, connection, offered)
    return (await repairs_until(mesh, connection, ["proposed"]))[-1]


async def approve(mesh: Mesh, repair: Json, **order: Any) -> tuple[int, Json]:
    """Approve it; the answer's status and body."""
    return await post(mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada", **order})


async def types(mesh: Mesh, count: int) -> list[str]:
    """The types of the events beside those of observing and onboarding, once there are so many."""
    told: list[str] = []
    seen_so_far = 1
    while len(told) < count:
        found = [one["type"] for one in await mesh.events(seen_so_far)]
        told = [one for one in found if one not in _BESIDE]
        seen_so_far = len(found) + (len(told) < count)
    return told


_BESIDE = {"connection.onboarded", "drift.detected"}
