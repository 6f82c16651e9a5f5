"""Masks the logs of connectors by an allow-list: what is not known to be harmless is not shown.

A log may quote secrets and rows. A word of it is shown if it is a plain word, a small number, a
date, or a name that the caller can read anyway; and not if a word such as `password` precedes it.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from typing import Final

MASK: Final = "***"
LONGEST_LINE: Final = 2000
"""How many characters of a line are shown; the rest is cut off."""

_TOKEN: Final = re.compile(r"[^\s\"'`,;:(){}\[\]<>=|]+")
"""A word, with the punctuation that occurs inside of names, addresses and numbers."""
_PLAIN: Final = re.compile(
    # Words, also joined as in `io.airbyte.Worker`, `/usr/lib/source.py`, `start_date`, `read-back`.
    r"[./$@_-]{0,3}[A-Za-z]{1,40}(?:[./$_-]{1,2}[A-Za-z]{1,40}){0,15}[.!?_/-]{0,3}"
    # Small numbers with or without a unit, versions with up to three parts, dates, times.
    r"|[+-]?\d{1,6}(?:\.\d{1,6}){0,2}(?:ms|s|m|h|%|[KMG]i?B|B)?[.!?]?"
    r"|\d{4}-\d{2}-\d{2}(?:T\d{2})?[.!?]?"
    r"|[^\w\s]{1,8}"
)
_HUMP: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
"""A part of a word in camel case: `Replication`, `HTTPS`, `pool`."""
_MOST_HUMPS: Final = 3
_SHORTEST_HUMPS: Final = 3.5
"""More humps than `_MOST_HUMPS` with a shorter average look like a random string of letters."""
_TELLING: Final = re.compile(
    r"(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credentials?|auth(?:orization)?|bearer"
    r"|basic|api[._-]?key|(?:private|access|signing|encryption|account)[._-]?key|session[._-]?id"
    r"|cookie|sid|signature|client[._-]?id|user(?:name)?|login|email|pin)s?",
    re.IGNORECASE,
)
"""The end of a word whose value is masked in any form."""
_ASSIGNED: Final = re.compile(r"[\s\"'`:=(\[{]*(?:(?:is|was|of|for)\s)?[\s\"'`:=(\[{]*")
"""What stands between such a word and its value."""
_STATES: Final = frozenset(
    {"is", "was", "has", "have", "been", "not", "expired", "invalid", "revoked", "missing"}
    | {"required", "failed", "refused", "rejected", "wrong", "incorrect", "unknown", "disabled"}
)
"""What may follow such a word because it is about the value, and is shown."""
_MOST_VALUE_WORDS: Final = 8
"""How many words after such a word belong to its value, if no punctuation ends it before."""


def masked(line: str, names: AbstractSet[str] = frozenset()) -> str:
    """A line of a log with every word masked that is not known to be harmless.

    `names` are words that are shown in any case, such as the names of streams.
    """
    shown: list[str] = []
    at = 0
    hidden = 0
    """How many of the next words are values of a telling word."""
    for found in _TOKEN.finditer(line[:LONGEST_LINE]):
        between, word = line[at : found.start()], found[0]
        if hidden and at and not _ASSIGNED.fullmatch(between):
            hidden = 0
        shown.append(between)
        is_harmless = word.casefold().rstrip(".!?") in _STATES or (
            not hidden and (word in names or _is_plain(word))
        )
        shown.append(word if is_harmless else MASK)
        hidden = _MOST_VALUE_WORDS if _is_telling(word) else max(hidden - 1, 0)
        at = found.end()
    shown.append(line[at:LONGEST_LINE])
    return _runs(("".join(shown)) + (" …" if len(line) > LONGEST_LINE else ""))


def _is_plain(word: str) -> bool:
    if _PLAIN.fullmatch(word) is None:
        return False
    for part in re.findall("[A-Za-z]+", word):
        humps = _HUMP.findall(part)
        if len(humps) > _MOST_HUMPS and len(part) / len(humps) < _SHORTEST_HUMPS:
            return False
    return True


def _is_telling(word: str) -> bool:
    return any(
        _TELLING.fullmatch(part) is not None
        for part in (word, re.split(r"[./$-]", word)[-1], re.split(r"[./$_-]", word)[-1])
    )


def _runs(text: str) -> str:
    """One mask instead of several in a row."""
    return re.sub(r"\*\*\*(?:[\s,;:=/&?]*\*\*\*)+", MASK, text)
