"""History is pruned when it is older than its retention, and never what something refers to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from local.processes import servers
from services.orchestrator import history_retention
from services.orchestrator.history_retention import History, Retention, histories
from shared import registry
from shared.config import Settings
from shared.database import Database
from shared.models import StreamSchema
from shared.observability import metrics
from shared.postgres_address import postgres_address
from tests.waiting import until

Sql = Any
DAY = timedelta(days=1)
KEPT = 10 * DAY
OLD, YOUNG = 11 * DAY, 9 * DAY


@pytest.fixture
async def db(registry_url: str, sql: Sql) -> AsyncIterator[Database]:
    """The registry as the orchestrator logs in, which has history pruned."""
    url = postgres_address(servers.as_service(registry_url, "orchestrator"))
    db = Database.at(url, application="orchestrator")
    yield db
    await db.close()


async def insert(sql: Sql, table: str, **columns: Any) -> UUID:
    """One row; times are given as how long ago they were."""
    row = {"id": uuid4(), **columns}
    values = [
        f"now() - ${n}::interval" if isinstance(value, timedelta) else f"${n}"
        for n, value in enumerate(row.values(), 1)
    ]
    await sql.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(values)})",  # noqa: S608
        *row.values(),
    )
    id_ = row["id"]
    assert isinstance(id_, UUID)
    return id_


async def a_connection(sql: Sql, **columns: Any) -> UUID:
    """A connection on a source of its own."""
    return await insert(
        sql,
        "connections",
        **{
            "name": str(uuid4()),
            "source_type": "Salesforce",
            "status": "FAILED",
            "airbyte_destination_id": uuid4(),
            **columns,
        },
    )


async def a_repair(sql: Sql, connection_id: UUID, ended: timedelta = OLD, **columns: Any) -> UUID:
    """A repair that ended so long ago."""
    return await insert(
        sql,
        "repairs",
        **{
            "connection_id": connection_id,
            "state": "expired",
            "base_version": 1,
            "changes": "[]",
            "ended_at": ended,
            **columns,
        },
    )


async def a_snapshot(sql: Sql, source_id: UUID, seen: timedelta = OLD, **columns: Any) -> UUID:
    """A snapshot that the source was like until so long ago."""
    return await insert(
        sql,
        "snapshots",
        **{
            "airbyte_source_id": source_id,
            "raw_hashes": b"",
            "stream_hashes": b"",
            "taken_at": seen,
            "seen_at": seen,
            **columns,
        },
    )


async def pruned(db: Database, sql: Sql, table: str, *, kept: timedelta | None = KEPT) -> set[Any]:
    """The ids that are left of a table."""
    await Retention(db, [History(table, kept)]).prune()
    return {row[0] for row in await sql.fetch(f"SELECT id FROM {table}")}  # noqa: S608


async def test_published_events_are_pruned(db: Database, sql: Sql) -> None:
    """In more than one batch; waiting ones are never too old."""
    connection = await a_connection(sql)
    await sql.execute(
        "INSERT INTO events (event_id, connection_id, seq, type, status, version, published_at)"
        " SELECT gen_random_uuid(), $1, n, 'sync.triggered', 'ACTIVE', 1,"
        " CASE WHEN n <= 1200 THEN now() - $2::interval"
        " WHEN n <= 1300 THEN now() - $3::interval END FROM generate_series(1, 1310) n",
        connection,
        OLD,
        YOUNG,
    )

    await Retention(db, [History("events", KEPT)]).prune()

    left = await sql.fetchrow("SELECT min(seq), max(seq), count(*) FROM events")
    assert tuple(left or ()) == (1201, 1310, 110)


async def test_jobs_are_pruned(db: Database, sql: Sql) -> None:
    """Not running ones, a connection's newest, nor one that a repair waits for."""
    connection = await a_connection(sql)

    async def job(number: int, ended: timedelta | None, **columns: Any) -> UUID:
        return await insert(
            sql,
            "job_history",
            connection_id=connection,
            airbyte_job_id=number,
            status="succeeded",
            catalog_version=1,
            started_at=ended or OLD,
            ended_at=ended,
            **columns,
        )

    await job(1, OLD + DAY)
    running, awaited, newest = await job(2, None), await job(3, OLD + DAY), await job(4, OLD)
    cleared = await job(6, OLD - timedelta(hours=1), kind="clear")
    await a_repair(sql, connection, state="verifying", ended_at=None, job_id=awaited)

    assert await pruned(db, sql, "job_history") == {running, awaited, newest, cleared}
    young = await job(5, YOUNG)
    assert await pruned_again(db, sql, "job_history") == {running, awaited, young}


