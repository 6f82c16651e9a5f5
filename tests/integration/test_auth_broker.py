"""Credentials from the environment, as the configuration that a connector asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from services.auth_broker import main
from services.auth_broker.service import AuthBroker, EnvironmentStore, variable_prefix
from shared.config import ProcessSettings
from shared.errors import Invalid, NotFound
from tests import access

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


def broker(environment: Mapping[str, str]) -> AuthBroker:
    """A broker whose vault is this environment."""
    return AuthBroker(EnvironmentStore(environment))


def service(environment: Mapping[str, str]) -> FastAPI:
    """The whole service, logging all it can."""
    settings = ProcessSettings(_env_file=None, log_level="DEBUG", **access.service_keys())
    return main.build(settings, EnvironmentStore(environment))


async def ask(of: FastAPI | Mapping[str, str], path: str) -> httpx.Response:
    """The answer over HTTP, of a service or of one with this environment."""
    transport = httpx.ASGITransport(of if isinstance(of, FastAPI) else service(of))
    async with httpx.AsyncClient(transport=transport, base_url="http://aam") as client:
        return await client.get(path)


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
def test_a_whole_credential(more: dict[str, str], answered: dict[str, object]) -> None:
    """What is not set is left to the connector; what no connector asks for is left out."""
    environment = WHOLE | {PREFIX + name: value for name, value in more.items()}

    assert broker(environment).get_salesforce_config("salesforce-prod") == ANSWER | answered


@pytest.mark.parametrize("name", ["CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"])
@pytest.mark.parametrize("is_empty", [False, True])
async def test_an_incomplete_credential_names_the_variable(name: str, is_empty: bool) -> None:
    """Set to nothing is missing, too; the other variables are not shown."""
    environment = {key: value for key, value in WHOLE.items() if key != PREFIX + name}
    if is_empty:
        environment[PREFIX + name] = ""

    answer = await ask(environment, "/credentials/salesforce-prod/connector-config")

    assert answer.status_code == 422
    assert answer.json()["code"] == "credential_incomplete"
    assert answer.json()["variable"] == PREFIX + name
    assert CANARY not in answer.text


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
def test_a_value_that_cannot_be_meant_is_not_shown(name: str, value: str) -> None:
    """The variable is named."""
    with pytest.raises(Invalid) as caught:
        broker(WHOLE | {PREFIX + name: value}).get_salesforce_config("salesforce-prod")

    assert caught.value.code == "credential_invalid"
    assert caught.value.members == {"variable": PREFIX + name}
    assert CANARY not in str(caught.value.problem())
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("environment", [{}, WHOLE, {f"{variable_prefix('other')}CLIENT_ID": ""}])
async def test_an_unknown_credential(environment: dict[str, str]) -> None:
    """404: no variable of its is set, or each to nothing."""
    answer = await ask(environment, "/credentials/other/connector-config")

    assert (answer.status_code, answer.json()["code"]) == (404, "credential_not_found")


@pytest.mark.parametrize(
    "credential_id",
    ["Salesforce-prod", "salesforce_prod", "-prod", "salesforce prod", "sälesforce", "a" * 64,
     "salesforce-prod\n", "salesforce.prod"],
)  # fmt: skip
async def test_an_id_that_is_none(credential_id: str) -> None:
    """Refused before anything is looked up."""
    with pytest.raises(Invalid):
        broker(WHOLE).get_salesforce_config(credential_id)
    path = httpx.URL(f"/credentials/{credential_id.strip()}/connector-config")
    if credential_id == credential_id.strip():
        assert (await ask(WHOLE, str(path))).status_code == 422


def test_no_two_ids_share_a_variable() -> None:
    """Not even where one id begins as another."""
    environment = {f"{variable_prefix('a--b')}CLIENT_ID": "x"}
    with pytest.raises(NotFound):
        broker(environment).get_salesforce_config("a")
    with pytest.raises(NotFound):
        broker({f"{variable_prefix('a-b')}CLIENT_ID": "x"}).get_salesforce_config("a")


async def test_a_secret_is_in_the_answer_and_nowhere_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The answer is not to be kept by anybody between; the log at DEBUG has the id alone."""
    app = service(WHOLE)
    logging.getLogger().addHandler(caplog.handler)  # building the service set logging up anew
    answer = await ask(app, "/credentials/salesforce-prod/connector-config")

    assert answer.json() == ANSWER
    assert answer.headers["cache-control"] == "no-store"
    assert "credential_read" in caplog.text
    assert CANARY not in caplog.text


async def test_the_source_type_decides_what_is_asked_for() -> None:
    """Another one, another configuration; an unknown one is refused."""
    environment = {f"{variable_prefix('rows')}COUNT": "7"}
    path = "/credentials/rows/connector-config?source_type="

    assert (await ask(environment, f"{path}Hardcoded Records")).json() == {"count": 7}
    unknown = await ask(environment, f"{path}{CANARY}")
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_source_type")
    assert CANARY not in unknown.text


def test_the_process_s_own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Over what stands in `.env`."""
    (tmp_path / ".env").write_text("".join(f"{name}=from-file\n" for name in WHOLE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"{PREFIX}CLIENT_ID", "from-process")

    config = AuthBroker(EnvironmentStore.from_process()).get_salesforce_config("salesforce-prod")

    assert (config["client_id"], config["client_secret"]) == ("from-process", "from-file")
