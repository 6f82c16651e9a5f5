"""How messages get to receivers: retries, bad receivers, several replicas."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest
import trustme

from local.processes import servers
from services.drift_repair_agent.webhooks.dispatcher import AGAIN_AFTER
from shared.database import Database
from shared.outbox import EventType
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import REPOSITORY, settings_for
from tests.integration.receivers import KEY, Receiver, receiving, status
from tests.integration.webhooks.stage import (
    Replica,
    a_repair,
    announce,
    hurry,
    one,
    pause,
    speaking,
)
from tests.pools import Sql


async def test_message_is_retried(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """The same message with the same id, five seconds later."""
    _, secret = await replica.add(receiver.url)
    receiver.answers = [status(500)]
    await announce(db, await a_repair(db))

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


async def test_retries_back_off_until_the_message_is_given_up(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """After three days and ten tries; a person can request one more."""
    webhook_id, _ = await replica.add(receiver.url)
    receiver.always = status(503)
    await announce(db, await a_repair(db))

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
    "retry_after, least, most",
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
async def test_receiver_can_delay_the_retry(
    db: Database,
    sql: Sql,
    replica: Replica,
    receiver: Receiver,
    retry_after: str,
    least: float,
    most: float,
) -> None:
    """A day at most, and never less than the regular pause."""
    await replica.add(receiver.url)
    receiver.always = status(429, retry_after=retry_after)
    await announce(db, await a_repair(db))

    await replica.deliver()

    assert least < await pause(sql) <= most


async def test_redirect_is_not_followed(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    await replica.add(receiver.url)
    receiver.always = status(307, location=f"{receiver.base}/elsewhere")
    await announce(db, await a_repair(db))

    await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == ("waiting", 307, "redirected")
    assert [path for path, _, _ in receiver.got] == ["/aam?token=AAMCANARY-token"]


@pytest.mark.parametrize(
    "kind, deadline, recorded",
    [
        ("hang", 0.5, ("waiting", None, "timeout")),
        ("stall", 30, ("delivered", 200, None)),
        ("never_end", 30, ("delivered", 200, None)),
    ],
)
async def test_slow_response_times_out(
    registry_url: str,
    db: Database,
    sql: Sql,
    receiver: Receiver,
    kind: str,
    deadline: float,
    recorded: tuple[Any, ...],
) -> None:
    """Only the status of an answer is read."""
    receiver.always = getattr(receiver, kind)
    async with Replica(registry_url, deadline=deadline).running() as replica:
        await replica.add(receiver.url)
        await announce(db, await a_repair(db))
        async with asyncio.timeout(15):
            await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == recorded


@pytest.mark.parametrize(
    "say, code",
    [
        (b"", "no_answer"),
        (b"no HTTP at all\r\n\r\n", "no_answer"),
        (b"HTTP/1.1 200 \xff\xfe\r\nx", "no_answer"),
        (b"HTTP/1.1 2\r\n\r\n", "no_answer"),
        (None, "unreachable"),
    ],
)
async def test_message_without_an_answer_waits(
    db: Database, sql: Sql, replica: Replica, say: bytes | None, code: str
) -> None:
    """A refused or closed connection, and one that sends nonsense."""
    async with nullcontext(servers.free_port()) if say is None else speaking(say) as port:
        await replica.add(f"http://127.0.0.1:{port}/")
        await announce(db, await a_repair(db))
        await replica.deliver()

    row = await one(sql)
    assert (row["state"], row["last_status"], row["last_code"]) == ("waiting", None, code)


async def test_certificates_are_verified(db: Database, sql: Sql, replica: Replica) -> None:
    """A receiver with an unknown certificate authority gets nothing."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with speaking(b"HTTP/1.1 204 x\r\n\r\n", ssl=context) as port:
        await replica.add(f"https://127.0.0.1:{port}/")
        await announce(db, await a_repair(db))
        await replica.deliver()

    assert (await one(sql))["last_code"] == "tls_failed"


