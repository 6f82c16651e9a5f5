"""What became of what is gone, over HTTP, with what people decided kept in a real Postgres."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
from pydantic import Secret

from local.processes import servers
from services.rag_engine import main
from services.rag_engine.explainer import Explaining
from services.rag_engine.service import RagEngine
from shared.config import RagEngineSettings
from shared.errors import Conflict
from shared.http.strict_json import QUESTION
from shared.service_clients import RagEngine as Peer
from tests import access
from tests.integration.conftest import serving
from tests.integration.paging import pages
from tests.pools import Sql

CANARY = "AAMCANARY-sampled-value"
ORDERS = {"namespace": None, "name": "orders"}
NUMBER = {"type": ["null", "number"]}


def settings_for(registry_url: str, **more: Any) -> RagEngineSettings:
    """The settings of the service."""
    return RagEngineSettings(
        _env_file=None,
        supabase_db_url=Secret(servers.as_service(registry_url, "rag_engine")),
        log_level="DEBUG",
        **access.service_keys(),
        **more,
    )


@asynccontextmanager
async def engine(settings: RagEngineSettings, **parts: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service; `explainer` is one that no setting can name."""
    app = main.build(settings)
    if "explainer" in parts:
        explaining = Explaining(parts["explainer"], timeout=settings.rag_explainer_timeout)
        app.state.service = RagEngine(app.state.db, explaining)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        access.client(transport=transport, timeout=30) as client,
    ):
        yield client


@pytest.fixture
async def rag(registry_url: str, sql: Sql) -> AsyncIterator[httpx.AsyncClient]:
    """The service over an empty registry."""
    async with engine(settings_for(registry_url)) as client:
        yield client


