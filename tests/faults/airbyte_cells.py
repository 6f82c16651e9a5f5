"""Cells in which Airbyte, or the network before it, fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from tests.fakes.airbyte_server import Fault
from tests.faults.case import EXPECTED, PATH, SERVICE, Case, Cell, Kind, Outcome
from tests.faults.proxy import Mode, Proxy
from tests.faults.world import T_CALL, World

_REJECTIONSTHING: tuple[tuple[str, Fault, bool], ...] = (
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


_REJECTIONS: tuple[tuple[str, Fault, int], ...] = (
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
        case = await Case.ready(world, kind)
        world.airbyte.fault(
            PATH[f"{kind}.{step}"], fault, after_effect=after_effect, times=times, seconds=0.1
        )
        answer = await case.ask()
        expected = EXPECTED[kind] if outcome == "F" else status
        assert answer.status_code == expected, answer.text
        await case.left(outcome)

    return Cell(f"{kind}-{step}-{name}", run)


def unclear() -> Iterator[Cell]:
    for place in PATH:
        kind, step = place.split(".")
        for name, fault, after_effect in _REJECTIONSTHING:
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


def refused() -> Iterator[Cell]:
    for place in (
        *("onboard.source", "onboard.connection", "apply.update", "sync.job"),
        *("edit.settings", "cancel.cancel", "refresh.job", "reselect.refresh", "upgrade.upgrade"),
    ):
        kind, step = place.split(".")
        for name, fault, status in _REJECTIONS:
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
    yield _faulted("upgrade", "upgrade", "lie", "lie", "F")
    yield _faulted("upgrade", "upgrade", "lie_always", "lie", "R", times=3, status=502)
    yield _faulted("upgrade", "upgrade", "500_always", 500, "R", times=3, status=422)


def heal_deadline() -> Cell:
    async def run(world: World) -> None:
        case = await Case.prepared(world, "apply")
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


def _on_the_wire(kind: Kind, step: str, mode: Mode) -> Cell:
    """Inject a network fault into the request or response by a proxy in front of Airbyte."""

    async def run(world: World) -> None:
        case = await Case.prepared(world, kind)
        proxy = Proxy("127.0.0.1", world.airbyte_port)
        await proxy.start()
        world.settings = {"AIRBYTE_API_URL": f"http://127.0.0.1:{proxy.port}/api/v1"}
        try:
            await world.replace(SERVICE[kind])
            proxy.inject(f"api/v1/{PATH[f'{kind}.{step}']}", mode, seconds=2 * T_CALL)
            answer = await case.ask()
            assert proxy.injected == 1
            assert answer.status_code in (200, 201, 202), answer.text
            if mode == "late_effect":
                # The late effect arrives only now, and nothing signals its arrival.
                await asyncio.sleep(2 * T_CALL)
            await case.left("F")
        finally:
            world.settings = {}
            await world.end(SERVICE[kind])
            await proxy.stop()

    return Cell(f"{kind}-{step}-wire_{mode}", run)


def wires() -> Iterator[Cell]:
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
