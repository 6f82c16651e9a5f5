"""What messages are signed with."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from standardwebhooks import WebhookVerificationError

from services.drift_repair_agent import main as drift_repair_agent
from shared.database import Database
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import TABLES, as_service, settings_for
from tests.integration.receivers import KEY, Receiver, status
from tests.integration.webhooks.stage import (
    Replica,
    a_repair,
    announce,
    hurry,
    tried,
    until_ended,
)
from tests.pools import Sql


async def test_both_secrets_sign_for_a_day(
    agent: httpx.AsyncClient, db: Database, sql: Sql, receiver: Receiver
) -> None:
    """After a rotation; then the new one alone, and an older one never."""
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    secrets = [webhook["secret"]]

    async def tested() -> list[bool]:
        """Which of the secrets verify the next message."""
        answer = await agent.post(f"/webhooks/{webhook['id']}/test")
        assert answer.json()["delivered"], answer.text
        return [_verifies(receiver, secret) for secret in secrets]

    assert await tested() == [True]
    rotated = await agent.post(f"/webhooks/{webhook['id']}/rotate")
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["rotated_at"]
    secrets.append(rotated.json()["secret"])
    assert await tested() == [True, True]
    assert len(receiver.got[-1][1]["webhook-signature"].split(" ")) == 2
    secrets.append((await agent.post(f"/webhooks/{webhook['id']}/rotate")).json()["secret"])
    assert await tested() == [False, True, True]
    await sql.execute("UPDATE webhooks SET rotated_at = now() - interval '24 h 1 s'")
    assert await tested() == [False, False, True]
    assert len(set(secrets)) == 3
    shown = (await agent.get(f"/webhooks/{webhook['id']}")).text
    assert not any(secret in shown for secret in secrets)


def _verifies(receiver: Receiver, secret: str) -> bool:
    try:
        receiver.verified(secret)
    except WebhookVerificationError:
        return False
    return True


async def test_no_secret_is_stored(
    agent: httpx.AsyncClient,
    db: Database,
    sql: Sql,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in a row or log; a URL's query is in its row and in no log."""
    caplog.set_level("DEBUG")
    logging.getLogger().addHandler(caplog.handler)  # building the service set logging up anew
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    rotated = (await agent.post(f"/webhooks/{webhook['id']}/rotate")).json()
    receiver.answers = [status(500), receiver.stall]
    await announce(db, await a_repair(db))
    await tried(sql)
    await hurry(sql)
    await until_ended(agent, webhook["id"])
    await agent.post(f"/webhooks/{webhook['id']}/test")
    await agent.delete(f"/webhooks/{webhook['id']}")
    logging.getLogger().removeHandler(caplog.handler)

    assert caplog.text.count("webhook_tried") >= 3
    rows = ""
    for table in TABLES:
        rows += str(await sql.fetch(f"SELECT to_jsonb(t)::text FROM {table} t"))  # noqa: S608
    assert webhook["id"] in rows
    secrets = [KEY, *(shown["secret"].removeprefix("whsec_") for shown in (webhook, rotated))]
    for secret in secrets:
        assert secret not in rows
        assert secret not in caplog.text
    for not_told in ("AAMCANARY-token", "AAMCANARY-value", "AAMCANARY-before"):
        assert not_told not in caplog.text
    bodies = str(await sql.fetch("SELECT body FROM webhook_deliveries"))
    assert "AAMCANARY" not in bodies


async def test_webhooks_need_the_signing_key(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    db: Database,
    sql: Sql,
    replica: Replica,
    receiver: Receiver,
) -> None:
    """The refusal names the variable; messages wait for a replica that has it."""
    webhook_id, _ = await replica.add(receiver.url)
    settings = settings_for(airbyte, registry_url, redis_url)
    app = drift_repair_agent.build(as_service(settings, "drift_repair_agent"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with access.client(transport=transport) as agent:
            await announce(db, await a_repair(db))
            for path, body in (
                ("/webhooks", {"url": receiver.url}),
                (f"/webhooks/{webhook_id}/rotate", None),
                (f"/webhooks/{webhook_id}/test", None),
            ):
                answer = await agent.post(path, json=body)
                assert answer.status_code == 503
                assert answer.json()["code"] == "webhooks_not_configured"
                assert "WEBHOOK_SIGNING_KEY" in answer.json()["detail"]
            assert (await agent.get("/webhooks")).json()["items"][0]["id"] == str(webhook_id)
            await asyncio.sleep(0.7)

    assert receiver.got == []
    assert await sql.fetchval("SELECT count(*) FROM webhooks") == 1
    assert await sql.fetchval("SELECT generation FROM webhooks") == 1
    await replica.deliver()
    assert len(receiver.got) == 1
