"""The sample API: two kinds of authentication and of paging, and a schema that can be changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from local.sample_api import server
from local.sample_api.settings import Settings
from tests import leaks

Json = dict[str, Any]
TYPED = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[server.Running]:
    """A sample API on a free port."""
    settings = Settings(
        port=0,
        state_dir=tmp_path,
        api_key=SecretStr(leaks.canary("the shop's API key")),
        client_secret=SecretStr(leaks.canary("the desk's client secret")),
    )
    async with server.running(settings) as started:
        yield started


@pytest.fixture
async def http(running: server.Running) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any credential."""
    async with httpx.AsyncClient(base_url=running.url, trust_env=False) as client:
        yield client


@pytest.fixture
def key(running: server.Running) -> dict[str, str]:
    """The shop's credential."""
    return {"X-Api-Key": running.api.key}


async def test_shop_needs_its_key_and_pages_by_number(
    http: httpx.AsyncClient, key: dict[str, str]
) -> None:
    assert (await http.get("/api/shop/orders")).status_code == 401
    assert (await http.get("/api/shop/orders", headers={"X-Api-Key": "no"})).status_code == 401
    assert (await http.get("/api/shop/nothing", headers=key)).status_code == 404

    pages = [
        (await http.get("/api/shop/orders", headers=key, params={"page": page})).json()["data"]
        for page in (1, 2, 3, 4)
    ]

    assert [len(page) for page in pages] == [50, 50, 50, 0]
    ids = {row["id"] for page in pages for row in page}
    assert ids == set(range(1, 151))
    since = {"updated_since": pages[2][0]["updated_at"]}
    later = (await http.get("/api/shop/orders", headers=key, params=since)).json()["data"]
    assert later == pages[2]


async def test_desk_needs_a_token_and_pages_by_a_cursor(
    http: httpx.AsyncClient, running: server.Running
) -> None:
    assert (await http.get("/api/desk/streams")).status_code == 401
    form = {"grant_type": "client_credentials", "client_id": running.api.client_id}
    wrong = await http.post("/api/desk/token", data=form | {"client_secret": "no"})
    assert wrong.status_code == 401
    issued = await http.post(
        "/api/desk/token", data=form | {"client_secret": running.api.client_secret}
    )
    leaks.know("an access token of the desk", issued.json()["access_token"])
    token = {"Authorization": f"Bearer {issued.json()['access_token']}"}

    streams = (await http.get("/api/desk/streams", headers=token)).json()["streams"]
    rows, cursor = [], 0
    while cursor is not None:
        page = await http.get("/api/desk/records/tickets", headers=token, params={"cursor": cursor})
        rows += page.json()["records"]
        cursor = page.json()["next"]

    assert [stream["name"] for stream in streams] == ["tickets", "agents"]
    assert len({row["id"] for row in rows}) == len(rows) == 120
    assert rows[0]["requester"]["contact"] == {"email": "email 0", "phone": "phone 0"}


async def test_changes_show_in_schemas_and_rows(
    http: httpx.AsyncClient, running: server.Running, key: dict[str, str]
) -> None:
    """Add, rename, retype and drop, at the root and within an object; a renamed field's values."""
    path = ["address", "city"]
    for change in (
        {"change": "rename", "path": path, "to": "town"},
        {"change": "add", "path": ["address", "zip"], "type": "integer", "values": [1, 2]},
        {"change": "retype", "path": ["vip"], "type": "string"},
        {"change": "drop", "path": ["email"]},
        {"change": "touch", "count": 2},
    ):
        order = {"api": "shop", "stream": "customers", **change}
        answer = await http.post("/control/changes", json=order, headers=running.control)
        assert answer.status_code == 200, answer.text

    shown = (await http.get("/control", headers=running.control)).json()["shop"]["customers"]
    properties = shown["schema"]["properties"]
    assert list(properties["address"]["properties"]) == ["street", "town", "zip"]
    assert properties["vip"] == {"type": ["null", "string"]}
    assert "email" not in properties
    rows = (await http.get("/api/shop/customers", headers=key)).json()["data"]
    touched = (await http.get("/api/shop/customers", headers=key, params={"page": 2})).json()
    assert rows[0]["address"] == {"street": "street 2", "town": "Pune", "zip": 1}
    assert [row["id"] for row in touched["data"][-2:]] == [1, 2]


@pytest.mark.parametrize(
    "order, status",
    [
        ({"change": "drop", "stream": "customers", "path": ["updated_at"]}, 422),
        ({"change": "drop", "stream": "customers", "path": ["nothing"]}, 404),
        ({"change": "drop", "stream": "nothing", "path": ["name"]}, 404),
        ({"change": "add", "stream": "customers", "path": ["name"]}, 422),
        ({"change": "add", "stream": "customers", "path": ["name", "first"]}, 404),
        ({"change": "rename", "stream": "customers", "path": ["name"], "to": "email"}, 422),
        ({"change": "explode", "stream": "customers"}, 422),
    ],
)
async def test_impossible_changes_are_refused(
    order: Json, status: int, http: httpx.AsyncClient, running: server.Running
) -> None:
    """And change nothing."""
    before = (await http.get("/control", headers=running.control)).json()
    answer = await http.post(
        "/control/changes", json={"api": "shop", **order}, headers=running.control
    )
    assert answer.status_code == status, answer.text
    assert (await http.get("/control", headers=running.control)).json() == before


async def test_control_api_is_guarded(http: httpx.AsyncClient, running: server.Running) -> None:
    """It needs the token of the file `auth`, and refuses pages of other sites."""
    order = {"change": "touch", "api": "shop", "stream": "customers"}
    assert (await http.post("/control/changes", json=order)).status_code == 401
    assert (await http.get("/control")).status_code == 401
    foreign = running.control | {"Origin": "http://example.com"}
    answer = await http.post("/control/changes", json=order, headers=foreign)
    assert answer.status_code == 403
    assert (await http.get("/health")).status_code == 200
