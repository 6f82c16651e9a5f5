"""What the tests of webhooks are made of: a replica, and repairs to tell of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from pydantic import SecretStr

from local.processes import servers
from services.drift_repair_agent.webhooks.addresses import AllowedAddresses
from services.drift_repair_agent.webhooks.dispatcher import Deliveries
from services.drift_repair_agent.webhooks.messages import SUBSCRIBED_BY_DEFAULT, notify
from services.drift_repair_agent.webhooks.sender import Sender, Signer
from services.drift_repair_agent.webhooks.subscriptions import Receivers
from shared.config import networks
from shared.database import Database
from shared.models import Repair
from shared.outbox import EventType
from shared.postgres_address import postgres_address
from tests import factories
from tests.integration.receivers import KEY
from tests.pools import Sql
from tests.waiting import until_not

HERE = AllowedAddresses(networks("127.0.0.0/8, ::1/128"))
CHANGE: dict[str, Any] = {
    "id": "c1",
    "kind": "field_removed",
    "stream": {"namespace": None, "name": "Account"},
    "path": ["total"],
    "before": {"type": "AAMCANARY-before"},
    "after": None,
    "severity": "breaking",
    "entity": "field",
    "what": "removed",
    "affects_sync": True,
    "reason": "The field total of Account is gone.",
    "loses": ["total"],
    "resets": [],
    "reaction": "propose",
    "suggestion": {
        "became": ["amount"],
        "confidence": 0.81,
        "evidence": [{"kind": "values", "score": 1.0, "detail": "AAMCANARY-value"}],
    },
    "decision": None,
}
HARMLESS = CHANGE | {"id": "c2", "kind": "field_added", "path": ["new"], "severity": "harmless"}
del HARMLESS["suggestion"]


class Replica:
    """One process's webhooks, which deliver when the test says so."""

    def __init__(self, registry_url: str, *, deadline: float = 5) -> None:
        url = servers.as_service(registry_url, "drift_repair_agent")
        self.db = Database.at(postgres_address(url), application="drift_repair_agent")
        signer = Signer(SecretStr(KEY))
        sender = Sender(HERE, deadline=timedelta(seconds=deadline))
        self.deliveries = Deliveries(self.db, sender, signer)
        self.receivers = Receivers(self.db, self.deliveries, signer)

    async def add(self, url: str, connection_id: UUID | None = None) -> tuple[UUID, str]:
        """A webhook's id and secret."""
        webhook, secret = await self.receivers.add(url, list(SUBSCRIBED_BY_DEFAULT), connection_id)
        return webhook.id, secret

    async def deliver(self) -> None:
        """Look once, and wait for what that began."""
        await self.deliveries.send_due()
        await asyncio.gather(*self.deliveries._under_way.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        async with self.deliveries.running():
            yield self
        await self.db.close()


async def a_repair(db: Database, *changes: dict[str, Any], **columns: Any) -> Repair:
    """A proposed repair of a new connection, without a message yet."""
    connection = factories.connection()
    repair = Repair(
        id=uuid4(),
        connection_id=connection.id,
        state="proposed",
        base_version=1,
        changes=json.dumps(changes or [CHANGE]),
        **columns,
    )
    async with db.transaction() as session:
        session.add(connection)
        await session.flush()
        session.add(repair)
    return repair


async def announce(
    db: Database, repair: Repair, event: EventType = EventType.REPAIR_PROPOSED
) -> None:
    """Queue the messages of a repair's event in a transaction of their own."""
    async with db.transaction() as session:
        await notify(session, repair, event)


async def one(sql: Sql) -> asyncpg.Record:
    """The only delivery."""
    (row,) = await sql.fetch("SELECT * FROM webhook_deliveries")
    return row


async def until_ended(agent: httpx.AsyncClient, webhook_id: str) -> list[dict[str, Any]]:
    """The webhook's deliveries, once the newest has ended."""
    async with asyncio.timeout(10):
        while True:
            rows: list[dict[str, Any]] = (
                await agent.get(f"/webhooks/{webhook_id}/deliveries")
            ).json()["items"]
            if rows and rows[0]["ended_at"]:
                return rows
            await asyncio.sleep(0.02)


async def tried(sql: Sql) -> None:
    """Wait until the first try of every message is recorded."""
    left = "SELECT count(*) FROM webhook_deliveries WHERE last_status IS NULL"
    await until_not(lambda: sql.fetchval(left))


async def hurry(sql: Sql) -> None:
    """Have every pause and every lease be over."""
    await sql.execute("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'waiting'")


async def pause(sql: Sql) -> float:
    """Seconds until the only delivery is due."""
    seconds = await sql.fetchval(
        "SELECT extract(epoch FROM next_at - now()) FROM webhook_deliveries"
    )
    return float(seconds)


@asynccontextmanager
async def speaking(say: bytes, **options: Any) -> AsyncIterator[int]:
    """A server that reads a request, says something, and hangs up; its port."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(say)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0, **options)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
