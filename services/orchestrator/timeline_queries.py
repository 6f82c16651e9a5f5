"""The query for a connection's timeline: one page of what several tables record, newest first.

Each table contributes its newest rows before the cursor in the order of an index, at most a page
of them. So a page costs the same however long the history is.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.timeline_schemas import Kind
from shared.registry import Position, after_position, next_position, stamp
from shared.registry.renames import rename_count_of_drift, renames_of_drift

_LARGEST_CHANGE_CHARS: Final = 2000
_MOST_DECISIONS: Final = 20
_COLUMNS: Final[Mapping[str, str]] = {
    "outcome": "text",
    "actor": "text",
    "requested_by": "text",
    "reason": "text",
    "code": "text",
    "severity": "text",
    "repair_id": "uuid",
    "drift_id": "uuid",
    "version": "int",
    "job_id": "uuid",
    "operation_id": "uuid",
    "snapshot_id": "uuid",
    "details": "json",
}
"""The members of an entry besides its id, time and kind, with their types."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A table whose rows are entries; `t` is its row in all SQL."""

    prefix: str
    """What the id of an entry starts with; unique among the sources."""
    kinds: frozenset[Kind]
    table: str
    at: str
    """The column of the entry's time; an index has the connection and it, in this order."""
    members: Mapping[str, str]
    where: str = "true"
    kind: str | None = None
    """The kind in SQL, where rows are of several."""
    connection: str = "connection_id"


_OUTCOME_OF_REPAIR: Final = """json_build_object(
    'kind', t.kind, 'state', t.state, 'target_version', t.target_version,
    'restored_version', t.restored_version, 'superseded_by', t.superseded_by,
    'parent_id', t.parent_id, 'change_count', t.summary->'change_count',
    'changes_by_kind', t.summary->'by_kind', 'first_changes', t.summary->'first_changes'"""
_REPAIR: Final[Mapping[str, str]] = {
    "repair_id": "t.id",
    "drift_id": "t.drift_id",
    "severity": "(SELECT d.severity FROM drifts d WHERE d.id = t.drift_id)",
}
_IS_COPY: Final = "one ?| ARRAY['repair_id', 'carried_from']"
"""Whether a decision was made about another repair, or was split off with its changes."""
_DECISIONS: Final = f"""(
    SELECT coalesce(json_agg(json_build_object(
        'verdict', one->>'verdict', 'by', one->>'by', 'requested_by', one->>'requested_by',
        'at', one->>'at', 'reason', one->>'reason',
        'change_count', (
            SELECT count(*) FROM jsonb_array_elements(one->'changes') changes (decided)
            WHERE NOT t.summary->'renames' @> jsonb_build_array(
                jsonb_build_object('pair', decided)
            )
        ), 'is_copy', {_IS_COPY}
    ) ORDER BY n), '[]')
    FROM (
        SELECT one, n FROM jsonb_array_elements(t.decisions) WITH ORDINALITY listed (one, n)
        ORDER BY n DESC LIMIT {_MOST_DECISIONS}
    ) newest
)"""  # noqa: S608 - no input


def _newest_decision(member: str, condition: str) -> str:
    """SQL for a member of a repair's newest decision, `one`, that meets a condition."""
    return f"""(
        SELECT one->>'{member}'
        FROM jsonb_array_elements(t.decisions) WITH ORDINALITY listed (one, n)
        WHERE {condition} ORDER BY n DESC LIMIT 1
    )"""  # noqa: S608 - no input


def _decided(member: str) -> str:
    """SQL for a member of the decision that a repair's `decided_at` is the time of."""
    return _newest_decision(member, f"NOT ({_IS_COPY})")


def _applied(member: str) -> str:
    """SQL for a member of the decision that an applied repair carries out; null of others.

    That may be a former repair's, which was carried over. AAM itself ends repairs otherwise.
    """
    decision = _newest_decision(member, "NOT one ? 'repair_id'")
    return f"CASE WHEN t.state = 'applied' THEN {decision} END"


