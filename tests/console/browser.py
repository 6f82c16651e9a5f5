"""A person's browser without scripts: it keeps cookies, reads pages, and sends their forms."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.types import ASGIApp

from tests import leaks

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
_HIDDEN = frozenset({"script", "style", "svg", "head"})


@dataclass
class Page:
    """A response, with its forms' hidden fields and its text."""

    response: httpx.Response
    fields: dict[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def status(self) -> int:
        """Its status."""
        return self.response.status_code

    @property
    def location(self) -> str:
        """Where it redirects to."""
        return self.response.headers["location"]

    @property
    def html(self) -> str:
        """Its source."""
        return self.response.text


class Browser:
    """One browser at an address; `get` and `post` follow no redirect."""

    def __init__(
        self, app: ASGIApp, url: str = "http://localhost:8006", *, address: str = "127.0.0.1"
    ) -> None:
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app, client=(address, 123)),
            base_url=url,
            event_hooks={"response": [leaks.add_answer]},
        )
        self.page = Page(httpx.Response(200))

    async def get(self, path: str, **options: Any) -> Page:
        """Open a page."""
        return self._shown(await self.client.get(path, **options))

    async def post(self, path: str, fields: dict[str, Any] | None = None, **options: Any) -> Page:
        """Send a form with the hidden fields of the page that is open."""
        own = {
            name: value
            for name, value in self.page.fields.items()
            if name in ("csrf", "idempotency_key")
        }
        options.setdefault("headers", SAME_ORIGIN)
        data = own | (fields or {})
        return self._shown(await self.client.post(path, data=data, **options))

    async def sign_in(self, key: str) -> Page:
        """Sign in with a key by the login page."""
        await self.get("/login")
        return await self.post("/login", {"key": key})

    def _shown(self, response: httpx.Response) -> Page:
        reader = _Reader()
        if response.headers.get("content-type", "").startswith("text/html"):
            reader.feed(response.text)
        shown = Page(response, reader.fields, " ".join(" ".join(reader.words).split()))
        if shown.fields:
            self.page = shown
        return shown


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.words: list[str] = []
        self._hidden: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "input" and given.get("type") == "hidden":
            self.fields[given["name"] or ""] = given.get("value") or ""
        if tag in _HIDDEN:
            self._hidden.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and self._hidden[-1] == tag:
            self._hidden.pop()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)
