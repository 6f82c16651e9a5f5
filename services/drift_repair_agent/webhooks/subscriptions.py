"""Create, rotate, test and delete webhooks, and validate their URLs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import msgspec

from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.addresses import is_never_called, written
from services.drift_repair_agent.webhooks.dispatcher import Deliveries
from services.drift_repair_agent.webhooks.messages import body_of_test
from services.drift_repair_agent.webhooks.sender import Outcome, Signer, is_readable
from shared import registry
from shared.auth import label_limits, scopes
from shared.config import is_loopback
from shared.database import Database
from shared.errors import Invalid, NotFound
from shared.models import Webhook, WebhookDelivery

_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
_PLAIN = re.compile(r"[!-~]+")
_NEVER_RESOLVED = frozenset({"invalid", "onion"})
"""Top-level domains that never resolve (RFC 6761 and RFC 7686)."""


class Receivers:
    """Manages webhooks; every change is recorded in their history."""

    def __init__(self, db: Database, deliveries: Deliveries, signer: Signer) -> None:
        self._db = db
        self._deliveries = deliveries
        self._signer = signer

    async def add(
        self, url: str, events: Sequence[str], connection_id: UUID | None
    ) -> tuple[Webhook, str]:
        """Create a webhook; return it and its secret.

        Raises:
            Invalid: there is no such connection, or the URL's address may not be called.
            LabelLimited: it is for all connections, and the caller is limited by labels.
            Unavailable: there is no key to sign with.
        """
        if connection_id is None:
            scopes.expect_unlimited()
        self._signer.require_key()
        self._deliveries.expect_callable(url)
        async with self._db.transaction() as session:
            if connection_id is not None:
                try:
                    await registry.find_connection(session, connection_id)
                except NotFound as error:
                    raise Invalid(error.detail, code="unknown_connection") from None
            webhook = Webhook(
                url=url,
                events=msgspec.json.encode(events).decode(),
                connection_id=connection_id,
                labels=label_limits.to_json(label_limits.current()),
                created_by=scopes.requested_by(),
            )
            session.add(webhook)
            await session.flush()
            change = {"action": "created", "events": list(events), "connection_id": connection_id}
            await registry.record_setting_change(session, "webhook", webhook.id, change)
        return webhook, self._signer.secret(webhook.id, webhook.generation)

    async def rotate(self, webhook_id: UUID) -> tuple[Webhook, str]:
        """Rotate a webhook's secret; the previous one also signs messages for another day.

        Raises:
            NotFound: there is no such webhook.
            Conflict: it is deleted.
            Unavailable: there is no key to sign with.
        """
        self._signer.require_key()
        async with self._db.transaction() as session:
            webhook = await queries.lock_webhook(session, webhook_id)
            webhook.rotated_by = scopes.requested_by()
            await queries.rotate_webhook(session, webhook)
            change = {"action": "rotated", "generation": webhook.generation}
            await registry.record_setting_change(session, "webhook", webhook.id, change)
        return webhook, self._signer.secret(webhook.id, webhook.generation)

    async def delete(self, webhook_id: UUID) -> Webhook:
        """Delete a webhook and fail its waiting messages; idempotent.

        Raises:
            NotFound: there is no such webhook.
        """
        async with self._db.transaction() as session:
            webhook = await queries.find_webhook(session, webhook_id, for_update=True)
            if webhook.deleted_at is None:
                webhook.deleted_by = scopes.requested_by()
                await session.flush()
                await queries.delete_webhook(session, webhook_id, code="webhook_deleted")
                change = {"action": "deleted"}
                await registry.record_setting_change(session, "webhook", webhook.id, change)
                await session.refresh(webhook)
        return webhook

    async def test(self, webhook_id: UUID) -> Outcome:
        """Send a test message now and return the outcome.

        Raises:
            NotFound: there is no such webhook.
            Conflict: it is deleted.
            Unavailable: there is no key to sign with.
        """
        self._signer.require_key()
        async with self._db.transaction() as session:
            webhook = await queries.lock_webhook(session, webhook_id)
        return await self._deliveries.test(webhook, body_of_test())

    async def retry(self, webhook_id: UUID, delivery_id: UUID) -> WebhookDelivery:
        """Make a message due now; one that was given up gets one more attempt.

        Raises:
            NotFound: there is no such webhook, or it has no such message.
            Conflict: the webhook is deleted, or the message is delivered already.
        """
        async with self._db.transaction() as session:
            await queries.lock_webhook(session, webhook_id)
            return await queries.retry_delivery(session, webhook_id, delivery_id)


def require_allowed_url(url: str) -> None:
    """Check that a URL is valid for a receiver; host names are resolved only when it is called.

    Raises:
        ValueError: the URL is invalid; the message never quotes it.
    """
    parts = _parts(url)
    host = (parts.hostname or "").removesuffix(".")
    address = written(host)
    is_here = is_loopback(host) if address is None else address.is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and is_here):
        raise ValueError("must be https; http is allowed only for a receiver on this machine")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name or password")
    if "#" in url:
        raise ValueError("must not contain a fragment")
    if address is not None and is_never_called(address):
        raise ValueError("must not name a link-local, multicast or unspecified address")


def _is_a_name(host: str) -> bool:
    """Whether a host is an address or a name that DNS may resolve."""
    if host.startswith("[") or written(host) is not None:
        return True
    labels = host.split(".")
    return (
        len(host) <= 253
        and all(0 < len(label) <= 63 and label.strip("-") == label for label in labels)
        and not labels[-1].isdecimal()  # a malformed address such as 1.2.3.456
        and labels[-1].lower() not in _NEVER_RESOLVED
        and all(map(is_readable, labels))
    )


def without_secrets(url: str) -> str:
    """A receiver's URL up to its host; many services put a secret into the path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"


def _parts(url: str) -> SplitResult:
    if not _PLAIN.fullmatch(url) or "\\" in url:
        raise ValueError("must be a URL in ASCII, without spaces or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "must be a URL with a host, and its port must be from 1 to 65535"
        ) from None
    place = parts.netloc.rpartition("@")[2]
    host = place if port is None else place.rpartition(":")[0]
    if port == 0 or not _HOST.fullmatch(host) or not _is_a_name(host.removesuffix(".")):
        raise ValueError("must be a URL with a host, and its port must be from 1 to 65535")
    return parts
