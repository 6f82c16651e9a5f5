"""API keys limited to connections by label: no route of any service shows or changes the others.

The walk sends the ids of another team's objects in every path and query parameter and body of every
route, and compares the answer with that for ids which do not exist.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from services.rag_engine import main as rag_engine
from shared.auth import label_limits
from shared.auth.api_keys import NewKey
from shared.auth.scopes import KEY_SCOPES
from shared.config import RagEngineSettings
from tests import access, documented, leaks
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import (
    CREDENTIALS,
    ORDER,
    TABLES,
    Mesh,
    add_destination,
    running,
    settings_for,
)
from tests.pools import Sql
from tests.waiting import until

Json = dict[str, Any]
SERVICES = ("orchestrator", "drift_repair_agent", "schema_observer", "rag_engine")
NAME = "Payroll of team B"
NOT_WALKED = {
    "GET /about": "says nothing about connections",
    "GET /health": "open to everyone, and says nothing about connections",
    "GET /ready": "open to everyone, and says nothing about connections",
    "POST /connections/onboard": "creates a connection: test_onboarded_connection_has_the_labels",
}
SPANS_INSTALLATION = {
    "POST /connections/import",
    "GET /imports/{import_id}",
    "POST /credentials/{credential_id}/rotate",
    "GET /credential-reads",
    "GET /refusals",
    "POST /api-keys",
    "GET /api-keys",
    "DELETE /api-keys/{key_id}",
    "POST /learn",
    *(
        f"{method} {path}"
        for method, path in (
            ("GET", "/policies"),
            ("GET", "/policies/history"),
            *(
                (method, f"/policies/{layer}")
                for layer in ("installation", "source-types/{source_type}", "labels/{label}")
                for method in ("GET", "PUT", "DELETE")
            ),
        )
    ),
}
"""The routes that refuse a limited key, whatever is requested."""
THEIR_CREDENTIALS = CREDENTIALS | {
    name.replace("_PROD__", "_B__"): leaks.canary(f"team B's {name}") for name in CREDENTIALS
}
_OF_CONNECTION = """
    SELECT DISTINCT table_name FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name = 'connection_id' AND table_name = ANY($1)
