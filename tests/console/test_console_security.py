"""What every response carries, and that nothing hostile or secret gets through a page."""

from __future__ import annotations

import asyncio
import hashlib
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import Environment

from services.console import assets, text
from services.console.rendering import _TEMPLATES as FOLDER
from services.console.rendering import Pages
from services.console.security_headers import CSP
from tests.console.browser import Browser
from tests.console.double import Double, page
from tests.console.test_console_pages import CONNECTION

HEADERS = {
    "content-security-policy": CSP,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}",
    "abc\u202ecba",
    "a\u200bb",
    "a\x00b\x1b[31m",
    "javascript:alert(1)",
    "\U000e0041",
]
URLS = ("href", "src", "action", "formaction", "hx-get", "hx-post")
TEMPLATES = sorted(FOLDER.rglob("*.j2"))


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return the method and path of each route, filled in."""
    found = []
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        path = re.sub(r"\{[^}]+\}", "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f", route.path)
        found += [(method, path) for method in sorted(getattr(route, "methods", None) or ())]
    return found


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.injected: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        inline = [name for name in given if name.startswith("on") or name == "style"]
        unsafe = [name for name in URLS if (given.get(name) or "").startswith("javascript:")]
        if inline or unsafe or tag == "img" or (tag == "script" and "src" not in given):
            self.injected.append(tag)


def injected(html: str) -> list[str]:
    """Return the tags of a page that no template has."""
    reader = _Tags()
    reader.feed(html)
    return reader.injected


async def test_headers_of_every_route(app: FastAPI, signed_in: Browser) -> None:
    """With and without a session, and of errors."""
    other = Browser(app)
    for method, path in [*routes(app), ("GET", "/nothing"), ("BREW", "/")]:
        for browser in (signed_in, other):
            if path == "/logout":
                continue
            answer = await browser.client.request(method, path)

            where = (method, path, answer.status_code)
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, where
            assert answer.status_code != 500, where
            if not path.startswith("/static/"):
                assert answer.headers["cache-control"] == "no-store", where
    await other.client.aclose()


async def test_concurrent_probes_share_one_run(browser: Browser, double: Double) -> None:
    """Anybody may send them, and each run asks every service."""
    double.delays["GET /health"] = 0.3

    answers = await asyncio.gather(*(browser.client.get("/ready") for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert len(double.of("GET", "/health")) == 4


async def test_every_page_needs_a_session(app: FastAPI, browser: Browser) -> None:
    """Except the ones before signing in, files, checks, and the API with its own credentials."""
    open_paths = ("/login", "/sign-in", "/health", "/ready", "/static/", "/api/")
    for method, path in routes(app):
        if path.startswith(open_paths) or method != "GET":
            continue
        answer = await browser.get(path)
        assert (answer.status, answer.location.partition("?")[0]) == (303, "/login"), path


async def test_every_form_needs_a_token(app: FastAPI, signed_in: Browser) -> None:
    """Whatever its route; the API has no forms."""
    for method, path in routes(app):
        if method in ("GET", "HEAD") or path.startswith("/api/"):
            continue
        answer = await signed_in.client.request(
            method, path, headers={"Sec-Fetch-Site": "same-origin"}
        )
        assert answer.status_code == 403, (method, path)
        assert "another session" in answer.text


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names(signed_in: Browser, double: Double, name: str) -> None:
    """Shown as text on every page that has them; what hides or reorders is spelled out."""
    hostile = {**CONNECTION, "name": name, "source_type": name, "failure_code": name}
    double.answers["GET /connections"] = page(hostile)
    double.answers["GET /repairs"] = page()
    for path in ("/connections", "/"):
        shown = await signed_in.get(path)

        assert shown.status == 200
        assert f"<bdi>{text.visible_name(name)}</bdi>" in unescape(shown.html)
        assert not injected(shown.html)
        assert not any(text._is_hidden(char) for char in shown.html if char not in "\n\t")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text(max_size=50))
def test_any_name_is_visible(name: str) -> None:
    """No character is left that hides or reorders others, and plain ones stay."""
    shown = text.visible_name(name)
    assert not any(text._is_hidden(char) for char in shown)
    if name.isascii() and name.isprintable():
        assert shown == name
    shown.encode()


def test_values_of_fields_are_exact() -> None:
    """A name in a form comes back as it is."""
    assert text.finalized(text.exact("a\u202eb")) == "a\u202eb"
    assert text.finalized("a\u202eb") == "a\\u202eb"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_template_has_nothing_inline(template: Path) -> None:
    """The content policy forbids it, and some browsers' extensions do not obey that."""
    source = template.read_text()

    assert re.search(r"<script(?![^>]*\ssrc=)", source) is None
    assert re.search(r"\sstyle=|<style|\son\w+=|hx-on|hx-vals=['\"]js:|javascript:", source) is None
    assert re.search(r"\|\s*safe\b|Markup|autoescape|(?<=[a-z-])=\{\{", source) is None


def test_templates_exist_and_compile(app: FastAPI) -> None:
    """Every file, with undefined names an error."""
    pages: Pages = app.state.pages
    environment: Environment = pages._environment
    assert TEMPLATES
    for template in TEMPLATES:
        environment.get_template(template.name)
    assert environment.autoescape is True


async def test_files_are_for_good(app: FastAPI, browser: Browser) -> None:
    """Under the address of their content; under another one they are asked for again."""
    login = await browser.get("/login")
    found = re.findall(r'(?:href|src)="(/static/([0-9a-f]{16})/[\w.]+)"', login.html)

    assert len(found) == 5
    for url, version in found:
        file = await browser.get(url)
        assert file.status == 200
        assert file.response.headers["cache-control"] == "public, max-age=31536000, immutable"
        old = await browser.get(url.replace(version, "0" * 16))
        assert old.response.headers["cache-control"] == "no-cache"
    assert (await browser.get("/static/0/main.py")).status == 404


def test_other_script_is_refused(tmp_path: Path) -> None:
    """The console does not start with a htmx that is not the pinned file."""
    with pytest.raises(SystemExit, match="missing"):
        assets.Assets(tmp_path / "htmx.js")
    (tmp_path / "htmx.js").write_text("alert(1)")
    with pytest.raises(SystemExit, match="sha256"):
        assets.Assets(tmp_path / "htmx.js")
    assert hashlib.sha256(assets.HTMX_FILE.read_bytes()).hexdigest() == assets.HTMX_SHA256
