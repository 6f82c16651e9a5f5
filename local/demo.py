"""The main job from start to end, on a throw-away mesh: every step is done, then checked.

Onboard a Salesforce org with the real connector, sync it, change the org, heal the catalog, sync
again, and read back what was told about all this.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis
from rich.console import Console
from rich.markup import escape

from local.airbyte.store import BY_NAME, InstallFailed, Store
from local.servers import ServerFailed
from local.settings import Settings
from local.stack import Refused, Stack, throw_away

ORDER = {
    "source_type": "Salesforce",
    "connection_name": "Salesforce demo",
    "credential_id": "salesforce-prod",
    "streams": ["Account", "Contact"],
}
NEW_FIELD = {
    "name": "Region__c",
    "type": "string",
    "values": ["North", "South", "East", "West"],
}
EVENTS = [
    "connection.onboarded",
    "sync.triggered",
    "sync.finished",
    "catalog.healing",
    "catalog.applied",
    "sync.triggered",
    "sync.finished",
]
SYNC_TIMEOUT_S = 120.0
EVENTS_TIMEOUT_S = 10.0


class Untrue(Exception):
    """A step did not do what it promises; the message says what was found instead."""


@dataclass
class Demo:
    """The steps; each answers the sentence that it has checked."""

    stack: Stack = field(init=False)
    connection_id: str = ""
    rows: Counter[str] = field(default_factory=Counter)

    async def onboard(self) -> str:
        """Wire the org to the warehouse."""
        made = await self._ask("orchestrator", "POST", "/connections/onboard", ORDER, expect=201)
        _require(made["status"] == "ACTIVE", f"its status is {made['status']}")
        _require(made["catalog_version"] == 1, f"its version is {made['catalog_version']}")
        self.connection_id = made["id"]
        return f"connection {self.connection_id} is ACTIVE at catalog version 1"

    async def sync(self) -> str:
        """Move the data, and count it where it arrives."""
        job = await self._sync()
        org = await self._ask("sample_org", "GET", "/org")
        for stream in ORDER["streams"]:
            there = await self._warehouse(f'SELECT count(*) FROM "{stream}"')  # noqa: S608
            offered = org["objects"][stream]["rows"]
            _require(there == offered > 0, f"{stream}: {there} rows of {offered} arrived")
            self.rows[stream] = there
        counts = ", ".join(f"{count} {stream}" for stream, count in self.rows.items())
        return f"job {job['airbyte_job_id']} succeeded; the warehouse holds {counts} rows"

    async def change(self) -> str:
        """Let the org gain a field that the catalog does not know."""
        told = await self._ask(
            "sample_org", "POST", "/org/objects/Account/fields", NEW_FIELD, expect=201
        )
        _require(not await self._has_new_column(), "the warehouse has the column already")
        return str(told["changed"])

    async def heal(self) -> str:
        """Ask the source what it offers now, and apply that as it stands."""
        proposal = await self._ask(
            "orchestrator", "POST", f"/connections/{self.connection_id}/discover"
        )
        applied = await self._ask(
            "drift_repair_agent", "POST", "/repair/apply_new_catalog", proposal
        )
        _require(applied["version_number"] == 2, f"the version is {applied['version_number']}")
        _require(applied["status"] == "ACTIVE", f"the status is {applied['status']}")
        diff = await self._ask(
            "orchestrator", "GET", f"/connections/{self.connection_id}/catalog-versions/1/diff/2"
        )
        added = [change["path"] for change in diff["schema_changes"]]
        _require(added == [["Region__c"]], f"version 2 differs in {added}")
        return "Airbyte holds catalog version 2, which differs by Account.Region__c alone"

    async def sync_again(self) -> str:
        """Move the data again: the new column comes, no row is doubled."""
        await self._sync()
        _require(await self._has_new_column(), "the warehouse has no column Region__c")
        there = await self._warehouse('SELECT count(*) FROM "Account"')
        _require(there == self.rows["Account"], f"Account holds {there} rows now")
        found = await self._warehouse(
            'SELECT json_object_agg(v, n)::text FROM (SELECT "Region__c" v, count(*) n'
            ' FROM "Account" GROUP BY 1 HAVING "Region__c" IS NOT NULL) found'
        )
        values: dict[str, int] = json.loads(str(found or "{}"))
        _require(sorted(values) == sorted(NEW_FIELD["values"]), f"its values are {list(values)}")
        _require(sum(values.values()) == there, f"{sum(values.values())} rows of {there} have one")
        told = ", ".join(f"{count} {value}" for value, count in sorted(values.items()))
        return f"column Region__c is there, with its values: {told}"

    async def read_events(self) -> str:
        """Read what everybody else was told about this connection."""
        deadline = time.monotonic() + EVENTS_TIMEOUT_S
        told: list[dict[str, str]] = []
        async with Redis.from_url(self.stack.valkey.url, decode_responses=True) as redis:
            while len(told) < len(EVENTS) and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                entries: Any = await redis.xrange("aam.events")
                told = [e for _id, e in entries if e["connection_id"] == self.connection_id]
        types = [event["type"] for event in told]
        _require(types == EVENTS, f"the stream aam.events tells {types}")
        numbers = [int(event["seq"]) for event in told]
        _require(numbers == sorted(set(numbers)), f"their order is {numbers}")
        return f"{len(told)} events on aam.events, in order: {' → '.join(types)}"

    async def _sync(self) -> dict[str, Any]:
        path = f"/connections/{self.connection_id}"
        started = await self._ask("orchestrator", "POST", f"{path}/sync", expect=202)
        deadline = time.monotonic() + SYNC_TIMEOUT_S
        while time.monotonic() < deadline:
            for job in await self._ask("orchestrator", "GET", f"{path}/jobs"):
                if job["job_id"] == started["job_id"] and job["ended_at"]:
                    _require(job["status"] == "succeeded", f"the job ended as {job['status']}")
                    return dict(job)
            await asyncio.sleep(0.3)
        raise Untrue(f"the job had not ended after {SYNC_TIMEOUT_S:g} s")

    async def _has_new_column(self) -> bool:
        return bool(
            await self._warehouse(
                "SELECT count(*) FROM information_schema.columns"
                " WHERE table_name = 'Account' AND column_name = 'Region__c'"
            )
        )

    async def _warehouse(self, query: str) -> Any:
        connection = await asyncpg.connect(self.stack.postgres.url_of("warehouse"), timeout=10)
        try:
            return await connection.fetchval(query, timeout=30)
        finally:
            await connection.close()

    async def _ask(
        self, name: str, method: str, path: str, body: Any = None, *, expect: int = 200
    ) -> Any:
        address = self.stack.url_of(name).removeprefix("http://")
        status, answer = await asyncio.to_thread(_request, address, method, path, body)
        told = answer.get("detail", "") if isinstance(answer, dict) else ""
        _require(status == expect, f"{name} answered {status} to {method} {path}: {told}")
        return answer


def _request(address: str, method: str, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise Untrue(f"{method} {path} had no answer: {error!r}") from error
    finally:
        connection.close()


def _require(fact: bool, otherwise: str) -> None:
    if not fact:
        raise Untrue(otherwise)


class Steps:
    """Numbers the steps, and prints each with what it found and how long it took."""

    def __init__(self, console: Console, count: int, *, logs: Path) -> None:
        self._console = console
        self._count = count
        self._logs = logs
        self._number = 0

    async def take(self, title: str, work: Callable[[], Awaitable[str]]) -> None:
        """Do one step; what it finds untrue ends the demo.

        Raises:
            SystemExit: with the line that says where the logs are.
        """
        self._number += 1
        began = time.monotonic()
        with self._console.status(f"{title} ..."):
            try:
                found, is_true = await work(), True
            except (Untrue, ServerFailed, Refused, InstallFailed) as error:
                found, is_true = str(error), False
        mark = "[green]✓[/]" if is_true else "[red]✗[/]"
        took = f"{time.monotonic() - began:.1f} s"
        self._console.print(f"{mark} [bold]{self._number}/{self._count} {title}[/]  [dim]{took}[/]")
        self._console.print(f"      {escape(found)}")
        if not is_true:
            raise SystemExit(f"This step was not true. The logs are in {self._logs}.")


async def run() -> None:
    """Do it all and tell a person.

    Raises:
        SystemExit: a step was not true; it has been said which.
    """
    began = time.monotonic()
    this = asyncio.current_task()
    assert this is not None  # noqa: S101 (a coroutine that runs has a task)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    settings = Settings()
    console = Console(highlight=False, soft_wrap=True)
    steps = Steps(console, 9, logs=settings.state_dir / "demo-logs")
    demo = Demo()
    async with AsyncExitStack() as cleanup:

        async def install() -> str:
            salesforce = BY_NAME["source-salesforce"]
            await asyncio.to_thread(Store(settings.connectors_dir).install, salesforce)
            return f"{salesforce.package} {salesforce.version}, in an environment of its own"

        async def start() -> str:
            demo.stack = await cleanup.enter_async_context(
                throw_away(
                    settings=settings,
                    say=partial(console.print, markup=False),
                    keep_logs=settings.state_dir / "demo-logs",
                )
            )
            return f"{len(demo.stack.processes)} processes are ready, on ports of their own"

        async def stop() -> str:
            pids = [server.pid for server in demo.stack.processes]
            await cleanup.aclose()
            _require(not any(map(_is_alive, pids)), "a process is left")
            return "no process and no file is left"

        await steps.take("Have Airbyte's Salesforce connector", install)
        await steps.take("Start a throw-away mesh", start)
        await steps.take("Onboard Salesforce's Account and Contact", demo.onboard)
        await steps.take("Sync", demo.sync)
        await steps.take("Let the org gain a field", demo.change)
        await steps.take("Discover, and apply the new catalog", demo.heal)
        await steps.take("Sync again", demo.sync_again)
        await steps.take("Read the events back", demo.read_events)
        await steps.take("Stop the mesh", stop)
    took = f"{time.monotonic() - began:.1f} s"
    console.print(f"[green]Every step was checked and true[/], in {took}.")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
