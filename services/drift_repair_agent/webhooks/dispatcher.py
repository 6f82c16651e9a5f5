"""Deliver webhook messages: any replica sends those that are due and records the outcome.

A message is claimed before it is sent and its outcome is recorded afterwards, in two transactions.
If a process dies in between, another replica sends the message again with the same id. Delivery is
therefore at least once and unordered; receivers deduplicate by `webhook-id`.
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
from pydantic import HttpUrl
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.addresses import AddressRefused
from services.drift_repair_agent.webhooks.messages import TEST, with_link
from services.drift_repair_agent.webhooks.queries import DueDelivery
from services.drift_repair_agent.webhooks.sender import Outcome, Sender, Signer
from shared import failpoints
from shared.database import Database
from shared.errors import AamError, Invalid
from shared.models import DeliveryState, Webhook
from shared.observability import logs, metrics, tracing
from shared.periodic import PeriodicTask

log = logs.get(__name__)

MAX_CONCURRENCY: Final = 10
"""Most concurrent deliveries per process; one per webhook, so a slow receiver delays no other."""
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
"""The pauses between attempts; a message that fails again after the last one is given up."""
_LONGEST_PAUSE: Final = AGAIN_AFTER[-1]
_BOTH_SECRETS_FOR: Final = timedelta(hours=24)
_EVERY: Final = timedelta(milliseconds=500)
_RECORD_WITHIN: Final = timedelta(seconds=5)
_FINISH_WITHIN_S: Final = 1.5
_NONE: Final = timedelta(0)


class Deliveries:
    """Sends messages; one instance per process."""

    def __init__(
        self, db: Database, sender: Sender, signer: Signer, *, console_url: HttpUrl | None = None
    ) -> None:
        self._db = db
        self._console_url = console_url
        self._sender = sender
        self._signer = signer
        self._under_way: dict[UUID, asyncio.Task[Outcome]] = {}
        self._lease = sender.deadline + 2 * _RECORD_WITHIN

    def expect_callable(self, url: str) -> None:
        """Check that messages may be sent to a URL.

        Raises:
            Invalid: the URL names an address that may not be called.
        """
        try:
            self._sender.expect(url)
        except AddressRefused:
            raise Invalid.of(
                "url",
                "The URL must not resolve to a private address, unless its network is in "
                "WEBHOOK_NETWORKS.",
                code="address_refused",
            ) from None

    @property
    def periodic_tasks(self) -> Sequence[PeriodicTask]:
        """The delivery task; none without a signing key."""
        return [PeriodicTask(self.send_due, _EVERY)] if self._signer.is_able else []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On exit, wait briefly for running deliveries; another replica repeats unfinished ones."""
        try:
            yield
        finally:
            if tasks := set(self._under_way.values()):
                _, late = await asyncio.wait(tasks, timeout=_FINISH_WITHIN_S)
                for task in late:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._sender.aclose()

    async def send_due(self) -> None:
        """Start sending due messages until none are left; slow deliveries do not block the rest."""
        while await self._begin():
            await asyncio.wait(
                self._under_way.values(),
                timeout=_EVERY.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )

    async def _begin(self) -> bool:
        """Start due deliveries, up to the limit; return whether any was started."""
        over = [webhook for webhook, task in self._under_way.items() if task.done()]
        for webhook in over:
            _log_failure(webhook, self._under_way.pop(webhook))
        free = MAX_CONCURRENCY - len(self._under_way)
        if free == 0:
            return False
        async with self._db.read() as session:
            due = await queries.claim_deliveries(
                session, limit=free, but=self._under_way, lease=self._lease
            )
        for one in due:
            self._under_way[one.webhook_id] = asyncio.create_task(self._deliver(one))
        return bool(due)

    async def test(self, webhook: Webhook, body: str) -> Outcome:
        """Send a test message to a webhook now, without retries."""
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
        metrics.DELIVERIES.labels(outcome=outcome.code or "delivered").inc()
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
        """Send once; a bug counts as a failed attempt, so that retries end at some point."""
        try:
            body = due.body
            if self._console_url is not None:
                body = with_link(body, str(self._console_url))
            return await self._sender.send(due.url, due.id, body, self._secrets(due))
        except Exception:  # the outermost loop of an attempt, which counts as failed
            log.exception("bug")
            return Outcome(status=None, code="not_sent", retry_after=_NONE, took=_NONE)

    def _secrets(self, due: DueDelivery) -> list[str]:
        """The current secret, and for a day after a rotation also the previous one."""
        generations = [due.generation]
        if due.rotated_at is not None and datetime.now(UTC) - due.rotated_at < _BOTH_SECRETS_FOR:
            generations.append(due.generation - 1)
        return [self._signer.secret(due.webhook_id, generation) for generation in generations]


def _log_failure(webhook_id: UUID, task: asyncio.Task[Outcome]) -> None:
    """Log why an attempt was not recorded; it is repeated when its lease expires."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, AamError):
        log.warning("delivery_not_recorded", webhook=str(webhook_id), code=error.code)
    elif error is not None:
        # nosemgrep: logged-exception-text, logged-trace - logs.py writes only types and frames
        log.error("delivery_not_recorded", webhook=str(webhook_id), code="bug", exc_info=error)


def _state(due: DueDelivery, outcome: Outcome) -> DeliveryState:
    if outcome.code is None:
        return DeliveryState.DELIVERED
    is_over = outcome.code == "gone" or due.type == TEST or due.attempts > len(AGAIN_AFTER)
    return DeliveryState.FAILED if is_over else DeliveryState.WAITING


def _pause(attempts: int, asked: timedelta) -> timedelta:
    """The pause after an attempt: the longer of the schedule's and Retry-After, plus up to 10%."""
    planned = AGAIN_AFTER[min(attempts, len(AGAIN_AFTER)) - 1]
    return max(planned, min(asked, _LONGEST_PAUSE)) * random.uniform(1, 1.1)  # noqa: S311
