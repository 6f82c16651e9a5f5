"""Database privileges: each service has exactly those that its code needs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from local.processes import servers
from shared.database import Database
from shared.errors import Unavailable
from shared.job_queue import Jobs
from shared.postgres_address import postgres_address
from tests.integration.conftest import REPOSITORY, migrate
from tests.security.grants import MATRIX, SERVICES, Right, expected

Sql = Any
APPEND_ONLY = (
    "api_keys",
    "credential_audit",
    "drifts",
    "knowledge",
    "stream_schemas",
    "sync_catalog_versions",
    "timeline_events",
)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Sql]:
    """Open a session, closed at the end of the block."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def registry_url(postgres: servers.Postgres) -> str:
    """The registry's URL with the login that has the union of all services' privileges."""
    migrate(postgres.url)
    return postgres.services_url


@pytest.fixture
async def mesh_login(registry_url: str) -> AsyncIterator[Sql]:
    """A session of the shared login."""
    async with connected(registry_url) as connection:
        yield connection


REFUSED = [
    *(
        statement.format(table)
        for table in APPEND_ONLY
        for statement in ("DELETE FROM {}", "TRUNCATE {} CASCADE", "DROP TABLE {} CASCADE")
    ),
    "UPDATE api_keys SET scopes = '{admin}'",
    "UPDATE api_keys SET digest = ''",
    "UPDATE api_keys SET expires_at = NULL",
    "SELECT * FROM credential_audit",
    "UPDATE credential_audit SET caller = 'nobody'",
    "UPDATE sync_catalog_versions SET decided_by = 'nobody'",
    "ALTER TABLE credential_audit ADD COLUMN note text",
    "ALTER TABLE credential_audit DISABLE TRIGGER ALL",
    "CREATE RULE nothing AS ON INSERT TO credential_audit DO INSTEAD NOTHING",
    "CREATE TRIGGER t BEFORE INSERT ON credential_audit EXECUTE FUNCTION fn_pgqueuer_changed()",
    "BEGIN; LOCK TABLE credential_audit IN ACCESS EXCLUSIVE MODE",
    "DELETE FROM connections",
    "TRUNCATE pgqueuer",
    "UPDATE alembic_version SET version_num = '0001'",
    "SELECT * FROM alembic_version",
    "CREATE TABLE x ()",
    "CREATE TEMPORARY TABLE x ()",
    "CREATE SCHEMA x",
    "CREATE VIEW x AS SELECT 1",
    "CREATE FUNCTION x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE x",
    "CREATE DATABASE x",
    "ALTER ROLE aam_services CREATEROLE",
    "GRANT aam_orchestrator TO aam_rag_engine_login",
    "SET ROLE aam_orchestrator",
    "SET ROLE aam",
    "SET session_replication_role = replica",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_services_cannot_rewrite_history(mesh_login: Sql, statement: str) -> None:
    """They cannot create or grant anything either."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await mesh_login.execute(statement)


async def test_services_cannot_grant_their_privileges(mesh_login: Sql) -> None:
    """For such a GRANT Postgres emits a warning and grants nothing."""
    heard: list[str] = []
    mesh_login.add_log_listener(lambda _, message: heard.append(message.sqlstate))
    await mesh_login.execute("GRANT ALL ON credential_audit TO aam_mesh, PUBLIC")

    assert not await mesh_login.fetchval("SELECT has_table_privilege('credential_audit', 'DELETE')")
    assert heard == ["01007"]


async def test_services_own_nothing(mesh_login: Sql, postgres: servers.Postgres) -> None:
    """No login or group has role attributes, objects or membership of another group."""
    roles = await mesh_login.fetch(
        "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " AS special, rolcanlogin FROM pg_roles WHERE rolname LIKE 'aam\\_%'"
        " AND rolname <> 'aam_warehouse'"
    )
    groups = {"aam_services", *(f"aam_{service}" for service in SERVICES)}
    logins = {"aam_mesh", *(servers.login_of(service) for service in SERVICES)}
    assert {tuple(role) for role in roles} == {
        *((name, False, False) for name in groups),
        *((name, False, True) for name in logins),
    }
    members = await mesh_login.fetch(
        "SELECT member::regrole::text AS one, roleid::regrole::text AS of FROM pg_auth_members"
        " WHERE member::regrole::text LIKE 'aam\\_%'"
    )
    assert {tuple(member) for member in members} == {
        ("aam_mesh", "aam_services"),
        *((servers.login_of(service), f"aam_{service}") for service in SERVICES),
    }
    owned = await mesh_login.fetchval(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o'"
        " AND refobjid::regrole::text LIKE 'aam\\_%' AND refobjid::regrole::text <> 'aam_warehouse'"
    )
    assert owned == 0
    for login in (postgres.services_url, *(postgres.url_for(service) for service in SERVICES)):
        for database in ("warehouse", "postgres"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(login.removesuffix("/aam") + f"/{database}")


_COLUMNS = """
    SELECT relname AS table, array_agg(attname::text) AS columns
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
        AND attnum > 0 AND NOT attisdropped
    GROUP BY relname
"""
_HELD = """
    SELECT relname AS table, attname AS column, verb
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) verb
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
        AND attnum > 0 AND NOT attisdropped
        AND has_column_privilege($1::name, pg_class.oid, attnum, verb)
    UNION ALL
    SELECT relname, '*', verb FROM pg_class
    CROSS JOIN unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER', 'MAINTAIN']) verb
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
        AND has_table_privilege($1::name, pg_class.oid, verb)