"""


@dataclass
class Teams:
    """Two teams' connections in one installation, and a key of the first one."""

    mesh: Mesh
    apps: Mapping[str, FastAPI]
    sql: Sql
    key: NewKey
    ours: str
    theirs: str
    ids: dict[str, Any] = field(default_factory=dict)
    """Of team B, by the names of parameters."""
    our_ids: dict[str, Any] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Every id and name of team B."""

    def client(self, service: str, *, key: str) -> httpx.AsyncClient:
        """A client of a service with this key."""
        transport = httpx.ASGITransport(self.apps[service], raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(
            base_url="http://aam", headers=headers, transport=transport, timeout=30
        )

    async def rows_of_theirs(self) -> dict[str, list[str]]:
        """What people decide and services record about team B, as text, by table."""
        tables = [row[0] for row in await self.sql.fetch(_OF_CONNECTION, list(TABLES))]
        found = {
            name: await self.sql.fetch(
                f"SELECT t::text FROM {name} t WHERE connection_id::text = $1 ORDER BY 1",  # noqa: S608
                self.theirs,
            )
            for name in tables
            if name not in ("connection_health", "events", "watches")  # of background tasks
        }
        found["connections"] = await self.sql.fetch(
            "SELECT status, labels::text, name, catalog_version, pause_requested_by, archived_at"
            " FROM connections WHERE id::text = $1",
            self.theirs,
        )
        return {name: [str(tuple(row)) for row in rows] for name, rows in found.items()}


def _app(client: httpx.AsyncClient) -> FastAPI:
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    assert isinstance(transport.app, FastAPI)
    return transport.app


async def limited_key(sql: Sql, **labels: str) -> NewKey:
    """A key with every scope, limited to connections with these labels."""
    return await access.insert(sql, *KEY_SCOPES, owner="team a", labels=json.dumps(labels))


@pytest.fixture
async def teams(
    airbyte: AirbyteServer, registry_url: str, redis_url: str, sql: Sql, redis: Redis
) -> AsyncIterator[Teams]:
    """Both teams have a connection with jobs, drifts, repairs, webhooks, policies and knowledge."""
    add_destination(airbyte)
    settings = settings_for(
        airbyte,
        registry_url,
        redis_url,
        webhook_signing_key="s" * 40,
        event_stream_lifetime="0.3",
    )
    values = {"supabase_db_url": settings.supabase_db_url, **access.service_keys()}
    suggesting = rag_engine.build(RagEngineSettings(_env_file=None, **values))
    async with (
        running(
            settings, airbyte, credentials=THEIR_CREDENTIALS, sql=sql, redis=redis, order=ORDER
        ) as mesh,
        suggesting.router.lifespan_context(suggesting),
    ):
        apps = {
            "orchestrator": _app(mesh.orchestrator),
            "drift_repair_agent": _app(mesh.drift_repair_agent),
            "schema_observer": _app(mesh.schema_observer),
            "rag_engine": suggesting,
        }
        ours = await mesh.onboard(connection_name="Accounts of team A")
        theirs = await mesh.onboard(connection_name=NAME, credential_id="salesforce-b")
        key = await limited_key(sql, team="a")
        found = Teams(mesh, apps, sql, key, ours["id"], theirs["id"])
        await mesh.orchestrator.patch(f"/connections/{ours['id']}", json={"labels": {"team": "a"}})
        await _filled(found, airbyte)
        yield found
    await sql.execute("DELETE FROM api_keys WHERE id <> $1", access.KEY.id)


async def _filled(teams: Teams, airbyte: AirbyteServer) -> None:
    mesh = teams.mesh
    patched = await mesh.orchestrator.patch(
        f"/connections/{teams.theirs}", json={"labels": {"team": "b"}}
    )
    assert patched.status_code == 200, patched.text
    for id_ in (teams.ours, teams.theirs):
        started = (await mesh.orchestrator.post(f"/connections/{id_}/sync")).json()
        airbyte.finish_job(started["airbyte_job_id"])
        await mesh.jobs_until_end(id_)
        watched = await mesh.schema_observer.put(
            f"/connections/{id_}/observation", json={"interval_seconds": 86_400}
        )
        assert watched.status_code == 200, watched.text
        hook = await mesh.drift_repair_agent.post(
            "/webhooks", json={"url": "http://127.0.0.1:1/", "connection_id": id_}
        )
        assert hook.status_code == 201, hook.text
        await mesh.drift_repair_agent.post(f"/webhooks/{hook.json()['id']}/test")
    airbyte.drop_field("Account", "AnnualRevenue")
    for id_ in (teams.ours, teams.theirs):
        seen = await mesh.schema_observer.post(
            f"/connections/{id_}/observe", json={"accept_missing": True}, params={"wait": 20}
        )
        assert seen.status_code == 200, seen.text
    async with teams.client("rag_engine", key=access.KEY.key) as client:
        for id_ in (teams.ours, teams.theirs):
            learned = await client.post(
                "/learn",
                json={
                    "decision_id": str(uuid4()),
                    "source_type": "Salesforce",
                    "entity": "field",
                    "stream": {"name": "Account"},
                    "removed": ["Region"],
                    "became": ["Area"],
                    "verdict": "accepted",
                    "connection_id": id_,
                },
            )
            assert learned.status_code in (200, 201), learned.text

    async def both_proposed() -> bool:
        query = "SELECT count(DISTINCT connection_id) = 2 FROM repairs WHERE state = 'proposed'"
        return bool(await teams.sql.fetchval(query))

    await until(both_proposed)
    await mesh.events(1)
    imported = await mesh.orchestrator.post("/connections/import", json={}, params={"wait": 20})
    assert imported.status_code == 200, imported.text
    teams.ids = await _ids(teams.sql, teams.theirs) | {"import_id": imported.json()["operation_id"]}
    teams.our_ids = await _ids(teams.sql, teams.ours)
    teams.hidden = await _strings(teams)


async def _ids(sql: Sql, connection_id: str) -> Json:
    """A connection's objects by the names of parameters."""
    of = "FROM {} WHERE connection_id::text = $1 ORDER BY id LIMIT 1"
    found: Json = {
        name: str(await sql.fetchval(f"SELECT id {of.format(table)}", connection_id))
        for name, table in {
            "job_id": "job_history",
            "drift_id": "drifts",
            "operation_id": "operations",
            "repair_id": "repairs",
            "webhook_id": "webhooks",
            "knowledge_id": "knowledge",
        }.items()
    }
    row = await sql.fetchrow("SELECT * FROM connections WHERE id::text = $1", connection_id)
    assert row is not None
    snapshots = await sql.fetch(
        "SELECT id::text FROM snapshots WHERE airbyte_source_id = $1 ORDER BY taken_at",
        row["airbyte_source_id"],
    )
    delivery = await sql.fetchval(
        "SELECT id::text FROM webhook_deliveries WHERE webhook_id::text = $1", found["webhook_id"]
    )
    return found | {
        "connection_id": connection_id,
        "airbyte_connection_id": str(row["airbyte_connection_id"]),
        "source_id": str(row["airbyte_source_id"]),
        "credential_id": row["credential_id"],
        "snapshot_id": snapshots[0][0],
        "before": snapshots[0][0],
        "after": snapshots[-1][0],
        "delivery_id": str(delivery or uuid4()),
        "q": row["name"],
        "name": row["name"],
        "version": 1,
        "from_version": 1,
        "to_version": 1,
        "source_type": "Salesforce",
        "label": "team=b",
        "key_id": access.KEY.id,
    }


