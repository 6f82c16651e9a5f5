"""A wrong address, a missing login, a failing token endpoint: each is explained at once."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import trustme

from services.orchestrator.airbyte_setup import SetupFailed, SetupSettings, ready_airbyte
from shared.airbyte_client import AirbyteClient, ClientCredentials
from shared.errors import (
    AamError,
    UpstreamDenied,
    UpstreamLoginOff,
    UpstreamNoTls,
    UpstreamNoToken,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer, Auth

pytestmark = pytest.mark.exact

WORKSPACE = UUID(WORKSPACE_ID)
Plant = Callable[[AirbyteServer], None]


def client_of(airbyte: AirbyteServer) -> AirbyteClient:
    """A client with an id and a secret."""
    credentials = ClientCredentials(airbyte.client_id, airbyte.client_secret)
    return AirbyteClient(airbyte.url, credentials, timeout=5)


def settings_of(airbyte: AirbyteServer, folder: Path) -> SetupSettings:
    """What the setup is given."""
    return SetupSettings(
        _env_file=None,
        supabase_db_url="postgresql://aam:x@127.0.0.1:1/aam",
        airbyte_api_url=airbyte.url,
        aam_settings_dir=folder,
        airbyte_start_timeout="30",
        airbyte_start_poll="0.05",
    )


def token(status: int, body: Any) -> Plant:
    """The token endpoint answers so, for good."""
    return lambda airbyte: airbyte.answer(
        "applications/token", body, status=status, times=None, effect=False
    )


def micronaut(message: str, detail: str) -> dict[str, Any]:
    """An error of Airbyte's web framework."""
    return {
        "message": message,
        "_links": {"self": {"href": "/api/v1/applications/token", "templated": False}},
        "_embedded": {"errors": [{"message": detail, "_links": {}, "_embedded": {}}]},
    }


REFUSED = micronaut("Bad Request", "Invalid client id or token")
NO_PAGE = micronaut("Not Found", "Page Not Found")
CLASS_NAME = {"message": "…", "exceptionClassName": "java.lang.IllegalStateException"}
NGINX = "<html><head><title>502 Bad Gateway</title></head></html>"
PUBLIC = {"type": "about:blank", "status": 404}

LOGINS: list[tuple[str, Auth, Plant, type[AamError], str]] = [
    ("off, no endpoint", "none", token(404, NO_PAGE), UpstreamLoginOff, "login is switched off"),
    ("off, refused", "none", token(400, REFUSED), UpstreamLoginOff, "login is switched off"),
    ("off, 401", "none", token(401, b""), UpstreamLoginOff, "login is switched off"),
    ("off, a proxy's 404", "none", token(404, NGINX), UpstreamLoginOff, "login is switched off"),
    ("wrong, 400", "token", token(400, REFUSED), UpstreamDenied, "refused the client id"),
    ("wrong, 401", "token", token(401, REFUSED), UpstreamDenied, "refused the client id"),
    ("no endpoint", "token", token(404, NO_PAGE), UpstreamNoToken, "has no applications/token"),
    ("the public API", "token", token(404, PUBLIC), UpstreamNoToken, "applications/token was"),
    ("a web page", "token", token(200, "<html>Sign in</html>"), UpstreamNoToken, "a web page"),
    (
        "502",
        "token",
        token(502, NGINX),
        UpstreamNoToken,
        "token endpoint does not work at the moment",
    ),
    (
        "500",
        "token",
        token(500, CLASS_NAME),
        UpstreamNoToken,
        "token endpoint does not work at the moment",
    ),
    (
        "408",
        "token",
        token(408, CLASS_NAME),
        UpstreamNoToken,
        "token endpoint does not work at the moment",
    ),
]


@pytest.mark.deep(after=2)
@pytest.mark.parametrize(
    "name,auth,plant,expected,words", LOGINS, ids=[name for name, *_ in LOGINS]
)
async def test_failed_login_is_explained(
    name: str, auth: Auth, plant: Plant, expected: type[AamError], words: str, tmp_path: Path
) -> None:
    """The call itself is never sent, and a permanent failure is not retried."""
    async with AirbyteServer(auth=auth) as airbyte, client_of(airbyte) as client:
        plant(airbyte)
        with pytest.raises(AamError) as caught:
            await client.list_sources(WORKSPACE)
        assert type(caught.value) is expected
        assert words in caught.value.detail
        assert airbyte.called("sources/list") == []
        is_for_good = (
            isinstance(caught.value, UpstreamDenied) or "at the moment" not in caught.value.detail
        )
        assert len(airbyte.called("applications/token")) == (1 if is_for_good else 5)

        with pytest.raises(expected) as health:
            await client.health()
        assert health.value.detail == caught.value.detail
        with pytest.raises((expected, SetupFailed)) as setup:
            await ready_airbyte(settings_of(airbyte, tmp_path), client)
        assert words in str(setup.value)


async def test_lost_answer_does_not_change_the_explanation() -> None:
    """Airbyte is asked again whether it has a login."""
    plant = next(plant for name, _, plant, *_ in LOGINS if name == "off, refused")
    async with AirbyteServer(auth="none") as airbyte, client_of(airbyte) as client:
        airbyte.fault("instance_configuration", "reset")
        plant(airbyte)
        with pytest.raises(UpstreamLoginOff):
            await client.list_sources(WORKSPACE)


async def test_concurrent_calls_share_a_login_failure() -> None:
    async with AirbyteServer(auth="token") as airbyte, client_of(airbyte) as client:
        token(401, REFUSED)(airbyte)
        failures = await asyncio.gather(
            *(client.list_sources(WORKSPACE) for _ in range(20)), return_exceptions=True
        )
        assert {type(failure) for failure in failures} == {UpstreamDenied}
        assert len(airbyte.called("applications/token")) == 1