async def pruned_again(db: Database, sql: Sql, table: str) -> set[Any]:
    """The same, at the next turn."""
    await sql.execute("UPDATE periodic_runs SET next_at = now() WHERE name = $1", f"prune.{table}")
    return await pruned(db, sql, table)


async def test_operations_are_pruned(db: Database, sql: Sql) -> None:
    """Not open ones, nor one that a repair waits for; its Idempotency-Key is pruned with it."""
    connection = await a_connection(sql)

    async def operation(ended: timedelta | None, **columns: Any) -> UUID:
        return await insert(
            sql,
            "operations",
            connection_id=connection,
            kind="sync",
            status="running" if ended is None else "done",
            request="{}",
            step="intent",
            lease_until=OLD,
            deadline=OLD,
            request_id="x",
            created_at=OLD,
            ended_at=ended,
            **columns,
        )

    await operation(OLD, caller="key:a", route="POST /x", idempotency_key="k")
    kept = {await operation(None), await operation(YOUNG), awaited := await operation(OLD)}
    await a_repair(sql, connection, state="applying", ended_at=None, operation_id=awaited)

    assert await pruned(db, sql, "operations") == kept
    assert await sql.fetchval("SELECT count(*) FROM operations WHERE caller IS NOT NULL") == 0


async def test_webhook_messages_are_pruned(db: Database, sql: Sql) -> None:
    """Waiting ones are never too old."""
    webhook = await insert(sql, "webhooks", url="https://x")

    async def message(state: str, ended: timedelta | None) -> UUID:
        return await insert(
            sql,
            "webhook_deliveries",
            webhook_id=webhook,
            type="webhook.test",
            body="{}",
            state=state,
            created_at=OLD,
            ended_at=ended,
        )

    await message("delivered", OLD)
    await message("failed", OLD)
    kept = {await message("delivered", YOUNG), await message("waiting", None)}

    assert await pruned(db, sql, "webhook_deliveries") == kept


async def test_repairs_are_pruned(db: Database, sql: Sql) -> None:
    """Not referenced ones, nor what a person rejected on a live connection."""
    live = await a_connection(sql)
    archived = await a_connection(sql, archived_at=DAY)
    for connection in (live, archived):
        for state in ("expired", "superseded", "applied"):
            await a_repair(sql, connection, state=state)
    for state in ("rejected", "failed", "rolled_back"):
        await a_repair(sql, archived, state=state)
    kept = {
        await a_repair(sql, live, YOUNG),
        await a_repair(sql, live, state="proposed", ended_at=None),
        await a_repair(sql, live, is_learned=False),
        await a_repair(sql, live, state="applied", kind="rollback"),
        *[await a_repair(sql, live, state=x) for x in ("rejected", "failed", "rolled_back")],
    }
    version, paused, delivered = [await a_repair(sql, live, state="applied") for _ in range(3)]
    await insert(
        sql,
        "sync_catalog_versions",
        connection_id=live,
        version_number=1,
        sync_catalog='{"streams": []}',
        fingerprint="x",
        origin="repair",
        repair_id=version,
    )
    await a_connection(sql, paused_by=paused)
    webhook = await insert(sql, "webhooks", url="https://x")
    await insert(
        sql, "webhook_deliveries", webhook_id=webhook, repair_id=delivered, type="x", body="{}"
    )
    parent = await a_repair(sql, live)
    child = await a_repair(sql, live, YOUNG, parent_id=parent)
    newer = await a_repair(sql, live)
    older = await a_repair(sql, live, YOUNG, superseded_by=newer)
    kept |= {version, paused, delivered, parent, child, newer, older}

    assert await pruned(db, sql, "repairs") == kept


