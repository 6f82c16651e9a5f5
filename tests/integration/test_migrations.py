"""The migrations build an empty database and take it down again, as the models describe it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from msgspec.structs import replace
from sqlalchemy.exc import OperationalError

from local.processes import servers
from services.orchestrator.volume_states import Volume, decode
from shared.models import Base
from tests.pools import Sql

REPOSITORY = Path(__file__).parents[2]
_LEFT = """
    SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'type ' || typname FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
    UNION ALL SELECT 'routine ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    -- An extension may be somebody else's by now: it stays.
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
"""
_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, contype FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    AND conrelid <> 'alembic_version'::regclass
"""
_INDEXES = """
    SELECT tablename, indexname FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
_KINDS = {"p": "pk", "u": "uq", "f": "fk", "c": "ck"}


@pytest.fixture
async def database(
    postgres: servers.Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Sql]:
    """An empty database of its own, which SUPABASE_DB_URL names."""
    maker = await asyncpg.connect(postgres.url_of("postgres"))
    await maker.execute("CREATE DATABASE migrated")
    monkeypatch.setenv("SUPABASE_DB_URL", postgres.url_of("migrated"))
    monkeypatch.setenv("MIGRATION_DB_URL", "")
    monkeypatch.chdir(tmp_path)
    connection = await asyncpg.connect(postgres.url_of("migrated"))
    yield connection
    await connection.close()
    await maker.execute("DROP DATABASE migrated")
    await maker.close()


async def alembic(verb: str, *revision: str) -> None:
    """Run one of Alembic's commands; migrations/env.py brings an event loop of its own."""
    config = Config(REPOSITORY / "alembic.ini")
    await asyncio.to_thread(getattr(command, verb), config, *revision)


async def test_migrations_are_reversible_and_match_the_models(
    database: Sql,
) -> None:
    """Downgraded, only Alembic's own empty table is left."""
    for _ in range(2):
        await alembic("upgrade", "head")
        await alembic("check")
        await alembic("downgrade", "base")
        left = {row[0] for row in await database.fetch(_LEFT)}
        assert left == {"relation alembic_version", "relation alembic_version_pkc"}
        assert await database.fetchval("SELECT count(*) FROM alembic_version") == 0


async def test_migration_does_not_queue_behind_a_long_read(database: Sql) -> None:
    """It fails after five seconds without a change: other statements wait only that long."""
    await alembic("upgrade", "head")
    async with database.transaction():
        await database.execute("LOCK TABLE aam_limited.connections IN ACCESS SHARE MODE")
        with pytest.raises(OperationalError, match="lock timeout"):
            await alembic("upgrade", "head")
    assert await database.fetchval("SELECT to_regclass('aam_limited.connections')") is not None
    await alembic("upgrade", "head")


async def test_every_constraint_is_named_by_the_convention(
    database: Sql,
) -> None:
    """So that a later migration finds it under the name that the models give it.

    The job queue's tables are PgQueuer's, and so are their names.
    """
    await alembic("upgrade", "head")

    constraints = [
        one for one in await database.fetch(_CONSTRAINTS) if not one[0].startswith("pgqueuer")
    ]
    for table, name, kind in constraints:
        assert re.fullmatch(f"{_KINDS[kind.decode()]}_{table}(_.+)?", name), name
    for table, name in await database.fetch(_INDEXES):
        if table.startswith("pgqueuer"):
            continue
        assert re.fullmatch(f"(ix|uq|pk)_{table}(_.+)?", name), name
    assert {name for _, name, _ in constraints} == {
        constraint.name
        for table in Base.metadata.tables.values()
        for constraint in table.constraints
    }


async def test_stored_json_is_renamed_and_back(
    database: asyncpg.Connection[asyncpg.Record],
) -> None:
    """Members of decisions get their new names, and the old ones when taken down again."""
    old = [
        {"reason": "'a' is gone.", "concerns": True, "decision": {"why": "x", "asked_by": "Ada"}},
        {"reason": '"why": "asked_by":', "concerns": False, "decision": None},
    ]
    new = [
        {
            "reason": "'a' is gone.",
            "affects_sync": True,
            "decision": {"reason": "x", "requested_by": "Ada"},
        },
        {"reason": '"why": "asked_by":', "affects_sync": False, "decision": None},
    ]
    await alembic("upgrade", "0012")
    await database.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " VALUES (gen_random_uuid(), 'x', 'Salesforce', gen_random_uuid(), 'PENDING')"
    )
    await database.execute(
        "INSERT INTO repairs (id, connection_id, state, base_version, changes)"
        " SELECT gen_random_uuid(), id, 'proposed', 1, $1 FROM connections",
        json.dumps(old),
    )
    for revision, wanted in (("0013", new), ("0012", old)):
        await alembic("upgrade" if wanted is new else "downgrade", revision)
        assert json.loads(await database.fetchval("SELECT changes FROM repairs")) == wanted


