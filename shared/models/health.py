"""The health of connections: a projection, written with the change that causes it."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.domain.health import Health
from shared.models.base import Base
from shared.models.connections import Connection


class ConnectionHealth(Base):
    """The health of a connection, as `shared.domain.health` derives it from the other tables.

    Written by the orchestrator, the drift_repair_agent and the schema_observer, only by
    `shared.registry.health`, in the transaction that changes a fact. Rebuilt by
    `python -m services.orchestrator.maintenance_command health`.
    """

    __tablename__ = "connection_health"
    __table_args__ = (
        Index(
            "ix_connection_health_health_since_connection_id", "health", "since", "connection_id"
        ),
        Index(
            "ix_connection_health_overdue_at",
            "overdue_at",
            "connection_id",
            postgresql_where=text("health IN ('healing', 'syncing', 'healthy')"),
        ),
    )

    connection_id: Mapped[UUID] = mapped_column(ForeignKey(Connection.id), primary_key=True)
    health: Mapped[Health] = mapped_column(
        Enum(
            Health,
            name="health_word",
            schema="public",  # as that of connection_status
            values_callable=lambda words: [one.value for one in words],
        )
    )
    """Postgres orders its words by urgency, as Health does."""
    code: Mapped[str]
    reason: Mapped[str]
    since: Mapped[datetime]
    severity: Mapped[str | None]
    """The highest severity of the changes of the repair that waits."""
    repair_id: Mapped[UUID | None]
    overdue_at: Mapped[datetime | None]
    """When it becomes overdue, if `health` is then healing, syncing or healthy."""
    last_job_id: Mapped[UUID | None]
    last_sync_status: Mapped[str | None]
    last_sync_started_at: Mapped[datetime | None]
    last_sync_ended_at: Mapped[datetime | None]
    failed_syncs: Mapped[int] = mapped_column(default=0, server_default="0")
    """How many syncs in a row have failed, at most ten."""
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
