"""create_app: the FastAPI application that every service builds on.

Adds health and readiness checks, problem+json errors, a request id for every request, and body
validation. Responses never echo submitted values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import Lifespan

from shared.errors import AamError, Unavailable
from shared.http import docs_page, health, validation, whoami
from shared.http.authentication import Access, Gate, NoApiKey, requirements
from shared.http.bodies import Bodies
from shared.http.health import Check, Checks
from shared.http.openapi import describe_problems
from shared.http.problems import (
    answer_expected,
    answer_http,
    answer_invalid,
    refusal_response,
)
from shared.http.request_log import RequestLog
from shared.http.strict_json import ORDER, Limits
from shared.observability import logs

log = logs.get(__name__)

BODY_DEADLINE = timedelta(seconds=30)


def create_app(
    *,
    service: str,
    description: str,
    access: Access,
    lifespan: Lifespan[FastAPI] | None = None,
    ready: Mapping[str, Check] | None = None,
    degraded: Mapping[str, Check] | None = None,
    limits: Limits = ORDER,
    body_deadline: timedelta = BODY_DEADLINE,
) -> FastAPI:
    """Create a service's application; the caller adds the routes.

    `access` authenticates callers. `ready` maps each dependency that the service cannot work
    without to a check, which raises an AamError while the dependency is unavailable; `degraded`
    does the same for dependencies that only some routes need.
    """
    app = FastAPI(
        title=f"AAM {service}",
        description=description,
        version="0.1.0",
        lifespan=_with_callers(access, lifespan),
        openapi_url=docs_page.DESCRIPTION if access.docs_are_open else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(validation.expect_known)],
        # shared.observability replaces FastAPI's own telemetry.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    if access.docs_are_open:
        docs_page.add_docs(app)
    decisive = dict(ready or {})
    if access.anybody is not None:
        decisive["access"] = access.require_anybody
    app.state.checks = Checks(decisive, degraded or {})
    app.include_router(health.router)
    app.include_router(whoami.router)
    app.exception_handler(AamError)(answer_expected)
    app.exception_handler(RequestValidationError)(answer_invalid)
    app.exception_handler(HTTPException)(answer_http)
    # The middleware added last is the outermost.
    app.add_middleware(Bodies, limits=limits, deadline=body_deadline)
    app.add_middleware(Gate, known=access, routes=app.routes, answer=refusal_response)
    app.add_middleware(RequestLog, service=service)
    describe_problems(app)
    return app


def _with_callers(access: Access, lifespan: Lifespan[FastAPI] | None) -> Lifespan[FastAPI]:
    """Wrap the lifespan so that a service whose routes or callers are misconfigured does not start.

    Each route must declare a scope, and some caller must be able to authenticate. While the
    registry is unavailable, it is unknown whether there are keys: the service starts, responds 503,
    and becomes ready once the registry is back and holds a key.
    """

    @asynccontextmanager
    async def guarded(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        try:
            requirements(app.routes)
            await _require_callers(access)
            recording = nullcontext() if access.refusals is None else access.refusals.recording()
            # Recorded last before the service closes the registry.
            async with lifespan(app) if lifespan else nullcontext() as state, recording:
                yield state
        except NoApiKey:
            raise
        except Exception:  # the outermost loop of a service: servers would log the message
            log.exception("bug")
            raise

    return guarded  # type: ignore[return-value]  # a state is optional


async def _require_callers(access: Access) -> None:
    try:
        await access.require_anybody()
    except NoApiKey as error:
        log.error("no_api_key", detail=error.detail)  # noqa: TRY400 (no traceback is needed)
        raise
    except Unavailable as error:
        log.warning("callers_unavailable", detail=error.detail)
