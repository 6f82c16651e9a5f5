"""Which connections the list shows: read from the address, and written into links and a cookie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode
from uuid import UUID

WORDS: Final = (
    *("failed", "paused_by_repair", "paused", "needs_review", "differs", "sync_failing"),
    *("suspicious", "overdue", "healing", "syncing", "healthy", "archived"),
)
"""The health words as the API writes them, the most urgent first."""
ATTENTION: Final = (
    *("failed", "paused_by_repair", "needs_review", "differs", "sync_failing"),
    *("suspicious", "overdue"),
)
"""The words of connections that need a person."""
SORTS: Final = ("health", "name", "created_at")
COOKIE: Final = "aam-filter"
PATH: Final = "/connections"
SHOW_ALL: Final = f"{PATH}?show=all"
"""The list without any filter; opening it also deletes the stored one."""
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?=[^\x00]{1,200}")
_LONGEST: Final = 200
_LONGEST_CURSOR: Final = 1_200
_LONGEST_COOKIE: Final = 1_500
_MOST_LABELS: Final = 10
_MOST_BACK: Final = 8
_UNKNOWN: Final = ""
"""In `back`: there are earlier pages, whose cursors are no longer known."""


class Chip(NamedTuple):
    """An active filter, and the address without it."""

    kind: str
    text: str
    url: str


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """A valid filter, order and position in the list."""

    q: str = ""
    health: tuple[str, ...] = ()
    source_type: str = ""
    destination_id: str = ""
    credential_id: str = ""
    labels: tuple[str, ...] = ()
    sort: str = "health"
    after: str = ""
    back: tuple[str, ...] = ()
    """The cursors of the pages before this one, for Previous; the first page has none."""
    refused_label: str = ""
    """The first label of the address that is invalid; empty if all are valid."""

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> ConnectionFilter:
        """The filter of a query; values that the API would refuse are left out."""
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            if "\x00" not in value:
                given.setdefault(name, []).append(value)

        def last(name: str, longest: int = _LONGEST) -> str:
            text = given.get(name, [""])[-1].strip()
            return text if len(text) <= longest else ""

        labels = [one.strip() for one in given.get("label", ()) if one.strip()]
        sort = last("sort")
        return cls(
            q=last("q"),
            health=tuple(word for word in WORDS if word in given.get("health", ())),
            source_type=last("source_type"),
            destination_id=_uuid(last("destination_id")),
            credential_id=last("credential_id"),
            labels=tuple(dict.fromkeys(filter(_LABEL.fullmatch, labels)))[:_MOST_LABELS],
            sort=sort if sort in SORTS else SORTS[0],
            after=last("after", _LONGEST_CURSOR),
            back=tuple(
                one for one in given.get("back", ())[-_MOST_BACK:] if len(one) <= _LONGEST_CURSOR
            ),
            refused_label=next((one for one in labels if not _LABEL.fullmatch(one)), ""),
        )

    @property
    def is_filtered(self) -> bool:
        """Whether it leaves anything out, apart from archived connections."""
        return bool(self.health or self.is_narrowed)

    @property
    def is_narrowed(self) -> bool:
        """Whether anything but the health is filtered."""
        return bool(
            self.q or self.source_type or self.destination_id or self.credential_id or self.labels
        )

    @property
    def is_archived(self) -> bool:
        """Whether archived connections are shown instead of the others."""
        return "archived" in self.health

    @property
    def is_first(self) -> bool:
        """Whether it is the first page."""
        return not self.after

    def for_api(self, *, with_health: bool = True) -> dict[str, object]:
        """The parameters of the filter for GET /connections and its summary."""
        return {
            "q": self.q or None,
            "health": list(self.health) if with_health else None,
            "source_type": self.source_type or None,
            "destination_id": self.destination_id or None,
            "credential_id": self.credential_id or None,
            "label": list(self.labels),
        }

    def url(self, **changed: Any) -> str:
        """The address with some members changed; any change leads to the first page."""
        other = replace(self, **({"after": "", "back": ()} | changed))
        query = urlencode(other._pairs())
        return f"{PATH}?{query}" if query else SHOW_ALL

    def with_label(self, name: str, value: str) -> str:
        """The address that also asks for a label."""
        label = f"{name}={value}"
        return self.url(labels=(*(one for one in self.labels if one != label), label))

    def next_url(self, cursor: str) -> str:
        """The address of the next page."""
        back = self.back if self.is_first else (*self.back, self.after)
        if len(back) > _MOST_BACK:
            back = (_UNKNOWN, *back[-_MOST_BACK + 1 :])
        return self.url(after=cursor, back=back)

    def previous(self) -> tuple[str, str] | None:
        """The label and the address of the page before; None on the first."""
        if self.is_first:
            return None
        if not self.back:
            return "Previous", self.url()
        if self.back[-1] == _UNKNOWN:
            return "First page", self.url()
        return "Previous", self.url(after=self.back[-1], back=self.back[:-1])

    def chips(self, destinations: Mapping[str, str]) -> list[Chip]:
        """The active filters other than the health; `destinations` has names by id."""
        found = []
        if self.q:
            found.append(Chip("Search", self.q, self.url(q="")))
        if self.source_type:
            found.append(Chip("Source", self.source_type, self.url(source_type="")))
        if self.destination_id:
            name = destinations.get(self.destination_id, self.destination_id)
            found.append(Chip("Destination", name, self.url(destination_id="")))
        if self.credential_id:
            found.append(Chip("Credential", self.credential_id, self.url(credential_id="")))
        for label in self.labels:
            rest = tuple(one for one in self.labels if one != label)
            found.append(Chip("Label", label, self.url(labels=rest)))
        return found

    def stored(self) -> str:
        """The filter as a cookie's value, without the position; empty if it is too long."""
        kept = quote(urlencode(replace(self, after="", back=())._pairs()), safe="")
        return kept if len(kept) <= _LONGEST_COOKIE else ""

    @classmethod
    def restored(cls, cookie: str) -> ConnectionFilter:
        """The filter of a cookie; what is invalid in it is left out."""
        text = unquote(cookie[:_LONGEST_COOKIE], errors="replace")
        return replace(cls.of(parse_qsl(text)), after="", back=())

    def _pairs(self) -> list[tuple[str, str]]:
        pairs = [("q", self.q)] if self.q else []
        pairs += [("health", word) for word in self.health]
        pairs += [("source_type", self.source_type)] if self.source_type else []
        pairs += [("destination_id", self.destination_id)] if self.destination_id else []
        pairs += [("credential_id", self.credential_id)] if self.credential_id else []
        pairs += [("label", label) for label in self.labels]
        pairs += [("sort", self.sort)] if self.sort != SORTS[0] else []
        pairs += [("after", self.after)] if self.after else []
        pairs += [("back", cursor) for cursor in self.back] if self.after else []
        return pairs


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        return ""
