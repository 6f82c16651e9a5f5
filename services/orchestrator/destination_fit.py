"""Fits the catalog of a new connection to what its destination can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from shared.database import Database
from shared.destinations import DestinationReader, shared_tables
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

DESTINATION_CANNOT_HOLD: Final = "destination_cannot_hold"
_MOST_PROBLEMS: Final = 50


class DestinationFit:
    """Leaves out what a destination cannot hold, or refuses it where the caller named it."""

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

        Of an unknown destination nothing is refused, and there are notes alone.

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
            besides=connection_id,
        )
        if destination.is_known:
            _refuse({stream: one for stream, one in shared.items() if one.verdict != "safe"})
        notes = [*fitted.notes, *(_note(stream, one) for stream, one in shared.items())]
        return Chosen(fitted.catalog, tuple(notes))


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
