"""Rate limiting: a caller above its rate gets Retry-After; other callers are not affected."""

from __future__ import annotations

import pytest

from shared.auth.scopes import KEY_SCOPES
from tests import access
from tests.pools import Sql
from tests.security.conftest import ask, bearer, build, close, insert_key


@pytest.mark.exact
async def test_caller_above_the_rate_is_answered_429(registry_url: str, sql: Sql) -> None:
    """Before its body is read; /health, other keys, failed logins and services do not count."""
    app = build("rag_engine", registry_url, requests_per_second=0.5)
    busy, other = [await insert_key(sql, *KEY_SCOPES) for _ in range(2)]

    async def status(key: str) -> int:
        return (await ask(app, "GET", "/knowledge", [bearer(key)])).status

    assert await status(busy.key) == 200
    refused = await ask(
        app, "POST", "/learn", [bearer(busy.key), ("content-type", "application/json")]
    )

    assert (refused.status, refused.json()["code"]) == (429, "too_many_requests")
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 < refused.json()["wait_s"] <= 2
    assert not refused.body_was_read
    assert await status(other.key) == 200
    for _ in range(5):
        assert await status("garbage") == 401
        assert (await ask(app, "GET", "/health")).status == 200
        token = access.signer("drift_repair_agent").token("rag_engine", "connections:read")
        assert await status(token) == 200
    await close(app)
