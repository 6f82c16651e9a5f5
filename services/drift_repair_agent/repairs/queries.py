"""Queries for the policies, plans and repairs of connections."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import TextClause, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.domain.drift import Severity
from shared.errors import NotFound
from shared.models import Connection, Drift, Plan, Repair, RepairState
from shared.registry.paging import next_position, stamp
from shared.registry.setting_changes import SAME

UNDER_WAY = (
    RepairState.APPROVED,
    RepairState.APPLYING,
    RepairState.VERIFYING,
    RepairState.ROLLING_BACK,
)
OPEN_STATES = (RepairState.PROPOSED, *UNDER_WAY)
_REFUSALS_READ = 200


async def newest_drift(session: AsyncSession, connection_id: UUID) -> Drift | None:
    """The newest drift of a connection."""
    return await session.scalar(
        select(Drift)
        .where(Drift.connection_id == connection_id)
        .order_by(Drift.first_seen_at.desc())
        .limit(1)
    )


async def connector_steps(
    session: AsyncSession, connection_id: UUID, *, since: datetime
) -> Sequence[str]:
    """The changes of the connector that came with drifts of snapshots after `since`, as JSON text.

    Oldest first; of more than twenty, the newest ones.
    """
    rows = await session.scalars(_STEPS, {"id": connection_id, "since": since, "limit": 20})
    return rows.all()[::-1]


_STEPS = text("""
    SELECT CAST(d.connector_step AS text) FROM drifts d
    JOIN snapshots a ON a.id = d.after_snapshot_id
    WHERE d.connection_id = :id AND d.connector_step IS NOT NULL AND a.taken_at > :since
    ORDER BY d.first_seen_at DESC LIMIT :limit
""")


async def find_plan(session: AsyncSession, connection_id: UUID) -> Plan | None:
    """A connection's last plan; None if it was never planned for."""
    return await session.get(Plan, connection_id)


async def was_column_refused(
    session: AsyncSession, codes: Collection[str], *, within: timedelta
) -> bool:
    """Whether a repair that kept a renamed field's column failed with one of the codes lately."""
    return bool(await session.scalar(_COLUMN_REFUSED, {"codes": list(codes), "within": within}))


_COLUMN_REFUSED = text("""
    SELECT EXISTS (
        SELECT FROM repairs
        WHERE ended_at > now() - CAST(:within AS interval)
            AND failure_code = ANY(CAST(:codes AS text[]))
            AND changes @> '[{"decision": {"continuity": "keep_column"}}]'
    )
""")


async def save_plan(
    session: AsyncSession, connection_id: UUID, snapshot_id: UUID, *, base_version: int
) -> None:
    """Record that a connection was planned against a snapshot."""
    written = {"snapshot_id": snapshot_id, "base_version": base_version, "planned_at": func.now()}
    await session.execute(
        insert(Plan)
        .values(connection_id=connection_id, **written)
        .on_conflict_do_update(index_elements=[Plan.connection_id], set_=written)
    )


async def forget_plan(session: AsyncSession, connection_id: UUID) -> None:
    """Delete a connection's plan, so that it is planned again although its source is unchanged."""
    await session.execute(delete(Plan).where(Plan.connection_id == connection_id))


async def is_plan_due(session: AsyncSession, connection_id: UUID) -> bool:
    """Whether a connection has a drift newer than its plan, or a proposal on an older version."""
    return bool(await session.scalar(_plan_due("c.id = :id"), {"id": connection_id, "limit": 1}))


async def plans_due(
    session: AsyncSession,
    *,
    limit: int,
    but: Collection[UUID] = (),
    drifted_within: timedelta | None = None,
) -> Sequence[UUID]:
    """The connections that `is_plan_due` holds for, except `but`; the longest waiting first.

    With `drifted_within`, only those with a proposal or a drift that recent: then the cost does not
    grow with the number of connections.
    """
    condition = "c.id <> ALL(CAST(:but AS uuid[]))"
    parameters: dict[str, object] = {"limit": limit, "but": list(but)}
    if drifted_within is not None:
        condition += f" AND c.id IN ({_DRIFTED_LATELY})"
        parameters["within"] = drifted_within
    return (await session.scalars(_plan_due(condition), parameters)).all()


