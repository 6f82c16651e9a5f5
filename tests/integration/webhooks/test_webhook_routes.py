"""How webhooks are made, listed, tested and deleted."""

from __future__ import annotations

import asyncio
from typing import Any, get_args
from uuid import uuid4

import httpx
import pytest

from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.dispatcher import Deliveries
from services.drift_repair_agent.webhooks.messages import notify
from services.drift_repair_agent.webhooks.routes import EventName
from shared.database import Database
from shared.outbox import EventType
from tests import access
from tests.integration.receivers import Receiver, status
from tests.integration.webhooks.stage import (
    Replica,
    a_repair,
    announce,
    hurry,
    one,
    tried,
    until_ended,
)
from tests.pools import Sql
from tests.waiting import until_not


async def test_webhook_can_subscribe_to_every_event(agent: httpx.AsyncClient) -> None:
    wanted = {"url": "https://hooks.example.com/", "events": list(get_args(EventName))}
    answer = await agent.post("/webhooks", json=wanted)
    assert answer.status_code == 201, answer.text
    assert set(answer.json()["events"]) == set(wanted["events"])


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
        "https://hooks.onion/",
        "https://hooks.example.com../",
        "https://xn--a.example.com/",
        "https://hooks.XN--0.com/",
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
async def test_invalid_urls_are_refused(agent: httpx.AsyncClient, sql: Sql, url: str) -> None:
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
async def test_valid_urls_are_accepted(agent: httpx.AsyncClient, url: str) -> None:
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
async def test_invalid_orders_are_refused(
    agent: httpx.AsyncClient, sql: Sql, order: dict[str, Any], code: str
) -> None:
    answer = await agent.post("/webhooks", json=order)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await sql.fetchval("SELECT count(*) FROM webhooks") == 0


