"""The synchronous connection of the migrations: libpq's TLS, sockets, and what a refusal says."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import psycopg2.extensions
import pytest
import trustme
from sqlalchemy import text

from local.processes import servers
from shared.database import Database, connect_synchronously
from shared.errors import Unavailable
from shared.postgres_address import PostgresAddress, SslMode, postgres_address
from tests import processes
from tests.fakes.postgres_proxies import TlsProxy
from tests.integration.conftest import REPOSITORY

pytestmark = pytest.mark.process

CANARY = "AAMCANARYpassword"
_ENCRYPTED = text("SELECT 1")


def encryption_of(address: PostgresAddress) -> str:
    """Return "encrypted", "in clear" or why the connection was refused."""
    try:
        connection = connect_synchronously(address)
    except Unavailable as refused:
        return refused.detail
    with connection:
        assert connection.scalar(_ENCRYPTED) == 1
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg2.extensions.connection)
        return "encrypted" if driver.info.ssl_in_use else "in clear"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    """The authority that signed the proxy's certificate."""
    return trustme.CA()


@pytest.mark.parametrize(
    "host, mode, authority, outcome",
    [
        ("localhost", "require", "ours", "encrypted"),
        ("localhost", "prefer", "ours", "encrypted"),
        ("localhost", "verify-full", "ours", "encrypted"),
        ("127.0.0.1", "verify-ca", "ours", "encrypted"),
        ("localhost", "require", None, "encrypted"),
        ("localhost", "prefer", None, "encrypted"),
        ("localhost", "allow", None, "in clear"),
        ("localhost", "disable", "ours", "in clear"),
        ("127.0.0.1", "require", "ours", "does not match host name"),
        ("127.0.0.1", "verify-full", "ours", "does not match host name"),
        ("localhost", "require", "other", "certificate verify failed"),
        ("localhost", "verify-ca", "other", "certificate verify failed"),
        ("localhost", "verify-full", None, "certificate verify failed"),
    ],
)
async def test_ca_file_is_verified_like_in_the_services(
    postgres: servers.Postgres,
    ca: trustme.CA,
    tmp_path: Path,
    host: str,
    mode: SslMode,
    authority: str | None,
    outcome: str,
) -> None:
    """SUPABASE_DB_CA_FILE becomes sslrootcert, and `require` then verifies name and chain."""
    (ca if authority == "ours" else trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with TlsProxy(postgres.url, ca.issue_cert("localhost")).opened() as port:
        address = PostgresAddress(
            host=host, port=port, user="aam", password=postgres.password, database="aam",
            ssl_mode=mode, ssl_root_cert=tmp_path / "ca.pem" if authority else None,
        )  # fmt: skip
        answer = await asyncio.to_thread(encryption_of, address)

    assert outcome in answer
    assert postgres.password not in answer


@pytest.fixture
def folders(server_dir: Path) -> tuple[Path, Path]:
    """One for a server's socket, one for its data."""
    socket, data = (Path(tempfile.mkdtemp(dir=server_dir)) for _ in range(2))
    socket.chmod(0o777)
    data.chmod(0o711)
    return socket, data


async def test_unix_socket(folders: tuple[Path, Path]) -> None:
    """Named as libpq does, in `host` or percent-encoded; for the services' driver as well."""
    folder, data = folders
    options = {**servers.THROWAWAY_OPTIONS, "unix_socket_directories": str(folder)}
    with servers.start_postgres(data, options=options) as server:
        account = f"postgresql://aam:{server.password}@"
        for url in (
            f"{account}/aam?host={folder}&port={server.port}",
            f"{account}:{server.port}/aam?host={folder}",
            f"{account}{str(folder).replace('/', '%2F')}:{server.port}/aam",
        ):
            address = postgres_address(url)
            assert (address.host, address.port) == (str(folder), server.port)
            assert await asyncio.to_thread(encryption_of, address) == "in clear"
            db = Database.at(address, application="test")
            async with db.read() as session:
                assert await session.scalar(text("SELECT inet_client_addr()")) is None
            await db.close()


@pytest.mark.deep(after=2)
@pytest.mark.parametrize(
    "url, reason",
    [
        ("postgresql://aam:{password}@127.0.0.1:{port}/aam", "password authentication failed"),
        ("postgresql://aam:{password}@127.0.0.1:{free}/aam", "Connection refused"),
        (
            "postgresql://aam:{password}@127.0.0.1:{port}/aam?sslmode=require",
            "does not support SSL",
        ),
        ("postgresql://aam:{password}@no-such-host.invalid/aam", "could not translate host name"),
    ],
)
def test_refusal_is_one_line_without_the_password(
    postgres: servers.Postgres, tmp_path: Path, url: str, reason: str
) -> None:
    """The reason that libpq gives, and the setting that it is about."""
    filled = url.format(password=CANARY, port=postgres.port, free=servers.free_port())
    run = processes.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        env={**os.environ, "SUPABASE_DB_URL": filled, "MIGRATION_DB_URL": ""},
        cwd=REPOSITORY,
        timeout=60,
    )

    assert run.returncode == 1
    assert run.stderr.startswith("The registry cannot be reached: ")
    assert reason in run.stderr
    assert run.stderr.count("\n") == 1
    assert CANARY not in run.stdout + run.stderr


def test_password_repeated_in_a_reason_is_removed(postgres: servers.Postgres) -> None:
    """Such as one that is also the name of the user."""
    address = postgres_address(f"postgresql://{CANARY}:{CANARY}@127.0.0.1:{postgres.port}/aam")

    assert CANARY not in encryption_of(address)
