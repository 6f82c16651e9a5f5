"""Credentials as the configuration that a connector asks for; who asked is written down first."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.processes import servers
from services.auth_broker.service import AuthBroker
from services.auth_broker.stores import EnvironmentStore, variable_prefix
from shared.auth.scopes import Scope
from shared.database import Database
from shared.errors import Invalid, NotFound
from shared.postgres_address import postgres_address
from tests import access
from tests.integration.brokers import ask, audited, broker_for, token
from tests.integration.conftest import REPOSITORY, migrate
from tests.pools import Sql

PREFIX = "CREDENTIAL_SALESFORCE_PROD__"
CANARY = "AAMCANARY-broker"
WHOLE = {
    f"{PREFIX}CLIENT_ID": f"{CANARY}-id",
    f"{PREFIX}CLIENT_SECRET": f"{CANARY}-secret",
    f"{PREFIX}REFRESH_TOKEN": f"{CANARY}-token",
}
ANSWER = {
    "client_id": f"{CANARY}-id",
    "client_secret": f"{CANARY}-secret",
    "refresh_token": f"{CANARY}-token",
    "auth_type": "Client",
    "is_sandbox": False,
}


@pytest.fixture
async def db(registry_url: str) -> AsyncIterator[Database]:
    """The registry that reads are recorded in."""
    url = servers.as_service(registry_url, "auth_broker")
    database = Database.at(postgres_address(url), application="auth_broker")
    yield database
    await database.close()


async def config(
    db: Database, environment: Mapping[str, str], credential_id: str = "salesforce-prod"
) -> dict[str, Any]:
    """What a broker with this environment makes of a credential."""
    broker = AuthBroker({"env": EnvironmentStore(environment)}, "env", db)
    return await broker.get_salesforce_config(credential_id)


@pytest.mark.parametrize(
    "more, answered",
    [
        ({}, {}),
        ({"IS_SANDBOX": "true"}, {"is_sandbox": True}),
        ({"IS_SANDBOX": "1"}, {"is_sandbox": True}),
        ({"IS_SANDBOX": "False"}, {}),
        ({"IS_SANDBOX": ""}, {}),
        ({"START_DATE": "2024-01-31"}, {"start_date": "2024-01-31"}),
        ({"START_DATE": "2024-01-31T00:00:00Z"}, {"start_date": "2024-01-31T00:00:00Z"}),
        ({"START_DATE": ""}, {}),
        ({"NOTE": "for nobody"}, {}),
    ],
)
async def test_complete_credential(
    db: Database, more: dict[str, str], answered: dict[str, object]
) -> None:
    """Unset variables are left to the connector; unknown ones are left out."""
    environment = WHOLE | {PREFIX + name: value for name, value in more.items()}

    assert await config(db, environment) == ANSWER | answered


@pytest.mark.parametrize("name", ["CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"])
@pytest.mark.parametrize("is_empty", [False, True])
async def test_incomplete_credential_names_the_variable(
    sql: Sql, registry_url: str, name: str, is_empty: bool
) -> None:
    """An empty variable counts as missing; the other variables are not shown."""
    environment = {key: value for key, value in WHOLE.items() if key != PREFIX + name}
    if is_empty:
        environment[PREFIX + name] = ""

    answer = await ask(broker_for(registry_url, environment))

    assert answer.status_code == 422
    assert answer.json()["code"] == "credential_incomplete"
    assert answer.json()["variable"] == PREFIX + name
    assert CANARY not in answer.text
    assert [row[2] for row in await audited(sql)] == ["credential_incomplete"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("IS_SANDBOX", f"{CANARY}-maybe"),
        ("START_DATE", f"{CANARY}"),
        ("START_DATE", "2024-1-1"),
        ("START_DATE", "2024-01-31T00:00:00"),
        ("START_DATE", "2024-01-31\n"),
        ("START_DATE", "2024-01-3\N{ARABIC-INDIC DIGIT ONE}"),
        ("AUTH_TYPE", CANARY),
    ],
)
async def test_invalid_value_names_the_variable_only(db: Database, name: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        await config(db, WHOLE | {PREFIX + name: value})

    assert caught.value.code == "credential_invalid"
    assert caught.value.members == {"variable": PREFIX + name}
    assert CANARY not in str(caught.value.problem())
    assert caught.value.__context__ is None


@pytest.mark.parametrize("environment", [{}, WHOLE, {f"{variable_prefix('other')}CLIENT_ID": ""}])
async def test_unknown_credential_is_404(
    sql: Sql, registry_url: str, environment: dict[str, str]
) -> None:
    """No variable of it is set, or all are empty; the request is recorded."""
    answer = await ask(broker_for(registry_url, environment), "other")

    assert (answer.status_code, answer.json()["code"]) == (404, "credential_not_found")
    assert await audited(sql) == [("service orchestrator", "other", "credential_not_found")]


@pytest.mark.parametrize(
    "credential_id",
    ["Salesforce-prod", "salesforce_prod", "-prod", "salesforce prod", "sälesforce", "a" * 64,
     "salesforce-prod\n", "salesforce.prod", "../../sys/policy", "..%2f..", "a/b", "a?x", "a#b",
     "a" * 1000, "s3:salesforce-prod", "env:", ":salesforce-prod", "file:../x", "vault:a/b",
     "env:env:x", "ENV:x", "file:..%2fx"],
)  # fmt: skip
async def test_invalid_credential_id_is_refused(
    sql: Sql, db: Database, registry_url: str, credential_id: str
) -> None:
    """Before anything is looked up."""
    with pytest.raises(Invalid):
        await config(db, WHOLE, credential_id)
    encoded = httpx.URL("/", params={"x": credential_id}).query.decode()[2:].replace("+", "%20")
    answer = await ask(broker_for(registry_url, WHOLE), encoded, bearer=token(credential_id))
    # A slash makes it another path, of which there is none.
    assert answer.status_code == (404 if "/" in credential_id else 422)
    assert await audited(sql) == []


async def test_credential_ids_share_no_variable(db: Database) -> None:
    """Not even where one id begins like another: `a--b` would have the nested values of `a`."""
    environment = {f"{variable_prefix('a--b')}CLIENT_ID": "x", "CREDENTIAL_A___CLIENT_ID": "y"}
    for ambiguous in ("a--b", "a-", "a---b"):
        with pytest.raises(Invalid) as refused:
            await config(db, environment, ambiguous)
        assert refused.value.code == "invalid_credential_id"
    assert await EnvironmentStore(environment).document("a") == {"b": {"client_id": "x"}}
    with pytest.raises(NotFound):
        await config(db, {f"{variable_prefix('a-b')}CLIENT_ID": "x"}, "a")


async def test_reference_may_name_its_store(db: Database) -> None:
    """`env:` is the default here; a store that is not configured is named."""
    assert await config(db, WHOLE, "env:salesforce-prod") == ANSWER
    with pytest.raises(Invalid) as caught:
        await config(db, WHOLE, "vault:salesforce-prod")
    assert caught.value.code == "store_not_configured"


async def test_secret_is_in_the_answer_only(
    sql: Sql, registry_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer may not be cached; log and audit have the id alone."""
    app = broker_for(registry_url, WHOLE)
    logging.getLogger().addHandler(caplog.handler)  # building the service set logging up anew
    answer = await ask(app)

    assert answer.json() == ANSWER
    assert answer.headers["cache-control"] == "no-store"
    assert "credential_requested" in caplog.text
    assert CANARY not in caplog.text
    (row,) = await sql.fetch("SELECT * FROM credential_audit")
    assert CANARY not in str(dict(row))
    assert row["caller"] == "service orchestrator"
    assert (row["credential_id"], row["source_type"]) == ("salesforce-prod", "Salesforce")
    assert (row["result"], row["request_id"]) == ("granted", answer.headers["x-request-id"])


