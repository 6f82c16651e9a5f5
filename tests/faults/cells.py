"""The cells of the fault matrix: one operation, one step, one fault, and the expected outcome."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults import airbyte_cells, crash_cells, outage_cells, request_cells
from tests.faults.case import Cell


def _all() -> Iterator[Cell]:
    yield from crash_cells.kills()
    yield from crash_cells.compounds()
    yield from crash_cells.terms()
    yield crash_cells.terminated_during_request()
    yield from airbyte_cells.unclear()
    yield from airbyte_cells.refused()
    for kind, steps in (
        ("onboard", ("source", "connection", "look")),
        ("apply", ("update", "look")),
        ("sync", ("job",)),
        ("edit", ("settings",)),
        ("cancel", ("cancel",)),
        ("refresh", ("job",)),
    ):
        yield from (outage_cells.database_stopped(kind, step) for step in steps)
    for kind in ("onboard", "apply", "sync", "edit", "cancel", "refresh"):
        yield outage_cells.database_down_at_request(kind)
        yield outage_cells.redis_stopped(kind)
        yield request_cells.same_key(kind)
        yield request_cells.key_while_running(kind)
    yield from outage_cells.commits_lost()
    yield crash_cells.relay_killed()
    yield outage_cells.broker("away", "auth_broker_unavailable")
    yield outage_cells.broker("wrong", "auth_broker_unavailable")
    yield outage_cells.credential_unknown()
    yield request_cells.key_reused()
    yield request_cells.concurrent("onboard", "same_name", 10, with_key=False)
    yield request_cells.concurrent("onboard", "fifty_of_one_key", 50, with_key=True)
    yield request_cells.concurrent("apply", "ten_at_once", 10, with_key=False)
    yield request_cells.concurrent("sync", "ten_at_once", 10, with_key=False)
    yield crash_cells.zombie("edit", "settings.before")
    yield crash_cells.zombie("onboard", "connection.before")
    yield crash_cells.zombie("apply", "update.before")
    yield crash_cells.zombie("apply", "finish.before")
    yield airbyte_cells.heal_deadline()
    yield from request_cells.states()
    yield from airbyte_cells.wires()


CELLS = list(_all())
