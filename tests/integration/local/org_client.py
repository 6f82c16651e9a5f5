"""Clients of a sample org that runs in the tests, and what they ask it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from local.sample_org.server import Running
from local.sample_org.settings import Settings

FORM = {
    "grant_type": "refresh_token",
    "client_id": "the-client",
    "client_secret": "the-secret",
    "refresh_token": "the-refresh-token",
}
DATA = "/services/data/v62.0"
JSON = {"Content-Type": "application/json"}


class ControlToken(httpx.Auth):
    """Sends the org's own token with orders to the org, and not with calls of Salesforce's API."""

    def __init__(self, header: Mapping[str, str]) -> None:
        self._header = header

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        """The request with the header that it needs."""
        if request.url.path.startswith("/org"):
            request.headers.update(self._header)
        yield request


def client_of(org: Running) -> httpx.AsyncClient:
    """Somebody who has the org's token, and no access token of Salesforce's."""
    return httpx.AsyncClient(base_url=org.url, trust_env=False, auth=ControlToken(org.control))


def settings(state_dir: Path, **more: int) -> Settings:
    """Free ports, and credentials of the test's own."""
    return Settings.model_validate(
        {"port": 0, "proxy_port": 0, "state_dir": state_dir, **more}
        | {key: FORM[key] for key in ("client_id", "client_secret", "refresh_token")}
    )


async def fields(api: httpx.AsyncClient, sobject: str) -> dict[str, dict[str, Any]]:
    """The described fields of an object, by name."""
    answer = await api.get(f"{DATA}/sobjects/{sobject}/describe")
    assert answer.status_code == 200
    return {field["name"]: field for field in answer.json()["fields"]}


async def query(api: httpx.AsyncClient, text: str, **params: str) -> dict[str, Any]:
    """The first page of a query."""
    answer = await api.get(f"{DATA}/queryAll", params={"q": text, **params})
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def newer(
    api: httpx.AsyncClient, sobject: str, field: str, moment: str
) -> list[dict[str, Any]]:
    """Rows modified after a moment."""
    page = await query(api, f"SELECT {field} FROM {sobject} WHERE SystemModstamp > {moment}")  # noqa: S608 -- SOQL of the test's own
    records: list[dict[str, Any]] = page["records"]
    return records


async def start_job(api: httpx.AsyncClient, text: str) -> httpx.Response:
    """Create a bulk query job."""
    return await api.post(f"{DATA}/jobs/query", json={"operation": "queryAll", "query": text})


async def change(client: httpx.AsyncClient, method: str, path: str, **body: Any) -> str:
    """Make a change that has to work, and give back its sentence."""
    answer = await client.request(method, path, json=body or None)
    assert answer.is_success, answer.text
    return str(answer.json()["changed"])


def code(answer: httpx.Response) -> tuple[int, str]:
    """A refusal's status and Salesforce's code."""
    return answer.status_code, answer.json()[0]["errorCode"]
