"""The docs page comes whole from the service itself, and its policy lets nothing else run."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from local.sample_org.running_org import LiveOrg
from local.sample_org.server import application
from local.sample_org.settings import Settings
from shared.http import docs_page
from shared.http.app import create_app
from shared.http.authentication import Access

TYPES = {"css": "text/css", "js": "text/javascript", "png": "image/png", "json": "application/json"}
PLACES = [
    "http://127.0.0.1:8001/docs",
    "https://mesh.example/aam/orchestrator/docs",
    "https://mesh.example/aam/orchestrator/docs?a=b#/operations/ready",
]


class Page(HTMLParser):
    """What a page loads, and what would run in it without being loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element loads or runs."""
        self._open.append(tag)
        for name, value in attrs:
            if name in ("src", "href"):
                self.urls.append(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")

    def handle_data(self, data: str) -> None:
        """Note an inline script or style."""
        if self._open and self._open[-1] in ("script", "style") and data.strip():
            self.inline.append(data)


def service() -> FastAPI:
    """A service of nothing but what all of them have."""
    return create_app(service="orchestrator <b>", description="", access=Access(()))


@pytest.fixture(params=["service", "sample_org"])
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Each application that has a docs page."""
    if request.param == "service":
        return service()
    folder = tmp_path_factory.mktemp("org")
    return application(LiveOrg(Settings(state_dir=folder)), token="x")


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without a key."""
    async with client_of(app) as client:
        yield client


def client_of(app: FastAPI, *, root_path: str = "") -> httpx.AsyncClient:
    """A client without a key, of an app that may be served below a path."""
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8010")


@pytest.mark.parametrize("place", PLACES)
async def test_docs_page_loads_only_local_files(client: httpx.AsyncClient, place: str) -> None:
    """Also where a proxy serves it below a path that it strips."""
    page = Page((await client.get("/docs")).text)
    script = (await client.get("/docs/start.js")).text
    loaded = [*page.urls, *re.findall(r'\burl: "([^"]+)"', script)]
    assert len(loaded) == 5
    below = urlsplit(place).path.removesuffix("/docs")

    for url in loaded:
        target = urlsplit(urljoin(place, url))
        assert (target.scheme, target.netloc) == urlsplit(place)[:2]
        answer = await client.get(target.path.removeprefix(below))
        assert answer.status_code == 200
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind == TYPES[target.path.rpartition(".")[2]]
        assert len(answer.content) > 100


async def test_content_policy_allows_only_these_files(client: httpx.AsyncClient) -> None:
    """No inline script or style and no other origin, and the page has none."""
    answer = await client.get("/docs")
    page = Page(answer.text)
    assert page.inline == []
    assert "http" not in answer.text
    assert "<b>" not in answer.text

    policy = dict(
        part.strip().partition(" ")[::2]
        for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    for path in docs_page.PATHS - {docs_page.DESCRIPTION}:
        headers = (await client.get(path)).headers
        assert headers["content-security-policy"] == answer.headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-cache"
        assert headers["cross-origin-opener-policy"] == "same-origin"


async def test_docs_files_are_served_by_exact_name(client: httpx.AsyncClient) -> None:
    """By GET and HEAD; nothing else lies below the page, and there is no second page."""
    for path in docs_page.PATHS:
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert (await client.post(path)).status_code == 401
    for path in (
        "/redoc",
        "/docs/",
        "/docs/oauth2-redirect",
        "/docs/main.py",
        "/docs/../docs/main.py",
        "/docs/%2e%2e/main.py",
        "/docs//etc/passwd",
        "/docs/swagger-ui.css/",
    ):
        assert (await client.get(path)).status_code == 401, path


async def test_docs_files_are_revalidated_by_etag(client: httpx.AsyncClient) -> None:
    """A browser asks each time whether a file changed; the answer is small."""
    first = await client.get("/docs/swagger-ui-bundle.js")
    again = await client.get(
        "/docs/swagger-ui-bundle.js", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert len(first.content) > 1_000_000


async def test_root_path_is_in_the_openapi_document() -> None:
    """Below `--root-path` the page is there, and its requests go below it too."""
    async with client_of(service(), root_path="/aam") as client:
        for path in docs_page.PATHS:
            assert (await client.get(f"/aam{path}")).status_code == 200
        described = (await client.get("/aam/openapi.json")).json()
    assert described["servers"] == [{"url": "/aam"}]


async def test_disabled_docs_serve_no_page_and_no_file() -> None:
    """Nor the OpenAPI document."""
    app = create_app(service="x", description="", access=Access((), docs_are_open=False))
    async with client_of(app) as client:
        for path in docs_page.PATHS:
            assert (await client.get(path)).status_code == 401
    assert not [route for route in app.routes if getattr(route, "path", "") in docs_page.PATHS]


def test_docs_page_supports_our_openapi_version() -> None:
    """Swagger UI before 5 shows nothing of OpenAPI 3.1."""
    assert service().openapi()["openapi"].startswith("3.1")
    folder = docs_page.package_folder()
    found = re.search(
        r'PACKAGE_VERSION:"(\d+)\.', (folder / "swagger-ui-bundle.js").read_text("utf-8")
    )
    assert found is not None
    assert int(found[1]) >= 5
