"""The connection to Postgres: TLS, outages, and a commit whose answer is lost."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
import trustme
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from local.processes import servers
from shared import database, registry
from shared.database import Database, sqlalchemy_url
from shared.errors import Unavailable, UpstreamUnknown
from shared.models import EventRow, SyncCatalogVersion, VersionOrigin
from shared.observability import logs
from shared.postgres_address import PostgresAddress, SslMode, postgres_address
from tests import factories
from tests.fakes.postgres_proxies import LossyCommit, TlsProxy, moved
from tests.pools import Pools, Sql

CANARY = "AAMCANARY-database"


@asynccontextmanager
async def opened(
    address: PostgresAddress | str, *, application: str = "test"
) -> AsyncIterator[Database]:
    """A database that is closed again; another application than before has no connections yet."""
    if isinstance(address, str):
        address = postgres_address(address)
    db = Database.at(address, application=application)
    yield db
    await db.close()


async def both_ways(db: Database, statement: str) -> list[Unavailable]:
    """The errors of a transaction and of a read, which never have the driver's message."""
    raised = []
    for way in (db.transaction, db.read):
        with pytest.raises(Unavailable) as caught:
            async with way() as session:
                await session.execute(text(statement))
        assert CANARY not in f"{caught.value.problem()} {caught.value.__cause__!r}"
        assert caught.value.__suppress_context__
        raised.append(caught.value)
    return raised


# Writes


async def test_read_only_registry_is_not_ready(
    registry_url: str, postgres: servers.Postgres, pools: Pools
) -> None:
    """A standby after a failover answers reads, and nothing can be recorded."""
    await pools.close()
    name = urlsplit(registry_url).path.removeprefix("/")
    superuser = await asyncpg.connect(postgres.url_of("postgres"))
    await superuser.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    try:
        async with opened(registry_url) as db:
            with pytest.raises(
                Unavailable, match="accepts no writes at the moment: it is read-only"
            ):
                await db.ping()
            with pytest.raises(
                Unavailable, match="accepts no writes at the moment: it is read-only"
            ):
                async with db.transaction() as session:
                    session.add(EventRow(type="none", connection_id=uuid4()))
    finally:
        await superuser.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        await superuser.close()
        await pools.close()


async def test_full_disk_is_not_ready(registry_url: str) -> None:
    """From the refused write until one succeeds."""
    async with opened(registry_url) as db:
        await db.ping()
        full = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$"
        for raised in await both_ways(db, full):
            assert (
                raised.detail == "The registry accepts no writes at the moment: its disk is full."
            )

        with pytest.raises(Unavailable, match="its disk is full"):
            await db.ping()
        async with db.transaction():
            pass
        await db.ping()


async def test_readiness_writes_to_the_disk(registry_url: str) -> None:
    """By a sort that does not fit into memory, which leaves nothing behind."""
    async with opened(registry_url) as db, db.transaction() as session:
        await session.execute(database._LITTLE_MEMORY)
        plan = await session.scalars(text(f"EXPLAIN (ANALYZE) {database._SPILL.text}"))
        assert any("external merge  Disk" in line for line in plan)


# TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The authority that signed the TLS server's certificate."""
    return trustme.CA()


