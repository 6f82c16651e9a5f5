"""SQL for the renames in a drift, which only its repairs know."""

from __future__ import annotations


def renames_of_drift(drift: str) -> str:
    """The renames that the repairs of a drift propose or decided, as a JSON array.

    `drift` is the alias of the drift's row.
    """
    return f"""(
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'kind', renamed->'kind', 'stream', renamed->'stream', 'path', renamed->'path',
            'became', renamed->'became'
        ) ORDER BY n), '[]') FROM {_renames(drift)}
    )"""  # noqa: S608 - no input


def rename_count_of_drift(drift: str) -> str:
    """How many there are; each is two of the drift's changes."""
    return f"(SELECT count(*) FROM {_renames(drift)})"  # noqa: S608 - no input


def _renames(drift: str) -> str:
    """Those with both halves in the drift: a repair may be about earlier drifts, too.

    Superseded repairs count only if there is no other: a later drift has their successor.
    """
    return f"""(
        SELECT DISTINCT ON (one->'stream', one->'path') one AS renamed, n
        FROM repairs r
        CROSS JOIN jsonb_array_elements(r.summary->'renames') WITH ORDINALITY listed (one, n)
        WHERE r.drift_id = {drift}.id AND {drift}.summary->'halves' @> (one->'halves') AND (
            r.state <> 'superseded' OR NOT EXISTS (
                SELECT FROM repairs s WHERE s.drift_id = {drift}.id AND s.state <> 'superseded'
            )
        )
        ORDER BY one->'stream', one->'path', r.created_at DESC
    ) listed"""  # noqa: S608 - no input