async def test_later_call_logs_in_again() -> None:
    """Airbyte may be back by then, however soon that is."""
    async with AirbyteServer(auth="token") as airbyte, client_of(airbyte) as client:
        port = airbyte.port
        await airbyte.stop()
        with pytest.raises(UpstreamUnreachable, match="for a token"):
            await client.list_sources(WORKSPACE)
        await airbyte.start(port)
        await client.list_sources(WORKSPACE)


async def test_release_that_refuses_valid_credentials_is_named() -> None:
    """1.8.0 to 1.8.5 answer 400 and 401 to the right client id and secret (airbyte#65592)."""
    for version, is_named in (("1.8.0", True), ("1.8.5", True), ("1.8.6", False), ("2.0.0", False)):
        async with (
            AirbyteServer(version=version, auth="token") as airbyte,
            client_of(airbyte) as client,
        ):
            token(401, REFUSED)(airbyte)
            with pytest.raises(UpstreamDenied) as caught:
                await client.list_sources(WORKSPACE)
            assert ("1.8.5" in caught.value.detail) is is_named


async def test_missing_login_names_the_settings() -> None:
    async with AirbyteServer(auth="token") as airbyte, AirbyteClient(airbyte.url) as client:
        with pytest.raises(UpstreamDenied) as caught:
            await client.list_sources(WORKSPACE)
    assert "AIRBYTE_CLIENT_ID" in caught.value.detail


ADDRESSES: list[tuple[str, int, Any]] = [
    ("the web app's page", 200, "<!doctype html><html><title>Airbyte</title></html>"),
    ("the web app's nginx", 405, "<html><title>405 Not Allowed</title></html>"),
    ("a login page", 302, b""),
    ("the public API", 404, PUBLIC),
    ("another path of Airbyte's server", 404, NO_PAGE),
    ("another program", 404, {"detail": "Not Found"}),
    ("another program's 200", 200, {"status": "ok"}),
    ("nothing", 204, b""),
]


@pytest.mark.parametrize(
    "status,body", [rest for _, *rest in ADDRESSES], ids=[name for name, *_ in ADDRESSES]
)
async def test_wrong_address_is_explained(status: int, body: Any, tmp_path: Path) -> None:
    """Setup ends at once, a read is sent once, and both name the setting."""
    async with AirbyteServer(auth="none") as airbyte, AirbyteClient(airbyte.url) as client:
        airbyte.answer("*", body, status=status, times=None, effect=False)
        with pytest.raises(AamError) as caught:
            await client.get_source(uuid4())
        assert caught.value.code in ("upstream_not_airbyte", "upstream_unsupported")
        assert "AIRBYTE_API_URL" in caught.value.detail
        assert len(airbyte.requests) == 1

        with pytest.raises(SetupFailed, match="AIRBYTE_API_URL is wrong"):
            await ready_airbyte(settings_of(airbyte, tmp_path), client)
        assert len(airbyte.requests) == 2
        with pytest.raises(AamError) as health:
            await client.health()
        assert "AIRBYTE_API_URL" in health.value.detail


async def test_wrong_address_with_a_login_is_explained(tmp_path: Path) -> None:
    """The token request fails first; the address is named, and not the client id."""
    async with AirbyteServer(auth="token") as airbyte, client_of(airbyte) as client:
        airbyte.answer("*", "<html>Welcome</html>", times=None, effect=False)
        with pytest.raises(UpstreamUnreachable) as caught:
            await client.list_sources(WORKSPACE)
        assert caught.value.code == "upstream_not_airbyte"
        assert "AIRBYTE_API_URL" in caught.value.detail
        assert len(airbyte.requests) == 2
        with pytest.raises(SetupFailed, match="AIRBYTE_API_URL is wrong"):
            await ready_airbyte(settings_of(airbyte, tmp_path), client)


@asynccontextmanager
async def server_of(
    answer: bytes, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives one answer and hangs up: its port, and the requests that it read."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.read(1 << 16))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


async def test_https_to_a_plain_port_is_explained(tmp_path: Path) -> None:
    """Setup does not wait for TLS, and a read is sent once."""
    async with (
        server_of(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (port, requests),
        AirbyteServer(auth="none") as airbyte,
        AirbyteClient(f"https://127.0.0.1:{port}/api/v1", timeout=5) as client,
    ):
        with pytest.raises(UpstreamNoTls, match="does not speak TLS") as caught:
            await client.get_source(uuid4())
        assert caught.value.__context__ is None
        assert len(requests) == 1
        with pytest.raises(UpstreamNoTls, match="AIRBYTE_API_URL"):
            await ready_airbyte(settings_of(airbyte, tmp_path), client)


async def test_untrusted_certificate_is_explained() -> None:
    """The CA setting is named; with a login, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    for credentials in (None, ClientCredentials("id", "secret")):
        async with (
            server_of(b"", context) as (port, requests),
            AirbyteClient(f"https://127.0.0.1:{port}/api/v1", credentials, timeout=5) as client,
        ):
            with pytest.raises(UpstreamNoTls, match="certificate is not valid"):
                await client.get_source(uuid4())
            assert requests == []


async def test_http_to_a_tls_port_is_explained() -> None:
    """By the alert that such servers answer, or by a redirection to https."""
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    moved = b"HTTP/1.1 301 Moved\r\nlocation: https://a.example/\r\ncontent-length: 0\r\n\r\n"
    for answer in (alert, moved):
        async with (
            server_of(answer) as (port, _),
            AirbyteClient(f"http://127.0.0.1:{port}/api/v1", timeout=5) as client,
        ):
            with pytest.raises(UpstreamUnknown, match=r"AIRBYTE_API_URL.*https"):
                await client.health()