async def test_only_salesforce_is_checked_by_the_broker(sql: Sql, registry_url: str) -> None:
    """Another type is refused there, and not quoted anywhere; its document is not."""
    app = broker_for(registry_url, {f"{variable_prefix('rows')}COUNT": "7"})

    answer = await ask(app, "rows", of="document", more="?source_type=Hardcoded Records")
    assert answer.json() == {
        "document": {"count": "7"},
        "naming": {"prefix": "CREDENTIAL_ROWS__", "separator": "__", "is_upper": True},
    }
    unknown = await ask(app, "rows", more=f"?source_type={CANARY}%00")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "invalid_request")
    assert CANARY not in unknown.text
    rows = await sql.fetch("SELECT source_type, result FROM credential_audit ORDER BY id")
    assert [tuple(row) for row in rows] == [("Hardcoded Records", "granted")]


async def test_environment_takes_precedence_over_dotenv(
    db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}=from-file\n" for name in WHOLE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}CLIENT_ID", "from-process")

    broker = AuthBroker({"env": EnvironmentStore.from_process()}, "env", db)
    found = await broker.get_salesforce_config("salesforce-prod")

    assert (found["client_id"], found["client_secret"]) == ("from-process", "from-file")


# Who asks


@pytest.mark.parametrize("named", [None, "other", "env:salesforce-prod", "salesforce-prod2"])
async def test_token_for_another_credential_is_refused_and_recorded(
    sql: Sql, registry_url: str, named: str | None
) -> None:
    """It must name exactly the requested reference."""
    answer = await ask(broker_for(registry_url, WHOLE), bearer=token(named))

    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_credential")
    assert CANARY not in answer.text
    assert await audited(sql) == [("service orchestrator", "salesforce-prod", "wrong_credential")]


