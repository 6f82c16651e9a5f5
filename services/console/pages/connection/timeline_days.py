"""The timeline by days: syncs in a row are folded, and quiet days become one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, timedelta, tzinfo
from itertools import groupby

from services.console.pages.connection.events import Event
from services.console.pages.connection.words import counted
from services.console.text import moment

_ONE_DAY = timedelta(days=1)


@dataclass(slots=True)
class Day:
    """A day in the shown zone, with its events, newest first."""

    on: date
    label: str
    events: list[Event] = field(default_factory=list)


def by_day(events: Sequence[Event], *, today: date, folds: bool, zone: tzinfo = UTC) -> list[Day]:
    """The days of a page of the timeline, newest first.

    `folds` is for the whole history: of a filtered one, a day without events says nothing.
    """
    days = [
        Day(on, _label(on, today), list(of_day))
        for on, of_day in groupby(
            events, key=lambda event: moment(event.at).astimezone(zone).date()
        )
    ]
    if not folds:
        return days
    return _folded(days)


def _folded(days: Sequence[Day]) -> list[Day]:
    shown: list[Day] = []
    run: list[Day] = []
    for day in days:
        is_quiet = all(_is_sync(event) for event in day.events)
        if is_quiet and shown:
            run.append(day)
            continue
        _close(shown, run, before=day)
        run = []
        shown.append(replace(day, events=list(_fold_syncs(day.events))))
    _close(shown, run, before=None)
    return shown


def _close(shown: list[Day], run: Sequence[Day], *, before: Day | None) -> None:
    """Add the quiet days between the last shown day and the next one, `before`."""
    if not shown:
        return
    newest = shown[-1].on - _ONE_DAY
    if before is not None:
        oldest = before.on + _ONE_DAY
    elif run:
        oldest = run[-1].on
    else:
        return
    days = (newest - oldest).days + 1
    syncs = [event for day in run for event in day.events]
    if days >= 2:
        shown[-1].events.append(_gap(newest, oldest, days, syncs, shown[-1]))
    else:
        shown += [replace(day, events=list(_fold_syncs(day.events))) for day in run]


def _gap(newest: date, oldest: date, days: int, syncs: Sequence[Event], day: Day) -> Event:
    facts = [f"{counted(len(syncs), 'sync')} succeeded."] if syncs else []
    until = _short(newest)
    since = str(oldest.day) if oldest.month == newest.month else _short(oldest)
    return Event(
        id=f"quiet:{oldest.isoformat()}",
        at=day.events[-1].at,
        icon="clock",
        title=f"{days} quiet days",
        facts=facts,
        is_gap=True,
        days=f"{since}\u2013{until}",
        folded=tuple(syncs),
    )


def _fold_syncs(events: Sequence[Event]) -> Iterator[Event]:
    """Replace two or more succeeded syncs in a row by one event."""
    for is_sync, group in groupby(events, key=_is_sync):
        run = list(group)
        if not is_sync or len(run) < 2:
            yield from run
            continue
        newest, oldest = run[0], run[-1]
        last = f"The last one: {newest.facts[0]}" if newest.facts else ""
        yield Event(
            id=newest.id,
            at=newest.at,
            icon="sync",
            title=f"{len(run)} syncs succeeded",
            tone="good",
            facts=[last] if last else [],
            since=oldest.at,
            folded=tuple(run),
        )


def _is_sync(event: Event) -> bool:
    return event.title == "Sync succeeded"


def _label(on: date, today: date) -> str:
    words = f"{on:%A} {on.day} {on:%B}" + (f" {on.year}" if on.year != today.year else "")
    if on == today:
        return f"Today, {words}"
    return f"Yesterday, {words}" if on == today - _ONE_DAY else words


def _short(on: date) -> str:
    return f"{on.day} {on:%b}"
