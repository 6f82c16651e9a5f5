"""An operation in a world, as the cells of the fault matrix run it.

Outcomes: F completed exactly once; B rolled back, with nothing left; N nothing was recorded;
R refused, with no change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tests.faults.world import ORDER, World

Outcome = Literal["F", "B", "N", "R"]
Kind = str
"""onboard, apply, sync or upgrade."""

SERVICE: dict[str, str] = {
    "onboard": "orchestrator",
    "apply": "drift_repair_agent",
    "sync": "orchestrator",
    "upgrade": "drift_repair_agent",
}
STEPS = {
    "onboard": ("source", "discover", "connection", "finish"),
    "apply": ("update", "look", "finish"),
    "sync": ("job", "finish"),
    "upgrade": ("state", "upgrade", "look", "observe", "finish"),
}
PATH = {
    "onboard.source": "sources/create",
    "onboard.discover": "commands/run/discover",
    "onboard.connection": "connections/create",
    "onboard.look": "connections/get",
    "apply.update": "connections/update",
    "apply.look": "connections/get",
    "sync.job": "connections/sync",
    "upgrade.upgrade": "sources/upgrade_version",
}


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix."""

    id: str
    run: Callable[[World], Awaitable[None]]


class Case:
    """An operation in a world: its preparation, its request, its expected result."""

    def __init__(self, world: World, kind: Kind) -> None:
        self.world = world
        self.kind = kind
        self.connection: dict[str, Any] = {}
        self.order: dict[str, Any] = {}

    @classmethod
    async def prepared(cls, world: World, kind: Kind) -> Case:
        """Create a connection for all but an onboarding, and change the source for an apply.

        For an upgrade, a version with a breaking change is published.
        """
        case = cls(world, kind)
        await case._prepare()
        return case

    @classmethod
    async def ready(cls, world: World, kind: Kind) -> Case:
        """Prepare the operation, and start the service that runs it."""
        case = await cls.prepared(world, kind)
        await world.running(SERVICE[kind])
        return case

    async def _prepare(self) -> None:
        await self.world.running("orchestrator")
        if self.kind == "onboard":
            return
        client = (await self.world.running("orchestrator")).client
        answer = await client.post("/connections/onboard", json=ORDER)
        assert answer.status_code == 201, answer.text
        self.connection = answer.json()
        if self.kind == "upgrade":
            self.world.airbyte.publish_version("3.0.0", breaking=True)
        if self.kind == "apply":
            self.order = await self.changed(client)

    async def changed(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Build the order for a changed source: one more field, selected."""
        catalog = (
            await client.get(f"/connections/{self.connection['id']}/catalog-versions/1")
        ).json()
        fields = catalog["streams"][0]["stream"]["jsonSchema"]["properties"]
        fields["Region__c"] = {"type": ["null", "string"]}
        return {"connection_id": self.connection["id"], "sync_catalog": catalog}

    async def ask(
        self, *, wait: float = 20, headers: dict[str, str] | None = None, replica: str = ""
    ) -> httpx.Response:
        """Send the request of the operation."""
        process = await self.world.running_or_armed(SERVICE[self.kind] + replica)
        path, body = {
            "onboard": ("/connections/onboard", ORDER),
            "apply": ("/repair/apply_new_catalog", self.order),
            "sync": (f"/connections/{self.connection.get('id')}/sync", None),
            "upgrade": (f"/connections/{self.connection.get('id')}/connector/upgrade", None),
        }[self.kind]
        return await process.client.post(
            path, params={"wait": str(wait)}, json=body, headers=headers or {}
        )

    async def left(self, outcome: Outcome) -> None:
        """Assert that the world converges to the state that the outcome describes."""
        await self.world.converged()
        rows = await self.world.fetch("SELECT * FROM connections")
        if self.kind == "onboard":
            await self._left_by_onboarding(outcome, rows)
        elif self.kind == "apply":
            assert [(row["status"], row["catalog_version"]) for row in rows] == [
                ("ACTIVE", 2 if outcome == "F" else 1)
            ]
            assert self.world.airbyte.most_at_once("connections/update") <= 1
        elif self.kind == "upgrade":
            assert [(row["status"], row["catalog_version"]) for row in rows] == [("ACTIVE", 1)]
            pinned = [
                row for row in rows if str(row["airbyte_source_id"]) in self.world.airbyte.pins
            ]
            assert len(pinned) == (0 if outcome == "F" else 1)
            known = await self.world.fetch("SELECT version FROM source_connectors")
            assert [row["version"] for row in known] == ["3.0.0" if outcome == "F" else "2.10.3"]
        else:
            jobs = await self.world.fetch("SELECT airbyte_job_id FROM job_history")
            assert len(self.world.airbyte.jobs) == (1 if outcome == "F" else 0)
            assert [row["airbyte_job_id"] for row in jobs] == list(self.world.airbyte.jobs)

    async def _left_by_onboarding(self, outcome: Outcome, rows: list[Any]) -> None:
        airbyte = self.world.airbyte
        if outcome == "N":
            assert rows == []
            assert await self.world.fetch("SELECT id FROM operations") == []
        elif outcome == "F":
            assert [(row["status"], row["catalog_version"]) for row in rows] == [("ACTIVE", 1)]
            assert (len(airbyte.sources), len(airbyte.connections)) == (1, 1)
        else:
            assert [row["status"] for row in rows] == ["FAILED"]
            assert rows[0]["failure_code"]
        if outcome != "F":
            assert (airbyte.sources, airbyte.connections) == ({}, {})
