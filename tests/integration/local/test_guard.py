"""No web page gives the local servers orders, whatever it sends; their own token does."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.airbyte import WORKSPACE_ID
from local.processes.servers import free_port
from local.request_guard import token_file, token_of
from local.sample_api import server as sample_api_server
from local.sample_api.settings import Settings as SampleApiSettings
from local.sample_org.server import running
from local.sample_org.settings import Settings as OrgSettings
from tests.processes import becomes_true

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Target:
    """A guarded server, an order to it, and how to see that nothing was ordered."""

    name: str
    url: str
    token: dict[str, str]
    method: str
    path: str
    body: Any
    read_path: str

    @property
    def host(self) -> str:
        """What a Host header has to say."""
        return self.url.removeprefix("http://")


@pytest.fixture(scope="module")
def airbyte(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The local Airbyte as `make up` starts it."""
    folder, port = tmp_path_factory.mktemp("airbyte"), free_port()
    environment = os.environ | {
        "LOCAL_AIRBYTE_PORT": f"{port}",
        "LOCAL_AIRBYTE_STATE_DIR": str(folder),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "local.airbyte"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            assert becomes_true(lambda: _answers(f"{url}/api/v1/health"), 120)
            yield Target(
                "airbyte",
                url,
                {"Authorization": f"Bearer {token_of(folder)}"},
                "POST",
                "/api/v1/workspaces/get",
                {"workspaceId": str(WORKSPACE_ID)},
                "/api/v1/instance_configuration",
            )
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
async def sample_org(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """The sample org, and an order to it that changes its schema."""
    folder = tmp_path_factory.mktemp("org")
    async with running(OrgSettings(port=0, proxy_port=0, state_dir=folder)) as org:
        yield Target(
            "sample_org",
            org.url,
            org.control,
            "POST",
            "/org/objects",
            {"name": "Planted__c", "rows": 1},
            "/org",
        )
        assert "Planted__c" not in {one.name for one in org.live.org.stored()}


@pytest.fixture(scope="module")
async def sample_api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    """The sample API, and an order to it that changes its schema."""
    folder = tmp_path_factory.mktemp("api")
    async with sample_api_server.running(SampleApiSettings(port=0, state_dir=folder)) as api:
        yield Target(
            "sample_api",
            api.url,
            api.control,
            "POST",
            "/control/changes",
            {"change": "add", "api": "shop", "stream": "orders", "path": ["planted"]},
            "/control",
        )
        assert "planted" not in api.api.stream("shop", "orders").columns


@pytest.fixture(params=["airbyte", "sample_org", "sample_api"])
def target(request: pytest.FixtureRequest) -> Target:
    """Each of them."""
    found: Target = request.getfixturevalue(request.param)
    return found


async def ask(
    target: Target,
    *,
    method: str | None = None,
    path: str | None = None,
    body: bytes | None = None,
    **headers: Any,
) -> httpx.Response:
    """The target's order with its token as JSON; a header that is given as None is left out."""
    sent: dict[str, str | None] = {"Content-Type": "application/json", **target.token}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(target.body).encode() if body is None else body
    async with httpx.AsyncClient(base_url=target.url, transport=_plain()) as client:
        return await client.request(
            method or target.method,
            path or target.path,
            content=content,
            headers={name: value for name, value in sent.items() if value is not None},
        )


def _plain() -> httpx.AsyncHTTPTransport:
    """Without the list of certificate authorities, which takes longer to read than a test."""
    return httpx.AsyncHTTPTransport(verify=False)


REBOUND = [
    "evil.example",
    "evil.example:{port}",
    "127.0.0.1.nip.io:{port}",
    "localhost.evil.example:{port}",
    "127.0.0.1",
    "127.0.0.1:1",
    "0.0.0.0:{port}",
    "login.salesforce.com",
    "user@127.0.0.1:{port}",
    "",
]


@pytest.mark.parametrize("host", REBOUND)
async def test_foreign_host_name_is_refused(target: Target, host: str) -> None:
    """A page whose name was pointed at this machine reads and changes nothing."""
    named = host.format(port=target.host.rpartition(":")[2])

    for answer in (
        await ask(target, Host=named),
        await ask(target, Host=named, method="GET", path=target.read_path, body=b""),
        await ask(target, Host=named, method="GET", path="/health", body=b""),
    ):
        assert answer.status_code == 421
        assert "Planted" not in answer.text


@pytest.mark.parametrize("headers", ["", "Host: {host}\r\nHost: evil.example\r\n"])
async def test_request_without_exactly_one_host_is_refused(target: Target, headers: str) -> None:
    request = f"GET {target.read_path} HTTP/1.0\r\n{headers.format(host=target.host)}"
    assert await _raw_status(target, f"{request}\r\n") in (400, 421)


@pytest.mark.parametrize(
    "header",
    [
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
async def test_foreign_origin_is_refused_even_with_the_token(
    target: Target, header: dict[str, Any]
) -> None:
    """No answer lets the page read it."""
    for answer in (
        await ask(target, **header),
        await ask(target, method="GET", path=target.read_path, body=b"", **header),
        await ask(target, method="DELETE", body=b"", **header),
        await ask(target, method="OPTIONS", body=b"", **header),
    ):
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_preflight_grants_nothing(target: Target) -> None:
    headers: dict[str, Any] = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "*",
    }
    for origin, status in (("http://localhost:3000", 403), (f"http://{target.host}", 405)):
        answer = await ask(target, method="OPTIONS", body=b"", Origin=origin, **headers)
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "application/json, text/plain",
        None,
    ],
)
async def test_content_types_without_preflight_are_refused(
    target: Target, kind: str | None
) -> None:
    """Also with the token."""
    assert (await ask(target, Content_Type=kind)).status_code == 415
    assert (await ask(target, Content_Type=kind, Authorization=None)).status_code == 401


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer x", "Basic {token}", "Bearer {token}x"]
)
async def test_nothing_but_health_is_answered_without_the_token(
    target: Target, given: str | None
) -> None:
    token = target.token["Authorization"].removeprefix("Bearer ")
    sent = None if given is None else given.format(token=token)

    for answer in (
        await ask(target, Authorization=sent),
        await ask(target, method="GET", path=target.read_path, body=b"", Authorization=sent),
        await ask(target, method="DELETE", body=b"", Authorization=sent),
        await ask(target, method="POST", path="/nowhere", Authorization=sent),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert token not in answer.text


async def test_websocket_needs_the_token_and_is_not_opened(target: Target) -> None:
    upgrade = (
        f"GET {target.read_path} HTTP/1.1\r\nHost: {target.host}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    assert await _raw_status(target, f"{upgrade}\r\n") == 401
    assert await _raw_status(target, f"{upgrade}Origin: http://evil.example\r\n\r\n") == 403


async def _raw_status(target: Target, request: str) -> int:
    """The status of the response to a request that no client library would send."""
    host, _, port = target.host.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    await writer.wait_closed()
    return int(line.split()[1])


async def test_token_holder_is_served(target: Target) -> None:
    """By either name of this machine, from a page of the server itself, and read by GET."""
    for host in (target.host, target.host.replace("127.0.0.1", "localhost").upper()):
        origin = {"Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        read = await ask(target, method="GET", path=target.read_path, body=b"", Host=host, **origin)
        assert read.status_code == 200, read.text
        assert read.headers["x-content-type-options"] == "nosniff"
        assert read.headers["x-frame-options"] == "DENY"
    typed = await ask(target, method="GET", path=target.read_path, body=b"", Sec_Fetch_Site="none")
    assert typed.status_code == 200
    if target.name == "airbyte":
        assert (await ask(target)).status_code == 200


async def test_get_changes_nothing(sample_org: Target, airbyte: Target) -> None:
    """On the path of any command, also with the token: an image in a page is a GET."""
    before = (await ask(sample_org, method="GET", path="/org", body=b"")).json()
    described = (await ask(sample_org, method="GET", path="/openapi.json", body=b"")).json()
    for path in described["paths"]:
        filled = path.replace("{name}", "Account").replace("{field}", "Fax")
        for method in ("GET", "HEAD"):
            await ask(sample_org, method=method, path=filled, body=b"")
    assert len(described["paths"]) > 10
    assert (await ask(sample_org, method="GET", path="/org", body=b"")).json() == before

    for endpoint in ("connections/delete", "connections/sync", "sources/create", "jobs/cancel"):
        answer = await ask(airbyte, method="GET", path=f"/api/v1/{endpoint}")
        assert answer.status_code == 501


async def test_salesforce_api_has_its_own_login(sample_org: Target) -> None:
    """It needs no token of the org, but web pages cannot use it, and no other path is open."""
    login = "/services/oauth2/token"
    form = b"grant_type=refresh_token&client_id=x"
    ours: dict[str, str | None] = {
        "Authorization": None,
        "Content_Type": "application/x-www-form-urlencoded",
    }
    known = await ask(sample_org, path=login, body=form, **ours)
    assert (known.status_code, known.json()["error"]) == (400, "invalid_client_id")
    proxied = await ask(sample_org, path=login, body=form, Host="login.salesforce.com", **ours)
    assert proxied.status_code == 400

    page = await ask(sample_org, path=login, body=form, Origin="https://evil.example", **ours)
    assert page.status_code == 403
    rebound = await ask(sample_org, path=login, body=form, Host="evil.example", **ours)
    assert rebound.status_code == 421
    for path in ("/org", "/services/../org", "/Services/../org", "//org", "/org/objects"):
        answer = await ask(sample_org, path=path, Host="login.salesforce.com")
        assert answer.status_code in (404, 421), path


def test_token_is_generated_once_in_a_private_file(tmp_path: Path) -> None:
    """As a header, and never half written."""
    folder = tmp_path / "state"
    token = token_of(folder)

    assert token_of(folder) == token
    assert len(token) == 43
    assert token_file(folder).read_text() == f"Authorization: Bearer {token}\n"
    assert stat.S_IMODE(token_file(folder).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == ["auth"]
    assert token_of(tmp_path / "other") != token
