"""API keys: creation by API and command line, expiry, and revocation within five seconds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from local.processes import servers
from services.orchestrator import manage_api_keys
from shared import registry
from shared.auth import api_keys
from shared.auth.api_keys import FORM, KeyRing, new_key
from shared.auth.scopes import KEY_SCOPES, SERVICE_CALLS, Scope
from shared.auth.service_tokens import Signer, read_public_keys
from tests import access
from tests.integration.conftest import REPOSITORY
from tests.pools import Sql
from tests.security.conftest import Answer, ask, bearer, build, close, insert_key
from tests.waiting import until

JSON = ("content-type", "application/json")


async def order(app: FastAPI, by: str, **order: Any) -> Answer:
    """POST /api-keys."""
    body = json.dumps({"owner": "Ada", "scopes": ["connections:read"], **order}).encode()
    length = ("content-length", str(len(body)))
    return await ask(app, "POST", "/api-keys", [bearer(by), JSON, length], body=body)


async def status(app: FastAPI, key: str) -> int:
    """Return the status of a request that this key allows."""
    return (await ask(app, "GET", "/connections", [bearer(key)])).status


@pytest.fixture
def orchestrator(apps: dict[str, FastAPI]) -> FastAPI:
    """The service that creates keys."""
    return apps["orchestrator"]


async def test_key_is_shown_once(orchestrator: FastAPI, sql: Sql) -> None:
    """The response must not be cached; the registry and later responses lack the secret."""
    answer = await order(orchestrator, access.KEY.key, owner="  Ada  ")

    assert answer.status == 201
    assert answer.headers["cache-control"] == "no-store"
    created = answer.json()
    form = FORM.fullmatch(created["key"])
    assert form is not None
    assert form[1] == created["id"]
    row = await sql.fetchrow("SELECT * FROM api_keys WHERE id = $1", created["id"])
    assert row is not None
    assert (row["owner"], row["created_by"]) == ("Ada", access.NAME)
    secret = created["key"].rpartition(f"_{created['id']}_")[2]
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    stored = [
        str(await sql.fetchval(f"SELECT string_agg(t::text, '') FROM {name} t"))  # noqa: S608
        for (name,) in tables
    ]
    listed = await ask(orchestrator, "GET", "/api-keys", [bearer(access.KEY.key)])
    gone = await ask(orchestrator, "DELETE", f"/api-keys/{created['id']}", [bearer(access.KEY.key)])
    for text in (*stored, listed.body.decode(), gone.body.decode()):
        assert secret not in text
        assert secret[:8] not in text
    for body in (listed.body, gone.body):
        assert row["digest"].hex().encode() not in body
        assert b"digest" not in body
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


def test_keys_are_random() -> None:
    """Each has 256 random bits in 43 characters, which its `repr` does not contain."""
    drawn = [new_key("test") for _ in range(1000)]

    assert len({one.id for one in drawn}) == len({one.key for one in drawn}) == 1000
    assert all(FORM.fullmatch(one.key) for one in drawn)
    assert all(one.key not in repr(one) for one in drawn)


@pytest.mark.exact
async def test_revoked_key_is_refused_everywhere(
    orchestrator: FastAPI, registry_url: str, sql: Sql
) -> None:
    """Within five seconds, by other replicas too; revoking again keeps the first timestamp."""
    other = build("orchestrator", registry_url)
    key = await insert_key(sql, *KEY_SCOPES)
    assert [await status(app, key.key) for app in (orchestrator, other)] == [200, 200]

    for _ in range(2):
        answer = await ask(orchestrator, "DELETE", f"/api-keys/{key.id}", [bearer(access.KEY.key)])
        assert (answer.status, answer.json()["id"]) == (200, key.id)
    began = time.monotonic()
    for app in (orchestrator, other):
        while await status(app, key.key) != 401:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.05)
    first = answer.json()["revoked_at"]
    again = await ask(orchestrator, "DELETE", f"/api-keys/{key.id}", [bearer(access.KEY.key)])
    assert again.json()["revoked_at"] == first
    await close(other)


async def test_cached_key_is_as_old_as_its_query(
    orchestrator: FastAPI, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow query does not extend the time for which a key is cached."""
    key = await insert_key(sql, "admin")
    now = 1000.0
    queries = 0
    find = registry.find_key

    async def slowly(*given: Any) -> Any:
        nonlocal now, queries
        queries += 1
        found = await find(*given)
        now += 3
        return found

    monkeypatch.setattr(registry, "find_key", slowly)
    monkeypatch.setattr(api_keys, "monotonic", lambda: now)
    ring = KeyRing(orchestrator.state.db)
    assert await ring.caller(key.key) is not None
    now += 0.9
    assert await ring.caller(key.key) is not None
    assert queries == 1
    now += 0.2
    await sql.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.id)
    assert await ring.caller(key.key) is None
    assert queries == 2


