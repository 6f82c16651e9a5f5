"""An attempt is one hostile request; after each, the world must be as it was."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.outbox import STREAM
from tests.integration.conftest import TABLES, Mesh

CANARY = "AAMCANARY-hostile-input"
JSON = {"Content-Type": "application/json"}
APPLY = "/repair/apply_new_catalog"
ONBOARD = "/connections/onboard"
LONGEST_S = 2.0
_OWN_WORK = {"looks", "pgqueuer", "pgqueuer_log", "observations", "discoveries"}
"""Tables that change by the services' own work, which goes on meanwhile."""
_COUNTED = {"events", "watches", "plans"}
"""Tables in which the services note when they did what; their rows are counted alone."""
_EFFECTS = ("create", "update", "delete", "sync", "run/discover", "check_connection")


@dataclass(frozen=True)
class Attempt:
    """One request, and what may be answered: status and code."""

    what: str
    content: bytes | AsyncIterator[bytes]
    answers: tuple[int, str]
    path: str = APPLY
    headers: Mapping[str, str] | list[tuple[str, str]] = field(default_factory=lambda: JSON)
    method: str = "POST"
    service: str = ""
    """Empty: the one whose path it is."""

    @property
    def to(self) -> str:
        """The service that it goes to."""
        ours = "drift_repair_agent" if self.path.startswith(APPLY) else "orchestrator"
        return self.service or ours


@dataclass
class World:
    """The mesh with one connection."""

    mesh: Mesh
    connection: dict[str, Any]
    order: bytes
    """An order to apply that would be taken, with the string "@@" where poison goes."""
    before: dict[str, Any]

    @classmethod
    async def of(cls, mesh: Mesh) -> World:
        """One connection, and an order that selects one field less of it."""
        connection = await mesh.onboard()
        merged = await mesh.orchestrator.post(f"/connections/{connection['id']}/discover")
        order = merged.json()
        for pair in order["sync_catalog"]["streams"]:
            pair["stream"]["jsonSchema"]["description"] = "@@"
        order["notes"] = [CANARY]
        world = cls(mesh, connection, json.dumps(order).encode(), {})
        world.before = await world.seen()
        return world

    def poisoned(self, poison: bytes) -> bytes:
        """The order, with this JSON in it."""
        return self.order.replace(b'"@@"', poison)

    async def seen(self) -> dict[str, Any]:
        """All that could have changed, once what was done before has been told of."""
        found: dict[str, Any] = {}
        waiting = "SELECT count(*) FROM events WHERE published_at IS NULL"
        async with asyncio.timeout(10):
            while await self.mesh.sql.fetchval(waiting):  # noqa: ASYNC110 (another's doing)
                await asyncio.sleep(0.01)
        for table in {*TABLES} - _OWN_WORK:
            rows = "''" if table in _COUNTED else "md5(string_agg(t::text, '' ORDER BY t::text))"
            row = await self.mesh.sql.fetchrow(f"SELECT count(*), {rows} FROM {table} t")  # noqa: S608 (our tables)
            found[table] = tuple(row or ())
        airbyte = self.mesh.airbyte
        found["airbyte"] = copy.deepcopy(
            [airbyte.sources, airbyte.connections, airbyte.destinations, list(airbyte.jobs)]
        )
        found["redis"] = await self.mesh.redis.xlen(STREAM)
        found["sent"] = sum(one.path.endswith(_EFFECTS) for one in airbyte.requests)
        return found

    async def withstands(self, attempt: Attempt) -> httpx.Response:
        """Send it; all that must hold of the answer, and of what is left, holds."""
        client: httpx.AsyncClient = getattr(self.mesh, attempt.to)
        self.before = await self.seen()
        began = time.perf_counter()
        answer = await client.request(
            attempt.method, attempt.path, content=attempt.content, headers=attempt.headers
        )
        took = time.perf_counter() - began
        expect_problem(answer, attempt.answers, attempt.what)
        assert took < LONGEST_S, (attempt.what, took)
        after = await self.seen()
        changed = [name for name in after if after[name] != self.before[name]]
        assert not changed, (attempt.what, changed)
        health = await client.get("/health")
        assert health.status_code == 200, attempt.what
        return answer


def expect_problem(answer: httpx.Response, expected: tuple[int, str], what: str) -> None:
    """A problem of this status and code, that tells nothing of what was sent."""
    assert answer.headers["content-type"] == "application/problem+json", what
    told = answer.json()
    assert (answer.status_code, told["code"]) == expected, (what, answer.text)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= told.keys(), what
    assert told["type"] == f"urn:aam:problem:{told['code']}", what
    assert CANARY not in answer.text, what
    assert all(set(one) == {"field", "type", "message"} for one in told.get("fields", ())), what