"""


async def columns_of_tables(sql: Sql) -> dict[str, set[str]]:
    """Return the columns of every table of the registry."""
    return {row["table"]: set(row["columns"]) for row in await sql.fetch(_COLUMNS)}


async def rights_of(sql: Sql, role: str) -> set[Right]:
    """Return a role's privileges on the rows and columns of every table of the registry."""
    return {Right(*row) for row in await sql.fetch(_HELD, role)}


async def test_every_table_is_in_the_matrix(mesh_login: Sql) -> None:
    """A migration that creates a table declares each service's privileges, even if none."""
    assert set(await columns_of_tables(mesh_login)) == set(MATRIX)


@pytest.mark.parametrize("service", SERVICES)
async def test_each_service_has_exactly_its_declared_privileges(
    mesh_login: Sql, service: str
) -> None:
    """For the group and for the login, compared per table, column and privilege."""
    wanted = expected(service, await columns_of_tables(mesh_login))

    assert await rights_of(mesh_login, f"aam_{service}") == wanted
    assert await rights_of(mesh_login, servers.login_of(service)) == wanted


async def test_shared_login_has_the_union_of_the_privileges(mesh_login: Sql) -> None:
    """aam_services has exactly the union of the five services' privileges."""
    columns = await columns_of_tables(mesh_login)
    together = {right for service in SERVICES for right in expected(service, columns)}

    assert await rights_of(mesh_login, "aam_mesh") == together


async def test_only_the_orchestrator_prunes_history(mesh_login: Sql) -> None:
    """By a function of the owner, which other services and REST API roles cannot execute."""
    may = await mesh_login.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'aam\\_%'"
        " AND has_function_privilege(oid, 'prune_history(text, interval, integer)', 'EXECUTE')"
    )
    assert {role["rolname"] for role in may} == {
        "aam_mesh",
        "aam_services",
        "aam_orchestrator",
        servers.login_of("orchestrator"),
    }


REFUSED_TO = [
    (
        "orchestrator",
        "INSERT INTO policies (connection_id, policy) VALUES (gen_random_uuid(), '{}')",
    ),
    ("orchestrator", "UPDATE repairs SET state = 'approved'"),
    ("orchestrator", "INSERT INTO webhooks (id, url) VALUES (gen_random_uuid(), 'https://x')"),
    ("orchestrator", "SELECT jti FROM credential_audit"),
    ("orchestrator", "UPDATE credential_audit SET result = 'granted'"),
    ("orchestrator", "SELECT changes FROM repairs"),
    ("orchestrator", "SELECT changes FROM drifts"),
    ("auth_broker", "SELECT status FROM connections"),
    ("auth_broker", "SELECT digest FROM api_keys"),
    ("auth_broker", "SELECT jti FROM credential_audit"),
    ("drift_repair_agent", "UPDATE connections SET credential_id = 'another'"),
    ("drift_repair_agent", "UPDATE connections SET archived_at = now()"),
    ("drift_repair_agent", "INSERT INTO knowledge DEFAULT VALUES"),
    ("schema_observer", "UPDATE connections SET status = 'FAILED'"),
    ("schema_observer", "SELECT changes FROM repairs"),
    ("schema_observer", "INSERT INTO sync_catalog_versions DEFAULT VALUES"),
    ("rag_engine", "SELECT status FROM connections"),
    ("rag_engine", "INSERT INTO pgqueuer (priority, status, entrypoint) VALUES (0, 'queued', 'x')"),
    *(
        (service, statement)
        for service in SERVICES
        for statement in (
            "UPDATE api_keys SET scopes = '{admin}'",
            "UPDATE api_keys SET digest = sha256('x')",
            "DELETE FROM api_keys",
        )
    ),
    *(
        (
            service,
            "INSERT INTO api_keys (id, digest, scopes, owner, created_by)"
            " VALUES ('x', sha256('x'), '{admin}', 'x', 'x')",
        )
        for service in SERVICES
        if service != "orchestrator"
    ),
]


@pytest.mark.parametrize("service, statement", REFUSED_TO)
async def test_service_cannot_write_others_tables(
    registry_url: str, service: str, statement: str
) -> None:
    """API keys, policies and repairs are written only by the service that owns them."""
    async with connected(servers.as_service(registry_url, service)) as login:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute(statement)


@pytest.mark.parametrize("service", SERVICES)
async def test_service_with_a_foreign_login_is_not_ready(registry_url: str, service: str) -> None:
    """The message names the role that the login must be a member of."""
    for other in SERVICES:
        words = await ready(servers.as_service(registry_url, other), application=service)
        assert words == ("" if other == service else NOT_A_MEMBER.format(service))


