"""Whom outgoing calls trust: the authorities that certificates are verified against."""

from __future__ import annotations

import functools
import ssl

import httpx


@functools.cache
def authorities() -> ssl.SSLContext:
    """The usual ones, or those that SSL_CERT_FILE or SSL_CERT_DIR name; read once a process.

    Reading them takes 20 ms and a megabyte, and a process has several clients.
    """
    return httpx.create_ssl_context()