def question(removed: dict[str, Any], added: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What is gone and what is new, by name and schema."""
    sides = [
        [{"path": [name], "schema": schema} for name, schema in side.items()]
        for side in (removed, added)
    ]
    body = {"source_type": "Salesforce", "stream": ORDERS, "removed": sides[0], "added": sides[1]}
    return {**body, **more}


def decision(removed: str, became: str | None, **more: Any) -> dict[str, Any]:
    """A decision of a person's."""
    return {
        "decision_id": str(uuid4()),
        "source_type": "Salesforce",
        "stream": ORDERS,
        "removed": [removed],
        "became": None if became is None else [became],
        "verdict": "accepted",
        "decided_by": "ada@example.com",
        **more,
    }


async def suggested(rag: httpx.AsyncClient, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The suggestions."""
    answer = await rag.post("/suggest", json=body)
    assert answer.status_code == 200, answer.text
    suggestions: list[dict[str, Any]] = answer.json()["suggestions"]
    return suggestions


async def learned(rag: httpx.AsyncClient, decided: dict[str, Any]) -> None:
    """The service knows this decision now."""
    answer = await rag.post("/learn", json=decided)
    assert answer.json() == {"learned": True}, answer.text


async def test_ready_with_only_a_registry(rag: httpx.AsyncClient) -> None:
    """No network and no model is needed."""
    checks = {"registry": "ok", "access": "ok"}
    assert (await rag.get("/ready")).json() == {"ready": True, "checks": checks}


async def test_not_ready_without_a_registry() -> None:
    """Suggestions would ignore the decisions that people made."""
    async with engine(settings_for("postgresql://nobody:x@127.0.0.1:1/aam")) as rag:
        assert (await rag.get("/ready")).status_code == 503
        answer = await rag.post("/suggest", json=question({"a": NUMBER}, {"b": NUMBER}))
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")


async def test_rename_is_suggested_with_evidence(rag: httpx.AsyncClient) -> None:
    """By names alone it is never certain enough to be applied without a decision."""
    body = question({"meta": {"type": "object"}}, {"metadata": {"type": "object"}})

    [rename] = await suggested(rag, body)

    assert (rename["removed"], rename["became"]) == (["meta"], ["metadata"])
    assert 0.8 < rename["confidence"] <= 0.9
    assert rename["more_than_names"] is False
    assert [each["kind"] for each in rename["evidence"]] == ["name", "type", "choice"]


async def test_declared_hint_is_more_than_names(rag: httpx.AsyncClient) -> None:
    """However unlike the names are."""
    added = {"body": {"type": "string", "x-renamed-from": "comment"}, "note": {"type": "string"}}

    [rename] = await suggested(rag, question({"comment": {"type": "string"}}, added))

    assert (rename["became"], rename["confidence"]) == (["body"], 0.98)
    assert rename["more_than_names"] is True
    assert rename["evidence"][-1]["kind"] == "hint"


async def test_only_added_or_only_removed_is_no_rename(rag: httpx.AsyncClient) -> None:
    assert await suggested(rag, question({}, {"x": NUMBER, "y": NUMBER})) == []
    answer = await rag.post("/suggest", json=question({"x": NUMBER, "y": NUMBER}, {}))
    assert answer.json() == {"suggestions": [], "unmatched": [["x"], ["y"]]}


async def test_sample_values_are_compared_and_not_stored(
    rag: httpx.AsyncClient, sql: Sql, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor are they in the answer or the log."""
    values = [f"{CANARY}-{n}" for n in range(30)]
    body = question(
        {"inbox": {"type": "string"}},
        {"intake": {"type": "string"}, "inbox_name": {"type": "string"}},
        samples={"removed": {"inbox": values}, "added": {"intake": values[5:]}},
    )

    answer = await rag.post("/suggest", json=body)

    [rename] = answer.json()["suggestions"]
    assert (rename["became"], rename["more_than_names"]) == (["intake"], True)
    assert rename["confidence"] == 0.95
    assert CANARY not in answer.text + "".join(capfd.readouterr())
    assert await sql.fetchval("SELECT count(*) FROM knowledge") == 0


async def test_accepted_decision_is_reused(rag: httpx.AsyncClient) -> None:
    """In the same stream of the same source type it is strong evidence; elsewhere a remark."""
    body = question({"icon": NUMBER}, {"emoji": NUMBER, "size": NUMBER, "color": NUMBER})
    [before] = await suggested(rag, body)
    assert before["confidence"] < 0.5

    await learned(rag, decision("icon", "emoji"))

    [rename] = await suggested(rag, body)
    assert (rename["became"], rename["confidence"]) == (["emoji"], 0.95)
    assert rename["more_than_names"] is True
    [elsewhere] = await suggested(rag, {**body, "stream": {"namespace": None, "name": "users"}})
    assert (elsewhere["became"], elsewhere["more_than_names"]) == (["emoji"], False)
    assert before["confidence"] < elsewhere["confidence"] < 0.9
    assert elsewhere["evidence"][-1]["kind"] == "past_decision"
    [other_type] = await suggested(rag, {**body, "source_type": "HubSpot"})
    assert other_type["confidence"] == before["confidence"]


async def test_rejected_pair_is_not_suggested_again(rag: httpx.AsyncClient) -> None:
    """Another candidate is; in another connection the rejection only lowers the confidence."""
    here, there = str(uuid4()), str(uuid4())
    body = question({"price": NUMBER}, {"price_amount": NUMBER}, connection_id=here)
    [before] = await suggested(rag, body)
    rejected = decision("price", "price_amount", verdict="rejected", connection_id=here)
    await learned(rag, rejected)

    answer = (await rag.post("/suggest", json=body)).json()

    assert answer == {"suggestions": [], "unmatched": [["price"]]}
    both = {"price_amount": NUMBER, "cost": NUMBER}
    more = question({"price": NUMBER}, both, connection_id=here)
    [rename] = await suggested(rag, more)
    assert (rename["became"], rename["alternatives"]) == (["cost"], [])
    [elsewhere] = await suggested(rag, {**body, "connection_id": there})
    assert 0.5 < elsewhere["confidence"] < before["confidence"]
    assert {key: value for key, value in elsewhere["evidence"][-1].items() if key != "detail"} == {
        "kind": "past_decision",
        "score": -0.4,
    }


async def test_dropped_field_is_suggested_as_before(rag: httpx.AsyncClient) -> None:
    """In the README's order: Region__c is dropped, and later a rename of it is requested."""
    text, yes_no = {"type": ["null", "string"]}, {"type": ["null", "boolean"]}
    new = {"Sales_Region__c": text, "Fax_Consent__c": yes_no}
    connection_id = str(uuid4())
    body = question({"Region__c": text}, new)
    before = await suggested(rag, body)
    assert (before[0]["became"], before[0]["confidence"] > 0.8) == (["Sales_Region__c"], True)

    await learned(rag, decision("Region__c", None, connection_id=connection_id))

    assert await suggested(rag, body) == before
    assert await suggested(rag, {**body, "connection_id": connection_id}) == before


async def test_newest_decision_counts(rag: httpx.AsyncClient, sql: Sql) -> None:
    """Every decision is kept: a person may change their mind and change it back."""
    body = question({"icon": NUMBER}, {"emoji": NUMBER, "glyph": NUMBER})
    for verdict, became, sure, chosen in (
        ("accepted", "emoji", True, "emoji"),
        ("accepted", "glyph", True, "glyph"),
        ("rejected", "glyph", False, "emoji"),
        ("accepted", "emoji", True, "emoji"),
        ("accepted", None, False, "emoji"),
    ):
        await learned(rag, decision("icon", became, verdict=verdict))
        suggestion = (await suggested(rag, body))[0]
        assert suggestion["more_than_names"] is sure, (verdict, became)
        assert suggestion["became"] == [chosen]
    assert await sql.fetchval("SELECT count(*) FROM knowledge") == 5


async def test_repeated_decision_is_stored_once(rag: httpx.AsyncClient) -> None:
    """Also concurrently; a different one with the same id is refused."""
    order = decision("icon", "emoji", reason="It was redesigned.", connection_id=str(uuid4()))

    answers = await asyncio.gather(*(rag.post("/learn", json=order) for _ in range(5)))

    assert sorted(answer.json()["learned"] for answer in answers) == [False] * 4 + [True]
    refused = await rag.post("/learn", json={**order, "became": ["glyph"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "decision_differs")
    [known] = (await rag.get("/knowledge")).json()["items"]
    assert known.pop("created_at")
    assert known.pop("requested_by") == access.NAME
    assert known == {**order, "entity": "field", "connection_name": None}


async def test_decision_is_recorded_for_its_caller(rag: httpx.AsyncClient) -> None:
    """With a named person, the caller is recorded, too; only a service may name another caller."""
    mine = decision("icon", "emoji")
    del mine["decided_by"]
    await learned(rag, mine)
    [known] = (await rag.get("/knowledge")).json()["items"]
    assert known["decided_by"] == known["requested_by"] == access.NAME

    for more, code in (
        ({"requested_by": "bob (key 12345678)"}, "requested_by_given"),
        ({"decided_at": "2026-11-22T09:31:00Z"}, "requested_by_given"),
        ({"decided_by": "Policy"}, "invalid_request"),
    ):
        refused = await rag.post("/learn", json=decision("a", "b", **more))
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert len((await rag.get("/knowledge")).json()["items"]) == 1


async def test_knowledge_is_paged(rag: httpx.AsyncClient) -> None:
    """`next` of a page is `after` of the following one; the last has none."""
    for name in ("a", "b", "c"):
        await learned(rag, decision(name, None))
    listed = await pages(rag, "/knowledge", limit=2)
    assert [[row["removed"][0] for row in page] for page in listed] == [["c", "b"], ["a"]]
    assert (await rag.get("/knowledge", params={"after": "?"})).json()["code"] == "invalid_cursor"


async def test_knowledge_is_listed_newest_first(rag: httpx.AsyncClient) -> None:
    """Of one source type or of all, up to a limit."""
    for name in ("a", "b", "c"):
        await learned(rag, decision(name, None))
    await learned(rag, decision("d", None, source_type="HubSpot"))

    async def removed(**query: Any) -> list[str]:
        rows = (await rag.get("/knowledge", params=query)).json()["items"]
        return [row["removed"][0] for row in rows]

    assert await removed() == ["d", "c", "b", "a"]
    assert await removed(source_type="Salesforce", limit=2) == ["c", "b"]
    assert (await rag.get("/knowledge", params={"limit": 0})).status_code == 422


async def test_streams_are_suggested_by_their_fields(rag: httpx.AsyncClient) -> None:
    """Their names may have nothing in common; a decision about one is found again."""
    columns = dict.fromkeys(("id", "status", "size", "placed_at", "customer"), NUMBER)
    invoice = dict.fromkeys(("id", "due_at", "sum", "tax"), NUMBER)
    body = question(
        {"Order": {"properties": columns}},
        {"Purchase": {"properties": columns | {"note": NUMBER}}, "Bill": {"properties": invoice}},
        entity="stream",
        stream=None,
    )
    [rename] = await suggested(rag, body)
    assert (rename["became"], rename["more_than_names"]) == (["Purchase"], False)
    assert 0.6 < rename["confidence"] <= 0.9

    await learned(rag, decision("Order", "Purchase", entity="stream", stream=None))

    assert (await suggested(rag, body))[0]["more_than_names"] is True
    [known] = (await rag.get("/knowledge")).json()["items"]
    assert known["stream"] == {"namespace": None, "name": "Order"}


async def test_equal_names_are_found_without_pg_trgm(registry_url: str, sql: Sql) -> None:
    """The extension is not available everywhere; identical decisions count all the same."""
    body = question({"icon": NUMBER}, {"emoji": NUMBER, "size": NUMBER})
    had_it = await sql.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")
    await sql.execute("DROP EXTENSION IF EXISTS pg_trgm")
    try:
        async with engine(settings_for(registry_url)) as rag:
            await learned(rag, decision("icon", "emoji"))
            assert (await suggested(rag, body))[0]["more_than_names"] is True
            elsewhere = {**body, "stream": {"namespace": None, "name": "users"}}
            [rename] = await suggested(rag, elsewhere)
            assert rename["evidence"][-1]["kind"] == "past_decision"
    finally:
        if had_it:
            await sql.execute("CREATE EXTENSION pg_trgm")


async def test_similar_names_are_found_with_pg_trgm(rag: httpx.AsyncClient, sql: Sql) -> None:
    """The same change of words, accepted for other names, is weak evidence."""
    assert await sql.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'") == 1
    body = question({"modified": NUMBER}, {"modified_on": NUMBER, "seen_on": NUMBER})
    before = (await suggested(rag, body))[0]
    await learned(rag, decision("created", "created_on", stream={"name": "users"}))

    after = (await suggested(rag, body))[0]

    assert (
        after["evidence"][-1]["detail"]
        == "A person accepted the same change of words in another name before."
    )
    assert before["confidence"] <= after["confidence"] <= 0.9
    assert after["more_than_names"] is False


async def test_old_decision_is_found_among_many(rag: httpx.AsyncClient, sql: Sql) -> None:
    """Names are compared with the newest decisions; exact matches are always found."""
    await learned(rag, decision("icon", "emoji"))
    await sql.execute("""
        INSERT INTO knowledge
            (id, source_type, entity, stream, removed, became, verdict, decided_by)
        SELECT gen_random_uuid(), 'Salesforce', 'field', 'orders', to_jsonb(ARRAY['a' || n]),
            to_jsonb(ARRAY['b' || n]), 'accepted', 'ada@example.com'
        FROM generate_series(1, 2000) n
    """)
    body = question({"icon": NUMBER}, {"emoji": NUMBER, "size": NUMBER})

    assert (await suggested(rag, body))[0]["more_than_names"] is True


async def test_own_decision_is_found_among_those_of_many_connections(
    rag: httpx.AsyncClient, sql: Sql
) -> None:
    """However many connections and streams had decisions about a field of that name since."""
    here = str(uuid4())
    rejected = decision("icon", "emoji", verdict="rejected", connection_id=here)
    await learned(rag, rejected)
    await sql.execute("""
        INSERT INTO knowledge
            (id, source_type, entity, stream, removed, became, verdict, decided_by, connection_id)
        SELECT gen_random_uuid(), 'Salesforce', 'field',
            CASE WHEN n % 2 = 0 THEN 'orders' ELSE 'users' END, '["icon"]', '["emoji"]',
            'accepted', 'ada@example.com', gen_random_uuid()
        FROM generate_series(1, 2500) n
    """)
    body = question({"icon": NUMBER}, {"emoji": NUMBER}, connection_id=here)

    assert await suggested(rag, body) == []
    elsewhere = await suggested(rag, {**body, "connection_id": str(uuid4())})
    assert elsewhere[0]["more_than_names"] is True


# What is refused


@pytest.mark.parametrize(
    "change, field",
    [
        ({"stream": None}, "body"),
        ({"entity": "table"}, "body.entity"),
        ({"removed": [{"path": []}]}, "body.removed.0.path"),
        ({"removed": [{"path": ["x"]}, {"path": ["x"]}]}, "body"),
        ({"removed": [{"path": ["new"]}]}, "body"),
        ({"removed": [{"path": [str(n)]} for n in range(2001)]}, "body.removed"),
        ({"samples": {"removed": {"x": [1] * 1001}}}, "body.samples.removed.x"),
        ({"samples": {"removed": {"x": [{"nested": 1}]}}}, "body.samples.removed.x.0"),
        ({"surprise": 1}, "body"),
        ({"source_type": ""}, "body.source_type"),
    ],
)
async def test_invalid_request_is_refused(
    rag: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    """With the place, and without quoting what was sent."""
    answer = await rag.post("/suggest", json=question({"gone": NUMBER}, {"new": NUMBER}) | change)

    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert any(problem["field"].startswith(field) for problem in answer.json()["fields"])
    assert "nested" not in answer.text


async def test_oversized_body_is_refused(rag: httpx.AsyncClient) -> None:
    answer = await rag.post(
        "/suggest",
        content=b"[" + b" " * QUESTION.body_bytes,
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("text", [rb'"\u0000"', rb'"\ud800"', b"1" + b"0" * 30])
async def test_schema_that_postgres_cannot_store_is_refused(
    rag: httpx.AsyncClient, sql: Sql, text: bytes
) -> None:
    """Nothing of the decision is learned."""
    order = orjson.dumps(decision("a", "b", schemas={"removed": {"default": "@"}}))
    answer = await rag.post(
        "/learn",
        content=order.replace(b'"@"', text),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert await sql.fetchval("SELECT count(*) FROM knowledge") == 0


async def test_largest_request_does_not_block_others(rag: httpx.AsyncClient) -> None:
    """It runs in a thread: /health is answered meanwhile."""
    body = question(
        {f"field_{n}": NUMBER for n in range(2000)}, {f"column_{n}": NUMBER for n in range(2000)}
    )
    asking = asyncio.create_task(rag.post("/suggest", json=body))
    waits = []
    while not asking.done():
        started = asyncio.get_running_loop().time()
        assert (await rag.get("/health")).status_code == 200
        waits.append(asyncio.get_running_loop().time() - started)
        await asyncio.sleep(0.02)
    assert (await asking).status_code == 200
    assert sorted(waits)[len(waits) // 2] < 0.2


# Explainers


def explain(suggestions: Sequence[dict[str, Any]]) -> list[str]:
    """An explainer that a setting of a test names."""
    return [f"{s['removed'][0]} is called {s['became'][0]} now." for s in suggestions]


def reverses(suggestions: Sequence[dict[str, Any]]) -> list[str]:
    """An explainer that tries to decide: it reverses the order and raises the confidence."""
    assert isinstance(suggestions, list)
    suggestions.reverse()
    for suggestion in suggestions:
        suggestion.update(confidence=1.0, more_than_names=True)
        suggestion["became"].append("mine")
    return ["I decide." for _ in suggestions]


def fails(_suggestions: Sequence[dict[str, Any]]) -> list[str]:
    """A model that is away."""
    raise RuntimeError(CANARY)


def rambles(suggestions: Sequence[dict[str, Any]]) -> list[str]:
    """More texts than there are suggestions."""
    return ["What is this?"] * (len(suggestions) + 1)


TWO = question(
    {"total_net": NUMBER, "name": {"type": "string"}},
    {"total_net_amount": NUMBER, "title": {"type": "string"}},
)


async def test_explainer_adds_an_explanation(registry_url: str, sql: Sql) -> None:
    """Only if a setting names one."""
    async with engine(settings_for(registry_url, rag_explainer=f"{__name__}:explain")) as rag:
        suggestions = await suggested(rag, TWO)
    assert suggestions[0]["explanation"] == "total_net is called total_net_amount now."


@pytest.mark.parametrize("explainer", [reverses, fails, rambles])
async def test_explainer_does_not_affect_the_answer(
    registry_url: str, sql: Sql, explainer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its errors are not quoted."""
    async with engine(settings_for(registry_url)) as rag:
        plain = await suggested(rag, TWO)
    async with engine(settings_for(registry_url), explainer=explainer) as rag:
        suggestions = await suggested(rag, TWO)
    explanations = {rename.pop("explanation") for rename in suggestions}
    assert suggestions == plain
    assert explanations == ({"I decide."} if explainer is reverses else {None})
    assert CANARY not in "".join(capfd.readouterr())


async def test_slow_explainer_is_not_waited_for(registry_url: str, sql: Sql) -> None:
    """It is not called again before it has returned."""
    let_go, explained = threading.Event(), []

    def slow(suggestions: Sequence[dict[str, Any]]) -> list[str]:
        explained.append(len(suggestions))
        assert let_go.wait(10)
        return ["At last." for _ in suggestions]

    settings = settings_for(registry_url, rag_explainer_timeout=timedelta(seconds=0.05))
    async with engine(settings, explainer=slow) as rag:
        for _ in range(3):
            assert {rename["explanation"] for rename in await suggested(rag, TWO)} == {None}
        assert len(explained) == 1
        let_go.set()
        async with asyncio.timeout(60):
            while (await suggested(rag, TWO))[0]["explanation"] != "At last.":
                pass


@pytest.mark.parametrize("name", ["no.such.module:x", f"{__name__}:nobody", "os:sep", ":", "x"])
def test_invalid_explainer_ends_the_start(registry_url: str, name: str) -> None:
    """With one line that names the variable."""
    with pytest.raises(SystemExit, match="RAG_EXPLAINER "):
        main.build(settings_for(registry_url, rag_explainer=name))


# The client


async def test_peer_client_requests_suggestions_and_sends_decisions(
    registry_url: str, sql: Sql
) -> None:
    """Over a socket, as the services do."""
    async with serving(main.build(settings_for(registry_url))) as url:
        peer = Peer(url, signer=access.signer("drift_repair_agent"), deadline=10)
        sides = question({"icon": NUMBER}, {"emoji": NUMBER})
        order = decision("icon", "emoji")

        assert await peer.learn({**order, "entity": "field"}) is True  # type: ignore[typeddict-item]
        assert await peer.learn({**order, "entity": "field"}) is False  # type: ignore[typeddict-item]
        [rename] = await peer.suggest(
            source_type="Salesforce",
            entity="field",
            stream=ORDERS,
            removed=sides["removed"],
            added=sides["added"],
            unchanged=["id"],
        )
        assert (rename["became"], rename["more_than_names"]) == (["emoji"], True)
        with pytest.raises(Conflict, match="already recorded"):
            await peer.learn({**order, "verdict": "rejected"})  # type: ignore[typeddict-item]
        await peer.close()
