"""Keyset pagination: pages of rows as JSON text, newest first, with a cursor to the next."""

from __future__ import annotations

import base64
import functools
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text

from shared.domain.catalog import StreamId
from shared.errors import Invalid

Cursor = tuple[datetime, UUID]
Position = tuple[datetime, str]
"""A cursor of rows whose id is a text, ordered by its bytes."""


def stamp(column: str) -> str:
    """SQL that formats a time as RFC 3339 in UTC, with microseconds and a `Z`."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


@functools.cache
def page(table: str, item: str, conditions: str, *, at: str = "created_at") -> TextClause:
    """The SQL statement of a page: `{"items": […], "next": cursor or null}`.

    `table` has the alias `t` in `item`, which is SQL for one row as JSON, and in `conditions`. Rows
    are ordered by `at` and `id`. Its parameters are `limit` and those of the conditions.
    """
    newest = f"t.{at} DESC, t.id DESC"
    # nosemgrep: built-sql - all of it is ours, values are parameters
    return text(f"""
        WITH page AS (
            SELECT * FROM {table} t WHERE {conditions} ORDER BY {newest} LIMIT :limit + 1
        ), kept AS (
            SELECT * FROM page t ORDER BY {newest} LIMIT :limit
        )
        SELECT json_build_object(
            'items', coalesce((SELECT json_agg({item} ORDER BY {newest}) FROM kept t), '[]'),
            'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
                SELECT {next_position(f"t.{at}", "t.id")}
                FROM kept t ORDER BY t.{at}, t.id LIMIT 1) END
        )::text
    """)  # noqa: S608 - no input


def after_cursor(
    cursor: Cursor | None, at: str = "created_at"
) -> tuple[list[str], dict[str, object]]:
    """The SQL conditions and parameters of a page after a cursor."""
    if cursor is None:
        return [], {}
    return [f"(t.{at}, t.id) < (:after_at, :after_id)"], {
        "after_at": cursor[0],
        "after_id": cursor[1],
    }


def after_position(at: str, id_: str) -> str:
    """The SQL condition of a page after a position; `after_at` and `after_id` are its parameters.

    The first part alone is a range of an index on `at`; the second one is for equal times.
    """
    return f"({at} <= :after_at AND ({at} < :after_at OR {id_} < :after_id))"


def next_position(at: str, id_: str) -> str:
    """SQL for the cursor of a row; `read_cursor` or `read_position` decodes it."""
    return f"""translate(encode(convert_to(concat_ws(' ',
        to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), {id_}
    ), 'UTF8'), 'base64'), E'+/=\\n', '-_')"""


def cursor_of(at: datetime, id_: UUID) -> str:
    """The cursor of a row, as the SQL of `page` builds it."""
    position = f"{at:%Y-%m-%dT%H:%M:%S.%f} {id_}"
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> Cursor:
    """Decode the cursor in a page's `next`.

    Raises:
        Invalid: it is not a valid cursor.
    """
    at, id_ = read_position(cursor)
    try:
        return at, UUID(id_)
    except ValueError:
        raise _bad_cursor() from None


def read_position(cursor: str, *, parameter: str = "after") -> Position:
    """Decode a cursor of rows whose id is not a UUID; `parameter` is what the caller sent it as.

    Raises:
        Invalid: it is not a valid cursor.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, _, id_ = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        position = datetime.fromisoformat(at + "+00:00"), id_
    except ValueError:
        raise _bad_cursor(parameter) from None
    if not id_.isprintable():  # Postgres would reject it as a parameter
        raise _bad_cursor(parameter)
    return position


def stream_cursor(stream: StreamId) -> str:
    """The cursor of a list of streams, which is by namespace and name."""
    position = msgspec.json.encode([stream.namespace, stream.name])
    return base64.urlsafe_b64encode(position).decode().rstrip("=")


def read_stream_cursor(cursor: str) -> StreamId:
    """Decode the cursor of a list of streams.

    Raises:
        Invalid: it is not a valid cursor.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = base64.urlsafe_b64decode(padded.encode())
        namespace, name = msgspec.json.decode(position, type=tuple[str | None, str])
    except (ValueError, msgspec.MsgspecError):
        raise _bad_cursor() from None
    if "\0" in f"{namespace}{name}":  # Postgres would reject it as a parameter
        raise _bad_cursor()
    return StreamId(namespace, name)


def after_stream(stream: StreamId | None) -> dict[str, object]:
    """The SQL parameters of a page of streams after one, where a missing namespace is empty."""
    return {
        "after_name": None if stream is None else stream.name,
        "after_namespace": None if stream is None else stream.namespace or "",
    }


def like(part: str | None) -> str | None:
    """A pattern of LIKE for texts that contain `part`; None without one."""
    if part is None:
        return None
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _bad_cursor(parameter: str = "after") -> Invalid:
    return Invalid(f"`{parameter}` is not a cursor of this list.", code="invalid_cursor")
