"""Cells in which a process is killed, terminated, or suspended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress

import httpx

from tests.fakes.airbyte_server import Fault
from tests.faults.case import OPERATION, PATH, SERVICE, STEPS, Case, Cell, Kind, Outcome
from tests.faults.world import T_CALL, T_QUIET, World
from tests.waiting import until, until_not


def _killed(kind: Kind, point: str, outcome: Outcome, *, second: str = "") -> Cell:
    """Kill the process at a failpoint; `second` is another fault during recovery."""

    async def run(world: World) -> None:
        case = await Case.prepared(world, kind)
        name, failpoints = SERVICE[kind], f"{OPERATION.get(kind, kind)}.{point}=kill"
        if point.startswith("undo"):
            world.airbyte.fault(PATH[f"{kind}.{_UNDONE_AT[kind]}"], _UNDONE_BY.get(kind, 422))
        process = await world.replace(name, failpoints=failpoints)
        with suppress(httpx.TransportError):
            await case.ask()
        assert await process.died() == -signal.SIGKILL
        if second == "airbyte-503":
            world.airbyte.fault("*", 503, times=6)
        if second == "killed-again":
            # If nothing was recorded, or all of the step was, recovery does not reach it again.
            again = await world.replace(name, failpoints=failpoints)
            is_over = point.startswith("intent") or point in ("claim.after", "finish.after")
            if outcome != "N" and not is_over:
                assert await again.died(within=20) == -signal.SIGKILL
        await world.replace(name)
        await case.left(outcome)

    suffix = f"-then-{second}" if second else ""
    return Cell(f"{kind}-{point}-kill{suffix}", run)


_KINDS = ("onboard", "apply", "sync", "edit", "cancel", "refresh", "reselect", "upgrade")
_UNDONE_AT = {
    "onboard": "connection",
    "apply": "update",
    "sync": "job",
    "edit": "settings",
    "reselect": "refresh",
}
_UNDONE_BY: dict[Kind, Fault] = {"edit": "lie"}
"""Where a refusal leaves nothing to undo: Airbyte accepts the request and does nothing."""


def _points(kind: Kind) -> Iterator[tuple[str, Outcome]]:
    if kind == "reselect":
        # The other steps are those of `apply`.
        yield from ((f"{step}.{side}", "F") for step in STEPS[kind] for side in ("before", "after"))
        yield "undo.before", "R"
        return
    yield "intent.before", "N" if kind == "onboard" else "R"
    yield "intent.after", "F"
    for step in STEPS[kind]:
        yield f"{step}.before", "F"
        yield f"{step}.after", "F"
    if kind in _UNDONE_AT:
        yield "undo.before", "B"
        yield "undo.after", "B"


def kills() -> Iterator[Cell]:
    for kind in _KINDS:
        for point, outcome in _points(kind):
            yield _killed(kind, point, outcome)


def compounds() -> Iterator[Cell]:
    for kind in _KINDS:
        for point, outcome in _points(kind):
            if point in ("intent.before", "finish.after") or point.endswith("look.before"):
                continue
            yield _killed(kind, point, outcome, second="airbyte-503")
            if point.endswith(".after") and point != "intent.after":
                yield _killed(kind, point, outcome, second="killed-again")


def _ended(kind: Kind, point: str) -> Cell:
    async def run(world: World) -> None:
        case = await Case.prepared(world, kind)
        process = await world.replace(SERVICE[kind], failpoints=f"{kind}.{point}=term")
        answer = await case.ask()
        assert answer.status_code in (200, 201, 202), answer.text
        assert await process.died(within=10) == 0
        await world.replace(SERVICE[kind])
        await case.left("F")

    return Cell(f"{kind}-{point}-term", run)


def terms() -> Iterator[Cell]:
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
        ("edit", ("intent.after", "settings.before", "settings.after")),
        ("cancel", ("cancel.before", "cancel.after")),
        ("refresh", ("job.before", "job.after")),
    ):
        for point in points:
            yield _ended(kind, point)


def terminated_during_request() -> Cell:
    async def run(world: World) -> None:
        case = Case(world, "onboard")
        world.settings = {
            "AIRBYTE_TIMEOUT": "30",
            "DISCOVER_TIMEOUT": "30",
            "OPERATION_DEADLINE": "300",
        }
        process = await world.replace("orchestrator")
        world.airbyte.fault("connections/create", "hang")
        pending = asyncio.create_task(case.ask())
        await until(lambda: world.airbyte.called("connections/create"))
        process.signal(signal.SIGTERM)
        assert (await pending).status_code == 202
        assert await process.died(within=10) == 0
        world.settings = {}
        await world.replace("orchestrator")
        await case.left("F")

    return Cell("onboard-connection-term_while_it_hangs", run)


def relay_killed() -> Cell:
    async def run(world: World) -> None:
        case = await Case.prepared(world, "onboard")
        process = await world.replace("orchestrator", failpoints="relay.added=kill")
        with suppress(httpx.TransportError):
            await case.ask()
        assert await process.died() == -signal.SIGKILL
        await world.replace("orchestrator")
        await case.left("F")

    return Cell("onboard-event-relay_killed", run)


def zombie(kind: Kind, point: str) -> Cell:
    """Suspend the owner beyond its lease, let another replica take over, and resume the owner."""

    async def run(world: World) -> None:
        case = await Case.prepared(world, kind)
        zombie = await world.replace(SERVICE[kind], failpoints=f"{kind}.{point}=stop")
        pending = asyncio.create_task(case.ask(wait=20))
        await until(lambda: _is_stopped(zombie.pid))
        await world.running(f"{SERVICE[kind]}/2")
        await until_not(lambda: world.fetch(_OPEN))
        zombie.signal(signal.SIGCONT)
        answer = await pending
        assert answer.status_code in (200, 201, 202), answer.text
        await asyncio.sleep(T_CALL + T_QUIET)
        await case.left("F")
        await world.end(f"{SERVICE[kind]}/2")

    return Cell(f"{kind}-{point}-zombie", run)


_OPEN = "SELECT 1 FROM operations WHERE status IN ('running', 'undoing')"


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
