"""Fits catalogs and names of tables to what destinations can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Database
from shared.destinations import DestinationReader, TableClaim, shared_tables
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, Chosen, InvalidCatalog, Note, Problem, StreamId
from shared.domain.catalog._model import listed
from shared.domain.cooperative import Steps, run_cooperatively
from shared.domain.destination import (
    Destination,
    Judgement,
    Naming,
    judge_stream,
    judge_tables,
    tables,
    unfit_fields,
)
from shared.errors import Invalid

DESTINATION_CANNOT_HOLD: Final = "destination_cannot_hold"
_MOST_PROBLEMS: Final = 50


class DestinationFit:
    """Leaves out what a destination cannot hold, refuses it where the caller named it, or notes it.

    Of an unknown destination nothing is refused, and there are notes alone.
    """

    def __init__(self, db: Database, destinations: DestinationReader) -> None:
        self._db = db
        self._destinations = destinations

    async def fitted(
        self,
        chosen: Chosen,
        *,
        connection_id: UUID,
        destination_id: UUID,
        naming: Naming,
        is_named: bool,
    ) -> Chosen:
        """The catalog as the destination can hold it, with a note on each difference.

        - A field whose column clashes or whose name is reserved is left out: callers name streams,
          not fields.
        - A stream that the destination cannot hold, or whose table another one of the connection
          has, is refused if the caller named it (`is_named`), else left out.
        - A stream whose table another connection writes is refused.

        Raises:
            InvalidCatalog: `destination_cannot_hold`; the problems name both sides.
            Upstream: Airbyte is unavailable.
        """
        destination = await self._destinations.read(destination_id)
        streams = [stream.id for stream in chosen.catalog.streams]
        made = tables(destination, streams, naming)
        clashing = judge_tables(destination, made)
        fitted = await run_cooperatively(_fitted(destination, chosen, clashing, is_named=is_named))
        left = {stream.id for stream in fitted.catalog.streams}
        shared = await shared_tables(
            self._db,
            destination,
            destination_id,
            [table for table in made if table.stream in left],
            excluding=connection_id,
        )
        if destination.is_known:
            _refuse({stream: one for stream, one in shared.items() if one.verdict != "safe"})
        notes = [*fitted.notes, *(_note(stream, one) for stream, one in shared.items())]
        return Chosen(fitted.catalog, tuple(notes))

    async def claim(
        self, catalog: Catalog, *, connection_id: UUID, destination_id: UUID, naming: Naming
    ) -> TableClaim:
        """The claim to the tables of a new connection, which were compared by `fitted`.

        Raises:
            Upstream: Airbyte is unavailable.
        """
        destination = await self._destinations.read(destination_id)
        made = tables(destination, [stream.id for stream in catalog.streams], naming)
        return TableClaim(connection_id, destination_id, destination, made)

    async def renamed(
        self,
        head: Catalog,
        *,
        connection_id: UUID,
        destination_id: UUID,
        before: Naming,
        after: Naming,
    ) -> tuple[TableClaim, tuple[Note, ...]]:
        """The claim to the tables that a connection writes under other names, and notes on them.

        Raises:
            Invalid: `destination_cannot_hold`; two streams get one table, or one that another
                connection writes.
            Upstream: Airbyte is unavailable.
        """
        destination = await self._destinations.read(destination_id)
        streams = [stream.id for stream in head.streams]
        old = tables(destination, streams, before)
        made = tables(destination, streams, after)
        new = [table for table, was in zip(made, old, strict=True) if table.place != was.place]
        clashed = judge_tables(destination, old)
        found = {
            stream: one
            for stream, one in judge_tables(destination, made).items()
            if stream not in clashed
        }
        shared = await shared_tables(
            self._db, destination, destination_id, new, excluding=connection_id
        )
        found |= {stream: one.joined(found.get(stream)) for stream, one in shared.items()}
        if destination.is_known:
            try:
                _refuse({stream: one for stream, one in found.items() if one.verdict == "refuse"})
            except InvalidCatalog as error:
                raise refused(error) from None
        claim = TableClaim(connection_id, destination_id, destination, new)
        return claim, tuple(_note(stream, one) for stream, one in found.items())

    async def notes(
        self,
        catalog: Catalog,
        head: Catalog,
        *,
        connection_id: UUID,
        destination_id: UUID,
        naming: Naming,
    ) -> tuple[Note, ...]:
        """What the destination does with the streams in which a catalog differs from the head.

        Raises:
            Upstream: Airbyte is unavailable.
        """
        destination = await self._destinations.read(destination_id)
        known = head.by_id()
        changed = [
            stream
            for stream in catalog.streams
            if stream.id not in known or known[stream.id].raw != stream.raw
        ]
        made = tables(destination, [stream.id for stream in catalog.streams], naming)
        new = [table for table in made if table.stream not in known]
        shared = await shared_tables(
            self._db, destination, destination_id, new, excluding=connection_id
        )
        judged = await run_cooperatively(_judged(destination, changed, known))
        within = judge_tables(destination, made)
        for table in new:
            for one in (within.get(table.stream), shared.get(table.stream)):
                if one is not None:
                    judged[table.stream] = one.joined(judged.get(table.stream))
        return tuple(_note(stream, one) for stream, one in judged.items() if one.findings)


async def expect_unclaimed(session: AsyncSession, claim: TableClaim, *, within: timedelta) -> None:
    """Check that no other operation has claimed the tables since they were compared.

    Raises:
        Invalid: `destination_cannot_hold`; another one has.
    """
    if not claim.destination.is_known:
        return
    try:
        _refuse(await claim.conflicts(session, within=within))
    except InvalidCatalog as error:
        raise refused(error) from None


def refused(error: InvalidCatalog) -> Invalid:
    """The error for what the destination cannot hold."""
    return Invalid(str(error), code=DESTINATION_CANNOT_HOLD)


def _judged(
    destination: Destination,
    changed: Sequence[catalogs.ConfiguredStream],
    known: Mapping[StreamId, catalogs.ConfiguredStream],
) -> Steps[dict[StreamId, Judgement]]:
    judged = {}
    for stream in changed:
        yield
        judged[stream.id] = judge_stream(destination, stream, held=known.get(stream.id))
    return judged


def _fitted(
    destination: Destination,
    chosen: Chosen,
    clashing: Mapping[StreamId, Judgement],
    *,
    is_named: bool,
) -> Steps[Chosen]:
    kept: list[catalogs.ConfiguredStream] = []
    notes = list(chosen.notes)
    refused: dict[StreamId, Judgement] = {}
    for stream in chosen.catalog.streams:
        yield
        fitting, found = stream, Judgement()
        unfit = unfit_fields(destination, stream)
        if unfit:
            try:
                fitting = catalogs.without_fields(stream, unfit.keys())
            except InvalidCatalog:
                found = Judgement(tuple(unfit.values()))  # its cursor or key is among them
            else:
                messages = dict.fromkeys(one.message for one in unfit.values())
                text = (
                    f"{listed(unfit)} of {stream.id} is excluded. {' '.join(messages)} The fields "
                    "are selected individually, so that new ones are not added by themselves."
                )
                code = next(iter(unfit.values())).code
                notes.append(Note(stream.id, code, text, tuple(sorted(unfit))))
        rest = judge_stream(destination, fitting)
        table = clashing.get(stream.id, Judgement())
        unheld = table.findings or rest.verdict == "refuse" or found.findings
        found = rest.joined(found).joined(table)
        if not unheld or not destination.is_known:
            kept.append(fitting)
            if found.findings:
                notes.append(_note(stream.id, found))
        elif is_named:
            refused[stream.id] = found
        else:
            notes.append(_note(stream.id, found, f"{stream.id} is excluded. "))
    _refuse(refused)
    if not kept:
        message = f"No stream is left. {notes[-1].message}"
        raise InvalidCatalog.because(DESTINATION_CANNOT_HOLD, "streams", message)
    return Chosen(Catalog(tuple(kept)), tuple(notes))


def _note(stream: StreamId, found: Judgement, introduction: str = "") -> Note:
    fields = tuple(dict.fromkeys(name for one in found.findings for name in one.names))
    return Note(stream, found.code, introduction + found.message, fields)


def _refuse(found: Mapping[StreamId, Judgement]) -> None:
    problems = [
        Problem(stream, "streams", DESTINATION_CANNOT_HOLD, judgement.message)
        for stream, judgement in found.items()
    ]
    if problems:
        raise InvalidCatalog(problems[:_MOST_PROBLEMS])