async def test_failed_onboardings_get_the_workspace_of_their_operation(
    database: asyncpg.Connection[asyncpg.Record],
) -> None:
    """The other operations of a connection have none."""
    workspace = "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d"
    await alembic("upgrade", "0018")
    await database.execute(
        "INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)"
        " SELECT gen_random_uuid(), name, 'Salesforce', gen_random_uuid(), 'FAILED'"
        " FROM unnest('{a,b}'::text[]) AS name"
    )
    for kind, name, request in (
        ("onboard", "a", {"workspace_id": workspace}),
        ("archive", "a", {"workspace_id": None}),
        ("onboard", "b", {}),
    ):
        await database.execute(
            "INSERT INTO operations (id, kind, connection_id, status, request, step, lease_until,"
            " deadline, request_id, ended_at) SELECT gen_random_uuid(), $1, id, 'failed', $3,"
            " 'undo', now(), now(), '', now() FROM connections WHERE name = $2",
            kind,
            name,
            json.dumps(request),
        )

    await alembic("upgrade", "0019")

    rows = await database.fetch(
        "SELECT name, CAST(airbyte_workspace_id AS text) FROM connections ORDER BY name"
    )
    assert [tuple(row) for row in rows] == [("a", workspace), ("b", None)]


async def test_volumes_are_converted(database: Sql) -> None:
    """To one row per sync; suspicious streams are in the job's row, too."""
    await alembic("upgrade", "0028")
    await database.execute("""
        INSERT INTO connections (id, name, source_type, airbyte_destination_id, status)
        VALUES (gen_random_uuid(), 'x', 'Salesforce', gen_random_uuid(), 'FAILED')
    """)
    await database.execute("""
        INSERT INTO job_history (id, connection_id, airbyte_job_id, status, catalog_version,
            ended_at)
        SELECT gen_random_uuid(), id, n, 'succeeded', 3, now() - n * interval '1 day'
        FROM connections, generate_series(1, 2) n
    """)
    await database.execute("""
        INSERT INTO stream_volumes (job_id, connection_id, stream_name, stream_namespace, ended_at,
            is_full_refresh, rows, bytes, is_pending, usual_low, usual_high, suspicious_since,
            suspicious_version)
        SELECT id, connection_id, name, '', ended_at, false, 5, NULL, false, 10, 20,
            CASE name WHEN 'b' THEN ended_at END, CASE name WHEN 'b' THEN 3 END
        FROM job_history, unnest(ARRAY['b', 'a']) name
    """)
    jobs = await database.fetch("SELECT id, ended_at FROM job_history ORDER BY airbyte_job_id")

    await alembic("upgrade", "0029")

    rows = await database.fetch(
        "SELECT job_id, ended_at, volumes FROM sync_volumes ORDER BY ended_at DESC"
    )
    assert [(row["job_id"], row["ended_at"]) for row in rows] == [tuple(job) for job in jobs]
    for row in rows:
        usual = Volume("a", "", row["ended_at"], False, 5, usual_low=10, usual_high=20)
        suspicious = replace(
            usual, stream_name="b", suspicious_since=row["ended_at"], suspicious_version=3
        )
        assert sorted(decode(row["volumes"]), key=lambda one: one.stream_name) == [
            usual,
            suspicious,
        ]
    (found,) = json.loads(
        await database.fetchval("SELECT suspicious_streams FROM job_history LIMIT 1")
    )
    assert (found["stream"], found["rows"], found["since_version"]) == ("b", 5, 3)
    await alembic("downgrade", "0028")
    assert await database.fetchval("SELECT count(*) FROM stream_volumes") == 0


async def test_webhooks_get_the_limit_of_their_key(database: Sql) -> None:
    """By the key's id at the end of `created_by`; an owner's name may contain anything."""
    await alembic("upgrade", "0031")
    await database.execute("""
        INSERT INTO api_keys (id, digest, scopes, labels, owner, created_by)
        SELECT id, sha256(convert_to(id, 'UTF8')), '{}', CAST(labels AS jsonb), 'x', 'x'
        FROM (VALUES ('limited1', '{"team": "a"}'), ('freekey1', '{}')) made (id, labels)
    """)
    makers = ("a (key limited1)", "a (key freekey1)", "(key limited1) (key freekey1)", "a", None)
    for number, maker in enumerate(makers):
        await database.execute(
            "INSERT INTO webhooks (id, url, created_by) VALUES (gen_random_uuid(), $1, $2)",
            str(number),
            maker,
        )

    await alembic("upgrade", "0033")

    rows = await database.fetch("SELECT labels::text FROM webhooks ORDER BY url")
    assert [row[0] for row in rows] == ['{"team": "a"}', "{}", "{}", "{}", "{}"]
    await alembic("downgrade", "0031")


@pytest.mark.process
async def test_concurrent_migrations_take_turns(
    database: Sql,
) -> None:
    """Replicas that all migrate at their start build the database once."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "alembic", "upgrade", "head", cwd=REPOSITORY
        )
        for _ in range(2)
    ]
    async with asyncio.timeout(60):
        assert [await process.wait() for process in processes] == [0, 0]

    newest = max(one.name[:4] for one in REPOSITORY.glob("migrations/versions/[0-9]*.py"))
    assert await database.fetchval("SELECT array_agg(version_num) FROM alembic_version") == [newest]