async def test_chain_of_superseded_repairs_is_pruned_one_by_one(db: Database, sql: Sql) -> None:
    """Each keeps the one that superseded it until it is pruned itself."""
    connection = await a_connection(sql)
    newest = await a_repair(sql, connection)
    middle = await a_repair(sql, connection, superseded_by=newest)
    await a_repair(sql, connection, superseded_by=middle)

    assert await pruned(db, sql, "repairs") == {middle, newest}
    assert await pruned_again(db, sql, "repairs") == {newest}
    assert await pruned_again(db, sql, "repairs") == set()


async def test_drifts_are_pruned(db: Database, sql: Sql) -> None:
    """Not a connection's newest, which plans are made from, nor one that a repair answers."""
    connection, source = await a_connection(sql), uuid4()

    async def drift(seen: timedelta) -> UUID:
        return await insert(
            sql,
            "drifts",
            connection_id=connection,
            after_snapshot_id=await a_snapshot(sql, source),
            severity="harmless",
            affects_sync=True,
            changes="[]",
            first_seen_at=seen,
        )

    await drift(OLD + DAY)
    answered, newest = await drift(OLD + DAY), await drift(OLD)
    await a_repair(sql, connection, YOUNG, drift_id=answered)

    assert await pruned(db, sql, "drifts") == {answered, newest}


async def test_saved_states_are_pruned(db: Database, sql: Sql) -> None:
    """Whatever has become of the operation: they are confidential."""
    connection = await a_connection(sql)

    async def state(saved: timedelta) -> UUID:
        return await insert(
            sql,
            "stream_states",
            operation_id=uuid4(),
            connection_id=connection,
            kind="heal",
            catalog_version=1,
            state=b"{}",
            saved_at=saved,
        )

    await state(OLD)
    young = await state(YOUNG)

    assert await pruned(db, sql, "stream_states") == {young}


async def test_volumes_are_pruned(db: Database, sql: Sql) -> None:
    """In more than one batch, whatever has become of the job."""
    connection = await a_connection(sql)
    await sql.execute(
        "INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)"
        " SELECT gen_random_uuid(), $1,"
        " now() - CASE WHEN n <= 1200 THEN $2::interval ELSE $3::interval END, int4send(n)"
        " FROM generate_series(1, 1210) n",
        connection,
        OLD,
        YOUNG,
    )

    await Retention(db, [History("sync_volumes", KEPT)]).prune()

    left = await sql.fetch("SELECT volumes FROM sync_volumes")
    assert {int.from_bytes(row["volumes"]) for row in left} == set(range(1201, 1211))


async def test_snapshots_are_pruned(db: Database, sql: Sql) -> None:
    """Not a source's newest, nor one that anything else refers to."""
    source = uuid4()
    await a_snapshot(sql, source, OLD + DAY)
    connection = await a_connection(sql, airbyte_source_id=source)
    version, repair, plan, before, after, observed, compared, seen_lately = [
        await a_snapshot(sql, source, OLD + DAY) for _ in range(8)
    ]
    newest = await a_snapshot(sql, source, OLD)
    await insert(
        sql,
        "sync_catalog_versions",
        connection_id=connection,
        version_number=1,
        sync_catalog='{"streams": []}',
        fingerprint="x",
        origin="onboard",
        snapshot_id=version,
    )
    await a_repair(sql, connection, snapshot_id=repair)
    await insert(
        sql,
        "drifts",
        connection_id=connection,
        before_snapshot_id=before,
        after_snapshot_id=after,
        severity="harmless",
        affects_sync=False,
        changes="[]",
    )
    for statement, snapshot in (
        ("INSERT INTO plans (connection_id, snapshot_id, base_version) VALUES ($1, $2, 1)", plan),
        ("INSERT INTO watches (connection_id, compared_snapshot_id) VALUES ($1, $2)", compared),
    ):
        await sql.execute(statement, connection, snapshot)
    await sql.execute(
        "INSERT INTO observations (airbyte_source_id, snapshot_id) VALUES ($1, $2)",
        source,
        observed,
    )
    await sql.execute("UPDATE snapshots SET seen_at = now() WHERE id = $1", seen_lately)

    left = await pruned(db, sql, "snapshots")

    assert left == {version, repair, plan, before, after, observed, compared, seen_lately, newest}


def a_schema(number: int) -> StreamSchema:
    """A stream schema with a hash of 16 bytes."""
    body = '{"stream": {}, "config": {}}'
    return StreamSchema(hash=number.to_bytes(16), name=f"S{number}", namespace=None, body=body)


