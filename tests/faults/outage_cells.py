"""Cells in which Postgres, Redis or the auth_broker is unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tests import access
from tests.fakes.postgres_proxies import SAGA, LossyCommit, moved
from tests.faults.case import PATH, SERVICE, Case, Cell, Kind
from tests.faults.world import ORDER, T_CALL, World
from tests.waiting import until_not


def database_stopped(kind: Kind, step: str) -> Cell:
    """Stop Postgres during a step, and start it again."""

    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
        path = PATH[f"{kind}.{step}"]
        world.airbyte.fault(path, "slow", seconds=T_CALL * 0.7, after_effect=True)
        loop = asyncio.get_running_loop()
        pending = asyncio.create_task(case.ask(wait=25))
        before = len(world.airbyte.called(path))
        await until_not(lambda: len(world.airbyte.called(path)) == before and not pending.done())
        await loop.run_in_executor(None, world.postgres.stop)
        await asyncio.sleep(T_CALL)
        await loop.run_in_executor(None, world.postgres.start)
        answer = await pending
        assert answer.status_code in (200, 201, 202), answer.text
        await case.left("F")

    return Cell(f"{kind}-{step}-database_away", run)


def database_down_at_request(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
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
        case = await Case.prepared(world, kind)
        url = world.postgres.url_for(SERVICE[kind])
        proxy = LossyCommit(url, delivers=is_durable, spared=spared, about=SAGA)
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


def commits_lost() -> Iterator[Cell]:
    for kind, commits in (("onboard", 3), ("apply", 2), ("sync", 2), ("edit", 2)):
        for spared in range(commits):
            yield _commit_lost(kind, spared, is_durable=True)
            yield _commit_lost(kind, spared, is_durable=False)


def redis_stopped(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, world.valkey.stop)
        try:
            answer = await case.ask()
        finally:
            await loop.run_in_executor(None, world.valkey.start)
        assert answer.status_code in (200, 201, 202), answer.text
        await case.left("F")

    return Cell(f"{kind}-event-redis_away", run)


def broker(name: str, code: str) -> Cell:
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


def credential_unknown() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        process = await world.running("orchestrator")
        answer = await process.client.post(
            "/connections/onboard", json={**ORDER, "credential_id": "unknown"}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "credential_not_found")
        await case.left("N")

    return Cell("onboard-config-credential_unknown", run)