async def test_service_sessions_have_timeouts(registry_url: str) -> None:
    """The sessions of the pool, and the one that the job queue listens on."""
    wanted = {
        "statement_timeout": "1min",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
    }
    db = Database.at(postgres_address(registry_url), application="test")
    jobs = Jobs(postgres_address(registry_url), application="test")
    for way in (db.transaction, db.read):
        async with way() as session:
            shown = {one: await session.scalar(text(f"SHOW {one}")) for one in wanted}
        assert shown == wanted
    async with jobs._connection() as connection:
        assert {one: await connection.fetchval(f"SHOW {one}") for one in wanted} == wanted
    await db.close()


async def test_statement_timeout_is_unavailable(registry_url: str) -> None:
    """The caller may retry; the session returns to the pool unchanged."""
    db = Database.at(postgres_address(registry_url), application="test")
    with pytest.raises(Unavailable):  # noqa: PT012 (the transaction is the block)
        async with db.transaction() as session:
            await session.execute(text("SET LOCAL statement_timeout = '20ms'"))
            await session.execute(text("SELECT pg_sleep(5)"))
    async with db.read() as session:
        assert await session.scalar(text("SHOW statement_timeout")) == "1min"
    await db.close()


NOT_A_MEMBER = "The login of SUPABASE_DB_URL may not use the registry: make it a member of aam_{}."


async def ready(url: str, *, application: str = "orchestrator") -> str:
    """Return a service's message about an unusable registry; empty if it is usable."""
    db = Database.at(postgres_address(url), application=application)
    try:
        await db.ping()
    except Unavailable as unavailable:
        return str(unavailable)
    finally:
        await db.close()
    return ""


def migrated(url: str, **environment: str) -> str:
    """Run the migrations and return their output."""
    run = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        env={**os.environ, "MIGRATION_DB_URL": url, "SUPABASE_DB_URL": url, **environment},
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return run.stdout


@pytest.mark.process
async def test_migrations_create_the_roles_if_allowed(
    own_postgres: servers.Postgres,
) -> None:
    """As on Supabase: the owner is no superuser, and a shared login exists before the others.

    Without CREATEROLE the migrations create the tables and report the missing roles; roles created
    later get their privileges at the next run. The shared login works all the time.
    """
    owner = f"postgresql://owner:o@127.0.0.1:{own_postgres.port}/owned"
    services = f"postgresql://services:s@127.0.0.1:{own_postgres.port}/owned"
    names = ["aam_services", *(f"aam_{service}" for service in SERVICES)]
    async with connected(own_postgres.url_of("postgres")) as superuser:
        await superuser.execute(
            f"DROP ROLE aam_mesh, {', '.join(servers.login_of(service) for service in SERVICES)}"
        )
        await superuser.execute(f"REVOKE ALL ON DATABASE aam FROM {', '.join(names)}")
        await superuser.execute(f"DROP ROLE {', '.join(names)}")
        await superuser.execute("CREATE ROLE owner LOGIN PASSWORD 'o'")
        await superuser.execute("CREATE DATABASE owned OWNER owner")

        printed = migrated(owner)
        assert all(f"CREATE ROLE {name} NOLOGIN;" in printed for name in names)
        assert await ready(owner) == ""

        await superuser.execute("ALTER ROLE owner CREATEROLE")
        assert "CREATE ROLE" not in migrated(owner)
        await superuser.execute("CREATE ROLE services LOGIN PASSWORD 's'")
        for service in SERVICES:
            assert await ready(services, application=service) == NOT_A_MEMBER.format(service)
        await superuser.execute("GRANT aam_services TO services")
        await superuser.execute("ALTER ROLE owner NOCREATEROLE")  # as in compose
        assert migrated(owner, SUPABASE_DB_URL=services) == ""
        for service in SERVICES:
            assert await ready(services, application=service) == ""


@pytest.mark.process
async def test_rest_api_roles_have_no_access(
    own_postgres: servers.Postgres,
) -> None:
    """Supabase grants every new table of `public` to `anon`, whose key is public."""
    names = ("anon", "authenticated", "service_role")
    async with connected(own_postgres.url) as owner:
        for name in names:
            await owner.execute(f"CREATE ROLE {name} NOLOGIN")
            for objects in ("TABLES", "SEQUENCES", "FUNCTIONS"):
                await owner.execute(
                    f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {objects} TO {name}"
                )
        migrated(own_postgres.url)
        held = {name: await rights_of(owner, name) for name in names}
        sequences = await owner.fetchval(
            "SELECT count(*) FROM pg_class CROSS JOIN unnest($1::text[]) role"
            " WHERE relkind = 'S' AND has_sequence_privilege(role::name, oid, 'USAGE, UPDATE')",
            list(names),
        )

        may_prune = await owner.fetchval(
            "SELECT count(*) FROM unnest($1::text[]) role WHERE has_function_privilege("
            "role::name, 'prune_history(text, interval, integer)', 'EXECUTE')",
            list(names),
        )

    assert held == {name: set[Right]() for name in names}
    assert may_prune == 0
    assert sequences == 0