def _of_operation(member: str) -> str:
    """SQL for a member of the operation that an event is about, as long as it is stored."""
    return f"""CASE WHEN t.type IN ('credential.rotated', 'connector.upgraded')
        THEN (SELECT {member} FROM operations o WHERE o.id = t.ref) END"""  # noqa: S608 - no input


def _archived_by(member: str) -> str:
    """SQL for a member of the operation that archived a connection, as long as it is stored.

    The range of its start limits how many operations are read.
    """
    return f"""(
        SELECT {member} FROM operations o
        WHERE o.connection_id = t.id AND o.kind = 'archive' AND o.status = 'done'
            AND o.created_at BETWEEN t.archived_at - interval '1 day' AND t.archived_at
        ORDER BY o.created_at DESC LIMIT 1
    )"""  # noqa: S608 - no input


_SOURCES: Final = (
    _Source(
        "sync",
        frozenset({Kind.SYNC}),
        "job_history",
        "started_at",
        {
            "outcome": "t.status",
            "actor": "CASE t.started_by WHEN 'airbyte' THEN 'airbyte' ELSE t.requested_by END",
            "requested_by": "t.requested_by",
            "code": "t.failure_code",
            "version": "t.catalog_version",
            "job_id": "t.id",
            "details": f"""json_build_object(
                'airbyte_job_id', t.airbyte_job_id, 'records', t.records, 'bytes', t.bytes,
                'attempts', t.attempts, 'cause', t.failure_cause, 'follow_up', t.follow_up,
                'ended_at', {stamp("t.ended_at")}
            )""",
        },
    ),
    _Source(
        "drift",
        frozenset({Kind.DRIFT}),
        "drifts",
        "first_seen_at",
        {
            "severity": "t.severity",
            "drift_id": "t.id",
            "snapshot_id": "t.after_snapshot_id",
            "details": f"""json_build_object(
                'affects_sync', t.affects_sync, 'connector_step', t.connector_step,
                'change_count', CAST(t.summary->>'change_count' AS int)
                    - {rename_count_of_drift("t")},
                'changes_by_kind', t.summary->'by_kind',
                'first_changes', t.summary->'first_changes',
                'renames', {renames_of_drift("t")}
            )""",
        },
    ),
    _Source(
        "proposed",
        frozenset({Kind.REPAIR_PROPOSED}),
        "repairs",
        "created_at",
        {
            **_REPAIR,
            "outcome": "t.state",
            "details": f"{_OUTCOME_OF_REPAIR}, 'expires_at', {stamp('t.expires_at')})",
        },
        where="t.expires_at IS NOT NULL",
    ),
    _Source(
        "decided",
        frozenset({Kind.REPAIR_DECIDED}),
        "repairs",
        "decided_at",
        {
            **_REPAIR,
            "actor": _decided("by"),
            "requested_by": _decided("requested_by"),
            "reason": _decided("reason"),
            "outcome": _decided("verdict"),
            "details": f"{_OUTCOME_OF_REPAIR}, 'decisions', {_DECISIONS})",
        },
        where="t.decided_at IS NOT NULL",
    ),
    _Source(
        "ended",
        frozenset({Kind.REPAIR_ENDED}),
        "repairs",
        "ended_at",
        {
            **_REPAIR,
            "actor": _applied("by"),
            "requested_by": _applied("requested_by"),
            "reason": _applied("reason"),
            "outcome": "t.state",
            "code": "t.failure_code",
            "version": "t.version_number",
            "job_id": "t.job_id",
            "operation_id": "t.operation_id",
            "details": f"{_OUTCOME_OF_REPAIR})",
        },
        where="t.ended_at IS NOT NULL AND t.state <> 'rejected'",
    ),
    _Source(
        "version",
        frozenset({Kind.VERSION}),
        "sync_catalog_versions",
        "created_at",
        {
            "outcome": "t.origin",
            "actor": "coalesce(t.decided_by, t.requested_by)",
            "requested_by": "t.requested_by",
            "repair_id": "t.repair_id",
            "version": "t.version_number",
            "snapshot_id": "t.snapshot_id",
            "details": """json_build_object(
                'streams', t.stream_count, 'policy_set_by', t.policy_set_by
            )""",
        },
    ),
    _Source(
        "setting",
        frozenset({Kind.PAUSE, Kind.CREDENTIAL, Kind.SETTING}),
        "setting_changes",
        "at",
        {
            "outcome": """CASE
                WHEN t.subject <> 'connection' THEN 'changed'
                WHEN t.change->'paused'->'to' = 'true' THEN 'paused'
                WHEN t.change ? 'paused' THEN 'resumed'
                WHEN t.change ? 'credential_id' THEN 'replaced' ELSE 'changed'
            END""",
            "actor": "t.changed_by",
            "requested_by": "t.requested_by",
            "details": f"""json_build_object(
                'subject', t.subject,
                'settings', (SELECT json_agg(name ORDER BY name) FROM jsonb_object_keys(t.change)
                    name),
                'change', CASE WHEN length(t.change::text) <= {_LARGEST_CHANGE_CHARS}
                    THEN t.change END
            )""",  # noqa: S608 - no input
        },
        where="t.subject IN ('connection', 'policy', 'observation')",
        kind="""CASE
            WHEN t.subject <> 'connection' THEN 'setting'
            WHEN t.change ? 'paused' THEN 'pause'
            WHEN t.change ? 'credential_id' THEN 'credential' ELSE 'setting'
        END""",
        connection="subject_id",
    ),
    _Source(
        "event",
        frozenset(
            {
                *(Kind.PAUSE, Kind.CREDENTIAL, Kind.CONNECTOR),
                *(Kind.OBSERVATION, Kind.UPSTREAM, Kind.VOLUME),
            }
        ),
        "timeline_events",
        "at",
        {
            "outcome": "split_part(t.type, '.', 2)",
            "actor": _of_operation("coalesce(o.request->>'by', o.requested_by)"),
            "requested_by": _of_operation("o.requested_by"),
            "reason": _of_operation("o.request->>'reason'"),
            "code": "t.code",
            "repair_id": "CASE WHEN t.type IN ('connection.paused', 'connection.resumed')"
            " THEN t.ref END",
            "drift_id": "CASE t.type WHEN 'connector.changed' THEN t.ref END",
            "job_id": "CASE t.type WHEN 'sync.volume_suspicious' THEN t.ref END",
            "operation_id": "CASE WHEN t.type IN ('credential.rotated', 'connector.upgraded',"
            " 'connection.drifted_upstream', 'connection.in_step') THEN t.ref END",
            "snapshot_id": "CASE WHEN t.type LIKE 'observation.%' THEN t.ref END",
            "details": "json_build_object('event', t.type)",
        },
        kind="""CASE
            WHEN t.type IN ('connection.paused', 'connection.resumed') THEN 'pause'
            WHEN t.type LIKE 'connection.%' THEN 'upstream'
            WHEN t.type = 'sync.volume_suspicious' THEN 'volume'
            ELSE split_part(t.type, '.', 1)
        END""",
    ),
    _Source(
        "operation",
        frozenset({Kind.OPERATION}),
        "operations",
        "created_at",
        {
            "outcome": "t.status",
            "actor": "coalesce(t.request->>'by', t.requested_by)",
            "requested_by": "t.requested_by",
            "code": "coalesce(t.failure->>'code', t.waits_for)",
            "operation_id": "t.id",
            "details": f"""json_build_object(
                'kind', t.kind, 'step', t.step, 'ended_at', {stamp("t.ended_at")}
            )""",
        },
        where="t.status <> 'done'",
    ),
    _Source(
        "archived",
        frozenset({Kind.ARCHIVED}),
        "connections",
        "archived_at",
        {
            "actor": _archived_by("o.requested_by"),
            "requested_by": _archived_by("o.requested_by"),
            "operation_id": _archived_by("o.id"),
            "details": "json_build_object('imported', t.imported)",
        },
        where="t.archived_at IS NOT NULL",
        connection="id",
    ),
)


