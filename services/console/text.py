"""Filters of the templates: hostile characters made visible, and points in time."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, available_timezones

from markupsafe import Markup

_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HIDDEN_OTHERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters of other categories that are drawn as nothing."""
_LAYOUT: Final = frozenset("\n\t")


class Exact(str):
    """Text for the `value` of a form field, which must come back as it is."""

    __slots__ = ()


@lru_cache(maxsize=4096)
def _is_hidden(char: str) -> bool:
    return char in _HIDDEN_OTHERS or unicodedata.category(char) in _HIDDEN_CATEGORIES


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def visible(text: str) -> str:
    """Text in which characters that hide or reorder others are shown by their code points.

    Line breaks and tabs are left; `visible_name` shows them, too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escaped(char) if _is_hidden(char) and char not in _LAYOUT else char for char in text
    )


def visible_name(value: object) -> str:
    """The name of a stream, field or connection: on one line, with nothing hidden."""
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if _is_hidden(char) else char for char in text)


def finalized(value: Any) -> Any:
    """Make every text that a template writes visible, unless it is markup or `exact`."""
    if isinstance(value, str) and not isinstance(value, Markup | Exact):
        return visible(value)
    return value


def exact(value: object) -> Exact:
    """Mark text as a form field's value, which must come back unchanged."""
    return Exact(value)


def moment(value: str | datetime) -> datetime:
    """A point in time in UTC, from the API's ISO 8601 text.

    Raises:
        ValueError: the text is not ISO 8601.
    """
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def iso(value: str | datetime) -> str:
    """A point in time for the attribute `datetime`."""
    return moment(value).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc(value: str | datetime) -> str:
    """A time in UTC for people: `28 Nov 2026, 09:42 UTC`."""
    return shown(value, UTC)


def shown(value: str | datetime, zone: tzinfo) -> str:
    """A time in a zone for people: `28 Nov 2026, 10:42 CET`."""
    at = moment(value).astimezone(zone)
    return f"{at.day} {at:%b} {at.year}, {at:%H:%M %Z}"


def clock(value: str | datetime, zone: tzinfo) -> str:
    """The time of day in a zone: `10:42`."""
    return f"{moment(value).astimezone(zone):%H:%M}"


def zone_name(value: str | datetime, zone: tzinfo) -> str:
    """What a zone is called at a time: `CET`, `UTC`."""
    return f"{moment(value).astimezone(zone):%Z}"


def zone_of(name: str) -> ZoneInfo | None:
    """The time zone of this name, such as `Europe/Berlin`; None if it is unknown."""
    return ZoneInfo(name) if name in zone_names() else None


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """The names of all time zones that this machine knows, in order."""
    return tuple(sorted(available_timezones()))


def count(value: int) -> str:
    """A number with a comma after thousands."""
    return f"{value:,}"


def address(query: Mapping[str, object]) -> str:
    """The query of an address; a list is repeated, and an empty one left out."""
    return urlencode(query, doseq=True)
