"""The cells of the fault matrix: one operation, one step, one fault, and the expected outcome.

Outcomes: F completed exactly once; B rolled back, with nothing left; N nothing was recorded;
R refused, with no change.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from tests import access
from tests.fakes.airbyte_server import Fault
from tests.fakes.postgres_proxies import STORY, LossyCommit, moved
from tests.faults.proxy import Mode, Proxy
from tests.faults.world import ORDER, T_CALL, T_QUIET, World

Outcome = Literal["F", "B", "N", "R"]
Kind = str
"""onboard, apply or sync."""

SERVICE: dict[str, str] = {
    "onboard": "orchestrator",
    "apply": "drift_repair_agent",
    "sync": "orchestrator",
}
_STEPS = {
    "onboard": ("source", "discover", "connection", "finish"),
    "apply": ("update", "look", "finish"),
    "sync": ("job", "finish"),
}
_PATH = {
    "onboard.source": "sources/create",
    "onboard.discover": "commands/run/discover",
    "onboard.connection": "connections/create",
    "onboard.look": "connections/get",
    "apply.update": "connections/update",
    "apply.look": "connections/get",
    "sync.job": "connections/sync",
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

    async def prepare(self) -> None:
        """Create a connection for an apply or a sync, and change the source for an apply."""
        await self.world.running("orchestrator")
        if self.kind == "onboard":
            return
        client = (await self.world.running("orchestrator")).client
        answer = await client.post("/connections/onboard", json=ORDER)
        assert answer.status_code == 201, answer.text
        self.connection = answer.json()
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


# SIGKILL


def _killed(kind: Kind, point: str, outcome: Outcome, *, second: str = "") -> Cell:
    """Kill the process at a failpoint; `second` is another fault during recovery."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        name, failpoints = SERVICE[kind], f"{kind}.{point}=kill"
        if point.startswith("undo"):
            world.airbyte.fault(_PATH[f"{kind}.{_UNDONE_AT[kind]}"], 422)
        process = await world.replace(name, failpoints=failpoints)
        with suppress(httpx.TransportError):
            await case.ask()
        assert await process.died() == -signal.SIGKILL
        if second == "airbyte-503":
            world.airbyte.fault("*", 503, times=6)
        if second == "killed-again":
            # If nothing was recorded, recovery does not reach the failpoint again.
            again = await world.replace(name, failpoints=failpoints)
            if outcome != "N" and not point.startswith("intent") and point != "finish.after":
                assert await again.died(within=20) == -signal.SIGKILL
        await world.replace(name)
        await case.left(outcome)

    suffix = f"-then-{second}" if second else ""
    return Cell(f"{kind}-{point}-kill{suffix}", run)


_UNDONE_AT = {"onboard": "connection", "apply": "update", "sync": "job"}


def _points(kind: Kind) -> Iterator[tuple[str, Outcome]]:
    yield "intent.before", "N" if kind == "onboard" else "R"
    yield "intent.after", "F"
    for step in _STEPS[kind]:
        yield f"{step}.before", "F"
        yield f"{step}.after", "F"
    if kind != "sync":
        yield "undo.before", "B"
        yield "undo.after", "B"


def _kills() -> Iterator[Cell]:
    for kind in ("onboard", "apply", "sync"):
        for point, outcome in _points(kind):
            yield _killed(kind, point, outcome)


def _compounds() -> Iterator[Cell]:
    for kind in ("onboard", "apply", "sync"):
        for point, outcome in _points(kind):
            if point in ("intent.before", "finish.after") or point.endswith("look.before"):
                continue
            yield _killed(kind, point, outcome, second="airbyte-503")
            if point.endswith(".after") and point != "intent.after":
                yield _killed(kind, point, outcome, second="killed-again")


# SIGTERM


def _ended(kind: Kind, point: str) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        process = await world.replace(SERVICE[kind], failpoints=f"{kind}.{point}=term")
        answer = await case.ask()
        assert answer.status_code in (200, 201, 202), answer.text
        assert await process.died(within=10) == 0
        await world.replace(SERVICE[kind])
        await case.left("F")

    return Cell(f"{kind}-{point}-term", run)


def _terms() -> Iterator[Cell]:
    for kind, points in (
        (
            "onboard",
            (
                "intent.after",
                "source.before",
                "source.after",
                "discover.after",
                "connection.after",
            ),
        ),
        ("apply", ("intent.after", "update.before", "update.after", "look.after")),
        ("sync", ("intent.after", "job.before", "job.after")),
    ):
        for point in points:
            yield _ended(kind, point)


