"""How lists are asked for and answered: a page of items, and where the next one begins."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from shared import registry

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=500, description="Most items of the page")]
AfterText = Annotated[
    str | None, Query(alias="after", max_length=200, description="`next` of the page before")
]


def _cursor(after: AfterText = None) -> registry.Cursor | None:
    """Where the page begins; None for the newest.

    Raises:
        Invalid: it is no cursor of a list.
    """
    return registry.read_cursor(after) if after else None


After = Annotated[registry.Cursor | None, Depends(_cursor)]


class Page(BaseModel, Generic[Item]):
    """Items, newest first; `next` is `after` of the following page, and null on the last."""

    items: list[Item]
    next: str | None = None
