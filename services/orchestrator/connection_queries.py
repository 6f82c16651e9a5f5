"""Lists of connections: filters, orders and counts, with their health.

A word of health that depends on the clock is decided here, by indexed comparison: see
`shared.domain.health.TIMED`. Postgres builds the JSON of pages (docs/decisions/0075).
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.health import TIMED, Health
from shared.errors import Invalid
from shared.models import ConnectionStatus
from shared.registry import CONNECTION_FIELDS, like, read_cursor, stamp
from shared.registry.job_kinds import is_sync


class Sort(StrEnum):
    """The orders of the list."""

    CREATED_AT = "created_at"
    """Newest first."""
    NAME = "name"
    """By name, ignoring case."""
    HEALTH = "health"
    """The most urgent word first; among equals, what has waited longest."""


@dataclass(frozen=True, slots=True)
class ConnectionFilter:
    """Filter of a list of connections; None means any."""

    status: ConnectionStatus | None = None
    name: str | None = None
    """A part of the name, case-insensitive."""
    archived: bool = False
    workspace_id: UUID | None = None
    """The Airbyte workspace of its source."""
    health: Sequence[Health] = ()
    source_type: str | None = None
    labels: Sequence[tuple[str, str]] = ()
    """Names and values of labels; it has all of them."""
    credential_id: str | None = None
    destination_id: UUID | None = None
    upstream_code: str | None = None
    airbyte_connection_id: UUID | None = None
    anything: str | None = None
    """A part of the name, or one of the connection's ids."""


class Part(NamedTuple):
    """A condition of SQL and its parameters."""

    sql: str
    parameters: Mapping[str, object]


_TIMED: Final = ", ".join(f"'{word.value}'" for word in TIMED)
IS_OVERDUE: Final = f"(h.health IN ({_TIMED}) AND h.overdue_at <= now())"
IS_IN_TIME: Final = f"(h.health NOT IN ({_TIMED}) OR h.overdue_at IS NULL OR h.overdue_at > now())"
HEALTH: Final = f"CASE WHEN {IS_OVERDUE} THEN 'overdue' ELSE CAST(h.health AS text) END"

# `next_at` is in the distant past while an observation is requested: as in the schema_observer.
HEALTH_JSON: Final = f"""
    json_build_object(
        'health', {HEALTH},
        'code', CASE WHEN {IS_OVERDUE} THEN 'check_overdue' ELSE h.code END,
        'reason', CASE WHEN {IS_OVERDUE} THEN 'The observation of its source is overdue.'
            ELSE h.reason END,
        'since', CASE WHEN {IS_OVERDUE} THEN {stamp("h.overdue_at")} ELSE {stamp("h.since")} END,
        'severity', h.severity, 'repair_id', h.repair_id,
        'last_job_id', h.last_job_id, 'last_sync_status', h.last_sync_status,
        'last_sync_started_at', {stamp("h.last_sync_started_at")},
        'last_sync_ended_at', {stamp("h.last_sync_ended_at")}, 'failed_syncs', h.failed_syncs,
        'observed_at', {stamp("o.observed_at")},
        'next_observation_at', {stamp("greatest(o.next_at, o.observed_at)")}
    )
"""


def _conditions(shown: ConnectionFilter) -> list[Part]:
    """The conditions of a filter, apart from those on health."""
    is_archived = shown.archived or Health.ARCHIVED in shown.health
    parts = [Part(f"t.archived_at IS {'NOT ' if is_archived else ''}NULL", {})]
    for sql, name, value in (
        ("t.status = CAST(:status AS public.connection_status)", "status", shown.status),
        ("t.name ILIKE :name", "name", like(shown.name)),
        ("t.airbyte_workspace_id = :workspace", "workspace", shown.workspace_id),
        ("t.source_type = :source_type", "source_type", shown.source_type),
        ("t.credential_id = :credential", "credential", shown.credential_id),
        ("t.airbyte_destination_id = :destination", "destination", shown.destination_id),
        ("t.upstream_code = :upstream", "upstream", shown.upstream_code),
        ("t.airbyte_connection_id = :airbyte", "airbyte", shown.airbyte_connection_id),
    ):
        if value is not None:
            parts.append(Part(sql, {name: value}))
    for n, (name, value) in enumerate(shown.labels):
        label = msgspec.json.encode({name: value}).decode()
        parts.append(Part(f"t.labels @> CAST(:label_{n} AS jsonb)", {f"label_{n}": label}))
    if shown.anything is not None:
        parts.append(_anything(shown.anything))
    return parts


