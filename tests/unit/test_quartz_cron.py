"""Which cron expressions Airbyte takes."""

from __future__ import annotations

import pytest

from shared.domain import quartz_cron

TAKEN = [
    "0 0 6 * * ?",
    "0 0 6 ? * *",
    "0 0 9 ? * MON-FRI",
    "0 0 9 ? * mon-fri",
    "0 45 6 ? * MON,TUE,WED,THU,FRI *",
    "0 0/15 8-18/2 * * ? 2027-2030",
    "0 */5 * ? * *",
    "0 /5 * ? * *",
    "0 0,15,30-40,50/2 0 1,15,20 * ?",
    "0 0 22-2 * * ?",
    "0 0 0 ? * FRI-MON",
    "0 0 0 ? NOV-FEB 1",
    "0 0 0 L * ?",
    "0 0 0 LW * ?",
    "0 0 0 L-3 * ?",
    "0 0 0 15W * ?",
    "0 0 0 1W,15W * ?",
    "0 0 0 ? * L",
    "0 0 0 ? * 6L",
    "0 0 0 ? * FRIL",
    "0 0 0 ? * 6#3",
    "0 0 0 ? * FRI#5",
    "0  0   6 * * ?",
    " 0 0 6 * * ? ",
    "59 59 23 31 12 ? 2099",
    "0 0 0 29 2 ?",
    "0 0 0 29,31 2 ?",
    "5 * * * * ?",
]
REFUSED = {
    "0 0 * * *": "6 or 7 fields .* got 5.*lack the seconds",
    "* * * * *": "got 5",
    "@daily": "got 1",
    "": "got 0",
    "0 0 6 * * ? * US/Pacific": "got 8",
    "cron(0 4 * * * ?)": "second is invalid",
    "0 27 * * * ? US/Pacific": "year is invalid",
    "0 0 6 * * *": "must be `\\?`, and not both",
    "0 0 6 ? * ?": "must be `\\?`, and not both",
    "0 0 6 1 * MON": "must be `\\?`, and not both",
    "? 0 6 * * ?": "second is invalid",
    "0 ? 6 * * ?": "minute is invalid",
    "0 0 6 * ? ?": "month is invalid",
    "60 0 6 * * ?": "second is invalid: it must be 0-59",
    "0 60 6 * * ?": "minute is invalid: it must be 0-59",
    "0 0 24 * * ?": "hour is invalid: it must be 0-23",
    "0 0 0 0 * ?": "day of month is invalid: it must be 1-31",
    "0 0 0 32 * ?": "day of month is invalid",
    "0 0 0 32W * ?": "day of month is invalid",
    "0 0 0 L-31 * ?": "day of month is invalid",
    "0 0 0 L,1 * ?": "day of month is invalid",
    "0 0 0 1 0 ?": "month is invalid: it must be 1-12 or JAN-DEC",
    "0 0 0 1 13 ?": "month is invalid",
    "0 0 0 1 JANUARY ?": "month is invalid",
    "0 0 0 ? * 0": "day of week is invalid: it must be 1-7 or SUN-SAT",
    "0 0 0 ? * 8": "day of week is invalid",
    "0 0 0 ? * MON#6": "day of week is invalid",
    "0 0 0 ? * MON#1,TUE#2": "day of week is invalid",
    "0 0 0 ? * MO": "day of week is invalid",
    "0 0 0 1 * ? 1969": "year is invalid: it must be 1970-2099",
    "0 0 0 1 * ? 2100": "year is invalid",
    "0 0 0 1 * ? 2030-2027": "ends before it begins",
    "0 0/0 * * * ?": "step must be from 1 to 59",
    "0 0/60 * * * ?": "step must be from 1 to 59",
    "0 0 0/24 * * ?": "step must be from 1 to 23",
    "0 1- * * * ?": "minute is invalid",
    "0 -1 * * * ?": "minute is invalid",
    "0 1,,2 * * * ?": "minute is invalid",
    "0 1.5 * * * ?": "minute is invalid",
    "0 ٣ * * * ?": "minute is invalid",
    "* * * * * ?": "second must be one value",
    "*/30 * * * * ?": "second must be one value",
    "0,30 * * * * ?": "second must be one value",
    "0 0 0 30 2 ?": "would never run",
    "0 0 0 31 APR,JUN,9,NOV ?": "would never run",
}


@pytest.mark.parametrize("expression", TAKEN)
def test_valid_cron_expressions(expression: str) -> None:
    """In any case of letters, with any blanks between the fields."""
    quartz_cron.check(expression)


@pytest.mark.parametrize("expression", REFUSED)
def test_invalid_cron_expressions(expression: str) -> None:
    """With a sentence that names the field and its allowed values, and quotes nothing."""
    with pytest.raises(quartz_cron.InvalidCron, match=REFUSED[expression]):
        quartz_cron.check(expression)
