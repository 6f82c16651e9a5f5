"""What the gate refuses is counted in a limited number of rows, and never with a credential."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from fastapi import FastAPI

from services.orchestrator.history_retention import histories
from shared import registry
from shared.auth.api_keys import new_key
from shared.auth.refusals import Refusals
from shared.database import Database
from shared.errors import Unavailable
from shared.http.app import create_app
from shared.http.authentication import Access
from shared.postgres_address import postgres_address
from tests import access, leaks
from tests.pools import Sql
from tests.security.conftest import ask, bearer, insert_key
from tests.waiting import until

_COUNTED = "SELECT caller, method, route, status, code, count FROM refusals ORDER BY id"


@pytest.fixture
async def db(registry_url: str) -> AsyncIterator[Database]:
    """The registry."""
    db = Database.at(postgres_address(registry_url), application="test")
    yield db
    await db.close()


async def record(app: FastAPI) -> None:
    """Record what an application has counted."""
    await refusals_of(app).record()


def refusals_of(app: FastAPI) -> Refusals:
    """Find what counts an application's refusals."""
    for one in app.user_middleware:
        if "known" in one.kwargs:
            known = one.kwargs["known"]
            assert isinstance(known, Access)
            assert known.refusals is not None
            return known.refusals
    raise AssertionError("The application has no gate.")


async def test_refusals_name_caller_route_and_code(apps: dict[str, FastAPI], sql: Sql) -> None:
    """With the route's template, and how often, by minute; administrators list them."""
    app = apps["orchestrator"]
    refused = await insert_key(sql, "connections:read")
    for id_ in ("a" * 8, "b" * 8, "c" * 8):
        assert (await ask(app, "DELETE", f"/api-keys/{id_}", [bearer(refused.key)])).status == 403
    wrong = new_key("test")
    leaks.know("an unknown key", wrong.key.partition(f"_{wrong.id}_")[2])
    for _ in range(2):
        answer = await ask(app, "GET", "/jobs", [bearer(wrong.key)], client="192.0.2.7")
        assert answer.status == 401
    assert (await ask(app, "BREW", "/x/y", client="192.0.2.7")).status == 401

    await record(app)
    rows = [tuple(row) for row in await sql.fetch(_COUNTED)]
    listed = await ask(app, "GET", "/refusals", [bearer(access.KEY.key)], query="limit=2")

    address = "address:192.0.2.7"
    assert rows == [
        (f"key:{refused.id}", "DELETE", "/api-keys/{key_id}", 403, "forbidden", 3),
        (address, "GET", "/jobs", 401, "unauthenticated", 2),
        (address, "-", "-", 401, "unauthenticated", 1),
    ]
    page = listed.json()
    assert [one["caller"] for one in page["items"]] == [address, address]
    rest = await ask(
        app, "GET", "/refusals", [bearer(access.KEY.key)], query=f"after={page['next']}"
    )
    assert [one["count"] for one in rest.json()["items"]] == [3]
    stored = str(await sql.fetchval("SELECT string_agg(t::text, '') FROM refusals t"))
    for key in (wrong, refused):
        assert key.key[-43:] not in stored
        assert key.key[-43:-30] not in stored
    assert wrong.id not in stored


