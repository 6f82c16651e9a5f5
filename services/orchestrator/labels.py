"""Labels of connections, by which lists are filtered and API keys are limited."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import StringConstraints

MOST_LABELS: Final = 64

LabelName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$", max_length=63)
]
