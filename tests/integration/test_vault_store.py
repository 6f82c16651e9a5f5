"""Credentials in a vault: a real OpenBao, an AppRole, a wrapped secret id that is used once."""

# ruff: noqa: ASYNC240 - a test's own small files
from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from local.processes import servers
from services.auth_broker.vault import VaultStore
from shared.errors import AamError
from tests import access, processes
from tests.integration.brokers import ask, audited, broker_for, token
from tests.integration.conftest import REPOSITORY
from tests.integration.openbao import ROLE, OpenBao
from tests.pools import Sql

CANARY = "AAMCANARY-vault"
FIELDS = {
    "client_id": f"{CANARY}-id",
    "client_secret": f"{CANARY}-secret",
    "refresh_token": f"{CANARY}-token",
}
ANSWER = {**FIELDS, "auth_type": "Client", "is_sandbox": False}
REFERENCE = "vault:salesforce-prod"


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server that all tests share, and that no test seals or stops."""
    server = OpenBao(tmp_path_factory.mktemp("bao"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def own_bao(tmp_path: Path) -> Iterator[OpenBao]:
    """A server for one test, not started yet."""
    server = OpenBao(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def secret_id_file(tmp_path: Path) -> Path:
    """Where the wrapping token is put."""
    return tmp_path / "secret-id"


@asynccontextmanager
async def serving(registry_url: str, settings: dict[str, Any]) -> AsyncIterator[FastAPI]:
    """A broker that stays logged in to the vault."""
    app = broker_for(registry_url, {}, **settings)
    async with app.router.lifespan_context(app):
        yield app


async def ready(app: FastAPI) -> dict[str, Any]:
    """The body of its `GET /ready`."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://aam") as it:
        body: dict[str, Any] = (await it.get("/ready")).json()
    return body