def _anything(sought: str) -> Part:
    try:
        return Part(
            "(t.id = :sought OR t.airbyte_connection_id = :sought OR t.airbyte_source_id = :sought"
            " OR t.airbyte_destination_id = :sought)",
            {"sought": UUID(sought.strip())},
        )
    except ValueError:
        return Part("t.name ILIKE :sought", {"sought": like(sought)})


def _of_health(words: Sequence[Health]) -> str:
    """The condition that a connection has one of these words; they are ours, so no parameters.

    As literals the planner can tell a rare word from a common one.
    """
    listed = ", ".join(f"'{word.value}'" for word in words)
    stored = f"(h.health IN ({listed}) AND {IS_IN_TIME})"
    return f"({stored} OR {IS_OVERDUE})" if Health.OVERDUE in words else stored


# Pages


async def page_of_connections(
    session: AsyncSession,
    shown: ConnectionFilter,
    *,
    limit: int,
    sort: Sort = Sort.CREATED_AT,
    after: str | None = None,
    with_health: bool = False,
    with_syncs: bool = False,
) -> str:
    """A page as JSON text: `{"items": […], "next": cursor or null}`.

    Raises:
        Invalid: `after` is no cursor of a list in this order.
    """
    parts = _conditions(shown)
    if shown.health:
        parts.append(Part(_of_health(shown.health), {}))
    parameters: dict[str, object] = {}
    for part in parts:
        parameters |= part.parameters
    if after is not None:
        parameters |= _read_cursor(sort, after)
    statement = _page(
        sort,
        " AND ".join(part.sql for part in parts),
        limit=limit,
        is_first=after is None,
        reads_health=bool(shown.health) or sort is Sort.HEALTH,
        with_health=with_health,
        with_syncs=with_syncs,
    )
    found: str = await session.scalar(statement, parameters)
    return found


class _Branch(NamedTuple):
    """Rows of a list in its order, as an index has them."""

    keys: str
    """What the rows are ordered by before their id, as `k1` and `k2`."""
    order: str
    after: str
    condition: str = "true"


class _Order(NamedTuple):
    """An order of the list, as SQL."""

    branches: tuple[_Branch, ...]
    merged: str
    """How the rows of all branches are ordered."""
    cursor: str
    """The text of a row's cursor."""


_AFTER_HEALTH: Final = (
    "(CAST(:after_word AS public.health_word), CAST(:after_at AS timestamptz),"
    " CAST(:after_id AS uuid))"
)
_MICROSECONDS: Final = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')"""
_ORDERS: Final = {
    Sort.CREATED_AT: _Order(
        (
            _Branch(
                "t.created_at AS k1, 0 AS k2",
                "t.created_at DESC, t.id DESC",
                "(t.created_at, t.id) < (:after_at, :after_id)",
            ),
        ),
        "t.k1 DESC, t.id DESC",
        f"concat_ws(' ', {_MICROSECONDS.format('t.k1')}, t.id)",
    ),
    Sort.NAME: _Order(
        (
            _Branch(
                "lower(t.name) AS k1, 0 AS k2",
                "lower(t.name), t.id",
                "(lower(t.name), t.id) > (:after_name, :after_id)",
            ),
        ),
        "t.k1, t.id",
        "concat_ws(' ', 'name', t.id, t.k1)",
    ),
    Sort.HEALTH: _Order(
        (
            _Branch(
                "h.health AS k1, h.since AS k2",
                "h.health, h.since, h.connection_id",
                f"(h.health, h.since, h.connection_id) > {_AFTER_HEALTH}",
                IS_IN_TIME,
            ),
            _Branch(
                "CAST('overdue' AS public.health_word) AS k1, h.overdue_at AS k2",
                "h.overdue_at, h.connection_id",
                "(CAST('overdue' AS public.health_word), h.overdue_at, h.connection_id)"
                f" > {_AFTER_HEALTH}",
                IS_OVERDUE,
            ),
        ),
        "t.k1, t.k2, t.id",
        f"concat_ws(' ', 'health', t.k1, {_MICROSECONDS.format('t.k2')}, t.id)",
    ),
}


