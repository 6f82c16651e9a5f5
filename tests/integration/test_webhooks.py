"""Webhooks: who is told of a repair, by what, how often, and what a bad receiver can do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, TypeAlias, get_args
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import trustme
from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import WebhookVerificationError

from local import servers
from services.drift_repair_agent import main as drift_repair_agent
from services.drift_repair_agent.addresses import AddressRefused, Reach, written
from services.drift_repair_agent.delivering import AGAIN_AFTER, Deliveries
from services.drift_repair_agent.notifying import TOLD_BY_DEFAULT, notify
from services.drift_repair_agent.receivers import Receivers
from services.drift_repair_agent.sending import Sender, Signer
from services.drift_repair_agent.webhooks import EventName
from shared import registry
from shared.config import networks, postgres_address
from shared.database import Database
from shared.events import EventType
from shared.models import Connection, Repair
from tests import access, factories
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import REPOSITORY, TABLES, as_service, settings_for
from tests.integration.receivers import KEY, Receiver, receiving, status

SQL: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
HERE = Reach(networks("127.0.0.0/8, ::1/128"))
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
    "concerns": True,
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


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """One receiver."""
    async with receiving() as receiver:
        yield receiver


class Replica:
    """One process's webhooks, which look when they are told to."""

    def __init__(self, registry_url: str, *, deadline: float = 5) -> None:
        url = servers.as_service(registry_url, "drift_repair_agent")
        self.db = Database.at(postgres_address(url), application="drift_repair_agent")
        signer = Signer(SecretStr(KEY))
        sender = Sender(HERE, deadline=timedelta(seconds=deadline))
        self.deliveries = Deliveries(self.db, sender, signer)
        self.receivers = Receivers(self.db, self.deliveries, signer)

    async def add(self, url: str, connection_id: UUID | None = None) -> tuple[UUID, str]:
        """A webhook's id and secret."""
        webhook, secret = await self.receivers.add(url, list(TOLD_BY_DEFAULT), connection_id)
        return webhook.id, secret

    async def deliver(self) -> None:
        """Look once, and wait for what that began."""
        await self.deliveries.look()
        await asyncio.gather(*self.deliveries._under_way.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        async with self.deliveries.running():
            yield self
        await self.db.close()


@pytest.fixture
async def replica(registry_url: str, sql: SQL) -> AsyncIterator[Replica]:
    """One replica, which looks when it is told to."""
    async with Replica(registry_url).running() as replica:
        yield replica


@pytest.fixture
async def db(registry_url: str, sql: SQL) -> AsyncIterator[Database]:
    """The registry, by an engine of the test's own."""
    db = Database.at(postgres_address(registry_url), application="test")
    yield db
    await db.close()


@pytest.fixture
async def agent(
    airbyte: AirbyteServer, registry_url: str, redis_url: str, sql: SQL
) -> AsyncIterator[httpx.AsyncClient]:
    """The whole service, looking by itself."""
    settings = settings_for(airbyte, registry_url, redis_url, webhook_signing_key=KEY)
    app = drift_repair_agent.build(as_service(settings, "drift_repair_agent"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        yield await stack.enter_async_context(access.client(transport=transport, timeout=30))


async def a_repair(db: Database, *changes: dict[str, Any], **columns: Any) -> Repair:
    """A proposed repair of a connection of its own, nobody told yet."""
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


async def tell(db: Database, repair: Repair, event: EventType = EventType.REPAIR_PROPOSED) -> None:
    """Notify in a transaction of its own."""
    async with db.transaction() as session:
        await notify(session, repair, event)


async def one(sql: SQL) -> asyncpg.Record:
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


async def tried(sql: SQL) -> None:
    """Wait until the first try of every message is recorded."""
    left = "SELECT count(*) FROM webhook_deliveries WHERE last_status IS NULL"
    async with asyncio.timeout(10):
        while await sql.fetchval(left):  # noqa: ASYNC110 (another process's doing)
            await asyncio.sleep(0.02)


async def hurry(sql: SQL) -> None:
    """Have every pause and every lease be over."""
    await sql.execute("UPDATE webhook_deliveries SET next_at = now() WHERE state = 'waiting'")


# What is told, and to whom


async def test_a_repair_is_told_with_what_changed(
    agent: httpx.AsyncClient, db: Database, receiver: Receiver
) -> None:
    """By a message that Standard Webhooks' own library verifies; the log says that it arrived."""
    answer = await agent.post("/webhooks", json={"url": receiver.url})
    assert answer.status_code == 201, answer.text
    webhook = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert set(webhook["events"]) == set(TOLD_BY_DEFAULT)
    repair = await a_repair(db, CHANGE, HARMLESS)

    await tell(db, repair)
    (delivery,) = await until_ended(agent, webhook["id"])

    message = receiver.verified(webhook["secret"])
    path, headers, _ = receiver.got[0]
    assert path == "/aam?token=AAMCANARY-token"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("AAM/")
    async with db.read() as session:
        connection = await session.get(Connection, repair.connection_id)
    assert connection is not None
    assert datetime.fromisoformat(message.pop("timestamp")).tzinfo is not None
    assert message == {
        "type": "repair.proposed",
        "data": {
            "connection_id": str(repair.connection_id),
            "connection_name": connection.name,
            "repair_id": str(repair.id),
            "kind": "heal",
            "state": "proposed",
            "severity": "breaking",
            "changes": [
                {
                    "id": "c1",
                    "kind": "field_removed",
                    "stream": {"namespace": None, "name": "Account"},
                    "path": ["total"],
                    "severity": "breaking",
                    "reason": "The field total of Account is gone.",
                    "loses": ["total"],
                    "reaction": "propose",
                    "suggestion": {
                        "became": ["amount"],
                        "confidence": 0.81,
                        "removed": ["total"],
                        "taken_by_approve": False,
                    },
                },
                {
                    "id": "c2",
                    "kind": "field_added",
                    "stream": {"namespace": None, "name": "Account"},
                    "path": ["new"],
                    "severity": "harmless",
                    "reason": "The field total of Account is gone.",
                    "loses": ["total"],
                    "reaction": "propose",
                },
            ],
        },
    }
    assert (delivery["id"], delivery["state"]) == (headers["webhook-id"], "delivered")
    assert (delivery["attempts"], delivery["last_status"], delivery["last_code"]) == (1, 204, None)
    assert (delivery["repair_id"], delivery["next_at"]) == (str(repair.id), None)


async def test_what_became_of_a_repair_is_told(
    db: Database, replica: Replica, receiver: Receiver
) -> None:
    """The version that it became, or why it became none."""
    _, secret = await replica.add(receiver.url)
    applied = await a_repair(db, version_number=7)
    failed = await a_repair(db, failure_code="upstream_mismatch", failure_detail="AAMCANARY-text")
    rolled_back = await a_repair(db, version_number=7, restored_version=8)

    await tell(db, applied, EventType.REPAIR_APPLIED)
    await tell(db, failed, EventType.REPAIR_FAILED)
    await tell(db, rolled_back, EventType.REPAIR_ROLLED_BACK)
    await replica.deliver()

    told = [receiver.verified(secret, which) for which in range(3)]
    data = {message["type"]: message["data"] for message in told}
    assert data["repair.applied"]["version"] == 7
    assert data["repair.failed"]["code"] == "upstream_mismatch"
    assert data["repair.rolled_back"]["version"] == 8
    assert "AAMCANARY" not in json.dumps(told)


async def test_only_who_asked_is_told(
    agent: httpx.AsyncClient, db: Database, sql: SQL, receiver: Receiver
) -> None:
    """Of the five events by default; of one connection, or of other events, where that is said."""
    repair, other = await a_repair(db), await a_repair(db)
    orders: dict[str, dict[str, Any]] = {
        "default": {},
        "one event": {"events": ["repair.rejected", "repair.rejected"]},
        "this connection": {"connection_id": str(repair.connection_id)},
        "another connection": {"connection_id": str(other.connection_id)},
    }
    ids = {}
    for name, order in orders.items():
        answer = await agent.post("/webhooks", json={"url": receiver.url, **order})
        assert answer.status_code == 201, answer.text
        ids[answer.json()["id"]] = name

    for event in EventType:
        await tell(db, repair, event)

    rows = await sql.fetch("SELECT webhook_id, type FROM webhook_deliveries")
    told = {(ids[str(webhook)], type_) for webhook, type_ in rows}
    assert told == {
        *(("default", event) for event in TOLD_BY_DEFAULT),
        *(("this connection", event) for event in TOLD_BY_DEFAULT),
        ("one event", "repair.rejected"),
    }
    assert len(rows) == len(told)
    assert set(get_args(EventName)) == {event for event in EventType if event[:7] == "repair."}


async def test_an_event_is_told_once(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """However often it is told of, and never of a transaction that was rolled back."""
    await replica.add(receiver.url)
    repair = await a_repair(db)

    async def undone(session: AsyncSession) -> None:
        await notify(session, repair, EventType.REPAIR_PROPOSED)
        raise LookupError

    with pytest.raises(LookupError):
        async with db.transaction() as session:
            await undone(session)
    assert await sql.fetchval("SELECT count(*) FROM webhook_deliveries") == 0

    await tell(db, repair)
    first = (await one(sql))["body"]
    await tell(db, repair)
    assert (await one(sql))["body"] == first
    await replica.deliver()
    await tell(db, repair)
    await replica.deliver()
    assert len(receiver.got) == 1


async def test_a_message_stays_small(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """However many changes there are and however long their names; the rest is counted."""
    await replica.add(receiver.url)
    many = await a_repair(db, *([CHANGE] * 60))
    large = await a_repair(db, *([CHANGE | {"reason": "long " * 1000}] * 60))
    lost = await a_repair(db, CHANGE | {"loses": [f"field {n}" for n in range(300)]})
    bodies = []
    for repair in (many, large, lost):
        await tell(db, repair)
        bodies.append(
            await sql.fetchval(
                "SELECT body FROM webhook_deliveries WHERE repair_id = $1", repair.id
            )
        )

    data = [json.loads(body)["data"] for body in bodies]
    assert (len(data[0]["changes"]), data[0]["truncated"]) == (50, 10)
    assert len(data[1]["changes"]) + data[1]["truncated"] == 60
    assert len(bodies[1]) < 66_000
    assert "truncated" not in data[2]
    assert len(data[2]["changes"][0]["loses"]) == 20


# How it gets there


async def test_a_message_is_tried_again(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """The same message with the same id, five seconds later."""
    _, secret = await replica.add(receiver.url)
    receiver.answers = [status(500)]
    await tell(db, await a_repair(db))

    await replica.deliver()
    waiting = await one(sql)
    assert (waiting["state"], waiting["attempts"], waiting["ended_at"]) == ("waiting", 1, None)
    assert (waiting["last_status"], waiting["last_code"]) == (500, "refused")
    assert 3 < await pause(sql) <= 5.5
    await replica.deliver()
    assert len(receiver.got) == 1

    await hurry(sql)
    await replica.deliver()
    done = await one(sql)
    assert (done["state"], done["attempts"], done["last_code"]) == ("delivered", 2, None)
    assert receiver.ids == [str(done["id"])] * 2
    assert receiver.verified(secret, 0) == receiver.verified(secret, 1)


async def pause(sql: SQL) -> float:
    """Seconds until the only delivery is due."""
    seconds = await sql.fetchval(
        "SELECT extract(epoch FROM next_at - now()) FROM webhook_deliveries"
    )
    return float(seconds)


async def test_pauses_grow_until_it_is_given_up(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """After three days and ten tries; a person can have it tried once more."""
    webhook_id, _ = await replica.add(receiver.url)
    receiver.always = status(503)
    await tell(db, await a_repair(db))

    for planned in AGAIN_AFTER:
        await hurry(sql)
        await replica.deliver()
        assert (await one(sql))["state"] == "waiting"
        seconds = planned.total_seconds()
        assert seconds - 2 < await pause(sql) <= seconds * 1.1
    await hurry(sql)
    await replica.deliver()
    given_up = await one(sql)
    assert (given_up["state"], given_up["attempts"]) == ("failed", 10)
    assert given_up["ended_at"] is not None
    await hurry(sql)
    await replica.deliver()
    assert len(receiver.got) == 10

    await replica.receivers.retry(webhook_id, given_up["id"])
    await replica.deliver()
    again = await one(sql)
    assert (again["state"], again["attempts"]) == ("failed", 11)
    receiver.always = status(200)
    await replica.receivers.retry(webhook_id, given_up["id"])
    await replica.deliver()
    assert (await one(sql))["state"] == "delivered"


@pytest.mark.parametrize(
    "asked, least, most",
    [
        ("3600", 3590, 3960),
        ("999999999999999999999", 4, 5.5),
        ("99999999", 86390, 95040),
        ("-5", 4, 5.5),
        ("soon", 4, 5.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 4, 5.5),
        ("Fri, 31 Dec 2100 23:59:59 -0000", 86390, 95040),
    ],
)
async def test_a_receiver_can_ask_for_time(
    db: Database,
    sql: SQL,
    replica: Replica,
    receiver: Receiver,
    asked: str,
    least: float,
    most: float,
) -> None:
    """A day at most, and never less than the pause that is due."""
    await replica.add(receiver.url)
    receiver.always = status(429, retry_after=asked)
    await tell(db, await a_repair(db))

    await replica.deliver()

    assert least < await pause(sql) <= most


async def test_a_redirect_is_not_followed(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """Where a message goes is what the webhook says."""
    await replica.add(receiver.url)
    receiver.always = status(307, location=f"{receiver.base}/elsewhere")
    await tell(db, await a_repair(db))

    await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == ("waiting", 307, "redirected")
    assert [path for path, _, _ in receiver.got] == ["/aam?token=AAMCANARY-token"]


@pytest.mark.parametrize(
    "kind, deadline, told",
    [
        ("hang", 0.5, ("waiting", None, "timeout")),
        ("stall", 30, ("delivered", 200, None)),
        ("never_end", 30, ("delivered", 200, None)),
    ],
)
async def test_a_receiver_holds_nobody(
    registry_url: str,
    db: Database,
    sql: SQL,
    receiver: Receiver,
    kind: str,
    deadline: float,
    told: tuple[Any, ...],
) -> None:
    """A try has an end, and of an answer nothing is read but its status."""
    receiver.always = getattr(receiver, kind)
    async with Replica(registry_url, deadline=deadline).running() as replica:
        await replica.add(receiver.url)
        await tell(db, await a_repair(db))
        async with asyncio.timeout(15):
            await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == told


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


@pytest.mark.parametrize(
    "say",
    [b"", b"no HTTP at all\r\n\r\n", b"HTTP/1.1 200 \xff\xfe\r\nx", b"HTTP/1.1 2\r\n\r\n"],
)
async def test_what_is_no_answer_is_none(
    db: Database, sql: SQL, replica: Replica, say: bytes
) -> None:
    """A connection that is closed, and one that carries nonsense."""
    async with speaking(say) as port:
        await replica.add(f"http://127.0.0.1:{port}/")
        await tell(db, await a_repair(db))
        await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == ("waiting", None, "no_answer")


async def test_nobody_there(db: Database, sql: SQL, replica: Replica) -> None:
    """Nothing listens there: tried again like everything else."""
    await replica.add(f"http://127.0.0.1:{servers.free_port()}/")
    await tell(db, await a_repair(db))

    await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == ("waiting", None, "unreachable")


async def test_certificates_are_verified(db: Database, sql: SQL, replica: Replica) -> None:
    """A receiver whom no known authority vouches for is told nothing."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with speaking(b"HTTP/1.1 204 x\r\n\r\n", ssl=context) as port:
        await replica.add(f"https://127.0.0.1:{port}/")
        await tell(db, await a_repair(db))
        await replica.deliver()

    assert (await one(sql))["last_code"] == "tls_failed"


async def test_gone_is_for_good(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """410 deletes the webhook, and what waits for it ends; others are told as before."""
    webhook_id, _ = await replica.add(receiver.url)
    receiver.answers = [status(410)]
    for _ in range(3):
        await tell(db, await a_repair(db))

    await replica.deliver()

    rows = await sql.fetch("SELECT state, last_status, last_code, attempts FROM webhook_deliveries")
    assert sorted(tuple(row) for row in rows if row["attempts"]) == [("failed", 410, "gone", 1)]
    assert [tuple(row) for row in rows if not row["attempts"]] == [("failed", None, "gone", 0)] * 2
    assert await sql.fetchval("SELECT deleted_at FROM webhooks WHERE id = $1", webhook_id)
    await tell(db, await a_repair(db))
    await replica.deliver()
    assert len(receiver.got) == 1


async def test_a_slow_receiver_is_slow_alone(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """One that hangs takes one place, however much waits for it."""
    repairs = [await a_repair(db) for _ in range(15)]
    async with receiving() as slow:
        slow.always = slow.hang
        await replica.add(slow.url)
        for repair in repairs:
            await tell(db, repair)
        await replica.add(receiver.url)
        for repair in repairs:
            await tell(db, repair, EventType.REPAIR_APPLIED)

        looking = asyncio.create_task(replica.deliver())
        await receiver.hears(15)
        assert len(slow.got) == 1
        slow.over.set()
        await looking


async def test_replicas_share_the_work(
    registry_url: str, db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """Each message is sent by one of them, and once."""
    for _ in range(4):
        await replica.add(receiver.url)
    for _ in range(10):
        await tell(db, await a_repair(db))

    async with Replica(registry_url).running() as other:
        while await sql.fetchval("SELECT count(*) FROM webhook_deliveries WHERE ended_at IS NULL"):
            await asyncio.gather(replica.deliver(), other.deliver())

    assert len(receiver.ids) == len(set(receiver.ids)) == 40
    assert await sql.fetchval("SELECT count(*) FROM webhook_deliveries WHERE attempts = 1") == 40


async def test_nobody_waits_for_another_claim(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """A message that somebody is just taking is passed over, not waited for."""
    await replica.add(receiver.url)
    for _ in range(3):
        await tell(db, await a_repair(db))

    async with sql.transaction():
        held = await sql.fetchval(
            "SELECT id FROM webhook_deliveries ORDER BY next_at LIMIT 1 FOR UPDATE"
        )
        async with asyncio.timeout(60):
            await replica.deliver()
        assert len(receiver.got) == 2
        assert str(held) not in receiver.ids
    await replica.deliver()
    assert receiver.ids[2] == str(held)


async def test_a_late_failure_changes_nothing(
    registry_url: str, db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """Who is overtaken while sending has no say any more."""
    await replica.add(receiver.url)
    await tell(db, await a_repair(db))
    receiver.answers = [receiver.held(status(500)), status(503)]
    late = asyncio.create_task(replica.deliver())
    await receiver.hears()
    await hurry(sql)

    async with Replica(registry_url).running() as other:
        await other.deliver()
    receiver.over.set()
    await late

    row = await one(sql)
    assert (row["attempts"], row["last_status"], row["last_code"]) == (2, 503, "refused")


async def test_a_late_success_is_one(
    registry_url: str, db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """That a message was taken is so whenever its sender gets to record it."""
    await replica.add(receiver.url)
    await tell(db, await a_repair(db))
    receiver.answers = [receiver.held(status(200)), status(500)]
    async with Replica(registry_url).running() as slow:
        late = asyncio.create_task(slow.deliver())
        await receiver.hears()
        await hurry(sql)
        await replica.deliver()
        assert (await one(sql))["last_code"] == "refused"
        receiver.over.set()
        await late

    row = await one(sql)
    assert (row["state"], row["attempts"], row["last_status"]) == ("delivered", 2, 200)


@pytest.mark.parametrize("place, heard", [("before", 0), ("after", 1)])
async def test_a_process_that_dies_loses_nothing(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    db: Database,
    sql: SQL,
    replica: Replica,
    receiver: Receiver,
    place: str,
    heard: int,
) -> None:
    """Killed just before a message is sent or just after: another sends it, with the same id."""
    _, secret = await replica.add(receiver.url)
    await tell(db, await a_repair(db))
    settings = settings_for(airbyte, registry_url, redis_url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "services.drift_repair_agent.main:app"),
        *("--port", str(servers.free_port())),
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            **access.environment(),
            "SUPABASE_DB_URL": servers.as_service(registry_url, "drift_repair_agent"),
            "REDIS_URL": redis_url,
            "AIRBYTE_API_URL": str(settings.airbyte_api_url),
            "WEBHOOK_SIGNING_KEY": KEY,
            "WEBHOOK_NETWORKS": "127.0.0.0/8",
            "AAM_ENV": "test",
            "AAM_FAILPOINTS": f"webhook.send.{place}=kill",
        },
        stdout=subprocess.DEVNULL,
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL

    row = await one(sql)
    assert (row["state"], row["attempts"]) == ("waiting", 1)
    assert len(receiver.got) == heard
    await replica.deliver()
    assert len(receiver.got) == heard  # its lease is not over
    await hurry(sql)
    await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["attempts"]) == ("delivered", 2)
    assert set(receiver.ids) == {str(row["id"])}
    assert receiver.verified(secret)["type"] == "repair.proposed"


# Secrets


async def test_both_secrets_sign_for_a_day(
    agent: httpx.AsyncClient, db: Database, sql: SQL, receiver: Receiver
) -> None:
    """After a rotation; then the new one alone, and two rotations ago never."""
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


async def test_no_secret_is_kept(
    agent: httpx.AsyncClient,
    db: Database,
    sql: SQL,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in a row, not in a log; what a URL's query carries is in its row and in no log."""
    caplog.set_level("DEBUG")
    logging.getLogger().addHandler(caplog.handler)  # building the service set logging up anew
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    rotated = (await agent.post(f"/webhooks/{webhook['id']}/rotate")).json()
    receiver.answers = [status(500), receiver.stall]
    await tell(db, await a_repair(db))
    await tried(sql)
    await hurry(sql)
    await until_ended(agent, webhook["id"])
    await agent.post(f"/webhooks/{webhook['id']}/test")
    await agent.delete(f"/webhooks/{webhook['id']}")
    logging.getLogger().removeHandler(caplog.handler)

    assert caplog.text.count("webhook_tried") >= 3
    rows = ""
    for table in TABLES.split(","):
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


async def test_without_a_key_there_are_no_webhooks(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    db: Database,
    sql: SQL,
    replica: Replica,
    receiver: Receiver,
) -> None:
    """The refusal names the variable; what others told waits for a replica that has it."""
    webhook_id, _ = await replica.add(receiver.url)
    settings = settings_for(airbyte, registry_url, redis_url)
    app = drift_repair_agent.build(as_service(settings, "drift_repair_agent"))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with access.client(transport=transport) as agent:
            await tell(db, await a_repair(db))
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


# Their life


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "http://10.0.0.7/",
        "ftp://hooks.example.com/",
        "hooks.example.com",
        "https://",
        "https:///path",
        "https://user:pass@hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com/#",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:70000/",
        "https://hooks.example.com:x/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com\\@evil.example/",
        "https://höoks.example.com/",
        "https://%6c%6fcalhost/",
        "https://169.254.169.254/latest",
        "https://169.254.169.254./latest",
        "https://2852039166/",
        "https://0xA9FEA9FE/",
        "https://169.254.43518/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fd00:ec2::254]/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://224.0.0.1/",
        "http://localhost.example.com/",
        "https://1.2.3.456/",
        "https://1.2.3.4.5/",
        "https://a..example.com/",
        "https://-a.example.com/",
        f"https://{'a' * 64}.example.com/",
        f"https://{'a.' * 127}example.com/",
        "https://hooks.invalid/",
        "https://10.0.0.7/",
        "https://10.0.0.7./",
        "https://192.168.1.1:8443/",
        "https://[fc00::1]/",
        "https://[::ffff:10.0.0.7]/",
        "https://100.64.0.1/",
        "https://[2001:db8::1]:8443/",
        "https://hooks.example.com/" + "x" * 2048,
        "",
    ],
)
async def test_urls_that_are_refused(agent: httpx.AsyncClient, sql: SQL, url: str) -> None:
    """With a reason that quotes nothing of them; nothing is recorded."""
    if "#" not in url:
        url += "?token=AAMCANARY-token"

    answer = await agent.post("/webhooks", json={"url": url})

    assert answer.status_code == 422
    assert answer.json()["code"] in ("invalid_request", "address_refused")
    assert [field["field"] for field in answer.json()["fields"]] == ["body.url"]
    assert "AAMCANARY" not in answer.text
    assert await sql.fetchval("SELECT count(*) FROM webhooks") == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com:8443/a/b?token=x",
        "https://my_receiver/",
        "https://1.1.1.1:8443/",
        "https://[2606:4700::1111]:8443/",
        "http://localhost:9000/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://[::1]:9000/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
async def test_urls_that_are_taken(agent: httpx.AsyncClient, url: str) -> None:
    """As they were given."""
    answer = await agent.post("/webhooks", json={"url": url})

    assert (answer.status_code, answer.json().get("url")) == (201, url), answer.text


@pytest.mark.parametrize(
    "order, code",
    [
        ({}, "invalid_request"),
        ({"url": "https://a.example/", "events": []}, "invalid_request"),
        ({"url": "https://a.example/", "events": ["sync.finished"]}, "invalid_request"),
        ({"url": "https://a.example/", "secret": "x"}, "invalid_request"),
        ({"url": "https://a.example/", "connection_id": str(uuid4())}, "unknown_connection"),
    ],
)
async def test_orders_that_are_refused(
    agent: httpx.AsyncClient, sql: SQL, order: dict[str, Any], code: str
) -> None:
    """A clear word, and nothing recorded."""
    answer = await agent.post("/webhooks", json=order)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await sql.fetchval("SELECT count(*) FROM webhooks") == 0


async def test_a_message_that_cannot_be_made_stops_no_other(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is a failed try with a code, and is tried again by the same schedule."""
    bad, _ = await replica.add(receiver.url)
    await replica.add(receiver.url)
    secrets = Deliveries._secrets

    def broken(self: Deliveries, due: Any) -> list[str]:
        if due.webhook_id == bad:
            raise KeyError("a bug")
        return secrets(self, due)

    monkeypatch.setattr(Deliveries, "_secrets", broken)
    await tell(db, await a_repair(db))

    await replica.deliveries.look()
    await receiver.hears()
    async with asyncio.timeout(60):
        while await sql.fetchval(_UNRECORDED):  # noqa: ASYNC110 (another task's doing)
            await asyncio.sleep(0.01)

    rows = await sql.fetch("SELECT webhook_id, state, last_code FROM webhook_deliveries")
    found = {row["webhook_id"] == bad: (row["state"], row["last_code"]) for row in rows}
    assert found == {True: ("waiting", "not_sent"), False: ("delivered", None)}


async def test_a_try_that_cannot_be_recorded_stops_no_other(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look begins what is due, and does not end in the error of the last."""

    async def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    await replica.add(receiver.url)
    await tell(db, await a_repair(db))
    with monkeypatch.context() as patch:
        patch.setattr(registry, "record_try", broken)
        await replica.deliveries.look()
        await receiver.hears()
    await replica.add(receiver.url)
    await tell(db, await a_repair(db))

    await replica.deliveries.look()

    await receiver.hears(3)


_UNRECORDED = """
    SELECT count(*) FROM webhook_deliveries WHERE state = 'waiting' AND last_code IS NULL
"""


async def test_a_deleted_webhook_is_told_nothing(
    agent: httpx.AsyncClient, db: Database, sql: SQL, receiver: Receiver
) -> None:
    """What waits for it ends, saying why; what was stays to be seen."""
    receiver.always = status(500)
    path = f"/webhooks/{(await agent.post('/webhooks', json={'url': receiver.url})).json()['id']}"
    await tell(db, await a_repair(db))
    await receiver.hears()

    gone = await agent.delete(path)
    assert (gone.status_code, bool(gone.json()["deleted_at"])) == (200, True)
    assert (await agent.delete(path)).json() == gone.json()
    await tell(db, await a_repair(db))

    (delivery,) = (await agent.get(f"{path}/deliveries")).json()["items"]
    assert (delivery["state"], delivery["last_code"]) == ("failed", "webhook_deleted")
    for action in ("test", "rotate", f"deliveries/{delivery['id']}/retry"):
        answer = await agent.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_deleted"), action
    assert (await agent.get("/webhooks")).json() == {"items": [], "next": None}
    assert (await agent.get(path)).json() == gone.json()


async def test_changes_of_a_webhook_are_listed(agent: httpx.AsyncClient) -> None:
    """With whose credentials asked for them, once each; a secret is in none."""
    webhook = (await agent.post("/webhooks", json={"url": "http://localhost:9/aam"})).json()
    path = f"/webhooks/{webhook['id']}"
    await agent.post(f"{path}/rotate")
    await agent.delete(path)
    await agent.delete(path)

    listed = (await agent.get(f"{path}/history")).json()

    actions = [one["change"]["action"] for one in listed["items"]]
    assert (actions, listed["next"]) == (["deleted", "rotated", "created"], None)
    assert {(one["by"], one["requested_by"]) for one in listed["items"]} == {
        (access.NAME, access.NAME)
    }
    assert "secret" not in str(listed)
    shown = (await agent.get(path)).json()
    names = [shown[name] for name in ("created_by", "rotated_by", "deleted_by")]
    assert names == [access.NAME] * 3


async def test_webhooks_are_listed_page_by_page(agent: httpx.AsyncClient) -> None:
    """`next` of a page is `after` of the following one; the last has none."""
    made = [
        (await agent.post("/webhooks", json={"url": f"http://localhost:9/{n}"})).json()["id"]
        for n in range(3)
    ]
    first = (await agent.get("/webhooks", params={"limit": 2})).json()
    rest = (await agent.get("/webhooks", params={"limit": 2, "after": first["next"]})).json()
    assert [[one["id"] for one in page["items"]] for page in (first, rest)] == [
        [made[2], made[1]],
        [made[0]],
    ]
    assert rest["next"] is None


async def test_deleting_waits_for_what_is_being_told(
    db: Database, sql: SQL, replica: Replica, receiver: Receiver
) -> None:
    """No message is left waiting for a webhook that will never be told."""
    webhook_id, _ = await replica.add(receiver.url)
    repair = await a_repair(db)
    async with db.transaction() as session:
        await registry.webhooks_told_of(session, repair.connection_id, "repair.proposed")
        deleting = asyncio.create_task(replica.receivers.delete(webhook_id))
        _, pending = await asyncio.wait({deleting}, timeout=0.3)
        assert pending
        await notify(session, repair, EventType.REPAIR_PROPOSED)
    await deleting

    row = await one(sql)
    assert (row["state"], row["last_code"]) == ("failed", "webhook_deleted")


async def test_the_test_button(agent: httpx.AsyncClient, sql: SQL, receiver: Receiver) -> None:
    """A real message, now and once, whose end is answered and logged."""
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    path = f"/webhooks/{webhook['id']}"

    well = (await agent.post(f"{path}/test")).json()
    assert (well["delivered"], well["status"], well["code"]) == (True, 204, None)
    assert 0 < well["ms"] < 5000
    assert receiver.verified(webhook["secret"])["type"] == "webhook.test"
    receiver.answers = [status(500)]
    ill = (await agent.post(f"{path}/test")).json()
    assert (ill["delivered"], ill["status"], ill["code"]) == (False, 500, "refused")

    newest, oldest = (await agent.get(f"{path}/deliveries")).json()["items"]
    assert (newest["state"], newest["type"], newest["repair_id"]) == (
        "failed",
        "webhook.test",
        None,
    )
    assert oldest["state"] == "delivered"
    assert len((await agent.get(f"{path}/deliveries?limit=1")).json()["items"]) == 1
    await hurry(sql)
    assert len(receiver.got) == 2


async def test_a_person_can_have_it_tried_now(
    agent: httpx.AsyncClient, db: Database, sql: SQL, receiver: Receiver
) -> None:
    """What waits comes forward; what is delivered is not sent again."""
    receiver.answers = [status(500)]
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    path = f"/webhooks/{webhook['id']}/deliveries"
    await tell(db, await a_repair(db))
    await tried(sql)
    (delivery,) = (await agent.get(path)).json()["items"]

    answer = await agent.post(f"{path}/{delivery['id']}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    (done,) = await until_ended(agent, webhook["id"])
    assert (done["state"], done["attempts"]) == ("delivered", 2)
    again = await agent.post(f"{path}/{delivery['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "already_delivered")


async def test_what_is_not_there(agent: httpx.AsyncClient, receiver: Receiver) -> None:
    """404 for an unknown webhook, and for a message of another one."""
    mine = (await agent.post("/webhooks", json={"url": receiver.url})).json()["id"]
    other = (await agent.post("/webhooks", json={"url": receiver.url})).json()["id"]
    await agent.post(f"/webhooks/{other}/test")
    (delivery,) = (await agent.get(f"/webhooks/{other}/deliveries")).json()["items"]
    nobody = f"/webhooks/{uuid4()}"
    asked = [
        ("GET", nobody),
        ("DELETE", nobody),
        ("POST", f"{nobody}/rotate"),
        ("POST", f"{nobody}/test"),
        ("GET", f"{nobody}/deliveries"),
        ("POST", f"{nobody}/deliveries/{delivery['id']}/retry"),
        ("POST", f"/webhooks/{mine}/deliveries/{delivery['id']}/retry"),
    ]

    answers = [await agent.request(method, path) for method, path in asked]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (404, "not_found")
    }


# Where they go

REFUSED = [
    "127.0.0.1",
    "10.0.0.7",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fd12:3456::1",
    "ff02::1",
    "::ffff:10.0.0.7",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:7",
    "2002:a00:7::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_called(address: str) -> None:
    """What is not on the public network, in any form; metadata is not, whatever is set."""
    with pytest.raises(AddressRefused):
        Reach().expect(ip_address(address))
    every = Reach(networks("0.0.0.0/0, ::/0"))
    if str(written(address)) in ("169.254.169.254", "fd00:ec2::254"):
        with pytest.raises(AddressRefused):
            every.expect(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_called(address: str) -> None:
    """Public ones; and those of a network that is named, but of no other."""
    Reach().expect(ip_address(address))
    Reach(networks("10.0.0.0/8")).expect(ip_address("10.0.0.7"))
    with pytest.raises(AddressRefused):
        Reach(networks("10.0.0.0/8")).expect(ip_address("192.168.0.1"))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]"]
)
async def test_a_receiver_here_needs_to_be_allowed(receiver: Receiver, host: str) -> None:
    """Without WEBHOOK_NETWORKS nothing on this machine is called, by whatever name."""
    sender = Sender(Reach())
    url = receiver.url.replace("127.0.0.1", host)

    outcome = await sender.send(url, uuid4(), "{}", [])

    await sender.aclose()
    assert (outcome.status, outcome.code) == (None, "address_refused")
    assert receiver.got == []


async def test_a_name_is_resolved_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was looked at is what is called: a name server's second word is not asked for."""
    asked: list[str] = []

    async def resolve(
        _self: ThreadedResolver, host: str, port: int = 0, family: int = 0
    ) -> list[ResolveResult]:
        asked.append(host)
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    outcomes = []
    for reach in (Reach(), HERE):
        sender = Sender(reach)
        outcomes.append((await sender.send(url, uuid4(), "{}", [])).code)
        await sender.aclose()

    assert outcomes == ["address_refused", None]
    assert asked == ["hooks.example.com"] * 2
    assert len(receiver.got) == 1
    assert receiver.got[0][1]["host"].startswith("hooks.example.com")
