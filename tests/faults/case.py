"""Runs one operation in a world, for the cells of the fault matrix.

Outcomes: F completed exactly once; B rolled back, with nothing left; N nothing was recorded;
R refused, with no change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tests.fakes.airbyte_server import DEFAULT_CATALOG
from tests.faults.world import ORDER, World

Outcome = Literal["F", "B", "N", "R"]
Kind = str
"""onboard, apply, sync, edit, cancel, refresh, upgrade, or reselect.

reselect is an apply that refreshes a stream of a global state.
"""

SERVICE: dict[str, str] = {
    "onboard": "orchestrator",
    "apply": "drift_repair_agent",
    "sync": "orchestrator",
    "edit": "orchestrator",
    "cancel": "orchestrator",
    "refresh": "orchestrator",
    "reselect": "drift_repair_agent",
    "upgrade": "drift_repair_agent",
}
OPERATION: dict[str, str] = {"reselect": "apply"}
"""The operation's kind in the names of failpoints, if it differs from the case's kind."""
EXPECTED = {"onboard": 201, "apply": 200, "sync": 202, "edit": 200, "cancel": 200, "refresh": 202}
EXPECTED |= {"reselect": 200, "upgrade": 200}
"""The status of the response when the operation is completed."""
STEPS = {
    "onboard": ("source", "discover", "claim", "connection", "finish"),
    "apply": ("state", "update", "look", "finish"),
    "sync": ("job", "finish"),
    "edit": ("state", "settings", "finish"),
    "cancel": ("cancel", "finish"),
    "refresh": ("job", "finish"),
    "reselect": ("newest_job", "refresh"),
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
    "edit.settings": "connections/update",
    "cancel.cancel": "jobs/cancel",
    "refresh.job": "connections/refresh",
    "reselect.refresh": "connections/refresh",
    "upgrade.upgrade": "sources/upgrade_version",
}
EDIT = {"name": "CRM", "prefix": "crm_", "paused": True, "labels": {"team": "sales"}}


@dataclass(frozen=True)
class Cell:
    """One cell of the matrix."""

    id: str
    run: Callable[[World], Awaitable[None]]


class Case:
    """One operation in a world: preparation, request, and checks of the outcome."""

    def __init__(self, world: World, kind: Kind) -> None:
        self.world = world
        self.kind = kind
        self.connection: dict[str, Any] = {}
        self.order: dict[str, Any] = {}
        self.job: dict[str, Any] = {}

    @classmethod
    async def prepared(cls, world: World, kind: Kind) -> Case:
        """Create the preconditions of the operation, such as an onboarded connection."""
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
        if self.kind == "cancel":
            started = await client.post(f"/connections/{self.connection['id']}/sync")
            assert started.status_code == 202, started.text
            self.job = started.json()
        if self.kind == "reselect":
            self.order = await self._with_another_stream(client)

    async def changed(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Build a request to apply a catalog with one more selected field."""
        catalog = (
            await client.get(f"/connections/{self.connection['id']}/catalog-versions/1")
        ).json()
        fields = catalog["streams"][0]["stream"]["jsonSchema"]["properties"]
        fields["Region__c"] = {"type": ["null", "string"]}
        return {"connection_id": self.connection["id"], "sync_catalog": catalog}

    async def _with_another_stream(self, client: httpx.AsyncClient) -> dict[str, Any]:
        """Build a request to select a stream that has an entry in a global state."""
        path = f"/connections/{self.connection['id']}/catalog-versions/1"
        catalog = (await client.get(path)).json()
        (pair,) = [
            one for one in DEFAULT_CATALOG["streams"] if one["stream"]["name"] == "Opportunity"
        ]
        more = {**pair, "config": {**pair["config"], "selected": True}}
        airbyte_id = self.connection["airbyte_connection_id"]
        self.world.airbyte.put_states(airbyte_id, "global", {(None, "Opportunity"): {"at": 1}})
        return {
            "connection_id": self.connection["id"],
            "sync_catalog": {"streams": [*catalog["streams"], more]},
            "on_global_state": "refresh",
        }

    async def ask(
        self, *, wait: float = 20, headers: dict[str, str] | None = None, replica: str = ""
    ) -> httpx.Response:
        """Send the operation's request."""
        process = await self.world.running_or_armed(SERVICE[self.kind] + replica)
        of_connection = f"/connections/{self.connection.get('id')}"
        method, path, body = {
            "onboard": ("POST", "/connections/onboard", ORDER),
            "apply": ("POST", "/repair/apply_new_catalog", self.order),
            "reselect": ("POST", "/repair/apply_new_catalog", self.order),
            "upgrade": ("POST", f"{of_connection}/connector/upgrade", None),
            "sync": ("POST", f"{of_connection}/sync", None),
            "edit": ("PATCH", of_connection, EDIT),
            "cancel": ("POST", f"{of_connection}/jobs/{self.job.get('job_id')}/cancel", None),
            "refresh": (
                "POST",
                f"{of_connection}/streams/refresh",
                {"streams": [{"name": "Account"}]},
            ),
        }[self.kind]
        return await process.client.request(
            method, path, params={"wait": str(wait)}, json=body, headers=headers or {}
        )

    async def left(self, outcome: Outcome) -> None:
        """Assert that the world converges to the expected outcome."""
        await self.world.converged()
        rows = await self.world.fetch("SELECT * FROM connections")
        if self.kind == "onboard":
            await self._left_by_onboarding(outcome, rows)
        elif self.kind == "apply":
            assert [(row["status"], row["catalog_version"]) for row in rows] == [
                ("ACTIVE", 2 if outcome == "F" else 1)
            ]
            assert self.world.airbyte.most_at_once("connections/update") <= 1
        elif self.kind == "edit":
            await self._left_by_edit(outcome, rows)
        elif self.kind == "cancel":
            jobs = await self.world.fetch("SELECT status FROM job_history")
            status = "cancelled" if outcome == "F" else "running"
            assert [row["status"] for row in jobs] == [status]
            assert [job["status"] for job in self.world.airbyte.jobs.values()] == [status]
        elif self.kind == "reselect":
            self._left_by_refreshing(outcome, rows)
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

    def _left_by_refreshing(self, outcome: Outcome, rows: list[Any]) -> None:
        """Assert that the stream is selected and was refreshed once, or neither."""
        airbyte = self.world.airbyte
        (held,) = airbyte.connections.values()
        names = {pair["stream"]["name"] for pair in held["syncCatalog"]["streams"]}
        kinds = [job["configType"] for job in airbyte.jobs.values()]
        is_done = outcome == "F"
        assert [(row["status"], row["catalog_version"]) for row in rows] == [
            ("ACTIVE", 2 if is_done else 1)
        ]
        assert ("Opportunity" in names, kinds) == (is_done, ["refresh"] if is_done else [])

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

    async def _left_by_edit(self, outcome: Outcome, rows: list[Any]) -> None:
        """Assert that Airbyte and the registry have all of the new settings, or none of them."""
        (held,) = self.world.airbyte.connections.values()
        name, _, marker = held["name"].rpartition(" ")
        is_done = outcome == "F"
        assert marker.startswith("[aam:")
        assert name == (EDIT["name"] if is_done else ORDER["connection_name"])
        assert (held.get("prefix") or "") == (EDIT["prefix"] if is_done else "")
        assert held["status"] == ("inactive" if is_done else "active")
        assert [row["name"] for row in rows] == [name]
        assert (rows[0]["pause_requested_by"] is not None) is is_done
        changes = await self.world.fetch("SELECT id FROM setting_changes")
        events = await self.world.fetch("SELECT id FROM events WHERE type = 'connection.edited'")
        assert len(changes) == len(events) == (1 if is_done else 0)
