"""Queries for webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

from sqlalchemy import func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from shared.errors import Conflict, NotFound
from shared.models import DeliveryState, JobHistory, TimelineEvent, Webhook, WebhookDelivery
from shared.registry.paging import Cursor, cursor_of


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A message to send now, with what is needed to sign it."""

    id: UUID
    webhook_id: UUID
    type: str
    body: str
    attempts: int
    """The number of this attempt, from 1."""
    url: str
    generation: int
    rotated_at: datetime | None
    request_id: str | None
    """The request id of the repair's operation; None if it is unknown."""


async def find_webhook(
    session: AsyncSession, webhook_id: UUID, *, for_update: bool = False
) -> Webhook:
    """A webhook by id, deleted or not; its row is locked if `for_update` is set.

    Raises:
        NotFound: there is no such webhook.
    """
    webhook = await session.get(
        Webhook, webhook_id, with_for_update=for_update, populate_existing=True
    )
    if webhook is None:
        raise NotFound(f"No webhook {webhook_id}.")
    return webhook


async def lock_webhook(session: AsyncSession, webhook_id: UUID) -> Webhook:
    """Lock the row of a webhook that is not deleted until the transaction ends.

    Raises:
        NotFound: there is no such webhook.
        Conflict: it is deleted.
    """
    webhook = await find_webhook(session, webhook_id, for_update=True)
    if webhook.deleted_at is not None:
        raise Conflict(f"Webhook {webhook_id} is deleted.", code="webhook_deleted")
    return webhook


async def page_of_webhooks(
    session: AsyncSession, *, cursor: Cursor | None, limit: int
) -> tuple[Sequence[Webhook], str | None]:
    """A page of the webhooks that are not deleted, newest first, and the next page's cursor."""
    newest = select(Webhook).where(Webhook.deleted_at.is_(None))
    if cursor is not None:
        newest = newest.where(tuple_(Webhook.created_at, Webhook.id) < tuple_(*cursor))
    newest = newest.order_by(Webhook.created_at.desc(), Webhook.id.desc()).limit(limit + 1)
    return _page((await session.scalars(newest)).all(), limit)


async def rotate_webhook(session: AsyncSession, webhook: Webhook) -> None:
    """Advance a locked webhook to its next secret."""
    webhook.generation += 1
    webhook.rotated_at = func.now()
    await session.flush()
    await session.refresh(webhook)


async def delete_webhook(session: AsyncSession, webhook_id: UUID, *, code: str) -> None:
    """Mark a webhook as deleted and fail its waiting deliveries with `code`; idempotent."""
    await session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.deleted_at.is_(None))
        .values(deleted_at=func.now())
    )
    await session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.webhook_id == webhook_id,
            WebhookDelivery.state == DeliveryState.WAITING,
        )
        .values(state=DeliveryState.FAILED, last_code=code, ended_at=func.now())
    )


async def subscribed_webhooks(
    session: AsyncSession, connection_id: UUID, event: str
) -> Sequence[UUID]:
    """The webhooks that subscribe to this type of event of this connection.

    Of those that a caller limited by labels has created, only if the connection still has these
    labels. Their rows are locked against deletion until the transaction ends, so that a concurrent
    deletion also ends the messages added here.
    """
    rows = await session.scalars(_SUBSCRIBED, {"connection_id": connection_id, "event": event})
    return rows.all()


# In the tables themselves: the views of a limited caller have no webhook of all connections.
_SUBSCRIBED = text("""
    SELECT w.id FROM public.webhooks w
    JOIN public.connections c ON c.id = :connection_id AND c.labels @> w.labels
    WHERE w.deleted_at IS NULL AND (w.connection_id IS NULL OR w.connection_id = c.id)
    AND w.events @> to_jsonb(CAST(:event AS text))
    ORDER BY w.id FOR SHARE OF w
""")


async def add_deliveries(
    session: AsyncSession,
    webhook_ids: Collection[UUID],
    *,
    repair_id: UUID | None,
    event: str,
    body: str,
) -> None:
    """Add one message for each of these webhooks; existing messages are left unchanged.

    Messages about no repair are not compared with existing ones.
    """
    parameters = {"ids": list(webhook_ids), "repair_id": repair_id, "event": event, "body": body}
    await session.execute(_ADD, parameters)


_ADD = text("""
    INSERT INTO public.webhook_deliveries (id, webhook_id, repair_id, type, body)
    SELECT gen_random_uuid(), webhook_id, CAST(:repair_id AS uuid), :event, :body
    FROM unnest(CAST(:ids AS uuid[])) webhook_id
    ON CONFLICT (webhook_id, repair_id, type) DO NOTHING
""")


async def events_to_notify(
    session: AsyncSession, *, limit: int, but: Collection[UUID]
) -> Sequence[UUID]:
    """The events whose messages are still to be added, oldest first."""
    rows = await session.scalars(
        select(TimelineEvent.id)
        .where(TimelineEvent.to_notify, TimelineEvent.id.not_in(but))
        .order_by(TimelineEvent.at)
        .limit(limit)
    )
    return rows.all()


async def lock_event(session: AsyncSession, event_id: UUID) -> TimelineEvent | None:
    """An event whose messages are still to be added; None if another process adds or has them."""
    found: TimelineEvent | None = await session.scalar(
        select(TimelineEvent)
        .where(TimelineEvent.id == event_id, TimelineEvent.to_notify)
        .with_for_update(skip_locked=True)
    )
    return found