async def _strings(teams: Teams) -> set[str]:
    """The ids and names by which team B's objects could be recognised."""
    shared = {"version", "from_version", "to_version", "source_type", "label", "key_id"}
    found = {str(value) for name, value in teams.ids.items() if name not in shared}
    for table in ("job_history", "drifts", "operations", "repairs", "webhooks", "knowledge"):
        rows = await teams.sql.fetch(
            f"SELECT id::text FROM {table} WHERE connection_id::text = $1",  # noqa: S608
            teams.theirs,
        )
        found |= {row[0] for row in rows}
    events = await teams.sql.fetch(
        "SELECT event_id::text FROM events WHERE connection_id::text = $1", teams.theirs
    )
    return found | {row[0] for row in events}


def _unknown(ids: Json) -> Json:
    """The same names with ids that do not exist."""
    return {
        name: str(uuid4()) if re.fullmatch(r"[0-9a-f-]{36}", str(value)) else value
        for name, value in ids.items()
    } | {"credential_id": "env:not-there", "q": "no such name", "name": "no such name"}


def _filled_in(value: Any, ids: Json) -> Any:
    """An example with these ids wherever a member has the name of one."""
    if isinstance(value, list):
        return [_filled_in(one, ids) for one in value]
    if not isinstance(value, dict):
        return value
    filled = {}
    for name, one in value.items():
        if name in ids and name.endswith("_id") and isinstance(one, str | None):
            filled[name] = ids[name]
        elif name.removesuffix("s") in ids and name.endswith("_ids"):
            filled[name] = [ids[name.removesuffix("s")]]
        else:
            filled[name] = _filled_in(one, ids)
    return filled


