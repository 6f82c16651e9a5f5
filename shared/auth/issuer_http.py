"""HTTP calls to an OpenID Connect issuer: without redirects, limited in size and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx
import orjson
import stamina
from httpx_aiohttp import AiohttpTransport

from shared.tls import authorities

DEADLINE_S = 5.0
_LARGEST_BYTES = 256 * 1024
_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""Source: RFC 6749, section 5.2."""
_REFUSALS = (400, 401, 403)
"""RFC 6749 has the first two; Auth0 answers an invalid code with 403 `invalid_grant`."""


class IssuerAway(Exception):
    """The issuer cannot be asked now; the message quotes nothing from the issuer."""


class IssuerRefused(Exception):
    """The issuer refused for good; the message is its error code, if that is a known one."""


class _Lost(IssuerAway):
    """There was no complete response; a retry may get one."""


def issuer_client() -> httpx.AsyncClient:
    """A client for a few requests; the caller limits their total time to `DEADLINE_S`."""
    return httpx.AsyncClient(
        transport=AiohttpTransport(verify=authorities()),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        timeout=DEADLINE_S,
        follow_redirects=False,
        trust_env=False,
    )


@stamina.retry(on=_Lost, attempts=3, timeout=None, wait_initial=0.1, wait_max=0.3)
async def fetch(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Fetch a JSON object; a lost answer is requested again.

    Raises:
        IssuerAway: there is no such answer.
    """
    try:
        return await _answer(client, "GET", url)
    except IssuerRefused:
        raise IssuerAway("it refused a document") from None


async def submit(
    client: httpx.AsyncClient,
    url: str,
    form: Mapping[str, str],
    basic: httpx.BasicAuth | None,
) -> dict[str, Any]:
    """Send a form once, and return the JSON object that answers it.

    Raises:
        IssuerRefused: the issuer answered 400, 401 or, as Auth0 does, 403 in JSON.
        IssuerAway: there is no such answer. The form may have taken effect.
    """
    return await _answer(client, "POST", url, data=form, auth=basic)


async def _answer(
    client: httpx.AsyncClient, method: str, url: str, **options: Any
) -> dict[str, Any]:
    body = b""
    try:
        async with client.stream(method, url, **options) as answer:
            status = answer.status_code
            if status not in (200, *_REFUSALS) or "content-encoding" in answer.headers:
                raise IssuerAway(f"it answered {status}, or encoded")
            async for part in answer.aiter_raw():
                body += part
                if len(body) > _LARGEST_BYTES:
                    raise IssuerAway("its answer is too large")
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError):
        raise _Lost("it cannot be reached") from None
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise IssuerAway("its answer is not JSON") from None
    if not isinstance(content, dict):
        raise IssuerAway("its answer is no JSON object")
    if status != 200:
        error = content.get("error")
        is_known = isinstance(error, str) and error in _ERRORS
        raise IssuerRefused(error if is_known else "another error")
    return content
