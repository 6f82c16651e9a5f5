"""Messages on their way to webhooks: any replica sends what is due, and records how it went.

A message is claimed before it is sent and recorded after it, in transactions of their own; what a
process that dies leaves is sent again by another, with the same id. So a message comes at least
once, in no promised order, and a receiver tells doubles by `webhook-id`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.addresses import AddressRefused
from services.drift_repair_agent.webhooks.messages import TEST
from services.drift_repair_agent.webhooks.queries import DueDelivery
from services.drift_repair_agent.webhooks.sender import Outcome, Sender, Signer
from shared import failpoints
from shared.database import Database
from shared.errors import AamError, Invalid
from shared.models import DeliveryState, Webhook
from shared.observability import logs, metrics, tracing
from shared.periodic import PeriodicTask

log = logs.get(__name__)

AT_ONCE: Final = 10
"""Most messages under way in one process; one a webhook, so that a slow one is slow alone."""
AGAIN_AFTER: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""The pauses between tries; a message that fails once more after the last is given up."""
_LONGEST_PAUSE: Final = AGAIN_AFTER[-1]
_BOTH_SECRETS_FOR: Final = timedelta(hours=24)
_EVERY: Final = timedelta(milliseconds=500)
_RECORD_WITHIN: Final = timedelta(seconds=5)
_FINISH_WITHIN_S: Final = 1.5
_NONE: Final = timedelta(0)


class Deliveries:
    """Sends messages; one instance per process."""

    def __init__(self, db: Database, sender: Sender, signer: Signer) -> None:
        self._db = db
        self._sender = sender
        self._signer = signer
        self._under_way: dict[UUID, asyncio.Task[Outcome]] = {}
        self._lease = sender.deadline + 2 * _RECORD_WITHIN

    def expect_callable(self, url: str) -> None:
        """See that messages can be sent to a URL.

        Raises:
            Invalid: they never could: it leads to an address that may not be called.
        """
        try:
            self._sender.expect(url)
        except AddressRefused:
            raise Invalid.of(
                "url",
                "The URL must not lead to a private address: name its network in WEBHOOK_NETWORKS.",
                code="address_refused",
            ) from None

    @property
    def periodic_tasks(self) -> Sequence[PeriodicTask]:
        """What is to be looked at again and again."""
        return [PeriodicTask(self.look, _EVERY)] if self._signer.is_able else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At the end, finish what is under way; what takes long is sent again by another."""
        try:
            yield
        finally:
            if tasks := set(self._under_way.values()):
                _, late = await asyncio.wait(tasks, timeout=_FINISH_WITHIN_S)
                for task in late:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._sender.aclose()

    async def look(self) -> None:
        """Begin to send what is due, and go on while there is more; nothing slow is waited for."""
        while await self._begin():
            await asyncio.wait(
                self._under_way.values(),
                timeout=_EVERY.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _begin(self) -> bool:
        """Whether anything was begun."""
        over = [webhook for webhook, task in self._under_way.items() if task.done()]
        for webhook in over:
            _log_failure(webhook, self._under_way.pop(webhook))
        free = AT_ONCE - len(self._under_way)
        if free == 0:
            return False
        async with self._db.transaction() as session:
            due = await queries.claim_deliveries(
                session, limit=free, but=self._under_way, lease=self._lease
            )
        for one in due:
            self._under_way[one.webhook_id] = asyncio.create_task(self._deliver(one))
        return bool(due)

    async def test(self, webhook: Webhook, body: str) -> Outcome:
        """Send a live webhook a message now, once."""
        async with self._db.transaction() as session:
            due = await queries.add_claimed_delivery(
                session,
                webhook,
                event=TEST,
                body=body,
                lease=self._lease,
                request_id=logs.request_id(),
            )
        return await self._deliver(due)

    async def _deliver(self, due: DueDelivery) -> Outcome:
        with (
            logs.caused_by(due.request_id or logs.request_id()),
            tracing.span(
                "webhook",
                kind=SpanKind.PRODUCER,
                parent={},
                webhook=str(due.webhook_id),
                request_id=logs.request_id(),
            ),
        ):
            return await self._tried(due)

    async def _tried(self, due: DueDelivery) -> Outcome:
        failpoints.at("webhook.send.before")
        outcome = await self._sent(due)
        failpoints.at("webhook.send.after")

        async def record(session: AsyncSession) -> None:
            is_gone = outcome.code == "gone"
            if is_gone:
                await queries.find_webhook(session, due.webhook_id, for_update=True)
            await queries.record_try(
                session,
                due,
                state=_state(due, outcome),
                status=outcome.status,
                code=outcome.code,
                again_after=_pause(due.attempts, outcome.retry_after),
            )
            if is_gone:
                await queries.delete_webhook(session, due.webhook_id, code="gone")

        await self._db.retry_until_committed(record, within=_RECORD_WITHIN)
        metrics.DELIVERIES.add(outcome=outcome.code or "delivered")
        log.info(
            "webhook_tried",
            webhook=str(due.webhook_id),
            delivery=str(due.id),
            type=due.type,
            attempt=due.attempts,
            status=outcome.status,
            code=outcome.code or "delivered",
        )
        return outcome

    async def _sent(self, due: DueDelivery) -> Outcome:
        """How a try went; a bug is a failed try, so that the message is given up in the end."""
        try:
            return await self._sender.send(due.url, due.id, due.body, self._secrets(due))
        except Exception:  # the outermost loop of a try: it counts as failed
            log.exception("bug")
            return Outcome(status=None, code="not_sent", retry_after=_NONE, took=_NONE)

    def _secrets(self, due: DueDelivery) -> list[str]:
        """The secret in force, and for a day the one before it."""
        generations = [due.generation]
        if due.rotated_at is not None and datetime.now(UTC) - due.rotated_at < _BOTH_SECRETS_FOR:
            generations.append(due.generation - 1)
        return [self._signer.secret(due.webhook_id, generation) for generation in generations]


def _log_failure(webhook_id: UUID, task: asyncio.Task[Outcome]) -> None:
    """Log what kept a try from being recorded: it is made again at the end of its lease."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, AamError):
        log.warning("delivery_not_recorded", webhook=str(webhook_id), code=error.code)
    elif error is not None:
        # nosemgrep: logged-exception-text, logged-trace - logs.py writes types and frames alone
        log.error("delivery_not_recorded", webhook=str(webhook_id), code="bug", exc_info=error)


def _state(due: DueDelivery, outcome: Outcome) -> DeliveryState:
    if outcome.code is None:
        return DeliveryState.DELIVERED
    is_over = outcome.code == "gone" or due.type == TEST or due.attempts > len(AGAIN_AFTER)
    return DeliveryState.FAILED if is_over else DeliveryState.WAITING


def _pause(attempts: int, asked: timedelta) -> timedelta:
    """How long to wait after a try: the schedule's pause or what was asked for, and a tenth."""
    planned = AGAIN_AFTER[min(attempts, len(AGAIN_AFTER)) - 1]
    return max(planned, min(asked, _LONGEST_PAUSE)) * random.uniform(1, 1.1)  # noqa: S311