async def schemas(sql: Sql) -> set[int]:
    """The numbers of the stream schemas there are."""
    return {int.from_bytes(row[0]) for row in await sql.fetch("SELECT hash FROM stream_schemas")}


async def store(db: Database, *numbers: int) -> None:
    """What whoever takes a snapshot does first."""
    async with db.transaction() as session:
        await registry.insert_stream_schemas(session, [a_schema(number) for number in numbers])


async def prune_schemas(db: Database, sql: Sql) -> None:
    """At their turn."""
    await sql.execute("DELETE FROM periodic_runs")
    await Retention(db, [History("stream_schemas", DAY)]).prune()


async def test_many_unused_schemas_are_pruned_within_a_day(db: Database, sql: Sql) -> None:
    """A connector update leaves every schema of every stream unused, which is thousands."""
    await sql.execute("""
        INSERT INTO stream_schemas (hash, name, body, created_at)
        SELECT decode(md5(n::text), 'hex'), 'Account', '{}', now() - interval '2 days'
        FROM generate_series(1, 1500) n
    """)
    (schemas,) = [one for one in histories(settings()) if one.table == "stream_schemas"]

    await Retention(db, [schemas]).prune()

    assert await sql.fetchval("SELECT count(*) FROM stream_schemas") == 0


async def test_unlisted_stream_schemas_are_pruned(db: Database, sql: Sql) -> None:
    """A schema that was just stored again stays, though nothing lists it yet."""
    await store(db, *range(1, 7))
    await sql.execute("UPDATE stream_schemas SET created_at = now() - interval '2 days'")
    hashes = (2).to_bytes(16) + (5).to_bytes(16)
    await a_snapshot(sql, uuid4(), stream_hashes=hashes, raw_hashes=hashes)
    await store(db, 3, 7)

    await prune_schemas(db, sql)

    assert await schemas(sql) == {2, 3, 5, 7}


_WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"


async def test_schema_stored_during_pruning_stays(db: Database, sql: Sql) -> None:
    """The pruning waits for the row's lock, and then leaves it."""
    await store(db, 1, 2)
    await sql.execute("UPDATE stream_schemas SET created_at = now() - interval '2 days'")
    async with db.transaction() as session:
        await registry.insert_stream_schemas(session, [a_schema(1)])
        async with asyncio.TaskGroup() as group:
            await sql.execute("DELETE FROM periodic_runs")
            pruning = Retention(db, [History("stream_schemas", DAY)])
            task = group.create_task(pruning.prune())
            await until(lambda: sql.fetchval(_WAITING))
            await session.commit()
            await task
            await session.begin()

    assert await schemas(sql) == {1}


async def test_api_keys_and_credential_audit_are_pruned(db: Database, sql: Sql) -> None:
    """Revoked or expired keys; after 90 days at the least, whatever a setting says."""
    long_ago, lately = timedelta(days=91), timedelta(days=89)
    await sql.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by, revoked_at, expires_at)"
        " SELECT name, sha256(name::bytea), '{}', 'x', 'x', now() - revoked, now() - expired"
        " FROM unnest($1::text[], $2::interval[], $3::interval[]) of (name, revoked, expired)",
        ["revoked", "expired", "lately", "live", "later"],
        [long_ago, None, lately, None, None],
        [None, long_ago, None, None, -DAY],
    )
    await sql.execute(
        "INSERT INTO credential_audit"
        " (at, caller, jti, credential_id, source_type, result, request_id)"
        " SELECT now() - ago, 'x', ago::text, 'x', 'x', 'granted', 'x'"
        " FROM unnest($1::interval[]) ago",
        [long_ago, lately],
    )
    try:
        kept = 90 * DAY
        left = await pruned(db, sql, "api_keys", kept=kept)
        assert left >= {"lately", "live", "later"}
        assert not left & {"revoked", "expired"}
        assert len(await pruned(db, sql, "credential_audit", kept=kept)) == 1
    finally:
        await sql.execute("DELETE FROM api_keys WHERE owner = 'x'")


