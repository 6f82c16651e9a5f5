"""Points in time in requests."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator

_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", re.ASCII)


def _as_text(given: object) -> object:
    # Pydantic would take a number for seconds since 1970, which no description of ours offers.
    if isinstance(given, str) and _DATE_AND_TIME.match(given):
        return given
    raise ValueError("must be a date and time with an offset, such as 2026-11-30T08:00:00Z")


Timestamp = Annotated[AwareDatetime, BeforeValidator(_as_text)]
"""A date and time with an offset, as in RFC 3339; no number, unlike pydantic's own type."""
