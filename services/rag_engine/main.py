"""The rag_engine's routes and application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import orjson
from fastapi import APIRouter, FastAPI, Query, Request, Response

from services.rag_engine import queries
from services.rag_engine.explainer import Explaining
from services.rag_engine.schemas import (
    KNOWLEDGE,
    KnowledgeView,
    Learn,
    Learned,
    SourceType,
    Suggest,
    Suggested,
)
from services.rag_engine.service import RagEngine
from shared.auth.scopes import Scope, caller_of, may
from shared.config import RagEngineSettings, load
from shared.database import Database
from shared.errors import Invalid
from shared.http.app import create_app
from shared.http.authentication import access_for
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import After, Limit, Page
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.shutdown import for_server
from shared.http.strict_json import QUESTION
from shared.observability import logs, tracing

router = APIRouter(tags=["renames"])


Service = Annotated[RagEngine, from_state("service")]
Registry = Annotated[Database, from_state("db")]


@router.post(
    "/suggest",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Suggested,
    responses=problems(413, 422, 503),
)
async def suggest(order: Suggest, service: Service) -> Response:
    """Suggest what each removed field or stream was renamed to, how likely that is, and why.

    Takes at most 2,000 elements on each side, and 4 MiB. `confidence` is bounded by the evidence:
    0.90 for names, types and other features of a schema, 0.92 with a note in a description, 0.95
    with matching values or a person's earlier decision about the same pair, 0.98 with a hint that
    the schema declares. Pairs below 0.08, and pairs that were rejected in the given connection, are
    not suggested; a rejection in another connection only lowers the confidence. `samples` are not
    stored.
    """
    return raw_json(orjson.dumps(await service.suggest(order)))


@router.post(
    "/learn",
    dependencies=[may(Scope.REPAIRS_DECIDE, spans_installation=True)],
    responses={
        200: links("GET /knowledge", source_type="$request.body#/source_type"),
        **problems(409, 413, 422, 503, 504),
    },
)
async def learn(decision: Learn, service: Service, request: Request) -> Learned:
    """Record a person's decision as evidence for later suggestions.

    Sending a decision again has no effect; a different one with the same id is rejected with 409
    `decision_differs`. If decisions contradict each other, the newest about a pair counts.
    """
    is_told_more = decision.requested_by is not None or decision.decided_at is not None
    if is_told_more and not caller_of(request).is_service:
        raise Invalid(
            "Only AAM's own services may set `requested_by` and `decided_at`: omit them.",
            code="requested_by_given",
        )
    return Learned(learned=await service.learn(decision))


@router.get(
    "/knowledge",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Page[KnowledgeView],
    responses={200: example({"items": [KNOWLEDGE], "next": None}), **problems(422, 503)},
)
async def knowledge(
    db: Registry,
    source_type: Annotated[SourceType | None, Query()] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """List people's decisions, newest first."""
    async with db.read() as session:
        return raw_json(
            await queries.page_of_knowledge(
                session, source_type=source_type, cursor=after, limit=limit
            )
        )


def build(settings: RagEngineSettings) -> FastAPI:
    """Build the application for these settings."""
    logs.set_up("rag_engine", level=settings.log_level)
    tracing.set_up("rag_engine", settings)
    db = Database.at(
        settings.registry_address,
        application="rag_engine",
        connections=settings.registry_connections,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await db.close()

    app = create_app(
        service="rag_engine",
        description="Suggests renames of removed fields and streams, and learns from decisions.",
        access=access_for("rag_engine", settings, db),
        lifespan=lifespan,
        ready={"registry": db.ping},
        limits=QUESTION,
        body_deadline=settings.body_deadline,
    )
    explaining = Explaining.by_name(settings.rag_explainer, timeout=settings.rag_explainer_timeout)
    app.state.db = db
    app.state.service = RagEngine(db, explaining)
    app.include_router(router)
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module does not read the environment."""
    if name != "app":
        raise AttributeError(name)
    return for_server(build(load(RagEngineSettings)))
