"""Protection against requests that another site makes in a person's browser.

A request that changes something must come from the console's own pages, by what the browser says
about it (Fetch Metadata, or else `Origin`), and carry a token that only these pages know.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from shared.config import is_loopback

FIELD: Final = "csrf"
"""The form field with the token."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


class CrossSite(Exception):
    """The request was not made by a page of this console; the message says why, for the log."""


def origins_of(console_url: str) -> frozenset[str]:
    """The console's own origins; for a loopback address, under each of its names."""
    parts = urlsplit(console_url)
    default = 443 if parts.scheme == "https" else 80
    port = "" if parts.port in (None, default) else f":{parts.port}"
    host = parts.hostname or ""
    names = _LOOPBACK if is_loopback(host) else (f"[{host}]" if ":" in host else host,)
    return frozenset(f"{parts.scheme}://{name}{port}" for name in names)


def check_source(headers: Iterable[tuple[bytes, bytes]], origins: frozenset[str]) -> None:
    """Check by its headers that a request comes from one of the console's own pages.

    Raises:
        CrossSite: it comes from elsewhere, or the browser does not say where it comes from.
    """
    sites = [value for name, value in headers if name == b"sec-fetch-site"]
    given = [value for name, value in headers if name == b"origin"]
    if len(sites) > 1 or len(given) > 1:
        raise CrossSite("repeated_header")
    if sites:
        if sites[0] != b"same-origin":
            raise CrossSite("fetch_metadata")
        return
    if not given:
        raise CrossSite("no_origin")
    if given[0].decode("latin-1") not in origins:
        raise CrossSite("origin")


def token(secret: bytes) -> str:
    """A form's token, different each time, so that compression of a page does not reveal it."""
    pad = os.urandom(len(secret))
    mixed = bytes(one ^ other for one, other in zip(pad, secret, strict=True))
    return base64.urlsafe_b64encode(pad + mixed).decode("ascii")


def check_token(given: str, secret: bytes) -> None:
    """Check a form's token against the session's secret.

    Raises:
        CrossSite: it belongs to another session, or is not a token.
    """
    try:
        both = base64.b64decode(given, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CrossSite("token") from None
    pad, mixed = both[: len(secret)], both[len(secret) :]
    if len(mixed) != len(pad) or len(pad) != len(secret):
        raise CrossSite("token")
    found = bytes(one ^ other for one, other in zip(pad, mixed, strict=True))
    if not hmac.compare_digest(found, secret):
        raise CrossSite("token")
