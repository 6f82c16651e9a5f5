"""What a connection's destination does with the changes that a plan would apply.

A change that the destination does not hold for certain is never applied by policy alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from services.drift_repair_agent import former_streams
from services.drift_repair_agent.healing import Effect
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.planned_changes import PlannedChange, identity
from services.drift_repair_agent.repairs.policy import Policy, Reaction
from shared import airbyte_reads, registry
from shared.database import Database
from shared.destinations import DestinationReader, shared_tables
from shared.domain.catalog import StreamId, read_stream
from shared.domain.cooperative import Steps, run_cooperatively
from shared.domain.destination import (
    Destination,
    Judgement,
    StreamJudge,
    judge_tables,
    keeps_columns,
    tables,
)
from shared.domain.drift import Change, Verdict

Judgements = Mapping[str, Judgement]
"""By the identity of the change."""
_NEW_COLUMN: Final = ("field_added", 1)


class DestinationLimits:
    """Judges planned changes by the destination that the connection writes to."""

    def __init__(self, db: Database, destinations: DestinationReader) -> None:
        self._db = db
        self._destinations = destinations

    async def judged(
        self, now: CurrentState, changes: Sequence[tuple[Change, Verdict]], policy: Policy
    ) -> Judgements:
        """The judgements of the changes that a plan could apply.

        Raises:
            Unavailable: Airbyte does not report the destination now, and the policy would apply a
                change.
        """
        wanted = {
            identity(change): change
            for change, verdict in changes
            if (verdict.affects_sync or change.kind == "stream_added")
            and policy.reaction(verdict) is not Reaction.IGNORE
        }
        if not wanted:
            return {}
        try:
            destination = await self._destinations.read(now.row.airbyte_destination_id)
        except airbyte_reads.READ_FAILURES as error:
            if any(policy.reaction(verdict) is Reaction.APPLY for _, verdict in changes):
                raise airbyte_reads.nothing_recorded(error) from None
            return {}
        former = await self._former(destination, now, wanted.values())
        found = await run_cooperatively(_judged(destination, now, wanted, former))
        added = [change.stream for change in wanted.values() if change.kind == "stream_added"]
        if not added:
            return found
        clashing = await self._tables(destination, now, added)
        return {
            mark: found[mark].joined(clashing.get(change.stream))
            if change.kind == "stream_added"
            else found[mark]
            for mark, change in wanted.items()
        }

    async def _former(
        self, destination: Destination, now: CurrentState, changes: Iterable[Change]
    ) -> Sequence[bytes]:
        """The streams with new fields as they were synced before, if columns of then are kept."""
        names = {
            change.stream.name
            for change in changes
            if change.kind == "stream_added" or (change.kind, len(change.path)) == _NEW_COLUMN
        }
        if not names or not keeps_columns(destination):
            return ()
        async with self._db.read() as session:
            return await former_streams.read(
                session, now.row.id, before=now.head.version_number, names=names
            )

    async def _tables(
        self, destination: Destination, now: CurrentState, added: Sequence[StreamId]
    ) -> dict[StreamId, Judgement]:
        """The new streams whose table another stream is written to."""
        held = [stream.id for stream in now.configured.streams if stream.selected]
        naming = registry.naming_of(now.row)
        ours = tables(destination, [*held, *added], naming)
        found = {
            stream: judgement
            for stream, judgement in judge_tables(destination, ours).items()
            if stream in set(added)
        }
        new = [table for table in ours if table.stream in set(added)]
        shared = await shared_tables(
            self._db,
            destination,
            now.row.airbyte_destination_id,
            new,
            excluding=now.row.id,
        )
        for stream, judgement in shared.items():
            found[stream] = judgement.joined(found.get(stream))
        return found


def _judged(
    destination: Destination,
    now: CurrentState,
    wanted: Mapping[str, Change],
    former: Sequence[bytes],
) -> Steps[dict[str, Judgement]]:
    configured = now.configured.by_id()
    before = yield from former_streams.by_id(former)
    judges: dict[StreamId, StreamJudge] = {}
    found: dict[str, Judgement] = {}
    for mark, change in wanted.items():
        stream = change.stream
        if stream not in judges:
            offered = now.offered.get(stream)
            judges[stream] = StreamJudge(
                destination,
                configured=configured.get(stream),
                offered=None if offered is None else read_stream(offered).stream,
                former=before.get(stream, ()),
            )
        found[mark] = judges[stream].judge(change)
        yield
    return found


def with_judgement(item: PlannedChange, judgements: Judgements) -> PlannedChange:
    """The change with what the destination does with it.

    A field that stays unselected reaches no destination.
    """
    judgement = judgements.get(item.identity)
    if judgement is None or not judgement.findings:
        return item
    if item.excluded and item.change.kind == "field_added":
        return item
    verdict = item.verdict
    if item.change.kind == "field_removed" and verdict.resets:
        verdict = replace(verdict, resets=(judgement.message,))
    return replace(item, verdict=verdict, destination=judgement.findings)


def unsafe(judgements: Judgements) -> frozenset[str]:
    """The changes that need a person, by identity."""
    return frozenset(mark for mark, judgement in judgements.items() if judgement.verdict != "safe")


def effects(items: Sequence[PlannedChange]) -> Iterator[Effect]:
    """What the destination does with the changes that are decided to be applied."""
    for item in items:
        made = item.decision
        if made is not None and made.action == "apply" and made.continuity != "keep_column":
            for finding in item.destination:
                yield Effect(item.change.stream, finding.code, finding.message)
