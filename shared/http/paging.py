"""Pagination of lists: query parameters, and a page with a cursor to the next one."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from shared import registry

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=500, description="Maximum number of items")]
AfterText = Annotated[
    str | None, Query(alias="after", max_length=200, description="`next` of the previous page")
]


def _cursor(after: AfterText = None) -> registry.Cursor | None:
    """The position after which the page starts; None for the first page.

    Raises:
        Invalid: `after` is not a valid cursor.
    """
    return registry.read_cursor(after) if after else None


After = Annotated[registry.Cursor | None, Depends(_cursor)]


class Page(BaseModel, Generic[Item]):
    """Items, newest first; pass `next` as `after` for the following page; null on the last page."""

    items: list[Item]
    next: str | None = None
