"""A client of a sample org that runs in the tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx

from local.sample_org.server import Running


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
