"""Pagination of lists: query parameters, and a page with a cursor to the next one."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from shared import registry
from shared.domain.catalog import StreamId

Item = TypeVar("Item")
_NO_NUL = r"^[^\x00]*$"

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


def _stream_cursor(
    position: Annotated[
        str | None,
        Query(alias="after", max_length=8192, description="`next` of the previous page"),
    ] = None,
) -> StreamId | None:
    """The stream after which the page starts; None for the first page.

    Raises:
        Invalid: `after` is not a valid cursor.
    """
    return registry.read_stream_cursor(position) if position else None


AfterStream = Annotated[StreamId | None, Depends(_stream_cursor)]
Search = Annotated[
    str | None,
    Query(max_length=200, pattern=_NO_NUL, description="Part of the name, in any case"),
]


class Page(BaseModel, Generic[Item]):
    """Items, newest first; pass `next` as `after` for the following page; null on the last page."""

    items: list[Item]
    next: str | None = None
