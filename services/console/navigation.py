"""The main navigation: every page that is there, as icon and id, label and address."""

from __future__ import annotations

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """A link; `id` is also the name of its icon in sprite.j2."""

    id: str
    label: str
    href: str


class Navigation(NamedTuple):
    """The links in their order: the daily ones, and those to set something up."""

    main: tuple[Entry, ...]
    set_up: tuple[Entry, ...]


NAVIGATION: Final = Navigation(
    main=(
        Entry("inbox", "Inbox", "/"),
        Entry("connections", "Connections", "/connections"),
        Entry("repairs", "Repairs", "/repairs"),
        Entry("drift", "Drifts", "/drifts"),
        Entry("operations", "Operations", "/operations"),
        Entry("eye", "Observations", "/observations"),
        Entry("knowledge", "Knowledge", "/knowledge"),
    ),
    set_up=(
        Entry("plus", "Onboard", "/onboard"),
        Entry("bell", "Notifications", "/notifications"),
        Entry("key", "Access", "/access"),
        Entry("pulse", "System", "/system"),
    ),
)
