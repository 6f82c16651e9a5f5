"""Characters that JSON can escape but Postgres cannot store: NUL and lone surrogates."""

from __future__ import annotations

import re

_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def without_escaped_backslashes(json: bytes) -> bytes:
    """Replace escaped backslashes by text of equal length; each remaining one begins an escape."""
    return json.replace(b"\\\\", b"__")


def holds_unstorable(json: bytes) -> bool:
    """Whether JSON text, after `without_escaped_backslashes`, contains such a character."""
    if b"\\u0000" in json:
        return True
    may_hold_half = b"\\ud" in json or b"\\uD" in json
    return may_hold_half and _HALF.search(json) is not None
