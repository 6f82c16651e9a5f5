"""SQL statements on the operations table; an owner's writes are fenced by `owner`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import TextClause, text

from shared.registry import page, stamp

KEYS_LAST = timedelta(hours=24)
"""How long an Idempotency-Key is stored."""
_FEW_ATTEMPTS = 10
"""Owners up to which the time without one does not count; the operation may crash its owners."""

_IN_FUTURE = "now() + CAST(:{} AS interval)"
_SECONDS_TO = "CAST(extract(epoch FROM {} - now()) AS float8)"
_MINE = "id = :id AND owner = :owner AND status IN ('running', 'undoing')"
_COLUMNS = f"""
    id, kind, connection_id, CAST(request AS text) AS request, document,
    CAST(steps AS text) AS steps, step, CAST(failure AS text) AS failure, request_id, requested_by,
    attempts,
    -{_SECONDS_TO.format("created_at")} AS age,
    {_SECONDS_TO.format("in_flight_until")} AS in_flight_for,
    {_SECONDS_TO.format("deadline")} AS deadline_in
"""

# Not through the view of a limited caller (see migrations/limited_views.sql): an Idempotency-Key is
# unique also if its operation is about no connection, or about one that the caller no longer sees.
INSERT = text(f"""
    INSERT INTO public.operations (
        id, kind, connection_id, status, request, document, step, owner, lease_until, deadline,
        caller, route, idempotency_key, fingerprint, request_id, requested_by
    )
    VALUES (
        :id, :kind, :connection_id, 'running', CAST(:request AS jsonb), :document, 'intent',
        :owner, {_IN_FUTURE.format("lease")}, {_IN_FUTURE.format("deadline")},
        :caller, :route, :key, :fingerprint, :request_id, :requested_by
    )
    ON CONFLICT DO NOTHING
    RETURNING id
""")  # noqa: S608 - no input
INSERT_ENDED = text("""
    INSERT INTO public.operations (
        id, kind, connection_id, status, request, step, lease_until, deadline, ended_at,
        caller, route, idempotency_key, fingerprint, request_id, requested_by
    )
    VALUES (
        :id, :kind, :connection_id, 'done', CAST(:request AS jsonb), 'intent', now(), now(), now(),
        :caller, :route, :key, :fingerprint, :request_id, :requested_by
    )
    ON CONFLICT DO NOTHING
    RETURNING id
""")
OWN = text("""
    SELECT coalesce(owner = :owner, false) AS is_ours, ended_at IS NOT NULL AS has_ended
    FROM public.operations WHERE id = :id
""")
OPEN_OF = text("""
    SELECT id, kind FROM public.operations
    WHERE connection_id = :connection_id AND status IN ('running', 'undoing')
""")
OPEN_IMPORT = text("""
    SELECT id FROM public.operations
    WHERE kind = 'import' AND status IN ('running', 'undoing')
        AND request ->> 'workspace_id' = CAST(:request AS jsonb) ->> 'workspace_id'
""")
DELETE = text("DELETE FROM public.operations WHERE id = :id")
END_UNOWNED = text("""
    UPDATE public.operations
    SET status = 'done', owner = NULL, document = NULL, ended_at = now(), updated_at = now(),
        response_status = :status, response = :response
    WHERE id = :id
""")
BY_KEY = text(f"""
    SELECT id, fingerprint, response_status, response,
        created_at < now() - interval '{KEYS_LAST.total_seconds():.0f} s' AS expired
    FROM public.operations WHERE caller = :caller AND route = :route AND idempotency_key = :key
""")  # noqa: S608 - no input
FREE_KEY = text("UPDATE public.operations SET idempotency_key = NULL WHERE id = :id")
READ = text("SELECT response_status, response FROM operations WHERE id = :id")

BEGIN = text(f"""
    UPDATE operations
    SET step = :step, step_since = now(), steps = CAST(:steps AS jsonb), waits_for = NULL,
        in_flight_until = {_IN_FUTURE.format("in_flight")},
        lease_until = {_IN_FUTURE.format("lease")}, updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
WRITE_DOCUMENT = text(f"""
    UPDATE operations
    SET document = :document, steps = CAST(:steps AS jsonb), updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
WAIT = text(f"""
    UPDATE operations
    SET waits_for = :waits_for, steps = CAST(:steps AS jsonb),
        in_flight_until = least(in_flight_until, {_IN_FUTURE.format("in_flight")}),
        lease_until = {_IN_FUTURE.format("lease")}, updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
FAIL = text(f"""
    UPDATE operations
    SET status = 'undoing', failure = CAST(:failure AS jsonb), steps = CAST(:steps AS jsonb),
        waits_for = NULL, lease_until = {_IN_FUTURE.format("lease")}, updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
HAND_OVER = text(f"""
    UPDATE operations
    SET owner = NULL, steps = CAST(:steps AS jsonb), lease_until = {_IN_FUTURE.format("lease")},
        in_flight_until = least(in_flight_until, {_IN_FUTURE.format("lease")}), updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
FINISH = text(f"""
    UPDATE operations
    SET status = :status, owner = NULL, document = NULL, steps = CAST(:steps AS jsonb),
        waits_for = NULL, response_status = :response_status, response = :response,
        ended_at = now(), updated_at = now()
    WHERE {_MINE}
    RETURNING id
""")  # noqa: S608 - no input
CLAIM = text(f"""
    UPDATE operations
    SET owner = :owner, lease_until = {_IN_FUTURE.format("lease")}, attempts = attempts + 1,
        deadline = deadline + CASE WHEN attempts < {_FEW_ATTEMPTS} THEN now() - lease_until
            ELSE interval '0' END,
        updated_at = now()
    WHERE id = (
        SELECT id FROM operations
        WHERE id = :id AND status IN ('running', 'undoing') AND lease_until <= now()
        FOR UPDATE SKIP LOCKED
    )
    RETURNING {_COLUMNS}
""")  # noqa: S608 - no input
LEASE_LEFT = text("""
    SELECT lease_until - now() FROM operations
    WHERE id = :id AND status IN ('running', 'undoing')
""")
LOST = text("""
    SELECT id FROM operations
    WHERE status IN ('running', 'undoing') AND lease_until < now() - CAST(:since AS interval)
        AND kind = ANY(CAST(:kinds AS text[]))
    ORDER BY lease_until LIMIT :limit
""")

_OPERATION_JSON = f"""
    json_build_object(
        'operation_id', t.id, 'kind', t.kind, 'connection_id', t.connection_id,
        'connection_name', (SELECT c.name FROM connections c WHERE c.id = t.connection_id),
        'status', t.status, 'step', t.step, 'step_since', {stamp("t.step_since")},
        'waits_for', t.waits_for, 'attempts', t.attempts, 'requested_by', t.requested_by,
        'problem', CASE WHEN CAST(:explained AS boolean) THEN t.failure
            ELSE t.failure - 'explanation' - 'log' END,
        'response_status', t.response_status, 'notes', t.steps #> '{{discover,notes}}',
        'created_at', {stamp("t.created_at")}, 'deadline', {stamp("t.deadline")},
        'ended_at', {stamp("t.ended_at")}
    )
"""  # noqa: S608 - no input
VIEW = text(f"SELECT {_OPERATION_JSON}::text FROM operations t WHERE t.id = :id")  # noqa: S608


def page_statement(conditions: Sequence[str]) -> TextClause:
    """The SQL statement of a page of operations."""
    return page("operations", _OPERATION_JSON, " AND ".join(conditions) or "true")