async def test_credential_is_read_each_time(
    bao: OpenBao,
    sql: Sql,
    registry_url: str,
    secret_id_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Changes and deletions in the vault count at once; nothing is logged or cached."""
    bao.put("salesforce-prod", **FIELDS)
    wrapped = bao.wrapped_secret_id()
    async with serving(registry_url, bao.settings(secret_id_file, wrapped)) as app:
        logging.getLogger().addHandler(caplog.handler)
        assert (await ready(app))["checks"]["vault"] == "ok"
        assert (await ask(app, REFERENCE)).json() == ANSWER

        bao.put(
            "salesforce-prod", **FIELDS | {"refresh_token": f"{CANARY}-new", "IS_SANDBOX": True}
        )
        changed = (await ask(app, REFERENCE)).json()
        assert changed == ANSWER | {"refresh_token": f"{CANARY}-new", "is_sandbox": True}

        bao.delete("salesforce-prod")
        gone = await ask(app, REFERENCE)
        assert (gone.status_code, gone.json()["code"]) == (404, "credential_not_found")
        assert (await ask(app, "vault:missing")).status_code == 404
    assert [row[1:] for row in await audited(sql)] == [
        (REFERENCE, "granted"),
        (REFERENCE, "granted"),
        (REFERENCE, "credential_not_found"),
        ("vault:missing", "credential_not_found"),
    ]
    assert CANARY not in caplog.text
    assert wrapped not in caplog.text


async def test_default_store_can_be_the_vault(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """A missing member is named by its key."""
    bao.put("salesforce-prod", **FIELDS | {"client_secret": ""})
    settings = bao.settings(secret_id_file) | {"credential_store": "vault"}
    async with serving(registry_url, settings) as app:
        answer = await ask(app, "salesforce-prod")

    assert answer.json()["code"] == "credential_incomplete"
    assert answer.json()["variable"] == "aam/salesforce-prod#client_secret"
    assert CANARY not in answer.text


async def test_nested_values_are_a_document(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """Their types stay, and the store's name of a nested one has dots."""
    nested = {"credentials": {"api_key": f"{CANARY}-key"}, "port": 5432, "empty": None}
    bao.put("widgets", **nested)
    async with serving(registry_url, bao.settings(secret_id_file)) as app:
        answer = await ask(app, "vault:widgets", of="document", more="?source_type=Widgets")

    assert answer.json() == {
        "document": {"credentials": {"api_key": f"{CANARY}-key"}, "port": 5432},
        "naming": {"prefix": "aam/widgets#", "separator": ".", "is_upper": False},
    }


async def test_denied_credential_is_reported_as_denied(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """Neither as a transient error nor as missing."""
    bao.put("not-for-us", **FIELDS)
    async with serving(registry_url, bao.settings(secret_id_file)) as app:
        answer = await ask(app, "vault:not-for-us")

    assert (answer.status_code, answer.json()["code"]) == (502, "store_denied")
    assert CANARY not in answer.text
    assert [row[2] for row in await audited(sql)] == ["store_denied"]


async def test_wrapped_secret_id_is_valid_for_one_start(
    bao: OpenBao, registry_url: str, secret_id_file: Path
) -> None:
    """A second start is refused, and so is one after somebody else has unwrapped it."""
    settings = bao.settings(secret_id_file)
    broker_for(registry_url, {}, **settings)
    with pytest.raises(SystemExit) as again:
        broker_for(registry_url, {}, **settings)

    stolen = bao.wrapped_secret_id()
    bao.root.sys.unwrap(stolen)
    with pytest.raises(SystemExit) as after:
        broker_for(registry_url, {}, **bao.settings(secret_id_file, stolen))

    for refusal in (again, after):
        assert "was already unwrapped" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert stolen not in str(after.value)


async def test_foreign_wrapping_token_is_not_unwrapped(
    bao: OpenBao, registry_url: str, secret_id_file: Path
) -> None:
    """The broker would log in with somebody else's role."""
    wrapped = bao.root.sys.wrap({"secret_id": "theirs"}, ttl=60)["wrap_info"]["token"]

    with pytest.raises(SystemExit) as refused:
        broker_for(registry_url, {}, **bao.settings(secret_id_file, wrapped))

    assert f"not created by auth/approle/role/{ROLE}/secret-id" in str(refused.value)
    assert bao.root.sys.unwrap(wrapped)["data"] == {"secret_id": "theirs"}


@pytest.mark.process
def test_refused_start_is_one_line(
    bao: OpenBao, registry_url: str, secret_id_file: Path, tmp_path: Path
) -> None:
    """No traceback, a failing exit code, and no wrapping token."""
    wrapped = bao.wrapped_secret_id()
    settings = bao.settings(secret_id_file, wrapped)
    bao.root.sys.unwrap(wrapped)

    process = processes.run(
        [sys.executable, "-m", "uvicorn", "services.auth_broker.main:app", "--port", "0"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "SUPABASE_DB_URL": servers.as_service(registry_url, "auth_broker"),
            **access.environment(),
            **{name.upper(): str(value) for name, value in settings.items()},
        },
        cwd=tmp_path,
        timeout=60,
    )

    assert process.returncode == 1
    assert process.stderr.startswith("Vault does not know the wrapping token")
    assert process.stderr.count("\n") == 1
    assert wrapped not in process.stdout + process.stderr


async def test_token_is_renewed_while_the_broker_runs(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """It lives for two seconds, and still reads after five."""
    bao.put("salesforce-prod", **FIELDS)
    bao.allow(token_period="2s")
    try:
        async with serving(registry_url, bao.settings(secret_id_file)) as app:
            await asyncio.sleep(5)
            assert (await ask(app, REFERENCE)).json() == ANSWER
    finally:
        bao.allow()


async def test_revoked_token_needs_a_new_secret_id(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """503, never an older value; a new wrapped secret id is used without a restart."""
    bao.put("salesforce-prod", **FIELDS)
    async with serving(registry_url, bao.settings(secret_id_file)) as app:
        assert (await ask(app, REFERENCE)).status_code == 200
        bao.revoke_logins()

        for _ in range(2):
            refused = await ask(app, REFERENCE)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert CANARY not in refused.text
        assert "already used" in (await ready(app))["checks"]["vault"]

        secret_id_file.write_text(bao.wrapped_secret_id())
        assert (await ask(app, REFERENCE)).json() == ANSWER


async def test_sealed_or_stopped_vault_is_503(
    own_bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """It is audited, other stores still work, and so does the vault once it is unsealed."""
    own_bao.start()
    own_bao.put("salesforce-prod", **FIELDS)
    async with serving(registry_url, own_bao.settings(secret_id_file)) as app:
        assert (await ask(app, REFERENCE)).status_code == 200

        own_bao.seal()
        sealed = await ask(app, REFERENCE)
        assert (sealed.status_code, sealed.json()["code"]) == (503, "store_unavailable")
        assert (await ready(app))["checks"]["vault"] == "Vault is sealed."
        own_bao.unseal()
        assert (await ask(app, REFERENCE)).json() == ANSWER

        own_bao.kill()
        gone = await ask(app, REFERENCE)
        assert (gone.status_code, gone.json()["code"]) == (503, "store_unavailable")
        assert CANARY not in gone.text + sealed.text
        assert (await ask(app, "env:missing")).status_code == 404
    assert [row[2] for row in await audited(sql)] == [
        "granted",
        "store_unavailable",
        "granted",
        "store_unavailable",
        "credential_not_found",
    ]


async def test_vault_may_start_later(
    own_bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """A broker starts although its vault cannot be reached."""
    secret_id_file.write_text("not yet")
    settings = {
        "vault_addr": own_bao.url,
        "vault_role": ROLE,
        "vault_secret_id_file": secret_id_file,
    }
    # In production the role's id is known beforehand; here each start draws one.
    async with serving(registry_url, settings | {"vault_role_id": "not yet"}) as app:
        assert (await ask(app, REFERENCE)).status_code == 503
        await asyncio.to_thread(own_bao.start)
        own_bao.root.auth.approle.update_role_id(ROLE, "not yet")
        own_bao.put("salesforce-prod", **FIELDS)
        secret_id_file.write_text(own_bao.wrapped_secret_id())
        assert (await ask(app, REFERENCE)).json() == ANSWER


async def test_concurrent_readers_log_in_once(
    own_bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """One reader unwraps the secret id; the others wait."""
    secret_id_file.write_text("not yet")
    settings = {
        "vault_addr": own_bao.url,
        "vault_role": ROLE,
        "vault_secret_id_file": secret_id_file,
    }
    app = broker_for(registry_url, {}, **settings, vault_role_id="not yet")
    await asyncio.to_thread(own_bao.start)
    own_bao.root.auth.approle.update_role_id(ROLE, "not yet")
    own_bao.put("salesforce-prod", **FIELDS)
    secret_id_file.write_text(own_bao.wrapped_secret_id())

    answers = await asyncio.gather(*(ask(app, REFERENCE) for _ in range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert isinstance(app.state.service._stores["vault"], VaultStore)


@pytest.mark.parametrize("path", ["../../sys/policy", "a/b", "a?x=1", "a#b", "..%2f.."])
async def test_invalid_reference_does_not_reach_the_vault(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path, path: str
) -> None:
    async with serving(registry_url, bao.settings(secret_id_file)) as app:
        service = app.state.service
        with pytest.raises(AamError) as refused:
            await service.get_salesforce_config(f"vault:{path}")
        assert refused.value.code == "invalid_credential_id"
        quoted = f"vault:{path}".replace("#", "%23").replace("?", "%3F")
        assert (await ask(app, quoted, bearer=token(f"vault:{path}"))).status_code in (404, 422)


async def test_version_is_the_vaults_own(
    bao: OpenBao, sql: Sql, registry_url: str, secret_id_file: Path
) -> None:
    """It changes with each write; `expires_at` is a value of the credential."""
    bao.put("versioned", api_key=CANARY)
    wrapped = bao.wrapped_secret_id()
    body = {"credential_ids": ["vault:versioned"], "digest_key": "ab" * 32}
    headers = {"Authorization": f"Bearer {token(None)}"}

    async def version(app: FastAPI) -> dict[str, Any]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://aam") as client:
            answer = await client.post("/credentials/versions", headers=headers, json=body)
        found: dict[str, Any] = answer.json()["credentials"][0]
        return found

    async with serving(registry_url, bao.settings(secret_id_file, wrapped)) as app:
        first, again = await version(app), await version(app)
        bao.put("versioned", api_key=CANARY, expires_at="2027-01-31")
        second = await version(app)

    assert first == again
    assert first["version"].startswith("1 of ")
    assert first["expires_at"] is None
    assert second["version"].startswith("2 of ")
    assert second["expires_at"] == "2027-01-31T00:00:00Z"