@pytest.mark.parametrize("refused", [1_000, pytest.param(10_000, marks=pytest.mark.deep)])
async def test_refusals_stay_within_the_bound(
    apps: dict[str, FastAPI], sql: Sql, refused: int
) -> None:
    """With different keys, addresses and paths; each is counted, and known callers keep room."""
    app = apps["schema_observer"]
    known = await insert_key(sql, "admin")
    paths = ("/drifts", "/observations", "/connections/{}/observation", "/none/{}")
    began = datetime.now(UTC)
    for number in range(refused):
        key = new_key("test").key
        answer = await ask(
            app,
            "GET",
            paths[number % 4].format(number),
            [bearer(key)],
            client=f"10.{number // 65536}.{number // 256 % 256}.{number % 256}",
        )
        assert answer.status == 401
        if number % (refused // 5) == 0:
            await record(app)
    for path in ("/drifts", "/observations"):
        assert (await ask(app, "GET", path, [bearer(known.key)])).status == 403
    await record(app)

    assert await sql.fetchval("SELECT sum(count) FROM refusals") == refused + 2
    hours = 1 + int(datetime.now(UTC).hour != began.hour)
    others = await sql.fetchval("SELECT count(*) FROM refusals WHERE caller = 'others'")
    assert 1 <= others <= hours
    rest = await sql.fetchval("SELECT count(*) FROM refusals WHERE caller <> 'others'")
    assert rest <= registry.MOST_ROWS * hours
    of_known = f"SELECT count(*) FROM refusals WHERE caller = 'key:{known.id}'"  # noqa: S608
    assert await sql.fetchval(of_known) == 2


async def test_replicas_add_up(db: Database, sql: Sql) -> None:
    """Two processes that refuse the same in the same minute share its row and the bound."""
    now = datetime(2026, 11, 24, 9, 30, 20, tzinfo=UTC)
    replicas = [
        Refusals(db, "orchestrator", clock=lambda: now),
        Refusals(db, "orchestrator", clock=lambda: now + timedelta(seconds=5)),
    ]
    for replica in replicas:
        for _ in range(3):
            replica.add("key:ab12cd34", method="GET", route="/jobs", status=403, code="forbidden")
    for replica in replicas:
        await replica.record()
    row = await sql.fetchrow("SELECT count, first_at, last_at FROM refusals")
    assert row is not None
    assert tuple(row) == (6, now, now + timedelta(seconds=5))

    for number in range(150):
        for at, replica in enumerate(replicas):
            caller = f"key:{at}{number:07}"
            replica.add(caller, method="GET", route="/jobs", status=403, code="forbidden")
    for replica in replicas:
        await replica.record()
    counted = await sql.fetchrow(
        "SELECT count(*) FILTER (WHERE caller <> 'others'), sum(count),"
        " sum(count) FILTER (WHERE caller = 'others') FROM refusals"
    )
    assert counted is not None
    assert tuple(counted) == (registry.MOST_ROWS, 306, 101)


async def test_memory_is_bounded_while_the_registry_is_away() -> None:
    """What is counted separately is limited, and nothing is lost."""
    away = Database.at(postgres_address("postgresql://x:y@127.0.0.1:9/none"), application="test")
    counting = Refusals(away, "orchestrator")
    for number in range(5_000):
        counting.add(f"address:{number}", method="GET", route="-", status=401, code="x")
    with pytest.raises(Unavailable):
        await counting.record()
    pending = counting._pending
    assert len(pending) <= 1_002
    assert sum(one.count for one in pending.values()) == 5_000
    await away.close()


async def test_process_that_stops_while_recording_loses_no_count(
    db: Database, registry_url: str, sql: Sql
) -> None:
    """What is not recorded yet is recorded at its end."""
    counting = Refusals(db, "orchestrator")
    counting.add("key:ab12cd34", method="GET", route="/jobs", status=403, code="forbidden")
    replica = await asyncpg.connect(registry_url)
    try:
        await replica.execute("SELECT pg_advisory_lock(hashtext('aam refusals orchestrator'))")
        recording = asyncio.create_task(counting.record())
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        await until(lambda: sql.fetchval(waits))
        recording.cancel()
        await asyncio.wait({recording})
    finally:
        await replica.close()
    await counting.record()
    assert await sql.fetchval("SELECT sum(count) FROM refusals") == 1


async def test_last_counts_are_recorded_before_the_registry_is_closed(
    registry_url: str, sql: Sql
) -> None:
    """Otherwise a connection to it would be opened again, and left open."""
    db = Database.at(postgres_address(registry_url), application="test")
    counting, recorded = Refusals(db, "orchestrator"), []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        recorded.append(await sql.fetchval("SELECT sum(count) FROM refusals"))
        await db.close()

    app = create_app(
        service="test",
        description="A test's.",
        access=Access([access.Everybody()], refusals=counting),
        lifespan=lifespan,
    )
    async with app.router.lifespan_context(app):
        counting.add("key:ab12cd34", method="GET", route="/jobs", status=403, code="forbidden")
    assert recorded == [1]


async def test_forwarded_text_that_is_no_address_is_not_stored(
    apps: dict[str, FastAPI], sql: Sql
) -> None:
    """A trusted proxy may pass on anything, which may be too long to record."""
    for text in (secrets.token_hex(20_000), "10.0.0.1, x"):
        assert (await ask(apps["orchestrator"], "GET", "/jobs", client=text)).status == 401
    await record(apps["orchestrator"])
    rows = await sql.fetch("SELECT caller, count FROM refusals")
    assert [tuple(row) for row in rows] == [("address:unknown", 2)]


async def test_old_rows_are_pruned(apps: dict[str, FastAPI], db: Database, sql: Sql) -> None:
    """By the function that prunes all histories."""
    for days in (40, 1):
        at = datetime.now(UTC) - timedelta(days=days)
        counting = Refusals(db, "orchestrator", clock=lambda at=at: at)  # type: ignore[misc]
        counting.add("key:ab12cd34", method="GET", route="/jobs", status=403, code="forbidden")
        await counting.record()
    async with db.transaction() as session:
        pruned = await registry.prune_history(
            session, "refusals", max_age=timedelta(days=30), at_most=100
        )
    assert pruned == 1
    settings = apps["orchestrator"].state.service._settings
    assert "refusals" in {one.table for one in histories(settings)}
    assert await sql.fetchval("SELECT count(*) FROM refusals") == 1
