"""Which part of an order a refusal of Airbyte's is about, by its words; they are not repeated."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_SUBJECTS = {
    "schedule": re.compile(r"cron|time ?zone|schedul|time ?unit", re.IGNORECASE),
    "streams": re.compile(r"catalog|stream|cursor|primary ?key|sync ?mode", re.IGNORECASE),
    "connection_name": re.compile(r"\bname\b", re.IGNORECASE),
    "destination_id": re.compile(r"destination", re.IGNORECASE),
    "credential_id": re.compile(r"configuration|credential|specification", re.IGNORECASE),
}
_CALLS = {
    "connections/create": ("schedule", "streams", "connection_name", "destination_id"),
    "sources/create": ("connection_name", "credential_id"),
    "sources/update": ("credential_id",),
}
"""What each call carries of an order."""
_WORDS = ("message", "title", "detail", "type", "validationErrors", "_embedded", "data")
"""Where Airbyte says what is wrong; its stack traces name classes, which prove nothing."""
_READ_CHARS = 16 * 1024


def subjects(path: str, content: bytes | bytearray) -> list[str]:
    """The members of an order that a refusal of this call is about; none where it does not say."""
    carried = _CALLS.get(path, ())
    if not carried:
        return []
    try:
        body: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    words = " ".join(str(body.get(name, "")) for name in _WORDS)[:_READ_CHARS]
    return [name for name in carried if _SUBJECTS[name].search(words)]