async def test_token_is_accepted_once(sql: Sql, registry_url: str) -> None:
    """Whether the first use was granted or refused, and by any replica."""
    app, granted, refused = broker_for(registry_url, WHOLE), token(), token("other")
    assert (await ask(app, bearer=granted)).status_code == 200
    assert (await ask(app, bearer=refused)).status_code == 403

    for bearer in (granted, refused):
        again = await ask(app, bearer=bearer)
        assert (again.status_code, again.json()["code"]) == (401, "token_replayed")
        assert CANARY not in again.text
    # Another replica refuses it, too: what it knows is in the registry.
    assert (await ask(broker_for(registry_url, WHOLE), bearer=granted)).status_code == 401
    assert [row[2] for row in await audited(sql)] == ["granted", "wrong_credential"]


@pytest.mark.parametrize(
    "bearer, status",
    [
        (lambda: token(audience="orchestrator"), 401),
        (lambda: token(scope=Scope.CONNECTIONS_READ), 403),
        (lambda: token(service="drift_repair_agent"), 403),
        (lambda: access.KEY.key, 401),
    ],
    ids=["audience", "scope", "service", "api_key"],
)
async def test_token_of_another_audience_scope_or_service_is_refused(
    sql: Sql, registry_url: str, bearer: Callable[[], str], status: int
) -> None:
    """So is an API key with every scope: the broker is for services alone."""
    answer = await ask(broker_for(registry_url, WHOLE), bearer=bearer())

    assert answer.status_code == status
    assert CANARY not in answer.text


@pytest.mark.process
async def test_without_the_registry_no_secret_is_answered(own_postgres: servers.Postgres) -> None:
    """503, and the same token is valid when it is back."""
    await asyncio.to_thread(migrate, own_postgres.url)
    app, bearer = broker_for(own_postgres.services_url, WHOLE), token()
    own_postgres.stop()

    away = await ask(app, bearer=bearer)

    assert away.status_code == 503
    assert CANARY not in away.text
    own_postgres.start()
    assert (await ask(app, bearer=bearer)).json() == ANSWER


async def test_secret_is_answered_after_its_audit_row(sql: Sql, registry_url: str) -> None:
    """The row is committed first: while that waits, the answer waits."""
    app = broker_for(registry_url, WHOLE)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("LOCK TABLE credential_audit IN ACCESS EXCLUSIVE MODE")
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask(app)
    finally:
        await transaction.rollback()
    assert (await ask(app)).json() == ANSWER


# Its process


_AS_NOBODY = """
import ctypes, os, sys, time
from services.auth_broker.hardening import harden
if os.getuid() == 0:  # root may look anywhere
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as it is after exec; a change of user takes it away
"""
_SERVED = f"""{_AS_NOBODY}
if sys.argv[1] == "hardened":
    harden()
print("ready", flush=True)
time.sleep(60)
"""
_LOOKING = f"""{_AS_NOBODY}
for name in ("environ", "mem"):
    try:
        open(f"/proc/{{sys.argv[1]}}/{{name}}", "rb").read(1)
        print("readable")
    except PermissionError:
        print("denied")
    except OSError:
        print("readable")  # opened: only that address 0 holds nothing
"""


@pytest.mark.parametrize(
    "how, seen", [("hardened", ["denied", "denied"]), ("plain", ["readable", "readable"])]
)
def test_another_process_of_the_user_cannot_read_secrets(how: str, seen: list[str]) -> None:
    """Neither environment nor memory, which it could otherwise; no core file is left."""
    run: dict[str, Any] = {
        "env": {"PATH": os.environ["PATH"], "X": CANARY},
        "cwd": REPOSITORY,
        "stdout": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen([sys.executable, "-c", _SERVED, how], **run) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            looking = [sys.executable, "-c", _LOOKING, str(process.pid)]
            run_of_reader = subprocess.run(looking, check=True, timeout=120, **run)
            limits = Path(f"/proc/{process.pid}/limits").read_text()
        finally:
            process.kill()
    assert run_of_reader.stdout.split() == seen
    if how == "hardened":
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]