@dataclass(frozen=True)
class Asked:
    """One request of the walk, with the ids that it sends."""

    method: str
    path: str
    parameters: tuple[str, ...]
    query: tuple[str, ...]
    body: Any

    async def send(self, client: httpx.AsyncClient, ids: Json) -> httpx.Response:
        """Send it with these ids."""
        filled = re.sub(r"\{(\w+)\}", lambda name: str(ids.get(name[1], "x")), self.path)
        query = {name: ids[name] for name in self.query}
        if "wait" in self.parameters:
            query["wait"] = 5
        body = _filled_in(self.body, ids)
        return await client.request(self.method, filled, params=query, json=body)


def _requests(document: Json) -> list[tuple[str, Asked]]:
    """Every route: without a query, and with each query parameter that takes an id or a name."""
    names = {
        "connection_id", "credential_id", "q", "name", "label", "airbyte_connection_id",
        "source_id", "repair_id", "drift_id",
    }  # fmt: skip
    found = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            listed = operation.get("parameters", ())
            parameters = tuple(one["name"] for one in listed)
            body = documented.example_of(document, operation)
            queries = [one["name"] for one in listed if one["in"] == "query"]
            for query in [(), *((name,) for name in queries if name in names)]:
                asked = Asked(method.upper(), path, parameters, query, body)
                found.append((f"{method.upper()} {path}", asked))
    return found


def _normal(answer: httpx.Response, ids: Json) -> str:
    """A response without what differs between two requests for ids that do not exist."""
    text = answer.text
    for value in sorted({str(value) for value in ids.values()}, key=len, reverse=True):
        if len(value) > 8:
            text = text.replace(value, "…")
    return re.sub(r'"request_id":\s*"[^"]*"|retry: \d+', "", text)


async def test_no_route_shows_or_changes_another_teams_connections(teams: Teams) -> None:
    """Every route, with the ids of team B, answers exactly as for ids that do not exist."""
    before = await teams.rows_of_theirs()
    mixed = {**teams.ids, "connection_id": teams.ours, "webhook_id": teams.our_ids["webhook_id"]}
    walked, wrong, refused = set(), [], set()
    for service in SERVICES:
        document = teams.apps[service].openapi()
        async with teams.client(service, key=teams.key.key) as client:
            for route, asked in _requests(document):
                if route in NOT_WALKED:
                    continue
                walked.add(route)
                for ids in (teams.ids, mixed, teams.our_ids):
                    if ids is not teams.ids and asked.method != "GET":
                        continue
                    answer = await asked.send(client, ids)
                    sent = {str(value) for value in ids.values()}
                    shown = [one for one in teams.hidden - sent if one in answer.text]
                    if answer.status_code < 400:
                        shown += [one for one in teams.hidden if one in answer.text]
                    if shown or answer.status_code >= 500:
                        wrong.append(
                            f"{route} {asked.query}: {answer.status_code} {answer.text[:500]}"
                        )
                    if ids is not teams.ids:
                        continue
                    unknown = _unknown(ids)
                    other = await asked.send(client, unknown)
                    if (answer.status_code, _normal(answer, ids)) != (
                        other.status_code,
                        _normal(other, unknown),
                    ):
                        wrong.append(
                            f"{route} {asked.query} differs: {answer.status_code}"
                            f" {answer.text[:400]} / {other.status_code} {other.text[:400]}"
                        )
                    if answer.status_code == 403:
                        assert answer.json()["code"] == "label_limited", (route, answer.text)
                        refused.add(route)
    assert wrong == [], "\n".join(wrong)
    assert refused >= SPANS_INSTALLATION
    assert await teams.rows_of_theirs() == before
    every = {
        documented.name_of(route)
        for service in SERVICES
        for route in documented.routes_of(teams.apps[service])
    }
    assert every - walked <= NOT_WALKED.keys()