@functools.lru_cache(maxsize=256)
def _page(
    sort: Sort,
    conditions: str,
    *,
    limit: int,
    is_first: bool,
    reads_health: bool,
    with_health: bool,
    with_syncs: bool,
) -> TextClause:
    """The statement of a page.

    The limit is a literal: without its value, Postgres would plan a prepared statement for a tenth
    of all rows, and read a whole table in order to find a rare word of health.
    """
    order = _ORDERS[sort]
    health = "JOIN connection_health h ON h.connection_id = t.id"
    branches = " UNION ALL ".join(
        # nosemgrep: built-sql - all of it is ours, values are parameters
        f"""(
            SELECT t.*, {branch.keys} FROM connections t {health if reads_health else ""}
            WHERE {conditions} AND {branch.condition} AND {"true" if is_first else branch.after}
            ORDER BY {branch.order} LIMIT {limit} + 1
        )"""  # noqa: S608 - no input
        for branch in order.branches
    )
    fields, joined = CONNECTION_FIELDS, ""
    if with_health:
        fields += f", 'health', CASE WHEN h.connection_id IS NOT NULL THEN {HEALTH_JSON} END"
        joined = f"""
            LEFT {health} LEFT JOIN observations o ON o.airbyte_source_id = t.airbyte_source_id
        """
    if with_syncs:
        fields += f", 'recent_syncs', {_RECENT_SYNCS}"
    # nosemgrep: built-sql - all of it is ours, values are parameters
    return text(f"""
        WITH found AS ({branches}), page AS (
            SELECT * FROM found t ORDER BY {order.merged} LIMIT {limit} + 1
        ), kept AS (
            SELECT * FROM page t ORDER BY {order.merged} LIMIT {limit}
        )
        SELECT json_build_object(
            'items', coalesce((
                SELECT json_agg(json_build_object({fields}) ORDER BY {order.merged})
                FROM kept t {joined}
            ), '[]'),
            'next', CASE WHEN (SELECT count(*) FROM page) > {limit} THEN (
                SELECT translate(encode(convert_to({order.cursor}, 'UTF8'), 'base64'),
                    E'+/=\\n', '-_')
                FROM (SELECT * FROM kept t ORDER BY {order.merged} OFFSET {limit} - 1) t
            ) END
        )::text
    """)  # noqa: S608 - no input


_RECENT_SYNCS: Final = f"""(
    SELECT coalesce(json_agg(json_build_object('status', j.status, 'records', j.records)), '[]')
    FROM (
        SELECT s.status, s.records FROM job_history s
        WHERE s.connection_id = t.id AND {is_sync("s")}
        ORDER BY s.started_at DESC LIMIT 12
    ) j
)"""  # noqa: S608 - no input


