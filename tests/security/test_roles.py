"""What the services' login may do in the registry: what it needs, and undo no record."""

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

from local import servers
from shared.config import postgres_address
from shared.database import Database
from shared.errors import Unavailable
from shared.jobs import Jobs
from tests.integration.conftest import REPOSITORY, migrate

Sql = Any
APPEND_ONLY = (
    "credential_audit",
    "drifts",
    "knowledge",
    "stream_schemas",
    "sync_catalog_versions",
)
NOT_THE_SERVICES = {"alembic_version", "pgqueuer_schedules"}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Sql]:
    """A session that is closed again."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def registry_url(postgres: servers.Postgres) -> str:
    """The registry as the services log in."""
    migrate(postgres.url)
    return postgres.services_url


@pytest.fixture
async def mesh_login(registry_url: str) -> AsyncIterator[Sql]:
    """A session as the services log in."""
    async with connected(registry_url) as connection:
        yield connection


REFUSED = [
    *(
        statement.format(table)
        for table in APPEND_ONLY
        for statement in ("DELETE FROM {}", "TRUNCATE {} CASCADE", "DROP TABLE {} CASCADE")
    ),
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
    "SET ROLE aam",
    "SET session_replication_role = replica",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/passwd')",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_what_the_services_may_not(mesh_login: Sql, statement: str) -> None:
    """Nothing recorded is undone, and nothing is made or granted."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await mesh_login.execute(statement)


async def test_the_services_hand_nothing_on(mesh_login: Sql) -> None:
    """Postgres answers such a GRANT with a warning, and grants nothing."""
    heard: list[str] = []
    mesh_login.add_log_listener(lambda _, message: heard.append(message.sqlstate))
    await mesh_login.execute("GRANT ALL ON credential_audit TO aam_mesh, PUBLIC")

    assert not await mesh_login.fetchval("SELECT has_table_privilege('credential_audit', 'DELETE')")
    assert heard == ["01007"]


async def test_the_services_own_nothing(mesh_login: Sql, postgres: servers.Postgres) -> None:
    """Neither the login nor its group has an attribute, an object or another group's rights."""
    roles = await mesh_login.fetch(
        "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        " AS special, rolcanlogin FROM pg_roles WHERE rolname LIKE 'aam\\_%' ORDER BY rolname"
    )
    assert [tuple(role) for role in roles] == [
        ("aam_mesh", False, True),
        ("aam_services", False, False),
    ]
    groups = await mesh_login.fetch(
        "SELECT roleid::regrole::text AS one FROM pg_auth_members"
        " WHERE member IN ('aam_mesh'::regrole, 'aam_services'::regrole)"
    )
    assert [group["one"] for group in groups] == ["aam_services"]
    owned = await mesh_login.fetchval(
        "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o'"
        " AND refobjid IN ('aam_mesh'::regrole, 'aam_services'::regrole)"
    )
    assert owned == 0
    for database in ("warehouse", "postgres"):
        url = postgres.services_url.removesuffix("/aam") + f"/{database}"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(url)


async def test_every_table_is_granted_or_closed_on_purpose(mesh_login: Sql) -> None:
    """A migration that makes a table says in privileges.sql what the services may do with it."""
    tables = await mesh_login.fetch(
        "SELECT relname, has_table_privilege(oid, 'SELECT') AS read,"
        " has_table_privilege(oid, 'INSERT') AS added,"
        " has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE') AS changed,"
        " has_table_privilege(oid, 'TRUNCATE, REFERENCES, TRIGGER') AS owned"
        " FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    assert {table["relname"] for table in tables if not table["read"]} == NOT_THE_SERVICES
    assert {table["relname"] for table in tables if not table["added"]} == NOT_THE_SERVICES
    assert {table["relname"] for table in tables if not table["changed"]} == {
        *APPEND_ONLY,
        *NOT_THE_SERVICES,
    }
    assert not [table for table in tables if table["owned"]]


async def test_no_session_of_a_service_is_endless(registry_url: str) -> None:
    """Not those of the pool, and not the one that the job queue listens on."""
    wanted = {
        "statement_timeout": "1min",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
    }
    db = Database.at(postgres_address(registry_url), application="test")
    jobs = Jobs(postgres_address(registry_url), application="test")
    for way in (db.transaction, db.read):
        async with way() as session:
            said = {one: await session.scalar(text(f"SHOW {one}")) for one in wanted}
        assert said == wanted
    async with jobs._connection() as connection:
        assert {one: await connection.fetchval(f"SHOW {one}") for one in wanted} == wanted
    await db.close()


async def test_a_statement_that_takes_too_long_is_unavailable(registry_url: str) -> None:
    """The caller may ask again; the session goes back to the pool as it was."""
    db = Database.at(postgres_address(registry_url), application="test")
    with pytest.raises(Unavailable):  # noqa: PT012 (the transaction is the block)
        async with db.transaction() as session:
            await session.execute(text("SET LOCAL statement_timeout = '20ms'"))
            await session.execute(text("SELECT pg_sleep(5)"))
    async with db.read() as session:
        assert await session.scalar(text("SHOW statement_timeout")) == "1min"
    await db.close()


async def ready(url: str) -> str:
    """What a service would say about the registry; empty where all is well."""
    db = Database.at(postgres_address(url), application="test")
    try:
        await db.ping()
    except Unavailable as unavailable:
        return str(unavailable)
    finally:
        await db.close()
    return ""


def migrated(url: str, **environment: str) -> str:
    """What the migrations print."""
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


async def test_the_migrations_make_the_role_where_they_may(own_postgres: servers.Postgres) -> None:
    """As on Supabase: the owner is no superuser, and one URL was there before the other.

    Without CREATEROLE they build the tables and say what is missing; a role that somebody makes
    later gets its rights by the next run. A login of both at once works all the while.
    """
    owner = f"postgresql://owner:o@127.0.0.1:{own_postgres.port}/owned"
    services = f"postgresql://services:s@127.0.0.1:{own_postgres.port}/owned"
    async with connected(own_postgres.url_of("postgres")) as superuser:
        await superuser.execute("DROP ROLE aam_mesh")
        await superuser.execute("REVOKE ALL ON DATABASE aam FROM aam_services")
        await superuser.execute("DROP ROLE aam_services")
        await superuser.execute("CREATE ROLE owner LOGIN PASSWORD 'o'")
        await superuser.execute("CREATE DATABASE owned OWNER owner")

        assert "CREATE ROLE aam_services NOLOGIN" in migrated(owner)
        assert await ready(owner) == ""

        await superuser.execute("ALTER ROLE owner CREATEROLE")
        assert "CREATE ROLE" not in migrated(owner)
        await superuser.execute("CREATE ROLE services LOGIN PASSWORD 's'")
        assert "make it one of aam_services" in await ready(services)
        await superuser.execute("GRANT aam_services TO services")
        await superuser.execute("ALTER ROLE owner NOCREATEROLE")  # as in compose
        assert migrated(owner, SUPABASE_DB_URL=services) == ""
        assert await ready(services) == ""
