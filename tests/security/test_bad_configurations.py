"""A service with insecure or unusable settings does not start, and names the setting.

Each file of tests/badconfig is an invalid environment. Its first line is
`# <service>: <expected message>`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import asyncpg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local.processes import servers
from shared.config import load
from shared.http.authentication import NoApiKey
from tests import access, leaks
from tests.integration.conftest import REPOSITORY, migrate
from tests.pools import Sql
from tests.security.conftest import SERVICES, ask, bearer, build, close, insert_key

FILES = sorted((REPOSITORY / "tests/badconfig").glob("*.env"))
CANARY = "aamcanary"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with unusable keys, by name."""
    folder = tmp_path_factory.mktemp("keys")
    keys = access.service_keys()
    (public,) = keys["service_public_keys_dir"].glob("orchestrator.*.pem")
    own = (keys["service_private_key_dir"] / "orchestrator.pem").read_bytes()
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for name, content in {"open": own, "rsa": other, "text": b"AAMCANARY"}.items():
        (folder / name).mkdir()
        file = folder / name / "orchestrator.pem"
        file.write_bytes(content)
        file.chmod(0o444 if name == "open" else 0o400)
    (folder / "empty").mkdir()
    (folder / "misnamed").mkdir()
    (folder / "misnamed" / f"orchestrator.{'A' * 16}.pem").write_bytes(public.read_bytes())
    return folder


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """The minimal environment of a service."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    for service in (*SERVICES, "console"):
        for name in _settings(service).model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SUPABASE_DB_URL", "postgresql://nobody:x@127.0.0.1:1/aam")
    monkeypatch.setenv("CONSOLE_SESSION_KEYS", leaks.canary("the key of sessions"))
    for name, value in access.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    root.handlers = handlers
    root.setLevel(level)


def _settings(service: str) -> Any:
    return get_type_hints(import_module(f"services.{service}.main").build)["settings"]


def start(service: str) -> object:
    """Import the application as an ASGI server does."""
    return import_module(f"services.{service}.main").build(load(_settings(service)))


@pytest.mark.parametrize("service", SERVICES)
def test_unchanged_configuration_starts(environment: pytest.MonkeyPatch, service: str) -> None:
    """The control of the cases below."""
    assert start(service)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_invalid_setting_prevents_the_start(
    environment: pytest.MonkeyPatch, folder: Path, file: Path
) -> None:
    """A one-line message names the variable, but not its value."""
    first, *variables = file.read_text().splitlines()
    service, _, explanation = first.removeprefix("# ").partition(": ")
    for line in variables:
        name, _, value = line.partition("=")
        if value:
            environment.setenv(name, value.format(folder=folder))
        else:
            environment.delenv(name)

    with pytest.raises(SystemExit) as ended:
        start(service)

    line = str(ended.value.code)
    assert line.startswith(explanation)
    assert "\n" not in line
    assert CANARY not in line.lower()
    assert variables[0].partition("=")[0] in line


def test_cases_are_found() -> None:
    assert len(FILES) > 25


async def process(service: str, **environment: str) -> tuple[int, str]:
    """Run the service until it exits; return its exit code and its output."""
    command = ("-m", "uvicorn", f"services.{service}.main:app", "--no-access-log")
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *(*command, "--port", str(servers.free_port())),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **access.environment(), **environment},
        cwd=REPOSITORY,
    )
    async with asyncio.timeout(60):
        out, _ = await running.communicate()
    assert running.returncode is not None
    return running.returncode, out.decode()


@pytest.mark.process
async def test_process_ends_with_that_line() -> None:
    """The exit code is not 0, and there is no traceback."""
    code, written = await process("rag_engine", SUPABASE_DB_URL="", OIDC_AUDIENCE="AAMCANARY")

    assert code != 0
    assert written == "OIDC_ISSUER and OIDC_AUDIENCE go together: set both or none\n"


@pytest.mark.process
async def test_process_ends_without_any_api_key(registry_url: str, sql: Sql) -> None:
    """Revoked and expired keys do not count."""
    await sql.execute("DELETE FROM api_keys")
    await insert_key(sql, "admin", is_revoked=True)
    await insert_key(sql, "admin", expires_in_s=-1)
    try:
        url = servers.as_service(registry_url, "rag_engine")
        code, written = await process("rag_engine", SUPABASE_DB_URL=url)
        for service in ("orchestrator", "drift_repair_agent", "schema_observer"):
            app = build(service, registry_url)
            with pytest.raises(NoApiKey):
                async with app.router.lifespan_context(app):
                    pass  # pragma: no cover
            await close(app)
    finally:
        await sql.execute("DELETE FROM api_keys")
        await access.let_in_now(sql)

    assert code != 0
    (line,) = [line for line in written.splitlines() if "no_api_key" in line]
    assert "No API key exists. `make key` creates one." in line
    assert "Traceback" not in written


@pytest.mark.process
async def test_registry_may_come_later(own_postgres: servers.Postgres) -> None:
    """The service runs while the registry is down, empty or without a key, then gets ready."""
    url = own_postgres.url
    app = build("rag_engine", own_postgres.services_url)
    own_postgres.stop()

    async def ready() -> tuple[int, str]:
        answer = await ask(app, "GET", "/ready")
        return answer.status, answer.json()["checks"]["access"]

    async with app.router.lifespan_context(app):
        assert await ready() == (503, "The registry cannot be reached now.")
        own_postgres.start()
        assert await ready() == (503, "The registry is not migrated: run `alembic upgrade head`.")
        await asyncio.to_thread(migrate, url)
        connection = await asyncpg.connect(url)
        await connection.execute("DELETE FROM api_keys")
        assert await ready() == (503, "No API key exists. `make key` creates one.")
        assert (await ask(app, "GET", "/health")).status == 200
        key = await insert_key(connection, "connections:read")
        await connection.close()
        assert await ready() == (200, "ok")
        assert (await ask(app, "GET", "/knowledge", [bearer(key.key)])).status == 200