async def test_failing_message_blocks_no_other(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is a failed try with a code, retried by the same schedule."""
    bad, _ = await replica.add(receiver.url)
    await replica.add(receiver.url)
    secrets = Deliveries._secrets

    def broken(self: Deliveries, due: Any) -> list[str]:
        if due.webhook_id == bad:
            raise KeyError("a bug")
        return secrets(self, due)

    monkeypatch.setattr(Deliveries, "_secrets", broken)
    await announce(db, await a_repair(db))

    await replica.deliveries.send_due()
    await receiver.wait_for()
    await until_not(lambda: sql.fetchval(_UNRECORDED))

    rows = await sql.fetch("SELECT webhook_id, state, last_code FROM webhook_deliveries")
    found = {row["webhook_id"] == bad: (row["state"], row["last_code"]) for row in rows}
    assert found == {True: ("waiting", "not_sent"), False: ("delivered", None)}


async def test_unrecordable_try_blocks_no_other(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look begins what is due, and does not end in the error of the last."""

    async def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    await replica.add(receiver.url)
    await announce(db, await a_repair(db))
    with monkeypatch.context() as patch:
        patch.setattr(queries, "record_try", broken)
        await replica.deliveries.send_due()
        await receiver.wait_for()
    await replica.add(receiver.url)
    await announce(db, await a_repair(db))

    await replica.deliveries.send_due()

    await receiver.wait_for(3)


_UNRECORDED = """
    SELECT count(*) FROM webhook_deliveries WHERE state = 'waiting' AND last_code IS NULL
"""


async def test_deleted_webhook_gets_nothing(
    agent: httpx.AsyncClient, db: Database, sql: Sql, receiver: Receiver
) -> None:
    """Waiting messages end with the reason; older ones stay listed."""
    receiver.always = status(500)
    path = f"/webhooks/{(await agent.post('/webhooks', json={'url': receiver.url})).json()['id']}"
    await announce(db, await a_repair(db))
    await receiver.wait_for()

    gone = await agent.delete(path)
    assert (gone.status_code, bool(gone.json()["deleted_at"])) == (200, True)
    assert (await agent.delete(path)).json() == gone.json()
    await announce(db, await a_repair(db))

    (delivery,) = (await agent.get(f"{path}/deliveries")).json()["items"]
    assert (delivery["state"], delivery["last_code"]) == ("failed", "webhook_deleted")
    for action in ("test", "rotate", f"deliveries/{delivery['id']}/retry"):
        answer = await agent.post(f"{path}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_deleted"), action
    assert (await agent.get("/webhooks")).json() == {"items": [], "next": None}
    assert (await agent.get(path)).json() == gone.json()


async def test_changes_of_a_webhook_are_listed(agent: httpx.AsyncClient) -> None:
    """With the caller, once each; none has a secret."""
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


async def test_webhooks_are_paged(agent: httpx.AsyncClient) -> None:
    """`next` of a page is `after` of the following one; the last has none."""
    webhooks = [
        (await agent.post("/webhooks", json={"url": f"http://localhost:9/{n}"})).json()["id"]
        for n in range(3)
    ]
    first = (await agent.get("/webhooks", params={"limit": 2})).json()
    rest = (await agent.get("/webhooks", params={"limit": 2, "after": first["next"]})).json()
    assert [[one["id"] for one in page["items"]] for page in (first, rest)] == [
        [webhooks[2], webhooks[1]],
        [webhooks[0]],
    ]
    assert rest["next"] is None


async def test_deletion_waits_for_a_message_being_recorded(
    db: Database, sql: Sql, replica: Replica, receiver: Receiver
) -> None:
    """No message is left waiting for a deleted webhook."""
    webhook_id, _ = await replica.add(receiver.url)
    repair = await a_repair(db)
    async with db.transaction() as session:
        await queries.subscribed_webhooks(session, repair.connection_id, "repair.proposed")
        deleting = asyncio.create_task(replica.receivers.delete(webhook_id))
        _, pending = await asyncio.wait({deleting}, timeout=0.3)
        assert pending
        await notify(session, repair, EventType.REPAIR_PROPOSED)
    await deleting

    row = await one(sql)
    assert (row["state"], row["last_code"]) == ("failed", "webhook_deleted")


async def test_test_message(agent: httpx.AsyncClient, sql: Sql, receiver: Receiver) -> None:
    """A real message, once and at once, whose result is answered and logged."""
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


async def test_retry_on_request(
    agent: httpx.AsyncClient, db: Database, sql: Sql, receiver: Receiver
) -> None:
    """A waiting message is sent now; a delivered one is not sent again."""
    receiver.answers = [status(500)]
    webhook = (await agent.post("/webhooks", json={"url": receiver.url})).json()
    path = f"/webhooks/{webhook['id']}/deliveries"
    await announce(db, await a_repair(db))
    await tried(sql)
    (delivery,) = (await agent.get(path)).json()["items"]

    answer = await agent.post(f"{path}/{delivery['id']}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    (done,) = await until_ended(agent, webhook["id"])
    assert (done["state"], done["attempts"]) == ("delivered", 2)
    again = await agent.post(f"{path}/{delivery['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "already_delivered")


async def test_unknown_webhooks_and_messages_are_404(
    agent: httpx.AsyncClient, receiver: Receiver
) -> None:
    mine = (await agent.post("/webhooks", json={"url": receiver.url})).json()["id"]
    other = (await agent.post("/webhooks", json={"url": receiver.url})).json()["id"]
    await agent.post(f"/webhooks/{other}/test")
    (delivery,) = (await agent.get(f"/webhooks/{other}/deliveries")).json()["items"]
    nobody = f"/webhooks/{uuid4()}"
    requests = [
        ("GET", nobody),
        ("DELETE", nobody),
        ("POST", f"{nobody}/rotate"),
        ("POST", f"{nobody}/test"),
        ("GET", f"{nobody}/deliveries"),
        ("POST", f"{nobody}/deliveries/{delivery['id']}/retry"),
        ("POST", f"/webhooks/{mine}/deliveries/{delivery['id']}/retry"),
    ]

    answers = [await agent.request(method, path) for method, path in requests]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (404, "not_found")
    }
