"""The services' HTTP protocol with shorter deadlines, for fast tests."""

from __future__ import annotations

from shared.http import uvicorn_protocol


class Http(uvicorn_protocol.Http):
    """Allows half a second to receive a request head."""

    head_deadline_s = 0.5
