"""Histories of concurrent calls, and the anomalies that must not occur in them.

A connection's versions are a list that `apply` appends to; each applied catalog has a unique mark,
so that the list, Airbyte and the responses can be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Call:
    """One request from its caller's view; `ended` and `status` are None without a response."""

    kind: Literal["apply", "sync"]
    connection: str
    began: float
    ended: float | None = None
    status: int | None = None
    mark: str = ""
    """The mark of the applied catalog."""
    expected_version: int | None = None
    version: int | None = None
    """The version in the response; None if it has none."""
    job: int | None = None
    """The id of Airbyte's job in the response."""

    @property
    def is_done(self) -> bool:
        """Whether the response reported success."""
        return self.version is not None or self.job is not None

    @property
    def is_refused(self) -> bool:
        """Whether the response reported that nothing was done."""
        return self.status is not None and (400 <= self.status < 500 or self.status == 503)


@dataclass(frozen=True)
class Ending:
    """The final state of a connection, in the registry and in Airbyte."""

    versions: Sequence[tuple[int, str]]
    """Number and mark of each version, in order of number."""
    head: int
    status: str
    held: str | None
    """The mark of the catalog in Airbyte; None if Airbyte has no such connection."""
    jobs: Sequence[int] = ()
    """The connection's jobs in Airbyte."""
    recorded_jobs: Sequence[int] = ()
    updates_at_once: int = 1


@dataclass(frozen=True)
class History:
    """The calls of all callers, and the final state."""

    calls: Sequence[Call]
    endings: dict[str, Ending]
    orphans: Sequence[str] = ()
    """Airbyte objects with AAM's marker that no live row refers to."""
    missing: Sequence[str] = ()
    """Airbyte objects that live rows refer to, but that do not exist."""
    open_operations: Sequence[str] = ()


def anomalies(history: History) -> list[str]:
    """List the anomalies of a history: name and location."""
    found = [f"orphan: {one}" for one in history.orphans]
    found += [f"orphan: {one} is missing" for one in history.missing]
    found += [f"stuck: operation {one}" for one in history.open_operations]
    for connection, ending in history.endings.items():
        calls = [call for call in history.calls if call.connection == connection]
        found += [f"{anomaly} ({connection})" for anomaly in _of_one(calls, ending)]
    return found


def _of_one(calls: list[Call], ending: Ending) -> Iterator[str]:
    yield from _of_the_list(ending)
    applies = [call for call in calls if call.kind == "apply"]
    yield from _of_the_answers(applies, dict(ending.versions))
    yield from _of_the_order(applies)
    yield from _of_the_jobs([call for call in calls if call.kind == "sync"], ending)


def _of_the_list(ending: Ending) -> Iterator[str]:
    numbers = [number for number, _ in ending.versions]
    if sorted(set(numbers)) != list(range(1, len(set(numbers)) + 1)):
        yield f"gap: versions {numbers}"
    if len(set(numbers)) != len(numbers):
        yield f"duplicate: versions {numbers}"
    marks = Counter(mark for _, mark in ending.versions)
    for mark, count in marks.items():
        if count > 1:
            yield f"applied_twice: {mark}"
    if ending.head != max(numbers, default=0):
        yield f"gap: head {ending.head} of versions {numbers}"
    if ending.status in ("HEALING", "PENDING"):
        yield f"stuck: {ending.status}"
    if ending.status == "ACTIVE" and ending.held != dict(ending.versions).get(ending.head):
        yield f"head_not_in_airbyte: {ending.held}"
    if ending.updates_at_once > 1:
        yield f"two_heals_at_once: {ending.updates_at_once}"


def _of_the_answers(applies: list[Call], versions: dict[int, str]) -> Iterator[str]:
    for call in applies:
        if call.version is not None and versions.get(call.version) != call.mark:
            yield f"acknowledged_but_lost: {call.mark} as version {call.version}"
        if call.is_refused and call.mark in versions.values():
            yield f"refused_but_applied: {call.mark}"
        if (
            call.version is not None
            and call.expected_version is not None
            and call.version != call.expected_version + 1
        ):
            yield f"expectation_ignored: {call.mark}"


def _of_the_order(applies: list[Call]) -> Iterator[str]:
    done = [call for call in applies if call.version is not None and call.ended is not None]
    for first in done:
        for then in done:
            if first.ended < then.began and first.version >= then.version:  # type: ignore[operator]
                yield f"real_time_order: {first.mark} before {then.mark}"


def _of_the_jobs(syncs: list[Call], ending: Ending) -> Iterator[str]:
    accepted = [call for call in syncs if not call.is_refused]
    if len(ending.jobs) > len(accepted):
        yield f"job_doubled: {len(ending.jobs)} jobs of {len(accepted)} requests"
    for call in syncs:
        if call.job is not None and call.job not in ending.jobs:
            yield f"job_lost: {call.job} is not in Airbyte"
    for job in set(ending.jobs) ^ set(ending.recorded_jobs):
        yield f"job_lost: {job} is not in both"
