"""Characters that JSON can write and no database keeps: NUL, and half of a surrogate pair."""

from __future__ import annotations

import re

_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def without_escaped_backslashes(json: bytes) -> bytes:
    """The text with as many other characters there: each backslash left begins an escape."""
    return json.replace(b"\\\\", b"__")


def holds_unkept(json: bytes) -> bool:
    """Whether a string of JSON text holds one; escaped backslashes have been taken out of it."""
    if b"\\u0000" in json:
        return True
    may_hold_half = b"\\ud" in json or b"\\uD" in json
    return may_hold_half and _HALF.search(json) is not None
