"""What a webhook is sent, and which webhooks are sent it."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, get_args
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.webhooks.messages import SUBSCRIBED_BY_DEFAULT, notify
from services.drift_repair_agent.webhooks.notices import Notices
from services.drift_repair_agent.webhooks.routes import EventName
from shared import outbox
from shared.database import Database
from shared.models import Connection, JobHistory
from shared.outbox import NOTIFIED, ON_TIMELINE, EventType
from tests import factories
from tests.integration.receivers import Receiver
from tests.integration.webhooks.stage import (
    CHANGE,
    HARMLESS,
    Replica,
    a_repair,
    announce,
    one,
    until_ended,
)
from tests.pools import Sql


async def test_message_has_the_changes_of_a_repair(
    agent: httpx.AsyncClient, db: Database, receiver: Receiver
) -> None:
    """It verifies with Standard Webhooks' own library; its delivery is logged."""
    answer = await agent.post("/webhooks", json={"url": receiver.url})
    assert answer.status_code == 201, answer.text
    webhook = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert set(webhook["events"]) == set(SUBSCRIBED_BY_DEFAULT)
    repair = await a_repair(db, CHANGE, HARMLESS)

    await announce(db, repair)
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


async def test_message_has_the_result_of_a_repair(
    db: Database, replica: Replica, receiver: Receiver
) -> None:
    """The version that it became, or the reason why none."""
    _, secret = await replica.add(receiver.url)
    applied = await a_repair(db, version_number=7)
    failed = await a_repair(db, failure_code="upstream_mismatch", failure_detail="AAMCANARY-text")
    rolled_back = await a_repair(db, version_number=7, restored_version=8)

    await announce(db, applied, EventType.REPAIR_APPLIED)
    await announce(db, failed, EventType.REPAIR_FAILED)
    await announce(db, rolled_back, EventType.REPAIR_ROLLED_BACK)
    await replica.deliver()

    messages = [receiver.verified(secret, which) for which in range(3)]
    data = {message["type"]: message["data"] for message in messages}
    assert data["repair.applied"]["version"] == 7
    assert data["repair.failed"]["code"] == "upstream_mismatch"
    assert data["repair.rolled_back"]["version"] == 8
    assert "AAMCANARY" not in json.dumps(messages)


async def test_webhooks_get_the_events_they_subscribe_to(
    agent: httpx.AsyncClient, db: Database, sql: Sql, receiver: Receiver
) -> None:
    """The five events by default; of one connection, or of other events, as configured."""
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
        await announce(db, repair, event)

    rows = await sql.fetch("SELECT webhook_id, type FROM webhook_deliveries")
    queued = {(ids[str(webhook)], type_) for webhook, type_ in rows}
    assert queued == {
        *(("default", event) for event in SUBSCRIBED_BY_DEFAULT),
        *(("this connection", event) for event in SUBSCRIBED_BY_DEFAULT),
        ("one event", "repair.rejected"),
    }
    assert len(rows) == len(queued)
    others = {EventType.MAPPER_LAPSED, EventType.CONNECTOR_UPGRADE_DUE}
    of_repairs = {event for event in EventType if event[:7] == "repair."}
    assert set(get_args(EventName)) == of_repairs | others | NOTIFIED
    assert NOTIFIED <= ON_TIMELINE


async def test_events_of_syncs_and_credentials_are_sent_once(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """To webhooks that chose them, whoever recorded them, in the transaction that does."""
    webhook, secret = await replica.receivers.add(receiver.url, sorted(NOTIFIED), None)
    await replica.add(receiver.url)  # of the events by default
    connection = factories.connection(airbyte_source_id=uuid4(), credential_id="salesforce-prod")
    stream = {"stream": "Account", "namespace": None, "rows": 0, "usual_low": 12, "usual_high": 19}
    job = JobHistory(
        connection_id=connection.id,
        airbyte_job_id=1,
        status="succeeded",
        catalog_version=1,
        suspicious_streams=json.dumps([stream | {"since_version": 1}] * 30),
    )
    async with db.transaction() as session:
        session.add(connection)
        await session.flush()
        session.add(job)
        await session.flush()
        for event in EventType:
            outbox.record(session, event, connection, ref=job.id, code="2027-01-31")
    notices = Notices(replica.db)

    await asyncio.gather(notices.add_due(), Notices(db).add_due())
    await notices.add_due()
    rows = await sql.fetch("SELECT webhook_id, type, body FROM webhook_deliveries")
    for _ in rows:
        await replica.deliver()

    assert sorted(row["type"] for row in rows) == sorted(NOTIFIED)
    assert {row["webhook_id"] for row in rows} == {webhook.id}
    messages = [receiver.verified(secret, which) for which in range(len(NOTIFIED))]
    data = {message["type"]: message["data"] for message in messages}
    of_connection: dict[str, Any] = {
        "connection_id": str(connection.id),
        "connection_name": connection.name,
    }
    of_credential = of_connection | {
        "source_id": str(connection.airbyte_source_id),
        "credential_id": "salesforce-prod",
        "operation_id": str(job.id),
    }
    expected: dict[str, Any] = {event: of_credential | {"code": "2027-01-31"} for event in NOTIFIED}
    expected[EventType.CREDENTIAL_EXPIRING] = of_credential | {"expires_at": "2027-01-31"}
    expected[EventType.SYNC_VOLUME_SUSPICIOUS] = of_connection | {
        "job_id": str(job.id),
        "code": "2027-01-31",
        "suspicious_streams": [stream] * 20,
        "truncated": 10,
    }
    assert data == expected


async def test_event_is_sent_once(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """However often it is announced, and never from a rolled back transaction."""
    await replica.add(receiver.url)
    repair = await a_repair(db)

    async def undone(session: AsyncSession) -> None:
        await notify(session, repair, EventType.REPAIR_PROPOSED)
        raise LookupError

    with pytest.raises(LookupError):
        async with db.transaction() as session:
            await undone(session)
    assert await sql.fetchval("SELECT count(*) FROM webhook_deliveries") == 0

    await announce(db, repair)
    first = (await one(sql))["body"]
    await announce(db, repair)
    assert (await one(sql))["body"] == first
    await replica.deliver()
    await announce(db, repair)
    await replica.deliver()
    assert len(receiver.got) == 1


async def test_message_size_is_bounded(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """However many changes there are and however long their names; the rest is counted."""
    await replica.add(receiver.url)
    many = await a_repair(db, *([CHANGE] * 60))
    large = await a_repair(db, *([CHANGE | {"reason": "long " * 1000}] * 60))
    lost = await a_repair(db, CHANGE | {"loses": [f"field {n}" for n in range(300)]})
    bodies = []
    for repair in (many, large, lost):
        await announce(db, repair)
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
