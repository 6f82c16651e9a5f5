"""Volumes by sync, not by stream and sync, and the suspicious streams of a job in its own row.

Of each connection, the newest syncs are converted, as many as are compared.

Revision ID: 0029
Revises: 0028
"""

from __future__ import annotations

import zlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

_MOST = 240
# A fifth of a table is pruned in days: by default, that much of it would be dead rows.
_PRUNED_OFTEN = ("events", "job_history", "operations", "sync_volumes")
_JOBS = sa.text("""
    SELECT job_id, max(ended_at), json_agg(json_strip_nulls(json_build_object(
        'stream_name', stream_name, 'stream_namespace', stream_namespace, 'ended_at', ended_at,
        'is_full_refresh', is_full_refresh, 'rows', rows, 'bytes', bytes, 'is_pending', is_pending,
        'usual_low', usual_low, 'usual_high', usual_high, 'suspicious_since', suspicious_since,
        'suspicious_version', suspicious_version, 'usual_since', usual_since
    )))::text
    FROM stream_volumes WHERE connection_id = :connection GROUP BY job_id ORDER BY 2 DESC LIMIT :most
""")
_SUSPICIOUS = """
    UPDATE job_history j SET suspicious_streams = s.streams
    FROM (
        SELECT job_id, jsonb_agg(jsonb_build_object(
            'stream', stream_name, 'namespace', nullif(stream_namespace, ''), 'rows', rows,
            'usual_low', usual_low, 'usual_high', usual_high, 'suspicious_since', suspicious_since,
            'since_version', suspicious_version
        ) ORDER BY stream_name, stream_namespace) AS streams
        FROM stream_volumes WHERE suspicious_since IS NOT NULL AND NOT is_pending GROUP BY job_id
    ) s WHERE s.job_id = j.id
"""
_INSERT = sa.text("""
    INSERT INTO sync_volumes (job_id, connection_id, ended_at, volumes)
    VALUES (:job_id, :connection_id, :ended_at, :volumes)
""")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_table(
        "sync_volumes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("volumes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name="fk_sync_volumes_connection_id"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_sync_volumes"),
    )
    op.create_index(
        "ix_sync_volumes_connection_id_ended_at", "sync_volumes", ["connection_id", "ended_at"]
    )
    op.create_index("ix_sync_volumes_ended_at", "sync_volumes", ["ended_at"])
    registry = op.get_bind()
    for (connection,) in registry.execute(sa.text("SELECT id FROM connections")).all():
        jobs = registry.execute(_JOBS, {"connection": connection, "most": _MOST}).all()
        if jobs:
            registry.execute(
                _INSERT,
                [
                    {
                        "job_id": job_id,
                        "connection_id": connection,
                        "ended_at": ended_at,
                        "volumes": zlib.compress(volumes.encode()),
                    }
                    for job_id, ended_at, volumes in jobs
                ],
            )
    op.add_column("job_history", sa.Column("suspicious_streams", postgresql.JSONB(), nullable=True))
    op.execute(_SUSPICIOUS)
    op.drop_table("stream_volumes")
    for table in _PRUNED_OFTEN:
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in _PRUNED_OFTEN:
        op.execute(f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor)")
    op.drop_column("job_history", "suspicious_streams")
    op.drop_table("sync_volumes")
    op.create_table(
        "stream_volumes",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("stream_namespace", sa.Text(), nullable=False),
        sa.Column("stream_name", sa.Text(), nullable=False),
        sa.Column("connection_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_full_refresh", sa.Boolean(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=True),
        sa.Column("is_pending", sa.Boolean(), nullable=False),
        sa.Column("usual_low", sa.BigInteger(), nullable=True),
        sa.Column("usual_high", sa.BigInteger(), nullable=True),
        sa.Column("suspicious_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("suspicious_version", sa.Integer(), nullable=True),
        sa.Column("usual_since", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["connection_id"],
            ["connections.id"],
            name="fk_stream_volumes_connection_id",
        ),
        sa.PrimaryKeyConstraint(
            "job_id", "stream_namespace", "stream_name", name="pk_stream_volumes"
        ),
    )
    op.create_index(
        "ix_stream_volumes_stream_ended_at",
        "stream_volumes",
        ["connection_id", "stream_name", "stream_namespace", "ended_at"],
    )
    op.create_index("ix_stream_volumes_ended_at", "stream_volumes", ["ended_at"])
    op.create_index(
        "ix_stream_volumes_suspicious",
        "stream_volumes",
        ["job_id"],
        postgresql_where=sa.text("suspicious_since IS NOT NULL"),
    )