@pytest.mark.exact
async def test_key_expires_on_time(orchestrator: FastAPI, sql: Sql) -> None:
    """Even if it was accepted just before."""
    key = await insert_key(sql, *KEY_SCOPES, expires_in_s=3)
    assert await status(orchestrator, key.key) == 200

    has_expired = "SELECT expires_at <= now() FROM api_keys WHERE id = $1"
    await until(lambda: sql.fetchval(has_expired, key.id))
    assert await status(orchestrator, key.key) == 401


async def test_last_use_is_recorded_to_the_minute(
    orchestrator: FastAPI, registry_url: str, sql: Sql
) -> None:
    """By any replica, and never for a wrong secret."""

    async def used() -> Any:
        return await sql.fetchval("SELECT last_used_at FROM api_keys WHERE id = $1", key.id)

    key = await insert_key(sql, *KEY_SCOPES)
    assert await status(orchestrator, f"{key.key[:-1]}{'A' if key.key[-1] != 'A' else 'B'}") == 401
    assert await used() is None
    await status(orchestrator, key.key)
    first = await used()
    assert first is not None
    other = build("orchestrator", registry_url)
    await status(other, key.key)
    assert await used() == first
    await sql.execute(
        "UPDATE api_keys SET last_used_at = now() - interval '61 s' WHERE id = $1", key.id
    )
    await close(other)
    other = build("orchestrator", registry_url)
    await status(other, key.key)
    assert await used() > first
    await close(other)


async def test_without_the_registry_no_key_is_accepted() -> None:
    """503 for a well-formed key, 401 for anything else."""
    app = build("orchestrator", "postgresql://nobody:x@127.0.0.1:1/aam")

    answer = await ask(app, "GET", "/connections", [bearer(new_key("test").key)])

    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert await status(app, "garbage") == 401
    await close(app)


@pytest.mark.parametrize("scope", [scope for scope in Scope if scope is not Scope.ADMIN])
async def test_key_cannot_create_a_more_powerful_key(
    orchestrator: FastAPI, sql: Sql, scope: Scope
) -> None:
    admin = await insert_key(sql, Scope.ADMIN)
    before = await sql.fetchval("SELECT count(*) FROM api_keys")

    answer = await order(orchestrator, admin.key, scopes=["admin", scope])

    assert (answer.status, answer.json()["scope"]) == (403, scope)
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == before
    assert (await order(orchestrator, admin.key, scopes=["admin", "admin"])).status == 201