async def suspicious_streams(session: AsyncSession, job_id: UUID | None) -> str | None:
    """The suspicious streams of a job, as JSON text; None without any."""
    found: str | None = await session.scalar(
        select(JobHistory.suspicious_streams).where(JobHistory.id == job_id)
    )
    return found


async def add_claimed_delivery(
    session: AsyncSession,
    webhook: Webhook,
    *,
    event: str,
    body: str,
    lease: timedelta,
    request_id: str,
) -> DueDelivery:
    """Add a message without a repair, claimed for the caller, which makes its first attempt."""
    id_ = uuid4()
    await session.execute(
        insert(WebhookDelivery).values(
            id=id_,
            webhook_id=webhook.id,
            type=event,
            body=body,
            attempts=1,
            next_at=func.now() + lease,
        )
    )
    return DueDelivery(
        id=id_,
        webhook_id=webhook.id,
        type=event,
        body=body,
        attempts=1,
        url=webhook.url,
        generation=webhook.generation,
        rotated_at=webhook.rotated_at,
        request_id=request_id,
    )


async def claim_deliveries(
    session: AsyncSession, *, limit: int, but: Collection[UUID], lease: timedelta
) -> Sequence[DueDelivery]:
    """Claim due messages, at most one per webhook, except for the webhooks in `but`.

    A claim counts as an attempt. No other process may claim the message until `lease` expires;
    after that any process may, since the claimant is presumed dead.
    """
    rows = await session.execute(_CLAIM, {"limit": limit, "but": list(but), "lease": lease})
    return [DueDelivery(*row) for row in rows]


_CLAIM = text("""
    WITH due AS (
        SELECT d.id, w.url, w.generation, w.rotated_at FROM webhooks w CROSS JOIN LATERAL (
            SELECT id, next_at FROM webhook_deliveries
            WHERE webhook_id = w.id AND state = 'waiting' AND next_at <= now()
            ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
        ) d
        WHERE w.deleted_at IS NULL AND w.id IN (
            SELECT webhook_id FROM webhook_deliveries
            WHERE state = 'waiting' AND next_at <= now()
            AND webhook_id <> ALL(CAST(:but AS uuid[]))
        )
        ORDER BY d.next_at LIMIT :limit
    )
    UPDATE webhook_deliveries d
    SET attempts = d.attempts + 1, next_at = now() + CAST(:lease AS interval)
    FROM due WHERE d.id = due.id
    RETURNING
        d.id, d.webhook_id, d.type, d.body, d.attempts, due.url, due.generation, due.rotated_at,
        (
            SELECT o.request_id FROM repairs r JOIN operations o ON o.id = r.operation_id
            WHERE r.id = d.repair_id
        )
""")


async def record_try(
    session: AsyncSession,
    delivery: DueDelivery,
    *,
    state: DeliveryState,
    status: int | None,
    code: str | None,
    again_after: timedelta,
) -> None:
    """Record the outcome of an attempt.

    A success is always recorded. A failure is recorded only if this is still the newest attempt and
    the message is still waiting.
    """
    conditions = [WebhookDelivery.id == delivery.id]
    if state is not DeliveryState.DELIVERED:
        conditions += [
            WebhookDelivery.state == DeliveryState.WAITING,
            WebhookDelivery.attempts == delivery.attempts,
        ]
    has_ended = state is not DeliveryState.WAITING
    await session.execute(
        update(WebhookDelivery)
        .where(*conditions)
        .values(
            state=state,
            last_status=status,
            last_code=code,
            next_at=func.now() + again_after,
            ended_at=func.now() if has_ended else None,
        )
    )


async def page_of_deliveries(
    session: AsyncSession, webhook_id: UUID, *, cursor: Cursor | None, limit: int
) -> tuple[Sequence[WebhookDelivery], str | None]:
    """A page of a webhook's messages, without bodies, newest first, and the next page's cursor."""
    table = WebhookDelivery
    # A body has up to 64 KiB and is never listed.
    newest = select(table).where(table.webhook_id == webhook_id).options(defer(table.body))
    if cursor is not None:
        newest = newest.where(tuple_(table.created_at, table.id) < tuple_(*cursor))
    newest = newest.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    return _page((await session.scalars(newest)).all(), limit)


Row = TypeVar("Row", Webhook, WebhookDelivery)


def _page(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    shown = rows[:limit]
    has_more = len(rows) > limit
    return shown, cursor_of(shown[-1].created_at, shown[-1].id) if has_more else None


async def retry_delivery(
    session: AsyncSession, webhook_id: UUID, delivery_id: UUID
) -> WebhookDelivery:
    """Make a message due now; one that was given up gets one more attempt.

    Raises:
        NotFound: the webhook has no such message.
        Conflict: the message is delivered already.
    """
    delivery = await session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if delivery is None or delivery.webhook_id != webhook_id:
        raise NotFound(f"Webhook {webhook_id} has no delivery {delivery_id}.")
    if delivery.state == DeliveryState.DELIVERED:
        raise Conflict(
            f"Delivery {delivery_id} has already been delivered.", code="already_delivered"
        )
    delivery.state = DeliveryState.WAITING
    delivery.next_at = func.now()
    delivery.ended_at = None
    await session.flush()
    await session.refresh(delivery)
    return delivery