async def test_unlimited_key_sees_both_teams(teams: Teams) -> None:
    """What the limited key does not see is there."""
    seen = set()
    for service in SERVICES:
        document = teams.apps[service].openapi()
        async with teams.client(service, key=access.KEY.key) as client:
            for route, asked in _requests(document):
                if asked.method == "GET" and "/policies" not in route and not asked.query:
                    answer = await asked.send(client, teams.ids)
                    if any(one in answer.text for one in teams.hidden):
                        seen.add(route)
    assert seen >= {
        "GET /connections",
        "GET /connections/{connection_id}",
        "GET /connections/{connection_id}/jobs",
        "GET /connections/{connection_id}/timeline",
        "GET /credentials",
        "GET /drifts",
        "GET /drifts/{drift_id}",
        "GET /events",
        "GET /jobs",
        "GET /knowledge",
        "GET /observations",
        "GET /operations",
        "GET /operations/{operation_id}",
        "GET /repairs",
        "GET /repairs/groups",
        "GET /repairs/{repair_id}",
        "GET /webhooks",
        "GET /webhooks/{webhook_id}",
    }


async def test_counts_leave_the_other_team_out(teams: Teams) -> None:
    """Summaries and facets count only the team's own connections and repairs."""
    for service, path in (
        ("orchestrator", "/connections/summary"),
        ("drift_repair_agent", "/repairs/summary"),
    ):
        async with (
            teams.client(service, key=teams.key.key) as limited,
            teams.client(service, key=access.KEY.key) as unlimited,
        ):
            ours, all_ = (await limited.get(path)).json(), (await unlimited.get(path)).json()
        assert _numbers(ours)
        assert max(_numbers(all_)) == 2
        assert max(_numbers(ours)) == 1


def _numbers(value: Any) -> list[int]:
    if isinstance(value, dict):
        return [number for one in value.values() for number in _numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in _numbers(one)]
    return [value] if isinstance(value, int) and not isinstance(value, bool) else []


async def test_team_works_with_its_own_connections(teams: Teams) -> None:
    """Every kind of write goes through the views, up to an applied repair and a catalog."""
    at = f"/connections/{teams.ours}"
    ours = teams.our_ids
    async with (
        teams.client("orchestrator", key=teams.key.key) as orchestrator,
        teams.client("drift_repair_agent", key=teams.key.key) as repairing,
        teams.client("schema_observer", key=teams.key.key) as observing,
    ):
        approved = await repairing.post(f"/repairs/{ours['repair_id']}/approve", json={})
        assert approved.status_code in (200, 202), approved.text

        async def is_applied() -> bool:
            shown = await repairing.get(f"/repairs/{ours['repair_id']}")
            return bool(shown.json()["state"] == "applied")

        await until(is_applied, within=60)
        document = teams.apps["drift_repair_agent"].openapi()
        policy = documented.example_of(
            document, document["paths"]["/connections/{connection_id}/policy"]["put"]
        )
        discovered = await orchestrator.post(f"{at}/discover")
        answers = [
            discovered,
            await repairing.post("/repair/apply_new_catalog", json=discovered.json()),
            await repairing.post(f"{at}/plan"),
            await repairing.put(f"{at}/policy", json=policy),
            await repairing.get(f"{at}/policy/history"),
            await observing.put(f"{at}/observation", json={"interval_seconds": 7200}),
            await observing.post(f"{at}/observe", params={"wait": 20}),
            await orchestrator.patch(at, json={"description": "Ours", "labels": {"tier": "1"}}),
            await orchestrator.post(f"{at}/sync"),
        ]
        assert not [one.text for one in answers if one.is_error]
        teams.mesh.airbyte.finish_job(answers[-1].json()["airbyte_job_id"])
        await teams.mesh.jobs_until_end(teams.ours)
        hook = await repairing.post(
            "/webhooks", json={"url": "http://127.0.0.1:1/", "connection_id": teams.ours}
        )
        hook_at = f"/webhooks/{hook.json().get('id')}"
        answers += [
            hook,
            await repairing.post(f"{hook_at}/rotate"),
            await repairing.post(f"{hook_at}/test"),
            await repairing.delete(hook_at),
            await orchestrator.delete(at, params={"wait": 20}),
        ]
    wrong = [f"{one.url} {one.status_code} {one.text[:300]}" for one in answers if one.is_error]
    assert wrong == []


