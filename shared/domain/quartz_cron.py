"""Validates Quartz cron expressions by Airbyte's rules, before they are sent to Airbyte.

Airbyte parses an expression twice, with Quartz's `CronExpression` and with cron-utils' QUARTZ
definition, and refuses one that would run more than once a minute (airbyte-platform,
`ConnectionScheduleHelper` and `CronExpressionHelper`). An expression that only one of the two
refuses is left for Airbyte to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class InvalidCron(ValueError):
    """An expression is invalid; the message is one sentence that does not quote it."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    step: int
    """The largest step that Quartz accepts."""
    names: Mapping[str, int]
    special: re.Pattern[str] | None = None
    """Values for days that depend on the month; only as the whole field."""
    wraps: bool = True
    """Whether a range may wrap around, such as FRI-MON."""

    def values(self, text: str) -> frozenset[int] | None:
        """The values that match; None if they depend on the month.

        Raises:
            InvalidCron: the text is not a valid value of this field.
        """
        if self.special is not None and self.special.fullmatch(text):
            return None
        found: set[int] = set()
        depends_on_month = False
        for part in text.split(","):
            if self.name == "day of month" and (day := re.fullmatch(r"([0-9]{1,2})W", part)):
                self._number(day[1])
                depends_on_month = True
            else:
                found.update(self._part(part))
        return None if depends_on_month else frozenset(found)

    def _part(self, part: str) -> range | set[int]:
        given = _PART.fullmatch(part)
        if given is None:
            raise InvalidCron(f"The {self.name} is invalid: {self._allowed()}")
        step = self._step(given["step"])
        if given["first"] in ("*", ""):
            if not part or given["last"]:
                raise InvalidCron(f"The {self.name} is invalid: {self._allowed()}")
            return range(self.low, self.high + 1, step)
        first = self._number(given["first"])
        if given["last"] is None:
            return {first} if given["step"] is None else range(first, self.high + 1, step)
        last = self._number(given["last"])
        if last >= first:
            return range(first, last + 1, step)
        if not self.wraps:
            raise InvalidCron(f"The {self.name}'s range ends before it begins.")
        size = self.high - self.low + 1
        return {(n - self.low) % size + self.low for n in range(first, last + size + 1, step)}

    def _number(self, text: str) -> int:
        if text in self.names:
            return self.names[text]
        if not text.isdecimal() or not self.low <= int(text) <= self.high:
            raise InvalidCron(f"The {self.name} is invalid: {self._allowed()}")
        return int(text)

    def _step(self, text: str | None) -> int:
        if text is None:
            return 1
        step = int(text)
        if not 1 <= step <= self.step:
            raise InvalidCron(f"The {self.name}'s step must be from 1 to {self.step}.")
        return step

    def _allowed(self) -> str:
        words = ""
        if self.names:
            first, *_, last = self.names
            words = f" or {first}-{last}"
        return f"it must be {self.low}-{self.high}{words}, or a list, range or step of these."


_PART = re.compile(
    r"(?P<first>\*|[0-9]{1,4}|[A-Z]{3}|)(?:-(?P<last>[0-9]{1,4}|[A-Z]{3}))?(?:/(?P<step>[0-9]{1,4}))?"
)
_SECOND = _Field("second", 0, 59, 59, {})
_MINUTE = _Field("minute", 0, 59, 59, {})
_HOUR = _Field("hour", 0, 23, 23, {})
_DAY_OF_MONTH = _Field("day of month", 1, 31, 31, {}, re.compile(r"\?|L|LW|L-([12]?[0-9]|30)W?"))
_MONTH = _Field("month", 1, 12, 12, {name: at for at, name in enumerate(_MONTHS, 1)})
_DAY_OF_WEEK = _Field(
    "day of week",
    1,
    7,
    7,
    {name: at for at, name in enumerate(_DAYS, 1)},
    re.compile(rf"\?|L|([1-7]|{'|'.join(_DAYS)})(L|#[1-5])"),
)
_YEAR = _Field("year", 1970, 2099, 130, {}, wraps=False)
_FIELDS = (_SECOND, _MINUTE, _HOUR, _DAY_OF_MONTH, _MONTH, _DAY_OF_WEEK, _YEAR)


def check(expression: str) -> None:
    """Check that Airbyte accepts an expression as a schedule.

    Raises:
        InvalidCron: it does not.
    """
    given = expression.upper().split()
    if len(given) not in (6, 7):
        hint = (
            "The five fields of a crontab expression lack the seconds, which come first."
            if len(given) == 5
            else ""
        )
        raise InvalidCron(
            "A Quartz expression has 6 or 7 fields (second, minute, hour, day of month, month, day "
            f"of week, year), got {len(given)}.{hint}"
        )
    values = [field.values(text) for field, text in zip(_FIELDS, given, strict=False)]
    _, _, _, day, _, weekday = given[:6]
    if (day == "?") is (weekday == "?"):
        raise InvalidCron("Either the day of month or the day of week must be `?`, and not both.")
    seconds, days, months = values[0], values[3], values[4]
    if seconds is not None and len(seconds) > 1:
        raise InvalidCron(
            "The second must be one value, as in `0 0 6 * * ?`: Airbyte runs a schedule at most "
            "once a minute."
        )
    if days and months and min(days) > max(_LONGEST_MONTHS[month - 1] for month in months):
        raise InvalidCron("No month of the expression has such a day: it would never run.")