async def test_http_410_deletes_the_webhook(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """Its waiting messages end; other webhooks are not affected."""
    webhook_id, _ = await replica.add(receiver.url)
    receiver.answers = [status(410)]
    for _ in range(3):
        await announce(db, await a_repair(db))

    await replica.deliver()

    rows = await sql.fetch("SELECT state, last_status, last_code, attempts FROM webhook_deliveries")
    assert sorted(tuple(row) for row in rows if row["attempts"]) == [("failed", 410, "gone", 1)]
    assert [tuple(row) for row in rows if not row["attempts"]] == [("failed", None, "gone", 0)] * 2
    assert await sql.fetchval("SELECT deleted_at FROM webhooks WHERE id = $1", webhook_id)
    await announce(db, await a_repair(db))
    await replica.deliver()
    assert len(receiver.got) == 1


async def test_slow_receiver_affects_no_other(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """One that hangs takes one slot, however many messages wait for it."""
    repairs = [await a_repair(db) for _ in range(15)]
    async with receiving() as slow:
        slow.always = slow.hang
        await replica.add(slow.url)
        for repair in repairs:
            await announce(db, repair)
        await replica.add(receiver.url)
        for repair in repairs:
            await announce(db, repair, EventType.REPAIR_APPLIED)

        looking = asyncio.create_task(replica.deliver())
        await receiver.wait_for(15)
        assert len(slow.got) == 1
        slow.over.set()
        await looking


async def test_replicas_share_the_messages(
    registry_url: str, db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """Each is sent by one of them, once."""
    for _ in range(4):
        await replica.add(receiver.url)
    for _ in range(10):
        await announce(db, await a_repair(db))

    async with Replica(registry_url).running() as other:
        while await sql.fetchval("SELECT count(*) FROM webhook_deliveries WHERE ended_at IS NULL"):
            await asyncio.gather(replica.deliver(), other.deliver())

    assert len(receiver.ids) == len(set(receiver.ids)) == 40
    assert await sql.fetchval("SELECT count(*) FROM webhook_deliveries WHERE attempts = 1") == 40


async def test_locked_message_is_skipped(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """It is not waited for."""
    await replica.add(receiver.url)
    for _ in range(3):
        await announce(db, await a_repair(db))

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


async def test_late_failure_changes_nothing(
    registry_url: str, db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """A sender whose claim was taken over no longer decides."""
    await replica.add(receiver.url)
    await announce(db, await a_repair(db))
    receiver.answers = [receiver.delayed(status(500)), status(503)]
    late = asyncio.create_task(replica.deliver())
    await receiver.wait_for()
    await hurry(sql)

    async with Replica(registry_url).running() as other:
        await other.deliver()
    receiver.over.set()
    await late

    row = await one(sql)
    assert (row["attempts"], row["last_status"], row["last_code"]) == (2, 503, "refused")


async def test_late_success_is_recorded(
    registry_url: str, db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """A delivered message is delivered whenever that is recorded."""
    await replica.add(receiver.url)
    await announce(db, await a_repair(db))
    receiver.answers = [receiver.delayed(status(200)), status(500)]
    async with Replica(registry_url).running() as slow:
        late = asyncio.create_task(slow.deliver())
        await receiver.wait_for()
        await hurry(sql)
        await replica.deliver()
        assert (await one(sql))["last_code"] == "refused"
        receiver.over.set()
        await late

    row = await one(sql)
    assert (row["state"], row["attempts"], row["last_status"]) == ("delivered", 2, 200)


@pytest.mark.process
@pytest.mark.deep(after=1)
@pytest.mark.parametrize("place, heard", [("before", 0), ("after", 1)])
async def test_killed_sender_loses_no_message(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    db: Database,
    sql: Sql,
    replica: Replica,
    receiver: Receiver,
    place: str,
    heard: int,
) -> None:
    """Killed just before or after sending: another replica sends it, with the same id."""
    _, secret = await replica.add(receiver.url)
    await announce(db, await a_repair(db))
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
