"""Property-based tests of the running services with schemathesis.

Each service runs with a real registry and the scripted Airbyte. The requests come in four phases:
examples, boundary values of the schemas, random requests, and stateful sequences along OpenAPI
links. AAM_SCHEMATHESIS=100 sets the number of random requests per operation and of sequences;
AAM_SEED sets the random seed. Boundary values and sequences, which are most of the requests, are
sent with AAM_DEEP=1, as by `make test-all`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Literal

import asyncpg
import msgspec
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from services.rag_engine import main as rag_engine
from shared.config import RagEngineSettings
from tests import access
from tests.contract.asking import Asked, Result
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import (
    FAULT_SEED,
    ORDER,
    REPOSITORY,
    Mesh,
    add_destination,
    as_service,
    redis,
    registry_url,
    running,
    serving,
    settings_for,
    sql,
)

pytestmark = pytest.mark.process

__all__ = ["redis", "registry_url", "sql"]

EXAMPLES = int(os.environ.get("AAM_SCHEMATHESIS", "2"))
IS_DEEP = bool(os.environ.get("AAM_DEEP"))
PHASES = ("examples", "fuzzing", *(("coverage", "stateful") if IS_DEEP else ()))


@pytest.fixture
async def mesh(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    sql: asyncpg.Connection[asyncpg.Record],
    redis: Redis,
) -> AsyncIterator[Mesh]:
    """The services; API keys that a run has created are deleted afterwards."""
    add_destination(airbyte)
    settings = settings_for(
        airbyte,
        registry_url,
        redis_url,
        webhook_signing_key="s" * 40,
        event_stream_lifetime="0.3",
    )
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        yield mesh
    await sql.execute("DELETE FROM api_keys WHERE id <> $1", access.KEY.id)


def app_of(mesh: Mesh, service: str) -> FastAPI:
    """Return the ASGI application of a service."""
    if service == "rag_engine":
        url = as_service(mesh.settings, "rag_engine").supabase_db_url
        values = {"supabase_db_url": url, **access.service_keys()}
        return rag_engine.build(RagEngineSettings(_env_file=None, **values))
    app: FastAPI = getattr(mesh, service)._transport.app
    return app


async def ask_in_a_process(asked: Asked) -> Result:
    """Run schemathesis in a subprocess; options with secrets go through its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.contract.asking"),
        cwd=REPOSITORY,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(msgspec.json.encode(asked))
    assert process.returncode == 0
    return msgspec.json.decode(out, type=Result)


@pytest.mark.parametrize(
    "service",
    ["orchestrator", "auth_broker", "drift_repair_agent", "schema_observer", "rag_engine"],
)
async def test_service_is_as_it_is_described(service: str, mesh: Mesh) -> None:
    """In all phases: no 5xx, no undocumented response, no invalid request accepted."""
    connection = await mesh.onboard()
    # The mesh runs the lifespan of the others.
    own: Literal["on", "off"] = "on" if service == "rag_engine" else "off"
    async with serving(app_of(mesh, service), lifespan=own) as url:
        asked = Asked(
            url,
            examples=EXAMPLES,
            phases=list(PHASES),
            seed=FAULT_SEED,
            authorization="" if service == "auth_broker" else access.HEADERS["Authorization"],
            signing_key=str(access.service_keys()["service_private_key_dir"] / "orchestrator.pem")
            if service == "auth_broker"
            else "",
            known={"connection_id": connection["id"]},
            spared=[access.KEY.id],
        )
        described = await ask_in_a_process(asked)

    print(  # noqa: T201
        service,
        dict(described.cases),
        dict(sorted(described.statuses.items())),
        described.transitions,
    )
    assert not described.found, "\n\n".join(
        f"{name}\n{what}" for name, what in described.found.items()
    )
    assert all(described.cases[phase] > 0 for phase in PHASES)
    assert described.transitions > 0 or not IS_DEEP
    assert described.statuses[200] > 0