@pytest.mark.parametrize(
    "changes",
    [
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": "admin"},
        {"scopes": ["admin"] * 50},
        {"owner": ""},
        {"owner": " "},
        {"owner": "a\x00b"},
        {"owner": "a\nb"},
        {"owner": "a" * 201},
        {"id": "ab12cd34"},
        {"key": "aam_x"},
        {"created_by": "somebody else"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2037-01-01T00:00:00"},
        {"expires_at": "soon"},
        {"expires_at": 2**32},
    ],
)
async def test_invalid_order_creates_nothing(
    orchestrator: FastAPI, sql: Sql, changes: dict[str, Any]
) -> None:
    before = await sql.fetchval("SELECT count(*) FROM api_keys")

    answer = await order(orchestrator, access.KEY.key, **changes)

    assert answer.status == 422, answer.body
    assert await sql.fetchval("SELECT count(*) FROM api_keys") == before


@pytest.mark.parametrize("end", ["9999-12-31T23:59:59-23:59", "2037-01-01T00:00:00+14:00"])
async def test_distant_expiry_is_accepted(orchestrator: FastAPI, end: str) -> None:
    """In any time zone."""
    answer = await order(orchestrator, access.KEY.key, expires_at=end)

    assert answer.status == 201, answer.body
    assert await status(orchestrator, answer.json()["key"]) == 200


@pytest.mark.parametrize("id_", ["ab12cd3", "AB12CD34", "ab12cd345", "%00b12cd34", "..%2f..%2f."])
async def test_invalid_and_unknown_key_ids(orchestrator: FastAPI, id_: str) -> None:
    """An invalid id is rejected as malformed; an unknown one is 404."""
    bad = await ask(orchestrator, "DELETE", f"/api-keys/{id_}", [bearer(access.KEY.key)])
    none = await ask(orchestrator, "DELETE", "/api-keys/zzzzzzzz", [bearer(access.KEY.key)])

    assert (bad.status, none.status) == (422, 404)


# Command line


@pytest.fixture
async def keyless(registry_url: str, sql: Sql) -> AsyncIterator[Sql]:
    """A migrated registry without any key."""
    await sql.execute("DELETE FROM api_keys")
    yield sql
    await sql.execute("DELETE FROM api_keys")
    await access.let_in_now(sql)


async def by_hand(registry_url: str, *arguments: str) -> tuple[int, str, str]:
    """`python -m services.orchestrator.manage_api_keys …`: exit code and both outputs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.orchestrator.manage_api_keys", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "SUPABASE_DB_URL": servers.as_service(registry_url, "orchestrator"),
            "KEY_ENVIRONMENT": "byhand",
        },
        cwd=REPOSITORY,
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


@pytest.mark.process
async def test_key_is_created_by_command(
    orchestrator: FastAPI, registry_url: str, keyless: Sql
) -> None:
    """Printed once on a line of its own, for scripts; the key can be listed and revoked."""
    code, out, error = await by_hand(
        registry_url, "make", "--owner", "Ada", "--scope", "connections:read"
    )
    assert (code, error) == (0, "")
    key = out.removesuffix("\n")
    form = FORM.fullmatch(key)
    assert form is not None
    assert key.startswith("aam_byhand_")
    assert await status(orchestrator, key) == 200
    assert (await order(orchestrator, key)).status == 403

    code, out, _ = await by_hand(registry_url, "list")
    (listed,) = json.loads(out)["items"]
    assert (code, listed["id"], listed["owner"]) == (0, form[1], "Ada")
    assert listed["created_by"] == "manage_api_keys"
    assert key not in out

    code, out, _ = await by_hand(registry_url, "revoke", form[1])
    assert (code, out) == (
        0,
        f"{form[1]} is revoked; every service rejects it within five seconds.\n",
    )
    assert await keyless.fetchval("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--owner", ""),
        ("--owner", "a\nb"),
        ("--scope", "credentials:read"),
        ("--expires-in-days", "0"),
        ("--expires-in-days", "99999999999"),
        ("--expires-in-days", "soon"),
        ("--label", "team"),
        ("--label", "team=sales", "--label", "team=support"),
    ],
)
def test_invalid_command_arguments_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """Before any connection to the registry."""
    monkeypatch.setattr(sys, "argv", ["manage_api_keys", "make", "--owner", "Ada", *arguments])
    with pytest.raises(SystemExit) as ended:
        manage_api_keys.main()

    assert ended.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


@pytest.mark.process
async def test_revoking_an_unknown_key_is_one_line(registry_url: str, sql: Sql) -> None:
    output = await by_hand(registry_url, "revoke", "zzzzzzzz")

    assert output == (1, "", "manage_api_keys: No key has this id.\n")


_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'aam-manage_api_keys' AND wait_event_type = 'Lock'
"""


async def set_up(registry_url: str, folder: Path) -> tuple[int, str, str]:
    """Run the `set-up` command with this folder for its keys."""
    places = ("--private", str(folder / "own"), "--public", str(folder / "public"))
    return await by_hand(registry_url, "set-up", *places, "--first-key", str(folder / "auth"))


def first_key(folder: Path) -> str:
    """Read the key from the header file for curl."""
    file = folder / "auth"
    assert file.stat().st_mode & 0o777 == 0o600
    name, _, value = file.read_text().rstrip("\n").partition(": ")
    assert name == "Authorization"
    return value.removeprefix("Bearer ")


def files(folder: Path) -> dict[Path, bytes]:
    """Return the content of every file below a folder."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.process
async def test_setup_creates_keys_once(
    orchestrator: FastAPI, registry_url: str, keyless: Sql, tmp_path: Path
) -> None:
    """Two concurrent runs create one set of keys, and a later run none."""
    async with keyless.transaction():
        await keyless.execute("LOCK TABLE api_keys IN EXCLUSIVE MODE")  # reads pass, writes wait
        running = [asyncio.create_task(set_up(registry_url, tmp_path)) for _ in range(2)]
        async with asyncio.timeout(30):
            while await keyless.fetchval(_WAITING) < 2:
                await asyncio.sleep(0.05)
                await keyless.execute("SELECT pg_stat_clear_snapshot()")
    ended = list(await asyncio.gather(*running))
    created = files(tmp_path)
    ended.append(await set_up(registry_url, tmp_path))

    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    assert sorted(out for _, out, _ in ended) == [
        *["A key already exists.\n"] * 2,
        f"The first key is in {tmp_path / 'auth'}.\n",
    ]
    assert files(tmp_path) == created
    services = {caller for caller, _ in SERVICE_CALLS}
    known = read_public_keys(tmp_path / "public")
    assert sorted(name for name, _ in known.values()) == sorted(services)
    for name in services:
        Signer(name, tmp_path / "own" / name / f"{name}.pem")
    assert len(created) == 2 * len(services) + 1
    assert await keyless.fetchval("SELECT count(*) FROM api_keys") == 1
    assert await status(orchestrator, first_key(tmp_path)) == 200


@pytest.mark.process
async def test_setup_that_fails_at_its_commit_can_be_repeated(
    orchestrator: FastAPI, registry_url: str, keyless: Sql, tmp_path: Path
) -> None:
    """The key file is written before the commit; the next run replaces it with a valid key."""
    await keyless.execute(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '57P01'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON api_keys
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
        """
    )
    try:
        code, _, error = await set_up(registry_url, tmp_path)
    finally:
        await keyless.execute("DROP FUNCTION refuse CASCADE")
    lost = first_key(tmp_path)
    assert (code, error) == (1, "manage_api_keys: The registry's answer to a commit was lost.\n")
    assert await status(orchestrator, lost) == 401

    code, _, _ = await set_up(registry_url, tmp_path)

    assert code == 0
    assert first_key(tmp_path) != lost
    assert await status(orchestrator, first_key(tmp_path)) == 200
    assert await keyless.fetchval("SELECT count(*) FROM api_keys") == 1


