"""Checks that the destination can hold a catalog that a caller sends; nothing is recorded here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from services.drift_repair_agent import former_streams
from services.drift_repair_agent.applying.preflight import invalid
from shared import registry
from shared.airbyte_reads import READ_FAILURES, airbyte_answers_by, nothing_recorded
from shared.auth import label_limits
from shared.database import Database
from shared.destinations import DestinationReader, shared_tables
from shared.domain.catalog import Catalog, InvalidCatalog, Problem, StreamId
from shared.domain.cooperative import Steps, run_cooperatively
from shared.domain.destination import (
    ON_PURPOSE,
    Destination,
    Judgement,
    Table,
    judge_stream,
    judge_tables,
    keeps_columns,
    tables,
)
from shared.models import Connection

DESTINATION_CANNOT_HOLD: Final = "destination_cannot_hold"


async def expect_holdable(
    db: Database,
    destinations: DestinationReader,
    row: Connection,
    wanted: Catalog,
    head: Catalog,
    *,
    accept_clashes: bool,
    deadline: float,
) -> None:
    """Check the streams of a catalog that differ from the head, and the tables of the new ones.

    Nothing is refused of a destination that AAM has no rules for, nor what the head has already.
    With `accept_clashes` neither is a name that the destination only changes. Airbyte must answer
    by `deadline`, a time of the event loop's clock.

    Raises:
        Invalid: `destination_cannot_hold`; the message names both sides of a clash.
        Unavailable: Airbyte does not report the destination now; nothing was recorded.
    """
    destination = await _read(destinations, row, deadline)
    if not destination.is_known:
        return
    former = await _former(db, destination, row, wanted, head)
    problems = await run_cooperatively(
        _unheld(destination, wanted, head, former, accept_clashes=accept_clashes)
    )
    new = {stream.id for stream in wanted.streams} - _selected(head)
    if new:
        made = tables(
            destination, [stream.id for stream in wanted.streams], registry.naming_of(row)
        )
        shared = await _shared(db, destination, row, made, new)
        within = judge_tables(destination, made)
        for stream in sorted(new, key=lambda one: one.order):
            found = within.get(stream, Judgement()).joined(shared.get(stream))
            if found.verdict == "refuse" or (found.findings and not accept_clashes):
                problems.append(
                    Problem(stream, "stream.name", DESTINATION_CANNOT_HOLD, found.message)
                )
    if problems:
        raise invalid(InvalidCatalog(problems), code=DESTINATION_CANNOT_HOLD)


async def expect_tables_free(
    db: Database,
    destinations: DestinationReader,
    row: Connection,
    wanted: Catalog,
    head: Catalog,
    *,
    deadline: float,
) -> None:
    """Check that no other connection writes the tables of streams that a rollback selects again.

    When the connection wrote them, they were its own. Nothing is refused of a destination that AAM
    has no rules for. Airbyte must answer by `deadline`, a time of the event loop's clock.

    Raises:
        Invalid: `destination_cannot_hold`; the message names both sides.
        Unavailable: Airbyte does not report the destination now; nothing was recorded.
    """
    new = _selected(wanted) - _selected(head)
    if not new:
        return
    destination = await _read(destinations, row, deadline)
    if not destination.is_known:
        return
    made = tables(destination, [stream.id for stream in wanted.streams], registry.naming_of(row))
    shared = await _shared(db, destination, row, made, new)
    if shared:
        raise invalid(
            InvalidCatalog(
                Problem(stream, "stream.name", DESTINATION_CANNOT_HOLD, found.message)
                for stream, found in shared.items()
            ),
            code=DESTINATION_CANNOT_HOLD,
        )


async def _read(destinations: DestinationReader, row: Connection, deadline: float) -> Destination:
    try:
        async with airbyte_answers_by(deadline):
            return await destinations.read(row.airbyte_destination_id)
    except READ_FAILURES as error:
        raise nothing_recorded(error) from None


async def _former(
    db: Database, destination: Destination, row: Connection, wanted: Catalog, head: Catalog
) -> Sequence[bytes]:
    """The changed streams as they were synced before, if the destination keeps columns of then."""
    if not keeps_columns(destination):
        return ()
    held = {stream.raw for stream in head.streams}
    names = {stream.id.name for stream in wanted.streams if stream.raw not in held}
    async with db.read() as session:
        return await former_streams.read(session, row.id, before=row.catalog_version, names=names)


def _selected(catalog: Catalog) -> set[StreamId]:
    return {stream.id for stream in catalog.streams if stream.selected}


async def _shared(
    db: Database,
    destination: Destination,
    row: Connection,
    made: Sequence[Table],
    new: Collection[StreamId],
) -> dict[StreamId, Judgement]:
    ours = [table for table in made if table.stream in new]
    with label_limits.registry_wide():
        return await shared_tables(
            db, destination, row.airbyte_destination_id, ours, excluding=row.id
        )


def _unheld(
    destination: Destination,
    wanted: Catalog,
    head: Catalog,
    former: Sequence[bytes],
    *,
    accept_clashes: bool,
) -> Steps[list[Problem]]:
    before = head.by_id()
    earlier = yield from former_streams.by_id(former)
    problems: list[Problem] = []
    for stream in wanted.streams:
        yield
        held = before.get(stream.id)
        if held is not None and held.raw == stream.raw:
            continue
        held = held if held is not None and held.selected else None
        judgement = judge_stream(destination, stream, held=held, former=earlier.get(stream.id, ()))
        for finding in judgement.findings:
            is_clash = finding.code in ON_PURPOSE and not accept_clashes
            if finding.verdict == "refuse" or is_clash:
                message = finding.message
                problems.append(Problem(stream.id, "config", DESTINATION_CANNOT_HOLD, message))
    return problems
