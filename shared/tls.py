"""The certificate authorities that outgoing calls trust."""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def authorities() -> ssl.SSLContext:
    """The default CAs, or those of SSL_CERT_FILE or SSL_CERT_DIR; loaded once per process.

    Loading them takes 20 ms and 1 MB, and a process has several clients.
    """
    return httpx.create_ssl_context()
