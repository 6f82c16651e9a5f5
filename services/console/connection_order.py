"""The order of a new connection: what the form of onboarding holds besides the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from services.console.forms import Form
from services.console.problems import ApiProblem

Schedule = Literal["manual", "every", "cron"]
UNITS: Final = ("minutes", "hours", "days", "weeks", "months")
CONFIGURATION_FIELD: Final = re.compile(r"[vbnjwx](?:/.*)?", re.DOTALL)
MAX_OFFERED: Final = 1_000
"""The most streams that a preview lists."""
_PLACES: Final = {
    "connection_name": "name",
    "credential_id": "credential",
    "credential": "credential",
    "destination": "destination",
    "destination_id": "destination",
    "streams": "streams",
    "schedule": "schedule",
    "prefix": "prefix",
}
"""The field of the form for a member of the order."""


@dataclass(slots=True)
class Order:
    """What a person filled in."""

    name: str = ""
    credential: str = ""
    destination: str = ""
    prefix: str = ""
    schedule: Schedule = "manual"
    units: str = "6"
    time_unit: str = "hours"
    cron: str = ""
    time_zone: str = "UTC"
    chosen: list[str] = field(default_factory=list)
    """The ticked streams; empty for those that Airbyte suggests."""
    offered: list[str] = field(default_factory=list)
    """The streams that a preview found; empty before one."""

    @classmethod
    def of(cls, form: Form) -> Order:
        """Read a submitted form."""
        schedule, unit = form.text("schedule"), form.text("time_unit")
        return cls(
            name=form.text("name"),
            credential=form.text("credential"),
            destination=form.text("destination"),
            prefix=form.text("prefix"),
            schedule=cast(Schedule, schedule) if schedule in ("every", "cron") else "manual",
            units=form.text("units"),
            time_unit=unit if unit in UNITS else "hours",
            cron=form.text("cron"),
            time_zone=form.text("time_zone") or "UTC",
            chosen=list(dict.fromkeys(form.all("stream"))),
            offered=list(dict.fromkeys(form.all("offered")))[:MAX_OFFERED],
        )

    def trial(self, source_type: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The body that tries the source out."""
        body: dict[str, Any] = {"source_type": source_type, "configuration": dict(configuration)}
        return body | ({"credential_id": self.credential} if self.credential else {})

    def onboarding(self, source_type: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The body that onboards the connection."""
        body = self.trial(source_type, configuration) | {"connection_name": self.name}
        if self.destination:
            body["destination"] = self.destination
        if self.prefix:
            body["prefix"] = self.prefix
        if self.chosen:
            body["streams"] = self.chosen
        if self.schedule == "every":
            units: Any = int(self.units) if re.fullmatch(r"\d{1,9}", self.units) else self.units
            body["schedule"] = {"units": units, "time_unit": self.time_unit}
        elif self.schedule == "cron":
            body["schedule"] = {"cron": self.cron, "time_zone": self.time_zone}
        return body


@dataclass(slots=True)
class Errors:
    """Sentences by field of the form, and by JSON path of the configuration."""

    places: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    """Those without a field."""

    def __bool__(self) -> bool:
        return bool(self.places or self.paths or self.others)


def configuration_fields(form: Form) -> dict[str, str]:
    """The fields of the configuration, with the line breaks that a person typed."""
    return {
        name: value.replace("\r\n", "\n")
        for name, value in form.starting_with("").items()
        if CONFIGURATION_FIELD.fullmatch(name)
    }


def errors_of(problem: ApiProblem) -> Errors:
    """Where the faults of a refused order belong, by `fields` or the code; empty if unknown."""
    errors = Errors()
    listed = problem.members.get("fields")
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict):
            continue
        message, place = str(one.get("message") or problem.sentence), str(one.get("field") or "")
        path = one.get("path")
        member = re.split(r"[.\[]", place.removeprefix("body."))[0]
        if place.startswith("credential") and isinstance(path, str):
            errors.places.setdefault("credential", f"{path} {message}")
        elif isinstance(path, str):
            errors.paths.setdefault(path, message)
        elif member in _PLACES:
            errors.places.setdefault(_PLACES[member], message)
        else:
            errors.others.append(message)
    if not errors and problem.code in _BY_CODE:
        errors.places[_BY_CODE[problem.code]] = problem.sentence
    return errors


_BY_CODE: Final = {
    "name_taken": "name",
    "unknown_destination": "destination",
    "ambiguous_destination": "destination",
    "destination_required": "destination",
    "workspace_mismatch": "destination",
    "credential_required": "credential",
    "credential_not_used": "credential",
    "credential_incomplete": "credential",
    "credential_invalid": "credential",
    "credential_not_found": "credential",
    "credential_used_up": "credential",
    "store_not_configured": "credential",
    "unknown_stream": "streams",
    "ambiguous_stream": "streams",
    "too_many_streams": "streams",
}
