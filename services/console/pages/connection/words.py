"""Numbers and codes of the API as words for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

_BYTES: Final = ("B", "KB", "MB", "GB", "TB", "PB")
_ACRONYMS: Final = {"aam": "AAM", "id": "ID"}


def size(count: int | None) -> str:
    """A number of bytes, in powers of 1,000: `612 MB`; a dash if it is unknown."""
    if count is None:
        return "\u2013"
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_BYTES) - 1:
        value, unit = value / 1000, unit + 1
    digits = f"{value:.1f}" if unit and value < 10 else f"{value:.0f}"
    return f"{digits.removesuffix('.0')} {_BYTES[unit]}"


def duration(seconds: float | None) -> str:
    """A duration with at most two units: `1 h 5 min`; a dash if it is unknown."""
    if seconds is None:
        return "\u2013"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        parts = (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "")
        return " ".join(part for part in parts if part)
    return f"{hours // 24} days"


def between(start: str | None, end: str | None) -> float | None:
    """The seconds between two points in time of the API; None if one of them is missing."""
    if start is None or end is None:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun: `1 change`, `2,000 changes`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def plain(code: object) -> str:
    """A code as words: `credential_rejected` as `credential rejected`."""
    words = str(code).replace("_", " ").split(" ")
    return " ".join(_ACRONYMS.get(word, word) for word in words)


def sentence(code: object) -> str:
    """A code as words that start with a capital."""
    words = plain(code)
    return words[:1].upper() + words[1:]


def mark_of(kind: str) -> str:
    """Which mark a change has by its kind: `added`, `removed` or `changed`."""
    if kind.endswith(("_added", "_selected")):
        return "added"
    return "removed" if kind.endswith(("_removed", "_deselected")) else "changed"


def type_of(given: Any) -> str:
    """A field's type in JSON Schema in one word or two: `date-time`, `number | string`."""
    if not isinstance(given, Mapping):
        return "unknown"
    named = given.get("type") or []
    names = [named] if isinstance(named, str) else [str(one) for one in named]
    names = [name for name in names if name != "null"]
    if names == ["string"] and given.get("format"):
        return str(given["format"])
    if names:
        return " | ".join(names)
    return "several types" if given.get("oneOf") or given.get("anyOf") else "any"


def to(*segments: object) -> str:
    """A path of this console, each segment quoted."""
    return "".join(f"/{quote(str(one), safe='.')}" for one in segments)