def _read_cursor(sort: Sort, after: str) -> dict[str, object]:
    """The parameters of a page after a cursor.

    Raises:
        Invalid: it is no cursor of a list in this order.
    """
    if sort is Sort.CREATED_AT:
        at, id_ = read_cursor(after)
        return {"after_at": at, "after_id": id_}
    try:
        padded = after + "=" * (-len(after) % 4)
        kind, _, position = base64.urlsafe_b64decode(padded.encode()).decode().partition(" ")
        read = _name_position if sort is Sort.NAME else _health_position
        found = read(position) if kind == sort else None
    except ValueError:
        found = None
    if found is None:
        raise Invalid("`after` is not a cursor of this list.", code="invalid_cursor")
    return found


def _name_position(position: str) -> dict[str, object] | None:
    id_, _, name = position.partition(" ")
    if "\x00" in name:  # Postgres would reject it as a parameter
        return None
    return {"after_name": name, "after_id": UUID(id_)}


def _health_position(position: str) -> dict[str, object]:
    word, at, id_ = position.split(" ")
    return {
        "after_word": Health(word).value,
        "after_at": datetime.fromisoformat(at + "+00:00"),
        "after_id": UUID(id_),
    }


# Counts

MOST_COUNTED: Final = 100
"""How many source types and destinations are listed, the most frequent first."""


async def summary_of_connections(session: AsyncSession, shown: ConnectionFilter) -> str:
    """How many connections a filter shows, in total and by what they have, as JSON text."""
    parts = _conditions(shown)
    if shown.health:
        parts.append(Part(_of_health(shown.health), {}))
    parameters: dict[str, object] = {"most": MOST_COUNTED}
    for part in parts:
        parameters |= part.parameters
    statement = _summary(" AND ".join(part.sql for part in parts))
    found: str = await session.scalar(statement, parameters)
    return found


@functools.lru_cache(maxsize=256)
def _summary(conditions: str) -> TextClause:
    words = ", ".join(
        f"'{word.value}', coalesce((SELECT n FROM counted WHERE word = '{word.value}'), 0)"  # noqa: S608 - no input
        for word in Health
    )
    # nosemgrep: built-sql - all of it is ours, values are parameters
    return text(f"""
        WITH combined AS MATERIALIZED (
            SELECT CASE WHEN {IS_OVERDUE} THEN 'overdue' ELSE h.health END AS word, t.source_type,
                t.airbyte_destination_id AS destination, t.status,
                t.archived_at IS NOT NULL AS is_archived, count(*) AS n
            FROM connections t LEFT JOIN connection_health h ON h.connection_id = t.id
            WHERE {conditions} GROUP BY 1, 2, 3, 4, 5
        ), counted AS MATERIALIZED (
            SELECT word, source_type, destination, status, CAST(sum(n) AS bigint) AS n,
                grouping(word, source_type, destination, status) AS absent
            FROM (
                SELECT word, source_type, destination, n,
                    CASE WHEN is_archived THEN 'ARCHIVED' ELSE CAST(status AS text) END AS status
                FROM combined
            ) shown GROUP BY GROUPING SETS ((), (word), (source_type), (destination), (status))
        )
        SELECT json_build_object(
            'total', coalesce((SELECT n FROM counted WHERE absent = 15), 0),
            'health', json_build_object({words}),
            'statuses', coalesce((
                SELECT json_object_agg(status, n ORDER BY status) FROM counted WHERE absent = 14
            ), '{{}}'),
            'source_types', coalesce((
                SELECT json_agg(json_build_object('source_type', source_type, 'count', n)
                    ORDER BY n DESC, source_type)
                FROM (
                    SELECT * FROM counted WHERE absent = 11 ORDER BY n DESC, source_type LIMIT :most
                ) most
            ), '[]'),
            'destinations', coalesce((
                SELECT json_agg(json_build_object('destination_id', destination, 'count', n)
                    ORDER BY n DESC, destination)
                FROM (
                    SELECT * FROM counted WHERE absent = 13 ORDER BY n DESC, destination LIMIT :most
                ) most
            ), '[]')
        )::text
    """)  # noqa: S608 - no input
