"""Ask the rag_engine for rename suggestions, and send it what people decided.

Planning continues without an answer: changes that may be half of a rename wait for a person, and
the rag_engine is asked about them again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid5

import msgspec

from services.drift_repair_agent.repairs import planned_changes as changes_of
from services.drift_repair_agent.repairs import queries
from services.drift_repair_agent.repairs.current_state import CurrentState
from services.drift_repair_agent.repairs.planned_changes import PlannedChange, Suggestion, identity
from shared import batches, registry
from shared.database import Database
from shared.domain.catalog import StreamId, read_stream
from shared.domain.connector_versions import Step
from shared.domain.drift import Change, Verdict, schema_at
from shared.errors import AamError, Conflict, Invalid, Upstream
from shared.models import Repair
from shared.observability import logs
from shared.service_clients import RagEngine, Rename, RenameDecision

log = logs.get(__name__)

_BATCH_SIZE = 20
_MAX_CONCURRENCY = 4
_FIRST_PAUSE = timedelta(seconds=5)
_LONGEST_PAUSE = timedelta(hours=1)
_MOST_TRIES = 40
"""Attempts to send a decision that fails with an unexpected error; they span more than a day."""
Known = Mapping[StreamId, Collection[str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """The rag_engine's answers."""

    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    """By the identity of the removal that each is about."""
    unanswered: frozenset[StreamId] = frozenset()
    """Streams about which the rag_engine could not be asked."""


@dataclass(frozen=True, slots=True)
class _Question:
    """The removed and added fields of one stream; with `stream` None, removed and added streams."""

    stream: StreamId | None
    removed: Sequence[Change]
    added: Sequence[Change]


class Suggestions:
    """Requests suggestions from the rag_engine, and sends it decisions to learn from."""

    def __init__(self, db: Database, rag: RagEngine) -> None:
        self._db = db
        self._rag = rag

    async def ask(
        self,
        now: CurrentState,
        changes: Sequence[tuple[Change, Verdict]],
        *,
        known: Known,
        step: Step | None = None,
    ) -> Asked:
        """Ask what the removed fields and streams probably became.

        `step` is the change of the connector's version that came with them.
        `known` are fields by stream that are not new, although the hand-picked head lacks them.
        Once the engine has failed to answer, it is not asked about the remaining streams.
        """
        suggestions: dict[str, Suggestion] = {}
        unanswered: set[StreamId] = set()
        away = False
        for question in _questions(changes, known):
            try:
                renames = [] if away else await self._asked(now, question, step)
            except Invalid as error:
                # The engine rejects this question for good, for example for too many fields.
                log.warning("suggestions_failed", connection=str(now.row.id), code=error.code)
                continue
            except AamError as error:
                log.warning("rag_engine_unavailable", connection=str(now.row.id), code=error.code)
                away = True
            if away:
                unanswered |= {change.stream for change in (*question.removed, *question.added)}
                continue
            removed = {_path(change): change for change in question.removed}
            for rename in renames:
                change = removed.get(tuple(rename["removed"]))
                if change is not None:
                    suggestions[identity(change)] = msgspec.convert(rename, type=Suggestion)
        return Asked(suggestions, frozenset(unanswered))

    async def _asked(
        self, now: CurrentState, question: _Question, step: Step | None
    ) -> list[Rename]:
        head = {stream.id: stream.raw for stream in now.configured.streams}
        stream = question.stream
        return await self._rag.suggest(
            source_type=now.row.source_type,
            entity="stream" if stream is None else "field",
            stream=None if stream is None else msgspec.to_builtins(stream),
            connection_id=now.row.id,
            removed=[_element(change, head[change.stream]) for change in question.removed],
            added=[_element(change, now.offered[change.stream]) for change in question.added],
            unchanged=[] if stream is None else sorted(_unchanged(head[stream], question.removed)),
            connector=None if step is None else _connector(step),
        )

    async def is_available(self) -> bool:
        """Whether the engine is available."""
        try:
            await self._rag.health()
        except AamError:
            return False
        return True

    async def learn(self) -> None:
        """Send due decisions of people to the rag_engine; sending one again has no effect."""
        async with self._db.read() as session:
            waiting = await queries.unlearned_repairs(session, limit=_BATCH_SIZE)
        outcomes = await batches.each(
            waiting,
            self._learn,
            log_event="not_learned",
            fields=lambda repair: {"repair": str(repair.id)},
            max_concurrency=_MAX_CONCURRENCY,
        )
        failed = [(one.item, one.error) for one in outcomes if one.error is not None]
        await batches.each(
            failed,
            lambda one: self._record(
                one[0], codes={}, is_settled=_is_final(one[1], tries=one[0].learn_attempts)
            ),
            log_event="not_learned",
            fields=lambda one: {"repair": str(one[0].id)},
        )

    async def _learn(self, repair: Repair) -> None:
        """Send each of a repair's decisions; the repair is done once all of them are settled.

        A decision is settled when the engine has accepted it or rejected it for good; the code of a
        rejection is recorded.
        """
        async with self._db.read() as session:
            row = await registry.find_connection(session, repair.connection_id)
        decisions = [
            (item.id, decision)
            for item in changes_of.read(repair.changes)
            for decision in _decisions(repair, item, source_type=row.source_type)
        ]
        outcomes = await batches.each(
            decisions,
            self._send,
            log_event="decision_not_learned",
            fields=lambda one: {"repair": str(repair.id), "decision": one[1]["decision_id"]},
        )
        codes: dict[str, str] = {}
        is_settled = True
        for one in outcomes:
            if one.error is not None:
                code = one.error.code if isinstance(one.error, AamError) else "bug"
                codes[one.item[0]] = code
                is_settled &= _is_final(one.error, tries=repair.learn_attempts)
        await self._record(repair, codes=codes, is_settled=is_settled)

    async def _send(self, decision: tuple[str, RenameDecision]) -> None:
        await self._rag.learn(decision[1])

    async def _record(self, repair: Repair, *, codes: Mapping[str, str], is_settled: bool) -> None:
        pause = min(_FIRST_PAUSE * 2 ** min(repair.learn_attempts, 20), _LONGEST_PAUSE)
        not_learned = [{"change": change, "code": code} for change, code in codes.items()]
        async with self._db.transaction() as session:
            await queries.record_learning(
                session,
                repair.id,
                not_learned=msgspec.json.encode(not_learned).decode(),
                is_settled=is_settled,
                again_after=pause,
            )


