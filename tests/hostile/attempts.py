"""Hostile requests; after each one, no stored state may have changed."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.outbox import STREAM
from tests.integration.conftest import TABLES, Mesh
from tests.waiting import until_not

CANARY = "AAMCANARY-hostile-input"
JSON = {"Content-Type": "application/json"}
APPLY = "/repair/apply_new_catalog"
ONBOARD = "/connections/onboard"
LONGEST_S = 2.0
"""Of processor time. Ten times as long may pass, since the machine may have other work."""
_OWN_WORK = {"periodic_runs", "pgqueuer", "pgqueuer_log", "observations", "discoveries"}
"""Tables that the services' background tasks change meanwhile."""
_COUNTED = {"events", "watches", "plans", "connection_health"}
"""Tables with timestamps that the services update; only their rows are counted."""
_EFFECTS = ("create", "update", "delete", "sync", "run/discover", "check_connection")


@dataclass(frozen=True)
class Attempt:
    """One request, and the expected status and code."""

    what: str
    content: bytes | AsyncIterator[bytes]
    answers: tuple[int, str]
    path: str = APPLY
    headers: Mapping[str, str] | list[tuple[str, str]] = field(default_factory=lambda: JSON)
    method: str = "POST"
    service: str = ""
    """Empty: derived from the path."""

    @property
    def to(self) -> str:
        """The service that receives it."""
        ours = "drift_repair_agent" if self.path.startswith(APPLY) else "orchestrator"
        return self.service or ours


@dataclass
class World:
    """The mesh with one connection."""

    mesh: Mesh
    connection: dict[str, Any]
    order: bytes
    """A valid request to apply a catalog, with the placeholder "@@" for hostile JSON."""
    before: dict[str, Any]

    @classmethod
    async def of(cls, mesh: Mesh) -> World:
        """Onboard a connection, and build a request to apply its discovered catalog."""
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
        """Return the request body with this JSON in place of the placeholder."""
        return self.order.replace(b'"@@"', poison)

    async def seen(self) -> dict[str, Any]:
        """Return all state that a request could change, once all events are published."""
        found: dict[str, Any] = {}
        waiting = "SELECT count(*) FROM events WHERE published_at IS NULL"
        await until_not(lambda: self.mesh.sql.fetchval(waiting))
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
        """Send the request; check the response and its time, and that no state has changed."""
        client: httpx.AsyncClient = getattr(self.mesh, attempt.to)
        self.before = await self.seen()
        began, worked = time.monotonic(), time.process_time()
        answer = await client.request(
            attempt.method, attempt.path, content=attempt.content, headers=attempt.headers
        )
        took, work = time.monotonic() - began, time.process_time() - worked
        expect_problem(answer, attempt.answers, attempt.what)
        assert work < LONGEST_S, (attempt.what, work)
        assert took < 10 * LONGEST_S, (attempt.what, took)
        after = await self.seen()
        changed = [name for name in after if after[name] != self.before[name]]
        assert not changed, (attempt.what, changed)
        health = await client.get("/health")
        assert health.status_code == 200, attempt.what
        return answer


def expect_problem(answer: httpx.Response, expected: tuple[int, str], what: str) -> None:
    """Assert a problem response with this status and code that quotes nothing of the request."""
    assert answer.headers["content-type"] == "application/problem+json", what
    body = answer.json()
    assert (answer.status_code, body["code"]) == expected, (what, answer.text)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= body.keys(), what
    assert body["type"] == f"urn:aam:problem:{body['code']}", what
    assert CANARY not in answer.text, what
    assert all(set(one) == {"field", "type", "message"} for one in body.get("fields", ())), what