async def timeline_json(
    session: AsyncSession,
    connection_id: UUID,
    *,
    kinds: Collection[Kind],
    before: Position | None,
    limit: int,
) -> str:
    """A page of a connection's timeline as JSON text: `{"items": […], "next": cursor or null}`.

    Only of these kinds; of all if there are none. `before` is the position that the previous
    page's `next` is for.
    """
    wanted = frozenset(kinds) or frozenset(Kind)
    parameters: dict[str, object] = {"id": connection_id, "limit": limit}
    if before is not None:
        parameters |= {"after_at": before[0], "after_id": before[1]}
    if any(_is_filtered(source, wanted) for source in _SOURCES):
        parameters["kinds"] = sorted(wanted)
    found: str = (
        await session.execute(statement(wanted, is_first=before is None), parameters)
    ).scalar_one()
    return found


@functools.lru_cache(maxsize=256)
def statement(kinds: frozenset[Kind], *, is_first: bool) -> TextClause:
    """The SQL of a page with these kinds; the first page has no position to start from."""
    rows = " UNION ALL ".join(
        f"({_rows(source, kinds, is_first=is_first)})"
        for source in _SOURCES
        if source.kinds & kinds
    )
    members = ", ".join(f"'{name}', p.{name}" for name in _COLUMNS)
    newest = 'p.at DESC, p.id COLLATE "C" DESC'
    # nosemgrep: built-sql - all of it is ours, values are parameters
    return text(f"""
        WITH page AS (
            SELECT * FROM ({rows}) p ORDER BY {newest} LIMIT :limit + 1
        ), kept AS (
            SELECT * FROM page p ORDER BY {newest} LIMIT :limit
        )
        SELECT json_build_object(
            'items', coalesce((
                SELECT json_agg(json_build_object(
                    'id', p.id, 'at', {stamp("p.at")}, 'kind', p.kind, {members}
                ) ORDER BY {newest})
                FROM kept p
            ), '[]'),
            'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
                SELECT {next_position("p.at", "p.id")}
                FROM kept p ORDER BY p.at, p.id COLLATE "C" LIMIT 1) END
        )::text
    """)  # noqa: S608 - no input


