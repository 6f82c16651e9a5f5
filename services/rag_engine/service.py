"""Suggest what removed fields and streams became, from evidence and people's past decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import orjson

from services.rag_engine import queries
from services.rag_engine.evidence import ConnectorChange, Element, PastDecision, Question
from services.rag_engine.explainer import Explaining
from services.rag_engine.field_samples import Sample
from services.rag_engine.matching import Answer, suggest
from services.rag_engine.queries import Decided
from services.rag_engine.schemas import ElementShape, Learn, Schemas, StreamName, Suggest
from shared.auth import scopes
from shared.database import Database
from shared.models import Knowledge
from shared.observability import logs

log = logs.get(__name__)

_LARGE_PAIRS = 40_000
"""A question with more pairs of a removed and an added element is large."""
_MOST_NAMES = 40
_MOST_DECISIONS = 1000


class RagEngine:
    """Suggests renames, and learns from what people decide."""

    def __init__(self, db: Database, explaining: Explaining | None = None) -> None:
        self._db = db
        self._explaining = explaining
        self._one_large = asyncio.Semaphore(1)

    async def suggest(self, order: Suggest) -> dict[str, Any]:
        """The suggestions, highest confidence first, and the removed elements without one.

        Raises:
            Unavailable: the registry cannot be read; without it, rejected pairs could be suggested.
        """
        past = await self._decisions(order)
        # A large question takes seconds and 300 MB, so each process answers only one at a time.
        is_large = len(order.removed) * len(order.added) > _LARGE_PAIRS
        async with self._one_large if is_large else nullcontext():
            answer = await asyncio.to_thread(_answer, order, past)
        response = _to_json(answer)
        if self._explaining is not None:
            texts = await self._explaining.texts(response["suggestions"])
            for suggestion, text in zip(response["suggestions"], texts, strict=True):
                suggestion["explanation"] = text
        log.info(
            "renames_suggested",
            source_type=order.source_type,
            entity=order.entity,
            removed=len(order.removed),
            added=len(order.added),
            suggestions=len(answer.suggestions),
        )
        return response

    async def learn(self, decision: Learn) -> bool:
        """Store a person's decision; return whether it was new.

        Every decision is stored; the newest about a pair counts.

        Raises:
            Invalid: a schema contains text that the registry cannot store.
            Conflict: another decision has this id.
        """
        schemas = decision.schemas or Schemas()
        row = Knowledge(
            id=decision.decision_id,
            source_type=decision.source_type,
            entity=decision.entity,
            namespace=decision.stream.namespace if decision.stream else None,
            stream=_stream_name(decision.entity, decision.stream) or decision.removed[-1],
            removed=_json_text(decision.removed),
            became=None if decision.became is None else _json_text(decision.became),
            verdict=decision.verdict,
            removed_schema=_schema(schemas.removed),
            added_schema=_schema(schemas.added),
            connection_id=decision.connection_id,
            decided_by=scopes.named(decision.decided_by),
            requested_by=decision.requested_by or scopes.requested_by(),
            reason=decision.reason,
            created_at=decision.decided_at,
        )
        async with self._db.transaction() as session:
            learned = await queries.learn(session, row)
        log.info("decision_learned", decision=str(decision.decision_id), is_new=learned)
        return learned

    async def _decisions(self, order: Suggest) -> Sequence[Decided]:
        if not order.removed or not order.added:
            return []
        names = sorted({element.path[-1] for element in (*order.removed, *order.added)})
        async with self._db.read() as session:
            return await queries.decisions_about(
                session,
                source_type=order.source_type,
                entity=order.entity,
                stream=_stream_name(order.entity, order.stream),
                connection_id=order.connection_id,
                removed=[_json_text(element.path) for element in order.removed],
                # Decisions about similar names count little, so the first of many names suffice.
                names=names[:_MOST_NAMES],
                limit=_MOST_DECISIONS,
            )


def _answer(order: Suggest, past: Sequence[Decided]) -> Answer:
    samples = order.samples
    return suggest(
        Question(
            entity=order.entity,
            namespace=order.stream.namespace if order.stream else None,
            stream=_stream_name(order.entity, order.stream),
            removed=_elements(order.removed, samples.removed if samples else {}),
            added=_elements(order.added, samples.added if samples else {}),
            past=[_past(decided) for decided in past],
            connection=None if order.connection_id is None else str(order.connection_id),
            unchanged=order.context.unchanged if order.context else (),
            connector=_connector(order),
        )
    )


def _connector(order: Suggest) -> ConnectorChange | None:
    given = order.context.connector if order.context else None
    return None if given is None else ConnectorChange(given.versions, given.guides)


def _elements(shapes: Sequence[ElementShape], samples: dict[str, Any]) -> list[Element]:
    return [
        Element(
            path=tuple(shape.path),
            schema=shape.schema_,
            position=shape.position,
            sample=Sample.of(values) if (values := samples.get(".".join(shape.path))) else None,
        )
        for shape in shapes
    ]


def _past(decided: Decided) -> PastDecision:
    return PastDecision(
        entity="stream" if decided.entity == "stream" else "field",
        namespace=decided.namespace,
        stream=decided.stream if decided.entity == "field" else "",
        removed=tuple(orjson.loads(decided.removed)),
        became=None if decided.became is None else tuple(orjson.loads(decided.became)),
        is_accepted=decided.verdict == "accepted",
        connection=None if decided.connection_id is None else str(decided.connection_id),
    )


def _to_json(answer: Answer) -> dict[str, Any]:
    return {
        "suggestions": [
            {
                "removed": list(suggestion.removed),
                "became": list(suggestion.became),
                "confidence": suggestion.confidence,
                "more_than_names": suggestion.more_than_names,
                "types_clash": suggestion.types_clash,
                "rival": suggestion.rival,
                "evidence": [
                    {"kind": each.kind, "score": each.score, "detail": each.detail}
                    for each in suggestion.evidence
                ],
                "alternatives": [
                    {"became": list(each.became), "confidence": each.confidence}
                    for each in suggestion.alternatives
                ],
            }
            for suggestion in answer.suggestions
        ],
        "unmatched": [list(path) for path in answer.unmatched],
    }


def _stream_name(entity: str, stream: StreamName | None) -> str:
    """The name of the stream that the fields belong to; empty if the question is about streams."""
    return stream.name if stream is not None and entity == "field" else ""


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _schema(schema: dict[str, Any] | None) -> str | None:
    return None if schema is None else _json_text(schema)
