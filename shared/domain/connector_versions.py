"""Versions of connectors: what a source runs, and the step from one version to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import msgspec

MANIFEST_RUNNER: Final = "source-declarative-manifest"
"""The image that runs every connector of the connector builder; its tag is the CDK's version."""

MOST_GUIDES = 50
"""Breaking changes of one connector that are remembered, newest first."""
_NUMBER = re.compile(r"v?(\d+(?:\.\d+)*)")


class BreakingChange(msgspec.Struct, frozen=True):
    """A breaking change of a newer version, as the registry of connectors describes it."""

    version: str
    message: str
    guide: str | None
    """URL of its migration guide; None unless it is an http or https URL."""
    deadline: date | None
    """The day after which the older version is unsupported."""
    action: str | None
    """What Airbyte Cloud does after the deadline: `auto_upgrade` or `disable`."""


class ConnectorVersion(msgspec.Struct, frozen=True):
    """The version of its connector that a source runs."""

    repository: str
    tag: str
    support_state: str
    """`supported`, `deprecated` (a breaking change has a deadline) or `unsupported` (it passed)."""
    is_pinned: bool
    """Whether a user pinned it; pins of breaking changes and rollouts do not count."""
    upcoming: tuple[BreakingChange, ...]
    """The breaking changes of newer versions, nearest deadline first."""
    manifest: int | None = None
    """The active manifest of a connector that was made in the connector builder."""

    @property
    def is_declarative(self) -> bool:
        """Whether it was made in the connector builder, so that its manifest decides."""
        return self.repository.rpartition("/")[2] == MANIFEST_RUNNER

    @property
    def deadline(self) -> date | None:
        """The nearest deadline of the upcoming breaking changes."""
        return min((one.deadline for one in self.upcoming if one.deadline), default=None)


class Guide(msgspec.Struct, frozen=True):
    """The migration guide of a breaking change; `guide` is its URL, or None."""

    version: str
    guide: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the version of a source's connector between two snapshots."""

    from_version: str
    to_version: str
    from_manifest: int | None = None
    """The manifest of a connector that was made in the connector builder; None for others."""
    to_manifest: int | None = None
    breaking_changes: tuple[Guide, ...] = ()
    """Known breaking changes between the two versions, oldest first."""

    @property
    def in_words(self) -> str:
        """Both versions for display: `2.10.3 → 3.0.0`, or `manifest 4 → manifest 5`."""
        if self.from_version != self.to_version:
            return f"{self.from_version} → {self.to_version}"
        return f"manifest {self.from_manifest} → manifest {self.to_manifest}"


def joined(steps: Sequence[Step]) -> Step | None:
    """Consecutive steps as one, oldest first; None without any, or if they lead nowhere."""
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    if (first.from_version, first.from_manifest) == (last.to_version, last.to_manifest):
        return None
    return Step(
        from_version=first.from_version,
        to_version=last.to_version,
        from_manifest=first.from_manifest,
        to_manifest=last.to_manifest,
        breaking_changes=tuple(dict.fromkeys(one for s in steps for one in s.breaking_changes)),
    )


def passed(guides: Iterable[Guide], one: str, other: str) -> tuple[Guide, ...]:
    """The breaking changes between two versions, oldest first.

    Of a tag that is no number only the change to exactly `other` is known to be in between.
    """
    low, high = number(one), number(other)
    if low is None or high is None:
        return tuple(guide for guide in guides if guide.version == other)
    low, high = min(low, high), max(low, high)
    between = [(number(guide.version), guide) for guide in guides]
    return tuple(
        guide
        for at, guide in sorted(
            ((at, guide) for at, guide in between if at is not None and low < at <= high),
            key=lambda pair: pair[0],
        )
    )


def remembered(known: Sequence[Guide], upcoming: Iterable[Guide]) -> list[Guide]:
    """The known breaking changes with the upcoming ones, which replace those of their version."""
    merged = {guide.version: guide for guide in known} | {one.version: one for one in upcoming}
    newest = sorted(merged.values(), key=lambda guide: number(guide.version) or (), reverse=True)
    return newest[:MOST_GUIDES]


def number(tag: str) -> tuple[int, ...] | None:
    """The numbers of a tag for comparisons, without a suffix such as `-rc.1`; None without any."""
    found = _NUMBER.match(tag)
    return None if found is None else tuple(int(part) for part in found[1].split("."))