@pytest.mark.parametrize(
    "table, kept",
    [
        ("events", timedelta(hours=23)),
        ("snapshots", timedelta(0)),
        ("api_keys", timedelta(days=89)),
        ("credential_audit", timedelta(days=89)),
        ("sync_catalog_versions", KEPT),
        ("knowledge", KEPT),
        ("connections", KEPT),
    ],
)
async def test_registry_refuses_to_prune_recent_rows(
    db: Database, table: str, kept: timedelta
) -> None:
    """The orchestrator's login cannot delete what was just recorded."""
    async with db.transaction() as session:
        with pytest.raises(Exception, match=r"too short|no history"):
            await registry.prune_history(session, table, max_age=kept, at_most=1)
        await session.rollback()
        await session.begin()


async def test_failing_table_blocks_no_other(
    db: Database, sql: Sql, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await a_connection(sql)
    await a_repair(sql, connection)

    odd = timedelta.max  # what the driver cannot even send
    tables = [History("nothing", KEPT), History("events", odd), History("repairs", KEPT)]
    await Retention(db, tables).prune()

    assert await sql.fetchval("SELECT count(*) FROM repairs") == 0


async def test_pruning_is_bounded_per_run_and_can_be_disabled(db: Database, sql: Sql) -> None:
    connection = await a_connection(sql)
    for _ in range(3):
        await a_repair(sql, connection)

    assert len(await pruned(db, sql, "repairs", kept=None)) == 3
    one = [History("repairs", KEPT, batches=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_retention, "_AT_MOST", 2)
        await Retention(db, one).prune()
        assert await sql.fetchval("SELECT count(*) FROM repairs") == 1
        await Retention(db, one).prune()  # not its turn: another replica's look was just now
        assert await sql.fetchval("SELECT count(*) FROM repairs") == 1
        await sql.execute("DELETE FROM periodic_runs")
        await Retention(db, one).prune()
    assert await sql.fetchval("SELECT count(*) FROM repairs") == 0


@pytest.mark.parametrize("off", ["hashjoin, mergejoin, hashagg, sort, material", "nestloop"])
async def test_batch_is_bounded_with_any_query_plan(sql: Sql, off: str) -> None:
    """A subquery that a nested loop ran for each row would lock, and have deleted, others anew."""
    connection = await a_connection(sql)
    for _ in range(6):
        await a_repair(sql, connection)
    for kind in off.split(", "):
        await sql.execute(f"SET enable_{kind} = off")

    deleted = await sql.fetchval("SELECT prune_history('repairs', $1, 2)", KEPT)

    assert (deleted, await sql.fetchval("SELECT count(*) FROM repairs")) == (2, 4)


def settings(**values: str) -> Settings:
    """Settings as the environment gives them."""
    return Settings.model_validate({"supabase_db_url": "postgresql://u:p@h/d", **values})


def test_retention_setting_formats() -> None:
    """A number of seconds, an ISO 8601 duration, or `forever`."""
    kept = {
        one.table: one.max_age
        for one in histories(
            settings(
                event_retention="864000", job_retention="P1D", repair_retention="forever",
                snapshot_retention="",
            )
        )
    }  # fmt: skip

    assert kept["events"] == 10 * DAY
    assert kept["job_history"] == DAY
    assert kept["repairs"] is kept["snapshots"] is kept["stream_schemas"] is None
    assert kept["drifts"] == 365 * DAY
    assert {one.every for one in histories(settings())} == {timedelta(minutes=10), DAY}


def test_pruned_rows_of_every_table_are_counted_by_its_name() -> None:
    assert {one.table for one in histories(settings())} == set(metrics.PRUNED.values["table"] or ())


@pytest.mark.parametrize(
    "variable, value",
    [
        ("event_retention", "86399"),
        ("drift_retention", "-1"),
        ("job_retention", "never"),
        ("audit_retention", "P89D"),
        ("api_key_retention", "P1D"),
        ("event_retention", "0"),
        ("event_retention", "1e12"),
        ("audit_retention", "P99999999D"),
        ("snapshot_retention", "inf"),
        ("repair_expiry", "1e12"),
        ("repair_deadline", "P99999999D"),
        ("discover_timeout", "1e300"),
    ],
)
def test_too_short_or_too_long_retention_is_refused(variable: str, value: str) -> None:
    """A day at the least, 90 for audit records, and dates must be representable."""
    with pytest.raises(ValidationError, match=variable):
        settings(**{variable: value})