_DRIFTED_LATELY = """
    SELECT connection_id FROM drifts WHERE first_seen_at > now() - CAST(:within AS interval)
    UNION SELECT connection_id FROM repairs WHERE state = 'proposed'
"""


# A connection that is HEALING, or whose repair is under way, is planned for afterwards.
@functools.cache
def _plan_due(condition: str) -> TextClause:
    # nosemgrep: built-sql - the condition is one of three constants
    return text(f"""
        SELECT c.id FROM connections c
        JOIN LATERAL (
            SELECT after_snapshot_id, first_seen_at FROM drifts WHERE connection_id = c.id
            ORDER BY first_seen_at DESC LIMIT 1
        ) d ON true
        JOIN snapshots seen ON seen.id = d.after_snapshot_id
        LEFT JOIN plans p ON p.connection_id = c.id
        WHERE {condition} AND c.status = 'ACTIVE' AND c.archived_at IS NULL
            AND (
                p.connection_id IS NULL
                OR d.first_seen_at > p.planned_at
                OR (SELECT taken_at FROM snapshots WHERE id = p.snapshot_id) < seen.taken_at
                OR EXISTS (
                    SELECT FROM repairs r WHERE r.connection_id = c.id
                        AND r.state = 'proposed' AND r.base_version <> c.catalog_version
                )
            )
            AND NOT EXISTS (
                SELECT FROM repairs r WHERE r.connection_id = c.id
                    AND r.state IN ('approved', 'applying', 'verifying', 'rolling_back')
            )
        ORDER BY d.first_seen_at LIMIT :limit
    """)  # noqa: S608 - no input


async def find_repair(session: AsyncSession, repair_id: UUID, *, lock: bool = False) -> Repair:
    """A repair by id; with `lock` its row is locked. Lock its connection's row first.

    Raises:
        NotFound: there is no such repair.
    """
    repair = await session.get(
        Repair, repair_id, with_for_update=lock or None, populate_existing=True
    )
    if repair is None:
        raise NotFound(f"No repair {repair_id}.")
    return repair


async def proposed_repair(session: AsyncSession, connection_id: UUID) -> Repair | None:
    """The connection's repair that waits for a person, or None."""
    return await session.scalar(
        select(Repair)
        .where(Repair.connection_id == connection_id, Repair.state == RepairState.PROPOSED)
        .execution_options(populate_existing=True)
    )


async def stale_decided(session: AsyncSession, connection_id: UUID) -> Repair | None:
    """The repair that a person approved and that became stale since the last plan, or None.

    After an hour, a person is asked again.
    """
    found = await session.scalars(_STALE_DECIDED, {"id": connection_id})
    return found.one_or_none()


_STALE_DECIDED = select(Repair).from_statement(
    text("""
        SELECT r.* FROM repairs r
        WHERE r.connection_id = :id AND r.state = 'superseded' AND r.kind = 'heal'
            AND r.superseded_by IS NULL AND r.ended_at > now() - interval '1 hour'
            AND r.decisions->-1->>'verdict' = 'approved' AND r.decisions->-1->>'by' <> 'policy'
            AND NOT EXISTS (
                SELECT FROM repairs newer
                WHERE newer.connection_id = :id AND newer.created_at > r.ended_at
            )
        ORDER BY r.ended_at DESC LIMIT 1
    """)
)


async def repair_in_progress(session: AsyncSession, connection_id: UUID) -> Repair | None:
    """The connection's repair that is decided and has not ended, or None."""
    return await session.scalar(
        select(Repair)
        .where(Repair.connection_id == connection_id, Repair.state.in_(UNDER_WAY))
        .execution_options(populate_existing=True)
    )


