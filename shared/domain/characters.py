"""Characters that JSON can write and no database keeps: NUL, and half of a surrogate pair."""

from __future__ import annotations

import re

_UNKEPT = re.compile(
    rb"\\u(?:0000"
    rb"|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F])"
)


def without_escaped_backslashes(json: bytes) -> bytes:
    """The text with as many other characters there: each backslash left begins an escape."""
    return json.replace(b"\\\\", b"__")


def holds_unkept(json: bytes) -> bool:
    """Whether a string of JSON text holds one; escaped backslashes have been taken out of it."""
    return b"\\u" in json and _UNKEPT.search(json) is not None
