"""Webhooks and their deliveries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson, where_set
from shared.models.connections import (
    Connection,
)
from shared.models.repairs import (
    Repair,
)


class DeliveryState(StrEnum):
    """How far a webhook's message is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after the last try."""


class Webhook(Base):
    """Who is told about repairs. Written by the drift_repair_agent.

    Its signing secret is not here: it is derived from WEBHOOK_SIGNING_KEY, the id and `generation`.
    """

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    url: Mapped[str]
    events: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The event types that it is told of, as a JSON array."""
    connection_id: Mapped[UUID | None] = mapped_column(ForeignKey(Connection.id))
    """The one connection that it is told of; None for every one."""
    generation: Mapped[int] = mapped_column(default=1, server_default="1")
    """Which of its secrets is in force; the one before it still signs for a day."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str | None]
    """Whose credentials asked for it; so with the two below."""
    rotated_at: Mapped[datetime | None]
    rotated_by: Mapped[str | None]
    deleted_at: Mapped[datetime | None]
    """When it was deleted, by a person or by its receiver's 410."""
    deleted_by: Mapped[str | None]
    """None where its receiver answered 410."""


class WebhookDelivery(Base):
    """One message to one webhook, and how its delivery went. Written by the drift_repair_agent."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "repair_id", "type"),
        Index(
            "ix_webhook_deliveries_waiting",
            "next_at",
            postgresql_where=text("state = 'waiting'"),
        ),
        Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", "created_at"),
        where_set("webhook_deliveries", "repair_id"),
        where_set("webhook_deliveries", "ended_at"),
        CheckConstraint("state IN ('waiting', 'delivered', 'failed')", name="state_known"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    """Sent as `webhook-id`: the same on every try."""
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey(Webhook.id))
    repair_id: Mapped[UUID | None] = mapped_column(ForeignKey(Repair.id))
    """None for a test message."""
    type: Mapped[str]
    body: Mapped[str]
    """What is sent: JSON text, the same bytes on every try."""
    state: Mapped[str] = mapped_column(default=DeliveryState.WAITING, server_default="waiting")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_status: Mapped[int | None]
    """The HTTP status that the last try was answered with; None where there was no answer."""
    last_code: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
