"""Health and readiness need no authentication, and reveal no details of the dependencies."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI

from services.drift_repair_agent import main as drift_repair_agent
from services.orchestrator import main as orchestrator
from services.rag_engine import main as rag_engine
from services.schema_observer import main as schema_observer
from shared.config import RagEngineSettings, Settings
from tests import access
from tests.integration.conftest import close_parts

NOWHERE = "127.0.0.1:9"
URL = f"postgresql://AAMCANARY-user:AAMCANARY-password@{NOWHERE}/AAMCANARY-db"


def _settings() -> Settings:
    return Settings(
        _env_file=None,
        supabase_db_url=URL,
        redis_url=f"redis://:AAMCANARY-redis@{NOWHERE}/0",
        airbyte_api_url=f"http://{NOWHERE}/AAMCANARY-airbyte",
        airbyte_api_key="AAMCANARY-key",
        auth_broker_url=f"http://{NOWHERE}/AAMCANARY-broker",
        airbyte_timeout="1",
        peer_timeout="1",
        **access.service_keys(),
    )


def _rag_engine() -> FastAPI:
    settings = RagEngineSettings(_env_file=None, supabase_db_url=URL, **access.service_keys())
    return rag_engine.build(settings)


_SERVICES = {
    "orchestrator": lambda: orchestrator.build(_settings()),
    "drift_repair_agent": lambda: drift_repair_agent.build(_settings()),
    "schema_observer": lambda: schema_observer.build(_settings()),
    "rag_engine": _rag_engine,
}
_TOO_MUCH = re.compile(r"127\.0|:9\b|localhost|Error|Exception|Traceback|\d+\.\d+\.\d+")


@pytest.mark.parametrize("service", _SERVICES)
async def test_health_reveals_nothing_about_the_dependencies(service: str) -> None:
    """With all dependencies down: no host, port, user, version, class or exception text."""
    app = _SERVICES[service]()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://aam"
    ) as client:
        health = await client.get("/health?verbose=1")
        ready = await client.get("/ready")
    await close_parts(app)

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert ready.status_code == 503
    body = ready.json()
    assert body.keys() == {"ready", "checks"}
    assert body["checks"]["registry"] == "The registry cannot be reached now."
    for answer in (health, ready):
        shown = answer.text + str(dict(answer.headers))
        assert "AAMCANARY" not in shown
        assert not _TOO_MUCH.search(shown)