async def refused_changes(session: AsyncSession, connection_id: UUID) -> Sequence[str]:
    """The changes of repairs that were rejected or rolled back, or that failed, as JSON arrays."""
    rows = await session.scalars(_REFUSED, {"id": connection_id, "limit": _REFUSALS_READ})
    return rows.all()


_REFUSED = text(f"""
    SELECT changes::text FROM repairs
    WHERE connection_id IN (SELECT same.id FROM ({SAME}) same) AND (
        state IN ('rejected', 'failed', 'rolled_back')
        OR kind = 'rollback' AND state = 'applied'
    )
    ORDER BY created_at DESC LIMIT :limit
""")  # noqa: S608 - no input


async def lapses_decided(session: AsyncSession, connection_id: UUID) -> Sequence[str]:
    """The changes of ended repairs that decided about lapsed mappers, as JSON arrays.

    Only repairs that ended after the newest drift with a lapse: a mapper that lapses again needs
    another decision.
    """
    rows = await session.scalars(_LAPSES, {"id": connection_id, "limit": _REFUSALS_READ})
    return rows.all()


_LAPSES = text("""
    SELECT changes::text FROM repairs
    WHERE connection_id = :id AND state IN ('rejected', 'applied')
        AND summary->'by_kind'->'mapper_lapsed' IS NOT NULL
        AND ended_at > coalesce((
            SELECT max(first_seen_at) FROM drifts
            WHERE connection_id = :id AND changes @> '[{"kind": "mapper_lapsed"}]'
        ), '-infinity')
    ORDER BY created_at DESC LIMIT :limit
""")


async def claim_repairs(
    session: AsyncSession, *, limit: int, again_after: timedelta, deadline: timedelta
) -> Sequence[UUID]:
    """Claim the decided repairs that are due; other replicas may claim them after `again_after`.

    The first claim in a state sets the repair's deadline in that state to `deadline` from now.
    """
    parameters = {"limit": limit, "again_after": again_after, "deadline": deadline}
    return (await session.scalars(_CLAIM, parameters)).all()


_CLAIM = text("""
    UPDATE repairs
    SET next_at = now() + CAST(:again_after AS interval),
        deadline_at = coalesce(deadline_at, now() + CAST(:deadline AS interval))
    WHERE id = ANY (ARRAY(  -- the subquery of IN may be run for each row, and lock others each time
        SELECT id FROM repairs
        WHERE state IN ('approved', 'verifying', 'rolling_back') AND next_at <= now()
        ORDER BY next_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
""")


async def stranded_repairs(
    session: AsyncSession, *, limit: int, but: Collection[UUID] = ()
) -> Sequence[UUID]:
    """Repairs whose operation ended without recording their outcome, except `but`."""
    return (await session.scalars(_STRANDED, {"limit": limit, "but": list(but)})).all()


_STRANDED = text("""
    SELECT r.id FROM repairs r JOIN operations o ON o.id = r.operation_id
    WHERE r.state IN ('applying', 'rolling_back') AND o.status IN ('done', 'failed')
        AND r.id <> ALL(CAST(:but AS uuid[]))
    ORDER BY o.ended_at LIMIT :limit
""")


async def wait_on(session: AsyncSession, repair_id: UUID, *, code: str, seconds: float) -> None:
    """Record what keeps a decided repair waiting, and try it again after `seconds`."""
    await session.execute(
        update(Repair)
        .where(Repair.id == repair_id, Repair.state.in_(UNDER_WAY))
        .values(
            failure_code=code,
            attempts=Repair.attempts + 1,
            next_at=func.now() + timedelta(seconds=seconds),
        )
    )


