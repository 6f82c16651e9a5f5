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
    """The state of a webhook delivery."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up after the last attempt."""


class Webhook(Base):
    """A receiver of notifications about repairs and connectors. Written by the drift_repair_agent.

    Its signing secret is not stored, but derived from WEBHOOK_SIGNING_KEY, the id and `generation`.
    """

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    url: Mapped[str]
    events: Mapped[str] = mapped_column(RawJson(), server_default=text("'[]'"))
    """The event types that are sent to it, as a JSON array."""
    connection_id: Mapped[UUID | None] = mapped_column(ForeignKey(Connection.id))
    """The only connection whose events are sent to it; None for all."""
    labels: Mapped[str] = mapped_column(RawJson(), default="{}", server_default=text("'{}'"))
    """The label limit of who created it, a JSON object of texts: a connection must have them."""
    generation: Mapped[int] = mapped_column(default=1, server_default="1")
    """The generation of its current secret; the previous one signs as well for a day."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_by: Mapped[str | None]
    """The caller who requested it; likewise for `rotated_by` and `deleted_by`."""
    rotated_at: Mapped[datetime | None]
    rotated_by: Mapped[str | None]
    deleted_at: Mapped[datetime | None]
    """When it was deleted, by a caller or by its receiver's 410 response."""
    deleted_by: Mapped[str | None]
    """None if its receiver responded 410."""


class WebhookDelivery(Base):
    """One message to one webhook, and its delivery state. Written by the drift_repair_agent."""

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
    """Sent as `webhook-id`, the same on every attempt."""
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey(Webhook.id))
    repair_id: Mapped[UUID | None] = mapped_column(ForeignKey(Repair.id))
    """None for a test message, and for one about a connector, a credential or a sync."""
    type: Mapped[str]
    body: Mapped[str]
    """The body to send, as JSON text, the same bytes on every attempt."""
    state: Mapped[str] = mapped_column(default=DeliveryState.WAITING, server_default="waiting")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_status: Mapped[int | None]
    """The HTTP status of the last attempt's response; None if there was none."""
    last_code: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
