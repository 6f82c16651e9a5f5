"""A client of a running mesh: the requests that a person would make, each checked."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg
from redis.asyncio import Redis

from local.supervisor import Stack

Json = dict[str, Any]
T = TypeVar("T")

PERSON = "Ada"
SYNC_TIMEOUT_S = 120.0
REPAIR_TIMEOUT_S = 60.0
POLL_S = 0.2


class StepFailed(Exception):
    """A step did not have the expected result; the message says what was found instead."""


@dataclass
class Mesh:
    """Access to a running mesh."""

    stack: Stack

    async def ask(
        self, name: str, method: str, path: str, body: Any = None, *, expect: int = 200
    ) -> Any:
        """Call a process of the stack, and return its JSON response; None for an empty one.

        Raises:
            StepFailed: it returns another status, or does not respond.
        """
        address = self.stack.url_of(name).removeprefix("http://")
        header, _, value = self.stack.auth_file_of(name).read_text().strip().partition(": ")
        headers = {"Content-Type": "application/json", header: value}
        status, answer = await asyncio.to_thread(_request, address, method, path, body, headers)
        detail = answer.get("detail", "") if isinstance(answer, dict) else ""
        require(status == expect, f"{name} answered {status} to {method} {path}: {detail}")
        return answer

    async def change(self, method: str, path: str, body: Json | None = None) -> str:
        """Change the org; returns its sentence about the change."""
        is_new = method == "POST" and (not path or path.endswith("/fields"))
        response = await self.ask(
            "sample_org", method, f"/org/objects{path}", body, expect=201 if is_new else 200
        )
        return str(response["changed"])

    async def in_airbyte(self, endpoint: str, **body: Any) -> Any:
        """Call Airbyte's own API."""
        return await self.ask("airbyte", "POST", f"/api/v1/{endpoint}", body)

    async def warehouse(self, query: str) -> Any:
        """Query one value from the warehouse."""
        connection = await asyncpg.connect(self.stack.postgres.warehouse_url, timeout=10)
        try:
            return await connection.fetchval(query, timeout=30)
        finally:
            await connection.close()

    async def has_column(self, table: str, column: str) -> bool:
        """Whether a table of the warehouse has the column."""
        return bool(
            await self.warehouse(
                "SELECT count(*) FROM information_schema.columns"  # noqa: S608 (constant names)
                f" WHERE table_name = '{table}' AND column_name = '{column}'"
            )
        )

    async def count(self, table: str, where: str = "TRUE") -> int:
        """The number of rows of a synced table."""
        return int(await self.warehouse(f'SELECT count(*) FROM "{table}" WHERE {where}'))  # noqa: S608 (constant names)

    async def events(self, connection_id: str) -> list[dict[str, str]]:
        """A connection's events on the stream aam.events so far."""
        async with Redis.from_url(self.stack.valkey.url, decode_responses=True) as redis:
            entries: Any = await redis.xrange("aam.events")
        return [event for _id, event in entries if event["connection_id"] == connection_id]


@dataclass
class MeshConnection:
    """A connection of the mesh, with the requests that a person would make about it."""

    mesh: Mesh
    id: str

    @property
    def path(self) -> str:
        """The path of its routes."""
        return f"/connections/{self.id}"

    async def view(self) -> Json:
        """The connection as the orchestrator shows it."""
        found: Json = await self.mesh.ask("orchestrator", "GET", self.path)
        return found

    async def version(self) -> int:
        """The number of its current catalog version."""
        return int((await self.view())["catalog_version"])

    async def upstream(self) -> Json:
        """The connection as Airbyte holds it."""
        airbyte_id = (await self.view())["airbyte_connection_id"]
        found: Json = await self.mesh.in_airbyte("connections/get", connectionId=airbyte_id)
        return found

    async def synced(self) -> Json:
        """Start a sync, and return its job once it has succeeded."""
        started = await self.mesh.ask("orchestrator", "POST", f"{self.path}/sync", expect=202)

        async def ended() -> Json | None:
            jobs = await self.mesh.ask("orchestrator", "GET", f"{self.path}/jobs")
            found = (
                one
                for one in jobs["items"]
                if one["job_id"] == started["job_id"] and one["ended_at"]
            )
            return next(found, None)

        job = await until(ended, "the job's end", within_s=SYNC_TIMEOUT_S)
        require(job["status"] == "succeeded", f"the job ended as {job['status']}")
        return job

    async def observed(self, outcome: str) -> Json:
        """Observe the source now, and check the outcome."""
        found: Json = await self.mesh.ask(
            "schema_observer", "POST", f"{self.path}/observe?wait=120", {}
        )
        message = f"the outcome is {found['outcome']} ({found.get('detail')}), not {outcome}"
        require(found["outcome"] == outcome, message)
        return found

    async def drifts(self) -> list[Json]:
        """The drifts so far, newest first."""
        page = await self.mesh.ask("schema_observer", "GET", f"/drifts?connection_id={self.id}")
        return list(page["items"])

    async def repairs(self) -> list[Json]:
        """The repairs so far, newest first."""
        page = await self.mesh.ask("drift_repair_agent", "GET", f"/repairs?connection_id={self.id}")
        return list(page["items"])

    async def repair(self, snapshot_id: str, state: str) -> Json:
        """The repair planned for an observed snapshot, once it is in this state."""

        async def reached() -> Json | None:
            ours = [one for one in await self.repairs() if one["snapshot_id"] == snapshot_id]
            return next((one for one in ours if one["state"] == state), None)

        return await until(reached, f"a repair that is {state}", within_s=REPAIR_TIMEOUT_S)

    async def proposed(self) -> Json:
        """Observe the changed source; the complete repair that awaits a person's decision."""
        seen = (await self.observed("changed"))["snapshot_id"]
        waiting = await self.repair(seen, "proposed")
        whole: Json = await self.mesh.ask("drift_repair_agent", "GET", f"/repairs/{waiting['id']}")
        return whole

    async def decide(self, repair: Json, verdict: str, reason: str, **more: Any) -> Json:
        """Approve or reject a repair as a person; the repair after that."""
        order = {"by": PERSON, "reason": reason, **more}
        path = f"/repairs/{repair['id']}"
        await self.mesh.ask("drift_repair_agent", "POST", f"{path}/{verdict}", order)
        found: Json = await self.mesh.ask("drift_repair_agent", "GET", path)
        return found

    async def healed(self) -> Json:
        """Observe the changed source; the complete repair that was applied automatically."""
        seen = (await self.observed("changed"))["snapshot_id"]
        applied = await self.repair(seen, "applied")
        whole: Json = await self.mesh.ask("drift_repair_agent", "GET", f"/repairs/{applied['id']}")
        return whole


def require(fact: bool, otherwise: str) -> None:
    """Fail the step unless a fact is true.

    Raises:
        StepFailed: it is not.
    """
    if not fact:
        raise StepFailed(otherwise)


async def until(find: Callable[[], Awaitable[T | None]], what: str, *, within_s: float) -> T:
    """Poll until a result is found.

    Raises:
        StepFailed: nothing was found in time.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = await find()
        if found is not None:
            return found
        await asyncio.sleep(POLL_S)
    raise StepFailed(f"{what} did not happen within {within_s:g} s")


def _request(
    address: str, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            headers,
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise StepFailed(f"{method} {path} got no response: {error!r}") from error
    finally:
        connection.close()