async def verify_by_job(session: AsyncSession, repair_id: UUID, job_id: UUID) -> None:
    """Record which sync verifies a repair."""
    await session.execute(
        update(Repair)
        .where(Repair.id == repair_id, Repair.state == RepairState.VERIFYING)
        .values(job_id=job_id)
    )


class SuspiciousStream(NamedTuple):
    """A stream that had no rows, or far fewer than from `low` to `high`."""

    name: str
    rows: int
    low: int
    high: int


async def suspicious_streams(
    session: AsyncSession, job_id: UUID, *, since_version: int | None, limit: int
) -> Sequence[SuspiciousStream]:
    """The streams of a job that became suspicious with this catalog version."""
    parameters = {"job_id": job_id, "version": since_version, "limit": limit}
    return [SuspiciousStream(*row) for row in await session.execute(_SUSPICIOUS, parameters)]


_SUSPICIOUS = text("""
    SELECT of ->> 'stream', (of -> 'rows')::bigint, (of -> 'usual_low')::bigint,
        (of -> 'usual_high')::bigint
    FROM job_history, jsonb_array_elements(suspicious_streams) WITH ORDINALITY s(of, position)
    WHERE id = :job_id AND (of -> 'since_version')::int = :version
    ORDER BY position LIMIT :limit
""")


async def expired_repairs(
    session: AsyncSession, *, limit: int, but: Collection[UUID] = ()
) -> Sequence[UUID]:
    """Proposed repairs that have expired, or whose connection is archived, except `but`."""
    is_archived = exists().where(
        Connection.id == Repair.connection_id, Connection.archived_at.is_not(None)
    )
    rows = await session.scalars(
        select(Repair.id)
        .where(
            Repair.state == RepairState.PROPOSED,
            or_(Repair.expires_at <= func.now(), is_archived),
            Repair.id.not_in(but),
        )
        .order_by(Repair.expires_at)
        .limit(limit)
    )
    return rows.all()


async def unlearned_repairs(session: AsyncSession, *, limit: int) -> Sequence[Repair]:
    """Repairs whose decisions are due to be sent to the rag_engine."""
    rows = await session.scalars(
        select(Repair)
        .where(~Repair.is_learned, Repair.learn_next_at <= func.now())  # matches a partial index
        .order_by(Repair.learn_next_at)
        .limit(limit)
    )
    return rows.all()


async def record_learning(
    session: AsyncSession,
    repair_id: UUID,
    *,
    not_learned: str,
    is_settled: bool,
    again_after: timedelta,
) -> None:
    """Record the decisions that the rag_engine did not accept, and whether to try again.

    `not_learned` is JSON text; with `is_settled` the repair is not sent again.
    """
    await session.execute(
        update(Repair)
        .where(Repair.id == repair_id)
        .values(
            is_learned=is_settled,
            not_learned=not_learned,
            learn_attempts=Repair.learn_attempts + 1,
            learn_next_at=func.now() + again_after,
        )
    )


async def unsuggested(
    session: AsyncSession, *, limit: int, but: Collection[UUID] = ()
) -> Sequence[UUID]:
    """Connections with a proposal whose rename suggestions are missing, except `but`."""
    return (await session.scalars(_UNSUGGESTED, {"limit": limit, "but": list(but)})).all()