@pytest.mark.process
async def test_first_key_of_a_file_is_recorded_once(
    orchestrator: FastAPI, registry_url: str, keyless: Sql, tmp_path: Path
) -> None:
    """The second run changes nothing, and a revoked key stays revoked."""
    key = new_key("live")
    file = tmp_path / "auth"
    file.write_text(f"Authorization: Bearer {key.key}\n")

    first = await by_hand(registry_url, "record-first-key", "--first-key", str(file))
    again = await by_hand(registry_url, "record-first-key", "--first-key", str(file))

    assert first == (0, f"The key {key.id} is recorded.\n", "")
    assert again == (0, "A key already exists.\n", "")
    row = await keyless.fetchrow("SELECT owner, scopes, expires_at FROM api_keys")
    assert row is not None
    assert (row["owner"], row["scopes"], row["expires_at"]) == ("first", list(KEY_SCOPES), None)
    assert await status(orchestrator, key.key) == 200

    await by_hand(registry_url, "revoke", key.id)
    revoked = await by_hand(registry_url, "record-first-key", "--first-key", str(file))

    assert revoked == (0, "A key already exists.\n", "")
    assert await keyless.fetchval("SELECT count(*) FROM api_keys WHERE revoked_at IS NULL") == 0


@pytest.mark.process
async def test_first_key_must_be_a_key(registry_url: str, tmp_path: Path) -> None:
    """One line names the file and never quotes it."""
    file = tmp_path / "auth"
    missing = await by_hand(registry_url, "record-first-key", "--first-key", str(file))
    file.write_text("Authorization: Bearer none\n")
    malformed = await by_hand(registry_url, "record-first-key", "--first-key", str(file))

    assert missing == (
        1,
        "",
        f"manage_api_keys: {file} cannot be read: No such file or directory\n",
    )
    assert malformed == (1, "", f"manage_api_keys: {file} does not hold an API key.\n")


@pytest.mark.process
async def test_secrets_of_kubernetes_need_no_registry(registry_url: str) -> None:
    """The printed List is JSON; an invalid name is refused."""
    code, out, error = await by_hand("postgresql://nowhere/none", "kubernetes-secrets")
    names = [one["metadata"]["name"] for one in json.loads(out)["items"]]

    assert (code, error) == (0, "")
    assert names == ["aam-keys", "aam-service-keys", "aam-service-public-keys", "aam-first-key"]
    code, out, error = await by_hand(registry_url, "kubernetes-secrets", "--name", "Not/a name")
    assert (code, out) == (2, "")
    assert "argument --name: " in error
