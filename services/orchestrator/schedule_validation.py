"""Validation of a requested Airbyte schedule: rejects what Airbyte would reject."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from shared.airbyte_client import Schedule
from shared.domain import quartz_cron
from shared.domain.did_you_mean import did_you_mean
from shared.http.strict_json import variant

_UNSUPPORTED = re.compile(r"etc(/|$)", re.IGNORECASE)
"""IANA zones that Airbyte rejects (airbyte-platform, `ConnectionScheduleHelper`)."""


@cache
def _time_zones() -> tuple[str, ...]:
    """IANA zone names from the tzdata package, which are the same on every machine."""
    listed = resources.files("tzdata").joinpath("zones").read_text("utf-8").split()
    return tuple(name for name in listed if name != "Factory" and not _UNSUPPORTED.match(name))


def _cron(expression: str) -> str:
    try:
        quartz_cron.check(expression)
    except quartz_cron.InvalidCron as error:
        raise PydanticCustomError("aam_cron", "{why}", {"why": str(error)}) from None
    return expression


def _time_zone(name: str) -> str:
    if name in _time_zones():
        return name
    if _UNSUPPORTED.match(name):
        why = "Airbyte does not support the Etc/ zones; UTC is written `UTC`."
    else:
        nearest = did_you_mean(name, _time_zones())
        why = f"Input should be a time zone of the IANA database{nearest}"
    raise PydanticCustomError("aam_time_zone", "{why}", {"why": why})


class Every(BaseModel):
    """Airbyte starts syncs at a fixed interval."""

    model_config = ConfigDict(extra="forbid")

    units: int = Field(strict=True, ge=1, le=10_000)
    time_unit: Literal["minutes", "hours", "days", "weeks", "months"] = "hours"


class Cron(BaseModel):
    """Airbyte starts syncs at the times of a Quartz cron expression, such as `0 0 6 * * ?`."""

    model_config = ConfigDict(extra="forbid")

    cron: Annotated[str, AfterValidator(_cron)] = Field(
        max_length=200,
        description="6 or 7 fields: second, minute, hour, day of month, month, day of week, year. "
        "At most once a minute; the day of month or the day of week is `?`.",
    )
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", max_length=64, description="An IANA name, such as `Europe/Paris`."
    )


_CRON, _EVERY = variant("cron"), variant("every")


def _meant(given: Any) -> str | None:
    """Which of the two schedule types was given, by members that only one of them has."""
    if isinstance(given, BaseModel):
        return _CRON if isinstance(given, Cron) else _EVERY
    if not isinstance(given, dict):
        return None
    return _CRON if given.keys() & {"cron", "time_zone"} else _EVERY


AirbyteSchedule = Annotated[
    Annotated[Every, Tag(_EVERY)] | Annotated[Cron, Tag(_CRON)],
    Discriminator(
        _meant,
        custom_error_type="aam_schedule",
        custom_error_message="Input should be an object with `units` and `time_unit`, or with "
        "`cron` and `time_zone`",
    ),
]


def airbyte_schedule(given: Every | Cron | None) -> Schedule | None:
    """A requested schedule as the Airbyte client takes it; None for no schedule."""
    if given is None:
        return None
    if isinstance(given, Cron):
        return Schedule(cron=given.cron, time_zone=given.time_zone)
    return Schedule(units=given.units, time_unit=given.time_unit)
