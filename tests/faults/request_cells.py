"""Cells with repeated, concurrent and conflicting requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tests.faults.case import PATH, SERVICE, STEPS, Case, Cell, Kind
from tests.faults.world import ORDER, T_CALL, World
from tests.waiting import until


def same_key(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
        key = {"Idempotency-Key": "one-key-for-one-effect"}
        first = await case.ask(headers=key)
        again = await case.ask(headers=key)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        await case.left("F")

    return Cell(f"{kind}-key-replayed", run)


def key_while_running(kind: Kind) -> Cell:
    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
        step = {"onboard": "connection", "apply": "update"}.get(kind, STEPS[kind][0])
        world.airbyte.fault(PATH[f"{kind}.{step}"], "slow", seconds=T_CALL * 0.8, after_effect=True)
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


def key_reused() -> Cell:
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


def concurrent(kind: Kind, name: str, count: int, *, with_key: bool) -> Cell:
    """Send many concurrent requests to two replicas; expect one effect."""

    async def run(world: World) -> None:
        case = await Case.ready(world, kind)
        await world.running(f"{SERVICE[kind]}/2")
        headers = {"Idempotency-Key": "one-key-for-one-effect"} if with_key else {}
        answers = await asyncio.gather(
            *(case.ask(headers=headers, replica="/2" if n % 2 else "") for n in range(count))
        )
        good = [one for one in answers if one.status_code < 300]
        # 503: overloaded beyond this matrix's deadlines, and nothing was recorded.
        refusals = {(one.status_code, one.json()["code"]) for one in answers if one not in good}
        assert {status for status, _ in refusals} <= {409, 503}, refusals
        if with_key:
            assert len({one.content for one in good}) == 1
            codes = {one.json()["code"] for one in answers if one.status_code == 409}
            assert codes <= {"operation_in_progress"}
        else:
            assert len([one for one in good if kind != "apply" or one.json()["changed"]]) == 1
        await case.left("F")
        await world.end(f"{SERVICE[kind]}/2")

    return Cell(f"{kind}-{name}", run)


def states() -> Iterator[Cell]:
    async def sync_while_healing(world: World) -> None:
        case = await Case.ready(world, "apply")
        world.airbyte.fault("connections/update", "slow", seconds=T_CALL * 0.8, after_effect=True)
        assert (await case.ask(wait=0)).status_code == 202
        orchestrator = await world.running("orchestrator")
        answer = await orchestrator.client.post(f"/connections/{case.connection['id']}/sync")
        assert (answer.status_code, answer.json()["code"]) == (409, "healing")
        assert world.airbyte.jobs == {}
        await case.left("F")

    async def heal_while_syncing(world: World) -> None:
        case = await Case.ready(world, "apply")
        world.airbyte.start_job(case.connection["airbyte_connection_id"])
        answer = await case.ask()
        assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
        await case.left("R")

    async def same_meaning(world: World) -> None:
        case = await Case.prepared(world, "apply")
        orchestrator = await world.running("orchestrator")
        await world.running("drift_repair_agent")
        path = f"/connections/{case.connection['id']}/catalog-versions/1"
        case.order["sync_catalog"] = (await orchestrator.client.get(path)).json()
        answer = await case.ask()
        assert (answer.status_code, answer.json()["changed"]) == (200, False)
        assert world.airbyte.called("connections/update") == []
        await case.left("R")

    async def conflict_after_effect(world: World) -> None:
        case = await Case.ready(world, "sync")
        world.airbyte.fault("connections/sync", 409, after_effect=True)
        answer = await case.ask()
        assert (answer.status_code, answer.json()["code"]) == (409, "sync_running")
        assert list(world.airbyte.jobs) == [answer.json()["airbyte_job_id"]]
        await until(lambda: world.fetch("SELECT 1 FROM job_history"))
        await case.left("F")

    yield Cell("sync-job-409_after", conflict_after_effect)
    yield Cell("sync-gate-healing", sync_while_healing)
    yield Cell("apply-gate-sync_running", heal_while_syncing)
    yield Cell("apply-gate-same_meaning", same_meaning)
