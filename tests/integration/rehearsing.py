"""Dry runs before real requests: a transport that sends both, and compares what they return.

It is put before the drift_repair_agent's own transport, so that any test compares the two as a side
effect of its approvals, rollbacks and catalogs.
"""

from __future__ import annotations

import re
from typing import Any, Final

import httpx
import orjson

from tests.integration.conftest import Mesh

Json = dict[str, Any]

_REHEARSED: Final = re.compile(
    r"/repairs/[^/]+/approve|/connections/[^/]+/rollback|/repair/apply_new_catalog"
)
_WRITES: Final = re.compile(r".*/(create|update|delete|sync|reset|refresh|clear|cancel)(_\w+)?")
# Without what periodic tasks write about repairs that wait.
_VOLATILE: Final = (
    "ARRAY['next_at', 'attempts', 'failure_code', 'deadline_at', 'updated_at', 'is_learned',"
    " 'learn_attempts', 'learn_next_at', 'not_learned']"
)
_ROWS: Final = {
    "connections": "to_jsonb(t)",
    "repairs": f"to_jsonb(t) - {_VOLATILE}",
    "operations": "jsonb_build_array(t.id)",
    "events": "jsonb_build_array(t.id)",
    **dict.fromkeys(
        ("sync_catalog_versions", "plans", "stream_states", "knowledge", "policies"), "to_jsonb(t)"
    ),
}


class Rehearsing(httpx.AsyncBaseTransport):
    """Sends each decision as a dry run first, which must change nothing and return the same."""

    def __init__(self, inner: httpx.AsyncBaseTransport, mesh: Mesh) -> None:
        self._inner = inner
        self._mesh = mesh
        self.outcomes: list[str] = []
        """The outcome or the error's code of each dry run, in order."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, after its dry run where it has one."""
        is_rehearsed = request.method == "POST" and _REHEARSED.fullmatch(request.url.path)
        if not is_rehearsed or "dry_run" in request.url.params:
            return await self._inner.handle_async_request(request)
        headers = [one for one in request.headers.raw if one[0].lower() != b"idempotency-key"]
        rehearsal = httpx.Request(
            "POST",
            request.url.copy_merge_params({"dry_run": "true"}),
            headers=headers,
            content=await request.aread(),
            extensions=request.extensions,
        )
        # What an earlier decision taught is recorded in the background.
        await self._mesh.until_true("SELECT NOT EXISTS (SELECT FROM repairs WHERE NOT is_learned)")
        before, sent = await self._rows(), len(self._mesh.airbyte.requests)
        dry = await self._inner.handle_async_request(rehearsal)
        expected = orjson.loads(await dry.aread())
        assert await self._rows() == before, str(request.url)
        assert self._writes(sent) == []
        sent = len(self._mesh.airbyte.requests)
        real = await self._inner.handle_async_request(request)
        found = orjson.loads(await real.aread())
        self.outcomes.append(expected.get("outcome") or expected["code"])
        if "idempotency-replayed" not in real.headers:
            self._compare(dry.status_code, expected, real.status_code, found, self._writes(sent))
        return real

    def _compare(self, dry: int, expected: Json, real: int, found: Json, writes: list[str]) -> None:
        both = (expected, found)
        if dry >= 400:
            assert (dry, _shown(expected)) == (real, _shown(found))
            return
        assert dry == 200, both
        if real >= 400:
            assert writes, both  # Airbyte itself refused it, which only a real request can meet
            return
        outcome, problems = expected["outcome"], expected["catalog"]["problems"]
        if found.get("changed") is False:
            assert outcome == "unchanged", both
        elif (state := found.get("state")) is None or writes:
            assert outcome == "applied", both  # a catalog, or an operation that has begun
        elif state == "proposed":
            assert outcome == "first_approval", both
        elif state == "failed":
            assert (outcome, problems[0]["code"]) == ("failed", found["failure_code"]), both
        elif state == "applied":
            assert outcome == "unchanged", both
        else:
            is_waiting = ("applied", found["waits_for"])
            assert (outcome, expected["waits_for"]) == is_waiting, both

    def _writes(self, since: int) -> list[str]:
        paths = [one.path for one in self._mesh.airbyte.requests[since:]]
        return [path for path in paths if _WRITES.fullmatch(path)]

    async def _rows(self) -> Json:
        return {
            name: await self._mesh.sql.fetchval(
                f"SELECT md5(string_agg(CAST({row} AS text), '' ORDER BY t.id)) FROM {name} t"  # noqa: S608
                if name not in ("plans", "policies")
                else f"SELECT md5(string_agg(CAST({row} AS text), '' ORDER BY t.connection_id))"  # noqa: S608
                f" FROM {name} t"
            )
            for name, row in _ROWS.items()
        }


def _shown(problem: Json) -> Json:
    """An error without what differs between two requests."""
    return {
        name: value for name, value in problem.items() if name not in ("request_id", "instance")
    }


def rehearse(mesh: Mesh) -> Rehearsing:
    """Let each decision that the mesh's client sends be rehearsed first."""
    transport = Rehearsing(mesh.drift_repair_agent._transport, mesh)
    mesh.drift_repair_agent._transport = transport
    return transport
