"""Answers that are JSON already."""

from __future__ import annotations

import msgspec
from fastapi.responses import Response

_COMPACTED_BYTES = 1024 * 1024
"""Larger ones are sent as they are: two milliseconds a MiB, in which nothing else is answered."""


def raw_json(body: str | bytes, *, status_code: int = 200) -> Response:
    """An answer that is JSON already, made compact: Postgres puts blanks between everything."""
    if 0 < len(body) <= _COMPACTED_BYTES:
        body = msgspec.json.format(body, indent=-1)
    return Response(body, status_code=status_code, media_type="application/json")