@pytest.mark.parametrize(
    "host, mode, authority, is_encrypted",
    [
        ("localhost", "require", "ours", True),
        ("localhost", "prefer", "ours", True),
        ("localhost", "verify-full", "ours", True),
        ("127.0.0.1", "verify-ca", "ours", True),
        ("localhost", "require", None, True),
        ("localhost", "prefer", None, True),
        ("localhost", "allow", None, False),
        ("localhost", "disable", None, False),
        ("localhost", "disable", "ours", False),
        ("127.0.0.1", "require", "ours", None),
        ("127.0.0.1", "verify-full", "ours", None),
        ("localhost", "require", "other", None),
        ("localhost", "verify-ca", "other", None),
        ("localhost", "verify-full", None, None),
    ],
)
async def test_tls(
    postgres: servers.Postgres,
    ca: trustme.CA,
    tmp_path: Path,
    host: str,
    mode: SslMode,
    authority: str | None,
    is_encrypted: bool | None,
) -> None:
    """A CA makes the server prove itself; None in the last column is a connection refused."""
    (ca if authority == "ours" else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxy = TlsProxy(postgres.url, ca.issue_cert("localhost"))
    address = PostgresAddress(
        host=host, port=0, user="aam", password=postgres.password, database="aam",
        ssl_mode=mode, ssl_root_cert=tmp_path / "ca.pem" if authority else None,
    )  # fmt: skip
    async with proxy.opened() as port, opened(replace(address, port=port)) as db:
        if is_encrypted is None:
            for raised in await both_ways(db, "SELECT 1"):
                assert "certificate" in raised.detail
            assert proxy.encrypted == []
        else:
            async with db.read() as session:
                assert await session.scalar(text("SELECT 1")) == 1
            assert proxy.encrypted == [is_encrypted]


async def test_sslmode_require_refuses_a_server_without_tls(postgres_url: str) -> None:
    async with opened(f"{postgres_url}?sslmode=require") as db:
        await both_ways(db, "SELECT 1")


def test_unverified_tls_is_logged_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning per host, however many engines are created."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(database, "_warned", set())
    logs.set_up("test")
    address = postgres_address(f"postgresql://u:{CANARY}@h/d?sslmode=require")

    for _ in range(3):
        assert database.connect_arguments(address)["ssl"] == "require"

    written = capsys.readouterr().out
    assert written.count("registry_tls_unverified") == 1
    assert CANARY not in written


def test_ca_file_enforces_verification(tmp_path: Path, ca: trustme.CA) -> None:
    """With a CA the certificate is required, whatever sslmode says short of disable."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for mode in ("allow", "prefer", "require", "verify-ca", "verify-full"):
        address = postgres_address(f"postgresql://h/d?sslmode={mode}&sslrootcert={tmp_path}/ca.pem")
        context = database.connect_arguments(address)["ssl"]
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname is (mode != "verify-ca")


# Away


@pytest.mark.parametrize(
    "url, explanation",
    [
        ("postgresql://aam:AAMCANARY-database@127.0.0.1:{port}/aam", "refuses the user"),
        ("postgresql://AAMCANARY-database:x@127.0.0.1:{port}/aam", "refuses the user"),
        ("postgresql://aam:{password}@127.0.0.1:{port}/AAMCANARY-database", "or the database"),
        ("postgresql://aam:{password}@127.0.0.1:1/AAMCANARY-database", "cannot be reached"),
        ("postgresql://aam:{password}@AAMCANARY-database.invalid/aam", "cannot be reached"),
    ],
)
async def test_registry_that_refuses_the_login_is_explained(
    postgres: servers.Postgres, url: str, explanation: str
) -> None:
    """Nothing was recorded, and the sentence says which half of the URL to check."""
    url = url.format(port=postgres.port, password=postgres.password)
    async with opened(url) as db:
        for raised in await both_ways(db, "SELECT 1"):
            assert explanation in raised.detail


@pytest.mark.parametrize(
    "sqlstate",
    ["08003", "08006", "25006", "40001", "40P01", "53100", "53300", "55P03", "57014", "58030"],
)
async def test_transient_database_errors_are_unavailable(postgres_url: str, sqlstate: str) -> None:
    """A deadlock, a full disk, a lock timeout: retry freely."""
    failing = f"DO $$ BEGIN RAISE EXCEPTION '{CANARY}' USING ERRCODE = '{sqlstate}'; END $$"
    async with opened(postgres_url) as db:
        await both_ways(db, failing)


@pytest.mark.parametrize("says", [b"", b"R", b"R\x00\x00\x00\x08\x00\x00\x00\x00"])
async def test_server_closing_during_the_handshake_is_unavailable(says: bytes) -> None:
    """As Postgres does while it stops."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says)
        await asyncio.sleep(0)
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"postgresql://aam:x@127.0.0.1:{port}/aam?sslmode=disable") as db:
            for raised in await both_ways(db, "SELECT 1"):
                assert "cannot be reached" in raised.detail


async def test_terminated_sessions_are_replaced(postgres_url: str) -> None:
    """The one that was cut fails, the next one works."""
    async with opened(postgres_url) as db:
        await both_ways(db, "SELECT pg_terminate_backend(pg_backend_pid())")
        async with db.transaction() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_idle_session_that_the_server_ended_fails_no_transaction(postgres_url: str) -> None:
    """Nor does any other of the pool."""
    async with opened(postgres_url) as db, opened(postgres_url) as other:
        async with db.transaction() as one, db.transaction() as two:
            pids = [await session.scalar(text("SELECT pg_backend_pid()")) for session in (one, two)]
        async with other.read() as session:
            for pid in pids:
                await session.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))

        async with db.transaction() as one, db.transaction() as two:
            for session in (one, two):
                assert await session.scalar(text("SELECT pg_backend_pid()")) not in pids