def _rows(source: _Source, kinds: frozenset[Kind], *, is_first: bool) -> str:
    """The SQL of a source's newest entries, at most one more than a page."""
    at = f"t.{source.at}"
    id_ = f"""('{source.prefix}:' || t.id::text) COLLATE "C\""""
    conditions = [f"t.{source.connection} = :id", source.where]
    if not is_first:
        conditions.append(after_position(at, id_))
    (only,) = source.kinds if source.kind is None else (None,)
    kind = source.kind or f"'{only}'"
    if _is_filtered(source, kinds):
        conditions.append(f"{kind} = ANY(CAST(:kinds AS text[]))")
    members = ", ".join(
        f"CAST({source.members.get(name, 'NULL')} AS {type_}) AS {name}"
        for name, type_ in _COLUMNS.items()
    )
    # Postgres computes expensive members after the LIMIT, so only for the page's rows.
    return f"""
        SELECT {at} AS at, {id_} AS id, {kind} AS kind, {members}
        FROM {source.table} t WHERE {" AND ".join(conditions)}
        ORDER BY at DESC, id DESC LIMIT :limit + 1
    """  # noqa: S608 - no input


def _is_filtered(source: _Source, kinds: frozenset[Kind]) -> bool:
    """Whether the source has rows of a kind that is not wanted, beside some that are."""
    return bool(source.kinds & kinds) and not source.kinds <= kinds