def _connector(step: Step) -> dict[str, Any]:
    guides = [change.guide for change in step.breaking_changes if change.guide is not None]
    return {"versions": step.in_words, "guides": list(dict.fromkeys(guides))}


def _is_final(error: Exception, *, tries: int) -> bool:
    """Whether to stop sending a decision.

    While the engine is unavailable, attempts continue without limit.
    """
    if isinstance(error, Conflict | Invalid):
        return True
    is_away = isinstance(error, AamError) and type(error) is not Upstream
    return not is_away and tries >= _MOST_TRIES


def _questions(changes: Sequence[tuple[Change, Verdict]], known: Known) -> list[_Question]:
    """One question per stream that lost and gained fields, and one about the streams themselves."""
    gone: dict[StreamId | None, list[Change]] = defaultdict(list)
    new: dict[StreamId | None, list[Change]] = defaultdict(list)
    for change, verdict in changes:
        if change.kind == "field_removed" and verdict.affects_sync:
            gone[change.stream].append(change)
        elif change.kind == "field_added" and change.path[0] not in known.get(change.stream, ()):
            new[change.stream].append(change)
        elif change.kind == "stream_removed" and verdict.affects_sync:
            gone[None].append(change)
        elif change.kind == "stream_added":
            new[None].append(change)
    return [_Question(place, gone[place], new[place]) for place in gone if new[place]]


def _path(change: Change) -> tuple[str, ...]:
    return tuple(change.path) or (change.stream.name,)


def _element(change: Change, pair: bytes) -> dict[str, Any]:
    """A field or stream with its schema, as the stream definition `pair` has it."""
    element: dict[str, Any] = {"path": list(_path(change))}
    if len(change.path) == 1:
        fields = read_stream(pair).stream.properties() or {}
        if change.path[0] in fields:
            element["position"] = list(fields).index(change.path[0])
    return element | {"schema": schema_at(pair, change.path)}


def _unchanged(pair: bytes, removed: Sequence[Change]) -> set[str]:
    fields = read_stream(pair).stream.fields() or {}
    return fields.keys() - {change.path[0] for change in removed}


def _decisions(repair: Repair, item: PlannedChange, *, source_type: str) -> list[RenameDecision]:
    """What a person's decision says about a removal: what it became, and what it did not become."""
    made = item.decision
    return [
        {
            "decision_id": str(uuid5(repair.id, name)),
            "source_type": source_type,
            "entity": "field" if item.change.kind == "field_removed" else "stream",
            "stream": msgspec.to_builtins(item.change.stream),
            "removed": list(_path(item.change)),
            "became": None if became is None else list(became),
            "verdict": verdict,
            "decided_by": made.by,
            "requested_by": made.requested_by,
            "decided_at": made.at.isoformat(),
            "reason": made.reason,
            "connection_id": str(repair.connection_id),
        }
        for name, became, verdict in changes_of.lessons(item)
        if made is not None
    ]