async def test_limited_key_repeats_requests(teams: Teams) -> None:
    """With the same Idempotency-Key: also if the request is about no single connection."""
    headers = {"Idempotency-Key": f"decide-{uuid4()}"}
    order = {"verdict": "reject", "repairs": [teams.our_ids["repair_id"]]}
    async with (
        teams.client("drift_repair_agent", key=teams.key.key) as client,
        asyncio.timeout(20),
    ):
        first = await client.post("/repairs/decide", json=order, headers=headers)
        again = await client.post("/repairs/decide", json=order, headers=headers)
        other = await client.post("/repairs/decide", json=order | {"reason": "No"}, headers=headers)
    assert (first.status_code, [one["state"] for one in first.json()["items"]]) == (
        200,
        ["rejected"],
    )
    assert (again.status_code, again.json()) == (200, first.json())
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_onboarded_connection_has_the_labels(teams: Teams) -> None:
    """A limited key's new connection is in its own view; it cannot leave it."""
    async with teams.client("orchestrator", key=teams.key.key) as client:
        order = ORDER | {"connection_name": "New of team A", "prefix": "new_"}
        made = await client.post("/connections/onboard", json=order, params={"wait": 20})
        assert made.status_code == 201, made.text
        assert made.json()["labels"] == {"team": "a"}
        at = f"/connections/{made.json()['id']}"
        for labels in ({"team": "b"}, {"team": None}):
            left = await client.patch(at, json={"labels": labels})
            assert (left.status_code, left.json()["code"]) == (403, "label_limited")
        taken = await client.post(
            "/connections/onboard", json=ORDER | {"connection_name": NAME, "prefix": "x_"}
        )
        assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
        stolen = await client.post(
            "/connections/onboard",
            json=order | {"connection_name": "Z", "credential_id": "salesforce-b", "prefix": "z_"},
        )
        assert (stolen.status_code, stolen.json()["code"]) == (422, "credential_not_found")
        clash = await client.post(
            "/connections/onboard", json=order | {"connection_name": "Y", "prefix": "c1_"}
        )
        assert clash.status_code == 422, clash.text
        assert NAME not in clash.text
        hook = {"url": "http://127.0.0.1:1/"}
    async with teams.client("drift_repair_agent", key=teams.key.key) as client:
        refused = await client.post("/webhooks", json=hook)
        assert (refused.status_code, refused.json()["code"]) == (403, "label_limited")


async def test_webhook_ends_with_the_view_of_its_creator(teams: Teams) -> None:
    """A connection that was given to another team announces nothing to the former one's URL."""
    async with teams.client("drift_repair_agent", key=teams.key.key) as client:
        order = {"url": "http://127.0.0.1:1/", "connection_id": teams.ours}
        made = await client.post("/webhooks", json=order)
    assert made.status_code == 201, made.text
    admins = teams.our_ids["webhook_id"]

    async def announced(field: str) -> set[str]:
        """The webhooks that get a message about the loss of a field."""
        before = {row[0] for row in await teams.sql.fetch("SELECT id FROM webhook_deliveries")}
        teams.mesh.airbyte.drop_field("Contact", field)
        seen = await teams.mesh.schema_observer.post(
            f"/connections/{teams.ours}/observe", json={"accept_missing": True}
        )
        assert seen.status_code == 200, seen.text
        found: set[str] = set()

        async def is_announced() -> bool:
            rows = await teams.sql.fetch(
                "SELECT webhook_id::text FROM webhook_deliveries WHERE id <> ALL($1)"
                " AND type = 'repair.proposed'",
                list(before),
            )
            found.update(row[0] for row in rows)
            return admins in found

        await until(is_announced)
        return found

    path = f"/connections/{teams.ours}"
    assert await announced("Email") == {admins, made.json()["id"]}
    await teams.mesh.orchestrator.patch(path, json={"labels": {"team": "b"}})
    assert await announced("LastName") == {admins}


