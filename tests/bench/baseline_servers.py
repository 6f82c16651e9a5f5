"""HTTP servers used as baselines: the minimum work that each request requires."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared import registry
from shared.http.strict_json import CATALOG, check
from shared.registry import connections

_PAGE = registry.page(
    "connections", f"json_build_object({connections.CONNECTION_FIELDS})", "t.archived_at IS NULL"
).text.replace(":limit", "$1")


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with (
        asyncpg.create_pool(os.environ["SUPABASE_DB_URL"], min_size=10, max_size=10) as pool,
        httpx.AsyncClient(transport=AiohttpTransport()) as airbyte,
    ):
        app.state.pool, app.state.airbyte = pool, airbyte
        gc.disable()  # garbage collection triples the time of orjson
        yield


async def _apply(request: Request) -> Response:
    """Receive the body, check it for ambiguous JSON, parse it, forward the catalog to Airbyte."""
    body = await request.body()
    check(body, CATALOG)
    orjson.loads(body)
    url = os.environ["AIRBYTE_API_URL"] + "/sink"
    catalog = body[body.index(b'"sync_catalog":') :]
    response = await request.app.state.airbyte.post(url, content=catalog)
    return Response(response.content, media_type="application/json")


async def _page(request: Request) -> Response:
    """Return the orchestrator's page of connections, with the same SQL."""
    page = await request.app.state.pool.fetchval(_PAGE, 100)
    return Response(page, media_type="application/json")


async def _cpu(_request: Request) -> Response:
    """Return the CPU time spent so far, in milliseconds."""
    return Response(f"{time.process_time() * 1000:.2f}")


app = Starlette(
    routes=[
        Route("/apply", _apply, methods=["POST"]),
        Route("/page", _page),
        Route("/bench/cpu", _cpu),
    ],
    lifespan=_lifespan,
)
