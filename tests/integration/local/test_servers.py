"""The embedded servers: guarded, restartable, and gone when their starter is."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from local.processes import servers

pytestmark = pytest.mark.process


async def _ask(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_postgres_has_both_databases_in_utf8(postgres: servers.Postgres) -> None:
    for name in servers.DATABASES:
        assert await _ask(postgres.url_of(name), "SELECT current_database()") == name
    assert await _ask(postgres.url, "SELECT lower('ÄÖ')") == "äö"


async def test_service_logins_have_few_privileges(postgres: servers.Postgres) -> None:
    """Into the registry alone, with a password that only the owner of the folder can read."""
    assert await _ask(postgres.services_url, "SELECT current_user") == "aam_mesh"
    for name in ("warehouse", "postgres"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _ask(f"{postgres.services_url.removesuffix('/aam')}/{name}", "SELECT 1")
    password = postgres.data_dir / "services_password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert password.read_text() != postgres.password
    assert password.read_text() not in postgres.log.read_text()


async def test_warehouse_has_its_own_login(postgres: servers.Postgres) -> None:
    """It owns the warehouse, may write there, and can enter no other database."""
    assert await _ask(postgres.warehouse_url, "SELECT current_user") == "aam_warehouse"
    rights = "rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls"
    query = f"SELECT {rights} FROM pg_roles WHERE rolname = current_user"  # noqa: S608
    assert await _ask(postgres.warehouse_url, query) is False
    await _ask(postgres.warehouse_url, "CREATE TABLE of_the_login AS SELECT 1")
    await _ask(postgres.warehouse_url, "CREATE SCHEMA of_the_login CREATE TABLE one (n int)")
    await _ask(postgres.warehouse_url, "DROP SCHEMA of_the_login CASCADE")
    await _ask(postgres.warehouse_url, "DROP TABLE of_the_login")
    for name in ("aam", "postgres"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _ask(f"{postgres.warehouse_url.removesuffix('/warehouse')}/{name}", "SELECT 1")
    password = postgres.data_dir / "warehouse_password"
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert password.read_text() not in {postgres.password, postgres.services_password}
    assert password.read_text() not in postgres.log.read_text()


async def test_old_warehouse_is_transferred_to_its_login(own_postgres: servers.Postgres) -> None:
    """With every table and schema that a superuser wrote, at the next start."""
    as_superuser = own_postgres.url_of("warehouse")
    for statement in (
        'CREATE TABLE "Account" AS SELECT 1 AS n',
        "CREATE SCHEMA crm CREATE TABLE leads (n int)",
        "ALTER DATABASE warehouse OWNER TO aam",
        "DROP ROLE aam_warehouse",
    ):
        await _ask(as_superuser, statement)
    own_postgres.stop()
    (own_postgres._cluster / servers._HAS_WAREHOUSE_LOGIN).unlink()
    own_postgres.start()
    await _ask(own_postgres.warehouse_url, 'ALTER TABLE "Account" ADD more int')
    await _ask(own_postgres.warehouse_url, "DROP SCHEMA crm CASCADE")


def test_server_files_are_private(postgres: servers.Postgres, own_valkey: servers.Valkey) -> None:
    """Logs, the events' files and the passwords."""
    files = [*postgres.data_dir.iterdir(), *own_valkey.data_dir.rglob("*")]
    names = {file.name for file in files}
    assert {"server.log", "password", "appendonlydir", "valkey.conf"} <= names
    assert [file for file in files if file.is_file() and file.stat().st_mode & 0o077] == []
    assert stat.S_IMODE(own_valkey.data_dir.stat().st_mode) == 0o700


async def test_each_service_has_its_own_login(postgres: servers.Postgres) -> None:
    """Its password is unique, and in no log."""
    urls = {service: postgres.url_for(service) for service in servers.SERVICES}
    for service, url in urls.items():
        assert await _ask(url, "SELECT current_user") == f"aam_{service}_login"
        assert url.partition(":")[2].partition("@")[0].rpartition(":")[2] not in (
            postgres.log.read_text()
        )
    assert len({url.partition("@")[0].rpartition(":")[2] for url in urls.values()}) == 5