async def test_no_spelling_leads_to_another_teams_credential(teams: Teams) -> None:
    """With or without its store, however the other team's connection names it, and unread."""
    at = f"/connections/{teams.ours}"
    reads = "SELECT count(*) FROM credential_audit WHERE credential_id LIKE '%salesforce-b'"
    before = await teams.sql.fetchval(reads)
    spellings = [f"{store}salesforce-b" for store in ("", "env:", "file:", "vault:")]
    new = ORDER | {"connection_name": "New of team A", "prefix": "new_"}
    trial = {"source_type": "Salesforce"}
    wrong = []
    async with teams.client("orchestrator", key=teams.key.key) as client:
        for theirs, named in product(spellings, spellings):
            await _use_credential(teams, teams.theirs, theirs)
            for method, path, body in (
                ("POST", "/sources/check", trial),
                ("POST", "/sources/preview", trial),
                ("POST", "/connections/onboard", new),
                ("PATCH", at, {}),
            ):
                answer = await client.request(method, path, json=body | {"credential_id": named})
                if (answer.status_code, answer.json().get("code")) != (422, "credential_not_found"):
                    wrong.append(f"{theirs}, {named}: {path} {answer.text[:200]}")
    assert wrong == []
    assert await teams.sql.fetchval(reads) == before > 0


async def test_own_credential_has_other_spellings(teams: Teams) -> None:
    """Those that no other team uses; what the own connection has may be used in any case."""
    async with teams.client("orchestrator", key=teams.key.key) as client:

        async def checked(named: str) -> int:
            order = {"source_type": "Salesforce", "credential_id": named}
            return (await client.post("/sources/check", json=order)).status_code

        own, other = "salesforce-prod", "env:salesforce-prod"
        assert [await checked(own), await checked(other)] == [200, 200]
        await _use_credential(teams, teams.theirs, other)
        assert [await checked(own), await checked(other)] == [200, 422]


async def _use_credential(teams: Teams, connection_id: str, reference: str) -> None:
    """Let a connection have another reference, as if it had been onboarded with it."""
    await teams.sql.execute(
        "UPDATE connections SET credential_id = $2 WHERE id::text = $1", connection_id, reference
    )


async def test_forwarded_calls_keep_the_limit(teams: Teams) -> None:
    """A service that calls another one for a limited caller passes the labels on."""
    with label_limits.limited_to((("team", "a"),)):
        token = access.signer("drift_repair_agent").token(
            "schema_observer", "connections:read connections:write"
        )
    async with teams.client("schema_observer", key=token) as client:
        seen = await client.get(f"/connections/{teams.ours}/observation")
        hidden = await client.get(f"/connections/{teams.theirs}/observation")
    assert (seen.status_code, hidden.status_code) == (200, 404)


async def test_limited_key_cannot_be_an_administrator(teams: Teams) -> None:
    """Neither when it is created, nor by the gate."""
    async with teams.client("orchestrator", key=access.KEY.key) as client:
        body = {"owner": "a", "scopes": ["admin"], "labels": {"team": "a"}}
        refused = await client.post("/api-keys", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "admin_not_limited")
        body["scopes"] = ["connections:read"]
        made = await client.post("/api-keys", json=body)
        assert made.status_code == 201
        listed = (await client.get("/api-keys")).json()["items"]
    assert {"team": "a"} in [one["labels"] for one in listed if one["id"] == made.json()["id"]]
    async with teams.client("orchestrator", key=made.json()["key"]) as client:
        assert (await client.get("/whoami")).json()["labels"] == {"team": "a"}
        page = (await client.get("/connections")).json()["items"]
    assert [one["id"] for one in page] == [teams.ours]
