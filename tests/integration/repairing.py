"""Helpers for repairs and their policies, over the API."""

from __future__ import annotations

from typing import Any

from tests.integration.applying import streams_in_airbyte
from tests.integration.conftest import (
    Mesh,
)
from tests.integration.drifting import drift, post, repairs
from tests.waiting import until

Json = dict[str, Any]


async def put(mesh: Mesh, connection: Json, order: Json) -> tuple[int, Json]:
    """Change a connection's policy; return status and body."""
    answer = await mesh.drift_repair_agent.put(
        f"/connections/{connection['id']}/policy", json=order
    )
    return answer.status_code, answer.json()


def upstream(mesh: Mesh, connection: Json) -> Json:
    """Return the connection in Airbyte."""
    found: Json = mesh.airbyte.connections[connection["airbyte_connection_id"]]
    return found


def fields(mesh: Mesh, connection: Json) -> set[str]:
    """Return the fields of Account in Airbyte's catalog."""
    return set(
        streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"]["properties"]
    )


def nothing_was_reset(mesh: Mesh) -> bool:
    """Whether Airbyte ran only sync jobs: no reset, clear or refresh."""
    return {job["configType"] for job in mesh.airbyte.jobs.values()} <= {"sync"}


async def proposal(mesh: Mesh, connection: Json, offered: Json) -> Json:
    """Change the source and return the proposed repair, which waits for a person's decision."""
    await drift(mesh, connection, offered)
    found = await until(lambda: repairs(mesh, connection, state="proposed"))
    (proposed,) = found
    return dict(proposed)


async def approve(mesh: Mesh, repair: Json, **order: Any) -> tuple[int, Json]:
    """Approve a repair; return status and body."""
    return await post(mesh, f"/repairs/{repair['id']}/approve", {"by": "Ada", **order})


async def types(mesh: Mesh, count: int) -> list[str]:
    """Wait for `count` events other than those of observing and onboarding; return their types."""
    published: list[str] = []
    seen_so_far = 1
    while len(published) < count:
        found = [one["type"] for one in await mesh.events(seen_so_far)]
        published = [one for one in found if one not in _BESIDE]
        seen_so_far = len(found) + (len(published) < count)
    return published


_BESIDE = {"connection.onboarded", "drift.detected"}