async def test_old_cluster_gets_the_logins(own_postgres: servers.Postgres) -> None:
    """At its next start; and where that was interrupted, at the one after."""
    logins = [servers.login_of(service) for service in servers.SERVICES]
    groups = [f"aam_{service}" for service in servers.SERVICES]
    for statement in (
        f"DROP ROLE aam_mesh, {', '.join(logins)}",
        f"REVOKE ALL ON DATABASE aam FROM aam_services, {', '.join(groups)}",
        f"DROP ROLE aam_services, {', '.join(groups)}",
    ):
        await _ask(own_postgres.url, statement)
    for _ in range(2):
        own_postgres.stop()
        (own_postgres._cluster / servers._HAS_LOGINS).unlink()
        own_postgres.start()
        assert await _ask(own_postgres.services_url, "SELECT current_user") == "aam_mesh"
        assert await _ask(own_postgres.url_for("rag_engine"), "SELECT 1") == 1
    assert own_postgres.services_password not in own_postgres.log.read_text()


async def test_no_local_user_is_trusted(postgres: servers.Postgres, valkey: servers.Valkey) -> None:
    """Neither server answers without its password, which only its owner can read."""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await _ask(postgres.url.replace(postgres.password, "guess"), "SELECT 1")
    async with Redis.from_url(valkey.url.replace(valkey.password, "guess")) as redis:
        with pytest.raises(AuthenticationError):
            await redis.ping()


def test_passwords_are_private(postgres: servers.Postgres, valkey: servers.Valkey) -> None:
    """They are in a private file and in no command line."""
    for server in (postgres, valkey):
        assert stat.S_IMODE((server.data_dir / "password").stat().st_mode) == 0o600
        command = Path(f"/proc/{server.pid}/cmdline")
        if command.exists():
            assert server.password.encode() not in command.read_bytes()


def test_empty_secret_file_is_replaced(tmp_path: Path) -> None:
    """A kill between creating and writing it leaves an empty file."""
    path = tmp_path / "password"
    path.touch()
    drawn = servers.generate_once(path)
    assert len(drawn) == 48
    assert servers.generate_once(path) == drawn
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_postgres_keeps_its_data_over_a_stop_and_a_kill(
    own_postgres: servers.Postgres,
) -> None:
    """The same data is there, on the same port, however it ended."""
    await _ask(own_postgres.url, "CREATE TABLE kept AS SELECT 42 AS n")
    url = own_postgres.url
    own_postgres.stop()
    own_postgres.start()
    assert await _ask(url, "SELECT n FROM kept") == 42
    own_postgres.kill()
    assert own_postgres.exit_code() is None
    own_postgres.start()
    assert await _ask(url, "SELECT n FROM kept") == 42


async def test_valkey_keeps_its_stream_over_a_stop(own_valkey: servers.Valkey) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.xadd("aam.events", {"type": "connection.onboarded"})
    own_valkey.stop()
    own_valkey.start()
    async with Redis.from_url(own_valkey.url) as redis:
        assert await redis.xlen("aam.events") == 1


def test_postgres_runs_below_a_private_home(tmp_path: Path) -> None:
    """Nothing of it is left behind."""
    with servers.start_postgres(tmp_path / "pg", options=servers.THROWAWAY_OPTIONS) as server:
        assert server.exit_code() is None
    servers.remove(tmp_path / "pg")
    assert list(tmp_path.iterdir()) == []


def test_occupied_port_is_detected() -> None:
    """A listener on loopback or on every address takes the port; a free port is free."""
    for address in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 (what must be seen)
        with socket.create_server((address, 0)) as listener:
            assert servers.is_taken(listener.getsockname()[1])
    assert not servers.is_taken(servers.free_port())


def test_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the taken port, or the log of a server that ended."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(servers.ServerFailed, match=rf"port {listener.getsockname()[1]} is taken"),
    ):
        servers.Valkey(tmp_path, port=listener.getsockname()[1]).start()
    monkeypatch.setenv("AAM_VALKEY_BIN", "/bin/false")
    with pytest.raises(servers.ServerFailed, match=r"ended at its start; its log: .*server\.log"):
        servers.start_valkey(tmp_path)


_STARTER = """
import sys, time
from pathlib import Path
from local.processes import servers
folder = Path(sys.argv[1])
postgres = servers.start_postgres(folder / "pg", options=servers.THROWAWAY_OPTIONS)
valkey = servers.start_valkey(folder / "v")
print(postgres.pid, valkey.pid, postgres.port, flush=True)
time.sleep(60)
"""


def test_servers_end_with_their_killed_starter(server_dir: Path) -> None:
    """After kill -9 of the process that started them, both are gone with all they started."""
    folder = server_dir / "orphans"
    folder.mkdir()
    starter = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with starter:
        assert starter.stdout is not None
        postgres, valkey, port = (int(word) for word in starter.stdout.readline().split())
        starter.kill()
    deadline = time.monotonic() + 8
    while any(_is_alive(pid) for pid in (postgres, valkey)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(postgres)
    assert not _is_alive(valkey)
    assert not servers.is_taken(port)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