def _ended_while_it_hangs() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        world.settings = {
            "AIRBYTE_TIMEOUT": "30",
            "DISCOVER_TIMEOUT": "30",
            "OPERATION_DEADLINE": "300",
        }
        process = await world.replace("orchestrator")
        world.airbyte.fault("connections/create", "hang")
        asking = asyncio.create_task(case.ask())
        async with asyncio.timeout(10):
            while not world.airbyte.called("connections/create"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        process.signal(signal.SIGTERM)
        assert (await asking).status_code == 202
        assert await process.died(within=10) == 0
        world.settings = {}
        await world.replace("orchestrator")
        await case.left("F")

    return Cell("onboard-connection-term_while_it_hangs", run)


# Airbyte

_SAYS_NOTHING: tuple[tuple[str, Fault, bool], ...] = (
    ("timeout_before", "hang", False),
    ("timeout_after", "hang", True),
    ("409_before", 409, False),
    ("409_after", 409, True),
    ("500_before", 500, False),
    ("500_after", 500, True),
    ("502html_before", "html_502", False),
    ("502html_after", "html_502", True),
    ("reset_before", "reset", False),
    ("reset_after", "reset", True),
    ("empty200_after", "empty_200", True),
    ("other200_after", "other_200", True),
    ("truncated_after", "truncated", True),
    ("garbage_after", "garbage", True),
    ("close_before", "close", False),
)
_SAYS_NO: tuple[tuple[str, Fault, int], ...] = (
    ("400", 400, 422),
    ("401", 401, 502),
    ("403", 403, 502),
    ("422", 422, 422),
)


def _faulted(
    kind: Kind,
    step: str,
    name: str,
    fault: Fault,
    outcome: Outcome,
    *,
    after_effect: bool = False,
    times: int = 1,
    status: int | None = None,
) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        world.airbyte.fault(
            _PATH[f"{kind}.{step}"], fault, after_effect=after_effect, times=times, seconds=0.1
        )
        answer = await case.ask()
        expected = {"onboard": 201, "apply": 200, "sync": 202}[kind] if outcome == "F" else status
        assert answer.status_code == expected, answer.text
        await case.left(outcome)

    return Cell(f"{kind}-{step}-{name}", run)


def _unclear() -> Iterator[Cell]:
    for place in _PATH:
        kind, step = place.split(".")
        for name, fault, after_effect in _SAYS_NOTHING:
            if step in ("look", "discover") and (after_effect or name == "close_before"):
                continue
            if (kind, step, name) in _NOT_A_CELL:
                continue
            yield _faulted(
                kind,
                step,
                name,
                fault,
                "F",
                after_effect=after_effect,
                # The client itself retries reads, so fail more often than it tries.
                times=4 if step in ("look", "discover") else 1,
            )
        if step not in ("look", "discover"):
            yield _faulted(kind, step, "500_twice", 500, "F", times=2)


_NOT_A_CELL = {
    # Airbyte reports a running job, and there is one; see `conflict_after_effect`.
    ("sync", "job", "409_after"),
}


def _refused() -> Iterator[Cell]:
    for place in ("onboard.source", "onboard.connection", "apply.update", "sync.job"):
        kind, step = place.split(".")
        for name, fault, status in _SAYS_NO:
            yield _faulted(
                kind,
                step,
                name,
                fault,
                "B" if kind == "onboard" else "R",
                status=status,
            )
    yield _faulted("onboard", "source", "lie", "lie", "B", status=502)
    yield _faulted("onboard", "connection", "lie", "lie", "B", status=502)
    yield _faulted("apply", "update", "lie", "lie", "F")
    yield _faulted("apply", "update", "lie_always", "lie", "R", times=3, status=502)


# Unavailable servers


def _database_away(kind: Kind, step: str) -> Cell:
    """Stop Postgres during a step, and start it again."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        path = _PATH[f"{kind}.{step}"]
        world.airbyte.fault(path, "slow", seconds=T_CALL * 0.7, after_effect=True)
        loop = asyncio.get_running_loop()
        asking = asyncio.create_task(case.ask(wait=25))
        before = len(world.airbyte.called(path))
        async with asyncio.timeout(10):
            while len(world.airbyte.called(path)) == before and not asking.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await loop.run_in_executor(None, world.postgres.stop)
        await asyncio.sleep(T_CALL)
        await loop.run_in_executor(None, world.postgres.start)
        answer = await asking
        assert answer.status_code in (200, 201, 202), answer.text
        await case.left("F")

    return Cell(f"{kind}-{step}-database_away", run)


def _database_away_at_the_door(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, world.postgres.stop)
        try:
            answer = await case.ask(wait=5)
        finally:
            await loop.run_in_executor(None, world.postgres.start)
        assert answer.status_code == 503, answer.text
        assert answer.headers["retry-after"] == "1"
        await case.left("N" if kind == "onboard" else "R")

    return Cell(f"{kind}-intent-database_away", run)


def _commit_lost(kind: Kind, spared: int, *, is_durable: bool) -> Cell:
    """Lose the response to one of the operation's commits."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        url = world.postgres.url_for(SERVICE[kind])
        proxy = LossyCommit(url, delivers=is_durable, spared=spared, about=STORY)
        asleep = ("JOB_POLL_INTERVAL", "EVENT_RELAY_INTERVAL", "SWEEP_INTERVAL")
        async with proxy.opened() as port:
            world.settings = {
                **dict.fromkeys((*asleep, "RECONCILE_INTERVAL"), "600"),
                **access.environment(),
                "SUPABASE_DB_URL": f"{moved(url, port)}?sslmode=disable",
            }
            await world.replace(SERVICE[kind])
            await proxy.until_quiet()  # its first background tasks commit, too
            proxy.is_armed = True
            answer = await case.ask()
            assert proxy.has_cut.is_set()
            assert answer.status_code in (200, 201, 202), answer.text
            world.settings = {}
            await world.replace(SERVICE[kind])
        await case.left("F")

    which = f"commit_{spared + 1}_{'durable' if is_durable else 'not_durable'}"
    return Cell(f"{kind}-{which}-answer_lost", run)


def _commits_lost() -> Iterator[Cell]:
    for kind, commits in (("onboard", 3), ("apply", 2), ("sync", 2)):
        for spared in range(commits):
            yield _commit_lost(kind, spared, is_durable=True)
            yield _commit_lost(kind, spared, is_durable=False)


def _redis_away(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, world.valkey.stop)
        try:
            answer = await case.ask()
        finally:
            await loop.run_in_executor(None, world.valkey.start)
        assert answer.status_code in (200, 201, 202), answer.text
        await case.left("F")

    return Cell(f"{kind}-event-redis_away", run)


def _relay_killed() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        await case.prepare()
        process = await world.replace("orchestrator", failpoints="relay.added=kill")
        with suppress(httpx.TransportError):
            await case.ask()
        assert await process.died() == -signal.SIGKILL
        await world.replace("orchestrator")
        await case.left("F")

    return Cell("onboard-event-relay_killed", run)


def _broker(name: str, code: str) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        world.settings = {"AUTH_BROKER_URL": f"http://127.0.0.1:{world.airbyte_port}/{name}"}
        if name == "away":
            world.settings = {"AUTH_BROKER_URL": "http://127.0.0.1:9"}
        process = await world.replace("orchestrator")
        answer = await case.ask(wait=0.5)
        assert answer.status_code == 202, answer.text
        path, seen = f"/operations/{answer.json()['operation_id']}", None
        async with asyncio.timeout(10):
            while seen != ("running", "source", code):
                view = (await process.client.get(path)).json()
                seen = (view["status"], view["step"], view["waits_for"])
        world.settings = {}
        await world.replace("orchestrator")
        await case.left("F")

    return Cell(f"onboard-config-broker_{name}", run)


def _credential_unknown() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        process = await world.running("orchestrator")
        answer = await process.client.post(
            "/connections/onboard", json={**ORDER, "credential_id": "nobody-knows"}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "credential_not_found")
        await case.left("B")

    return Cell("onboard-config-credential_unknown", run)


# Repeated and concurrent requests


def _same_key(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        key = {"Idempotency-Key": "one-key-for-one-effect"}
        first = await case.ask(headers=key)
        again = await case.ask(headers=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        await case.left("F")

    return Cell(f"{kind}-key-replayed", run)


def _key_while_running(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        step = {"onboard": "connection", "apply": "update", "sync": "job"}[kind]
        world.airbyte.fault(
            _PATH[f"{kind}.{step}"], "slow", seconds=T_CALL * 0.8, after_effect=True
        )
        key = {"Idempotency-Key": "one-key-for-one-effect"}
        first = await case.ask(headers=key, wait=0)
        assert first.status_code == 202
        again = await case.ask(headers=key)
        assert (again.status_code, again.json()["code"]) == (409, "operation_in_progress")
        await case.left("F")
        done = await case.ask(headers=key)
        assert done.headers["idempotency-replayed"] == "true"
        await case.left("F")

    return Cell(f"{kind}-key-running", run)


def _key_reused() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        process = await world.running("orchestrator")
        key = {"Idempotency-Key": "one-key-for-one-effect"}
        await case.ask(headers=key)
        other = await process.client.post(
            "/connections/onboard", json={**ORDER, "connection_name": "other"}, headers=key
        )
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        await case.left("F")

    return Cell("onboard-key-reused", run)


def _at_once(kind: Kind, name: str, count: int, *, with_key: bool) -> Cell:
    """Send many concurrent requests to two replicas; expect one effect."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        await world.running(SERVICE[kind])
        await world.running(f"{SERVICE[kind]}/2")
        headers = {"Idempotency-Key": "one-key-for-one-effect"} if with_key else {}
        answers = await asyncio.gather(
            *(case.ask(headers=headers, replica="/2" if n % 2 else "") for n in range(count))
        )
        good = [one for one in answers if one.status_code < 300]
        # 503: overloaded beyond this matrix's deadlines, and nothing was recorded.
        told = {(one.status_code, one.json()["code"]) for one in answers if one not in good}
        assert {status for status, _ in told} <= {409, 503}, told
        if with_key:
            assert len({one.content for one in good}) == 1
            codes = {one.json()["code"] for one in answers if one.status_code == 409}
            assert codes <= {"operation_in_progress"}
        else:
            assert len([one for one in good if kind != "apply" or one.json()["changed"]]) == 1
        await case.left("F")
        await world.end(f"{SERVICE[kind]}/2")

    return Cell(f"{kind}-{name}", run)


def _zombie(kind: Kind, point: str) -> Cell:
    """Suspend the owner beyond its lease, let another replica take over, and resume the owner."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        zombie = await world.replace(SERVICE[kind], failpoints=f"{kind}.{point}=stop")
        asking = asyncio.create_task(case.ask(wait=20))
        async with asyncio.timeout(10):
            while not _is_stopped(zombie.pid):  # noqa: ASYNC110 (in the kernel)
                await asyncio.sleep(0.02)
        await world.running(f"{SERVICE[kind]}/2")
        async with asyncio.timeout(20):
            while await world.fetch(_OPEN):  # noqa: ASYNC110 (in another process)
                await asyncio.sleep(0.1)
        zombie.signal(signal.SIGCONT)
        answer = await asking
        assert answer.status_code in (200, 201, 202), answer.text
        await asyncio.sleep(T_CALL + T_QUIET)
        await case.left("F")
        await world.end(f"{SERVICE[kind]}/2")

    return Cell(f"{kind}-{point}-zombie", run)


_OPEN = "SELECT 1 FROM operations WHERE status IN ('running', 'undoing')"


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"


def _heal_deadline() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "apply")
        await case.prepare()
        world.settings = {"OPERATION_DEADLINE": "5"}
        await world.replace("drift_repair_agent")
        world.airbyte.fault("connections/update", "hang", times=None)
        world.airbyte.fault("connections/get", "hang", times=None)
        answer = await case.ask(wait=20)
        assert (answer.status_code, answer.json()["code"]) == (504, "heal_deadline")
        rows = await world.fetch("SELECT status, failure_code FROM connections")
        assert [tuple(row) for row in rows] == [("FAILED", "heal_deadline")]
        world.airbyte.heal()
        world.settings = {}
        await world.running("drift_repair_agent")
        healed = await case.ask()
        assert healed.status_code == 200, healed.text
        await case.left("F")

    return Cell("apply-update-away_for_ever", run)


def _states() -> Iterator[Cell]:
    async def sync_while_healing(world: World) -> None:
        case = Case(world, "apply")
        await case.prepare()
        await world.running("drift_repair_agent")
        world.airbyte.fault("connections/update", "slow", seconds=T_CALL * 0.8, after_effect=True)
        assert (await case.ask(wait=0)).status_code == 202
        orchestrator = await world.running("orchestrator")
        answer = await orchestrator.client.post(f"/connections/{case.connection['id']}/sync")
        assert (answer.status_code, answer.json()["code"]) == (409, "healing")
        assert world.airbyte.jobs == {}
        await case.left("F")

    async def heal_while_syncing(world: World) -> None:
        case = Case(world, "apply")
        await case.prepare()
        await world.running("drift_repair_agent")
        world.airbyte.start_job(case.connection["airbyte_connection_id"])
        answer = await case.ask()
        assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
        await case.left("R")

    async def same_meaning(world: World) -> None:
        case = Case(world, "apply")
        await case.prepare()
        orchestrator = await world.running("orchestrator")
        await world.running("drift_repair_agent")
        path = f"/connections/{case.connection['id']}/catalog-versions/1"
        case.order["sync_catalog"] = (await orchestrator.client.get(path)).json()
        answer = await case.ask()
        assert (answer.status_code, answer.json()["changed"]) == (200, False)
        assert world.airbyte.called("connections/update") == []
        await case.left("R")

    async def conflict_after_effect(world: World) -> None:
        case = Case(world, "sync")
        await case.prepare()
        await world.running("orchestrator")
        world.airbyte.fault("connections/sync", 409, after_effect=True)
        answer = await case.ask()
        assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
        assert list(world.airbyte.jobs) == [answer.json()["airbyte_job_id"]]
        async with asyncio.timeout(10):
            while not await world.fetch("SELECT 1 FROM job_history"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await case.left("F")

    yield Cell("sync-job-409_after", conflict_after_effect)
    yield Cell("sync-gate-healing", sync_while_healing)
    yield Cell("apply-gate-sync_running", heal_while_syncing)
    yield Cell("apply-gate-same_meaning", same_meaning)


# Network faults


def _on_the_wire(kind: Kind, step: str, mode: Mode) -> Cell:
    """Spoil the request or its response with a proxy in front of Airbyte."""

    async def run(world: World) -> None:
        case = Case(world, kind)
        await case.prepare()
        proxy = Proxy("127.0.0.1", world.airbyte_port)
        await proxy.start()
        world.settings = {"AIRBYTE_API_URL": f"http://127.0.0.1:{proxy.port}/api/v1"}
        try:
            await world.replace(SERVICE[kind])
            proxy.spoil(f"api/v1/{_PATH[f'{kind}.{step}']}", mode, seconds=2 * T_CALL)
            answer = await case.ask()
            assert proxy.spoilt == 1
            assert answer.status_code in (200, 201, 202), answer.text
            if mode == "late_effect":
                await asyncio.sleep(2 * T_CALL)
            await case.left("F")
        finally:
            world.settings = {}
            await world.end(SERVICE[kind])
            await proxy.stop()

    return Cell(f"{kind}-{step}-wire_{mode}", run)


def _wires() -> Iterator[Cell]:
    modes: tuple[Mode, ...] = (
        "refuse_after_accept",
        "blackhole",
        "drop_request_mid",
        "eat_response",
        "rst_on_response",
        "truncate",
        "slow_response",
    )
    for mode in modes:
        yield _on_the_wire("onboard", "source", mode)
        yield _on_the_wire("apply", "update", mode)
    yield from (_on_the_wire("sync", "job", mode) for mode in modes[1:5:3])
    # Takes effect long after another source was adopted; the sweeper has to delete it.
    yield _on_the_wire("onboard", "source", "late_effect")


def _all() -> Iterator[Cell]:
    yield from _kills()
    yield from _compounds()
    yield from _terms()
    yield _ended_while_it_hangs()
    yield from _unclear()
    yield from _refused()
    for kind, steps in (
        ("onboard", ("source", "connection", "look")),
        ("apply", ("update", "look")),
        ("sync", ("job",)),
    ):
        yield from (_database_away(kind, step) for step in steps)
    for kind in ("onboard", "apply", "sync"):
        yield _database_away_at_the_door(kind)
        yield _redis_away(kind)
        yield _same_key(kind)
        yield _key_while_running(kind)
    yield from _commits_lost()
    yield _relay_killed()
    yield _broker("away", "auth_broker_unavailable")
    yield _broker("wrong", "auth_broker_unavailable")
    yield _credential_unknown()
    yield _key_reused()
    yield _at_once("onboard", "same_name", 10, with_key=False)
    yield _at_once("onboard", "fifty_of_one_key", 50, with_key=True)
    yield _at_once("apply", "ten_at_once", 10, with_key=False)
    yield _at_once("sync", "ten_at_once", 10, with_key=False)
    yield _zombie("onboard", "connection.before")
    yield _zombie("apply", "update.before")
    yield _zombie("apply", "finish.before")
    yield _heal_deadline()
    yield from _states()
    yield from _wires()


CELLS = list(_all())