async def test_server_is_asked_only_about_sessions_that_were_idle(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction right after another one is not preceded by any round trips."""
    asked: list[object] = []
    async with opened(postgres_url, application="asked") as db:
        assert db._engine is not None
        dialect = db._engine.sync_engine.dialect
        ask = dialect.do_ping

        def answering(connection: Any) -> bool:
            asked.append(connection)
            return ask(connection)

        def failing(connection: Any) -> bool:
            raise dialect.loaded_dbapi.OperationalError("no response")

        async def pid() -> object:
            async with db.transaction() as session:
                return await session.scalar(text("SELECT pg_backend_pid()"))

        monkeypatch.setattr(dialect, "do_ping", answering)
        first = await pid()
        assert await pid() == first
        assert not asked

        monkeypatch.setattr(database, "_TRUSTED_FOR_S", 0.0)
        assert await pid() == first
        assert len(asked) == 1

        monkeypatch.setattr(dialect, "do_ping", failing)
        assert await pid() != first


@pytest.mark.process
async def test_postgres_restart_is_survived(own_postgres: servers.Postgres) -> None:
    """Unavailable at once while it is down; then as before, without a new engine."""
    async with opened(own_postgres.url) as db:
        with pytest.raises(Unavailable, match="not migrated"):
            await db.ping()
        own_postgres.stop()
        async with asyncio.timeout(60):
            for raised in await both_ways(db, "SELECT 1"):
                assert raised.detail == "The registry cannot be reached now."
        own_postgres.start()
        async with db.read() as session:
            assert await session.scalar(text("SELECT 1")) == 1


async def test_integrity_error_is_not_unavailable(registry_url: str, sql: Sql) -> None:
    """Also where only the commit sends the statement."""
    async with opened(registry_url) as db:
        with pytest.raises(IntegrityError) as caught:
            async with db.transaction() as session:
                session.add(
                    EventRow(connection_id=uuid4(), seq=1, type=CANARY, status="ACTIVE", version=1)
                )
        assert CANARY not in str(caught.value)


# A commit whose answer is lost


@pytest.mark.parametrize("is_durable", [True, False])
async def test_lost_answer_to_a_commit_is_unknown(
    registry_url: str, sql: Sql, is_durable: bool
) -> None:
    """Whether or not it is durable, the error is the same."""
    proxy = LossyCommit(registry_url, delivers=is_durable)
    async with proxy.opened() as port, opened(moved(registry_url, port)) as db:
        with pytest.raises(UpstreamUnknown) as caught:  # noqa: PT012 - the commit is the block's end
            async with db.transaction() as session:
                session.add(factories.connection(name=CANARY))
                proxy.is_armed = True
        await proxy.has_cut.wait()

    assert caught.value.code == "commit_unknown"
    assert CANARY not in f"{caught.value.problem()} {caught.value.__cause__!r}"
    assert await sql.fetchval("SELECT count(*) FROM connections") == is_durable


# Sessions


@pytest.fixture
async def forgetful(registry_url: str, sql: Sql) -> AsyncIterator[Database]:
    """A registry that lets code commit, and forgets everything when the test ends."""
    url = sqlalchemy_url(postgres_address(registry_url))
    engine = create_async_engine(url, json_deserializer=str)
    async with engine.connect() as connection:
        outer = await connection.begin()
        yield Database(
            async_sessionmaker(
                connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
            )
        )
        await outer.rollback()
    await engine.dispose()


async def test_commits_inside_an_outer_transaction_are_rolled_back(
    forgetful: Database, sql: Sql
) -> None:
    """Inside it, committed rows are visible and rolled back ones are not."""
    row = factories.connection()
    async with forgetful.transaction() as session:
        session.add(row)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the rollback is the block's end
        async with forgetful.transaction() as session:
            session.add(factories.connection())
            await session.flush()
            raise ZeroDivisionError

    async with forgetful.read() as session:
        assert (await registry.find_connection(session, row.id)).name == row.name
        assert await session.scalar(text("SELECT count(*) FROM connections")) == 1
    assert await sql.fetchval("SELECT count(*) FROM connections") == 0


@pytest.mark.parametrize("kind", ["pooled", "forgetful"])
async def test_json_is_stored_and_read_as_text(
    registry_url: str,
    forgetful: Database,
    sql: Sql,
    kind: str,
) -> None:
    """Nothing parses a catalog on its way; Postgres alone decides about spaces and key order."""
    catalog = b'{"streams":[{"b":1.50,"a":"\xc3\xa4"}]}'
    async with opened(registry_url) as pooled:
        db = pooled if kind == "pooled" else forgetful
        row = factories.connection()
        async with db.transaction() as session:
            session.add(row)
            await session.flush()
            version = registry.append_version(
                session, row, catalog, expected_version=1, fingerprint="f",
                origin=VersionOrigin.REPAIR, snapshot_id=None, requested_by=None)  # fmt: skip
        for way in (db.transaction, db.read):
            async with way() as session:
                found = await session.scalar(
                    select(SyncCatalogVersion.sync_catalog).where(
                        SyncCatalogVersion.id == version.id
                    )
                )
            assert found == '{"streams": [{"a": "ä", "b": 1.50}]}'