_UNSUGGESTED = text("""
    SELECT connection_id FROM repairs
    WHERE state = 'proposed' AND summary->'suggestions_missing' = 'true'
        AND connection_id <> ALL(CAST(:but AS uuid[]))
    ORDER BY updated_at LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class RepairFilter:
    """Selects the repairs of a list."""

    connection_id: UUID | None = None
    states: Collection[RepairState] = ()
    """Empty for every state."""
    severities: Collection[Severity] = ()
    """Of the most severe change; empty for every severity."""
    expires_before: datetime | None = None
    """Only proposals that expire earlier; None for all repairs."""
    after: tuple[datetime, UUID] | None = None
    """Where the previous page ended."""


_REPAIR_JSON = f"""
    json_build_object(
        {{changes}}
        'id', r.id, 'connection_id', r.connection_id,
        'connection_name', (SELECT c.name FROM connections c WHERE c.id = r.connection_id),
        'kind', r.kind, 'state', r.state, 'severity', r.severity,
        'drift_id', r.drift_id, 'parent_id', r.parent_id, 'superseded_by', r.superseded_by,
        'snapshot_id', r.snapshot_id, 'connector_step', r.connector_step,
        'base_version', r.base_version,
        'target_version', r.target_version, 'decisions', r.decisions,
        'verify', CASE WHEN r.verify_by_sync THEN 'sync' ELSE 'read_back' END,
        'operation_id', r.operation_id, 'version_number', r.version_number,
        'restored_version', r.restored_version, 'job_id', r.job_id,
        'suggestions_missing', r.summary->'suggestions_missing',
        'waits_for', CASE WHEN r.ended_at IS NULL THEN r.failure_code END,
        'failure_code', CASE WHEN r.ended_at IS NOT NULL THEN r.failure_code END,
        'failure_detail', r.failure_detail, 'not_learned', r.not_learned,
        'paused', EXISTS (SELECT FROM connections c WHERE c.paused_by = r.id),
        'expires_at', CASE WHEN r.state = 'proposed' THEN {stamp("r.expires_at")} END,
        'created_at', {stamp("r.created_at")}, 'updated_at', {stamp("r.updated_at")},
        'ended_at', {stamp("r.ended_at")}
    )
"""  # noqa: S608 - no input
_WHOLE = _REPAIR_JSON.format(changes="'changes', r.changes,")
_SUMMARY = _REPAIR_JSON.format(
    changes="""
        'change_count', r.summary->'change_count', 'decided_count', r.summary->'decided_count',
        'changes_by_kind', r.summary->'by_kind', 'changes_by_reaction', r.summary->'by_reaction',
        'changes_by_severity', r.summary->'by_severity',
        'first_changes', r.summary->'first_changes',
    """
)


async def repair_json(session: AsyncSession, repair_id: UUID) -> str:
    """One repair as JSON text.

    Raises:
        NotFound: there is no such repair.
    """
    found: str | None = await session.scalar(_REPAIR, {"id": repair_id})
    if found is None:
        raise NotFound(f"No repair {repair_id}.")
    return found


_REPAIR = text(f"SELECT {_WHOLE}::text FROM repairs r WHERE r.id = :id")  # noqa: S608 - no input


async def state_steps(session: AsyncSession, operation_id: UUID) -> tuple[str | None, str | None]:
    """The results of the steps of an operation that save and put back the state, as JSON text."""
    found = (await session.execute(_STATE_STEPS, {"id": operation_id})).one_or_none()
    return (None, None) if found is None else (found.saved, found.put_back)


_STATE_STEPS = text("""
    SELECT CAST(steps->'state' AS text) AS saved, CAST(steps->'put_state' AS text) AS put_back
    FROM operations WHERE id = :id
""")


async def page_of_changes(session: AsyncSession, repair_id: UUID, *, after: int, limit: int) -> str:
    """A page of a repair's changes as JSON text, in the repair's order.

    `after` is the number of changes before the page; `next` is the `after` of the next page, null
    on the last one.

    Raises:
        NotFound: there is no such repair.
    """
    parameters = {"id": repair_id, "after": after, "limit": limit}
    found: str | None = await session.scalar(_CHANGES, parameters)
    if found is None:
        raise NotFound(f"No repair {repair_id}.")
    return found


_CHANGES = text("""
    SELECT json_build_object(
        'items', coalesce((
            SELECT json_agg(change ORDER BY n)
            FROM jsonb_array_elements(r.changes) WITH ORDINALITY listed (change, n)
            WHERE n > CAST(:after AS bigint) AND n <= CAST(:after AS bigint) + :limit
        ), '[]'),
        'next', CASE WHEN jsonb_array_length(r.changes) > CAST(:after AS bigint) + :limit
            THEN CAST(CAST(:after AS bigint) + :limit AS text) END
    )::text
    FROM repairs r WHERE r.id = :id
""")

_PAGE = f"""
    WITH page AS (
        SELECT * FROM repairs r WHERE {{conditions}}
        ORDER BY r.created_at DESC, r.id DESC LIMIT :limit + 1
    ), kept AS (
        SELECT * FROM page r ORDER BY r.created_at DESC, r.id DESC LIMIT :limit
    )
    SELECT json_build_object(
        'items', coalesce(
            (SELECT json_agg({_SUMMARY} ORDER BY r.created_at DESC, r.id DESC) FROM kept r),
            '[]'
        ),
        'next', CASE WHEN (SELECT count(*) FROM page) > :limit THEN (
            SELECT {next_position("r.created_at", "r.id")}
            FROM kept r ORDER BY r.created_at, r.id LIMIT 1) END
    )::text
"""  # noqa: S608 - no input


async def page_of_repairs(session: AsyncSession, shown: RepairFilter, *, limit: int) -> str:
    """A page as JSON text, newest first: `{"items": […], "next": cursor or null}`.

    Each repair has the counts of its changes and the first three of them.
    """
    conditions = ["true"]
    parameters: dict[str, object] = {"limit": limit}
    if shown.connection_id is not None:
        conditions.append("r.connection_id = :connection_id")
        parameters["connection_id"] = shown.connection_id
    if shown.states:
        conditions.append("r.state = ANY(CAST(:states AS text[]))")
        parameters["states"] = [state.value for state in shown.states]
    if shown.severities:
        conditions.append("r.severity = ANY(CAST(:severities AS text[]))")
        parameters["severities"] = [severity.value for severity in shown.severities]
    if shown.expires_before is not None:
        conditions.append("r.state = 'proposed' AND r.expires_at < :expires_before")
        parameters["expires_before"] = shown.expires_before
    if shown.after is not None:
        conditions.append("(r.created_at, r.id) < (:after_at, :after_id)")
        parameters["after_at"], parameters["after_id"] = shown.after
    found: str = await session.scalar(_page(" AND ".join(conditions)), parameters)
    return found


@functools.cache
def _page(conditions: str) -> TextClause:
    # nosemgrep: built-sql - conditions are constants, values are parameters
    return text(_PAGE.format(conditions=conditions))


async def counts_of_open_repairs(session: AsyncSession) -> str:
    """Counts of the repairs that have not ended, as JSON text: see `schemas.RepairCounts`."""
    found: str = await session.scalar(_COUNTS)
    return found


# One branch per partial index, so that ended repairs are not read.
_COUNTS = text(f"""
    WITH unended AS (
        SELECT state, severity, expires_at, id FROM repairs WHERE state = 'proposed'
        UNION ALL
        SELECT state, severity, NULL, id FROM repairs
        WHERE state IN ('approved', 'applying', 'verifying', 'rolling_back')
    ), counted AS (
        SELECT state, severity, count(*) AS count FROM unended GROUP BY state, severity
    )
    SELECT json_build_object(
        'open', (SELECT coalesce(sum(count), 0) FROM counted),
        'by_state', coalesce((
            SELECT json_object_agg(state, count) FROM (
                SELECT state, sum(count) AS count FROM counted GROUP BY state
            ) states
        ), '{{}}'),
        'proposed_by_severity', coalesce((
            SELECT json_object_agg(severity, count) FROM counted
            WHERE state = 'proposed' AND severity IS NOT NULL
        ), '{{}}'),
        'pausing', (
            SELECT count(*) FROM connections c JOIN unended u ON u.id = c.paused_by
        ),
        'next_expiry_at', {stamp("(SELECT min(expires_at) FROM unended)")}
    )::text
""")  # noqa: S608 - no input
