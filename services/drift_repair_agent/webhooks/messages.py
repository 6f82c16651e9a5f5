"""Build webhook messages, and store them in the transaction of the change."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType
from sqlalchemy.ext.asyncio import AsyncSession

from services.drift_repair_agent.webhooks import queries
from shared import registry
from shared.domain.drift import Severity, worst
from shared.models import Connection, Repair, SourceConnector, TimelineEvent
from shared.observability import logs
from shared.outbox import EventType

log = logs.get(__name__)

SUBSCRIBED_BY_DEFAULT: Final = (
    EventType.REPAIR_PROPOSED,
    EventType.REPAIR_APPLIED,
    EventType.REPAIR_FAILED,
    EventType.REPAIR_ROLLED_BACK,
    EventType.REPAIR_EXPIRED,
)
TEST: Final = "webhook.test"

_MOST_CHANGES: Final = 50
_MOST_BYTES: Final = 64 * 1024
_MOST_LOST: Final = 20


class _Suggestion(msgspec.Struct):
    """What a removed field or stream became, without the evidence, which may contain values."""

    became: Raw
    confidence: float
    taken_by_approve: bool = False
    """Whether an approval without `choices` uses it."""
    removed: Raw | UnsetType = UNSET
    """The change's own path."""


class _Change(msgspec.Struct, omit_defaults=True):
    """The part of a repair's change that a message contains."""

    kind: str
    stream: Raw
    path: Raw
    severity: Severity
    reason: str
    id: str | UnsetType = UNSET
    loses: list[str] = []
    reaction: str | UnsetType = UNSET
    suggestion: _Suggestion | None = None


class _Data(msgspec.Struct, omit_defaults=True):
    connection_id: str
    connection_name: str
    repair_id: str
    kind: str
    state: str
    severity: Severity | None
    changes: list[Raw]
    connector_step: Raw | None = None
    """The change of the connector's version that came with the changes."""
    truncated: int = 0
    """The number of changes left out; GET /repairs/{id} has them."""
    version: int | None = None
    code: str | None = None


class _UpgradeDue(msgspec.Struct):
    """The data of a message about a connector's deadline."""

    connection_id: str
    connection_name: str
    source_id: str
    repository: str | None
    version: str | None
    support_state: str | None
    deadline: str
    upcoming_breaking_changes: Raw


class _Credential(msgspec.Struct, omit_defaults=True):
    """The data of a message about the credential of a connection's source."""

    connection_id: str
    connection_name: str
    source_id: str | None
    credential_id: str | None
    code: str | None = None
    expires_at: str | None = None
    operation_id: str | None = None


class _Volume(msgspec.Struct, omit_defaults=True):
    """The data of a message about a sync that brought far fewer rows than usual."""

    connection_id: str
    connection_name: str
    job_id: str | None
    code: str | None
    suspicious_streams: list[_SuspiciousStream]
    truncated: int = 0
    """The number of streams left out; the job's view has twenty."""


class _SuspiciousStream(msgspec.Struct):
    stream: str
    namespace: str | None
    rows: int | None
    usual_low: int | None
    usual_high: int | None


_CHANGES = msgspec.json.Decoder(list[_Change])
_STREAMS = msgspec.json.Decoder(list[_SuspiciousStream])


async def notify(session: AsyncSession, repair: Repair, event: EventType) -> None:
    """Add a message about this event of a repair for each webhook that subscribes to it.

    Runs in the caller's transaction; any replica sends the messages after it commits. Idempotent:
    a repeat of the same event of the same repair adds nothing.
    """
    webhooks = await queries.subscribed_webhooks(session, repair.connection_id, event)
    if not webhooks:
        return
    await session.flush()  # the message refers to the repair's row
    connection = await registry.find_connection(session, repair.connection_id)
    body = _body(repair, event, connection_name=connection.name)
    await queries.add_deliveries(session, webhooks, repair_id=repair.id, event=event, body=body)


async def notify_upgrade_due(
    session: AsyncSession, connection: Connection, connector: SourceConnector
) -> None:
    """Add a message about a connector's deadline for each webhook that subscribes to it.

    Runs in the transaction that records the announcement, so that it is sent once for a deadline.
    """
    event = EventType.CONNECTOR_UPGRADE_DUE
    webhooks = await queries.subscribed_webhooks(session, connection.id, event)
    if not webhooks:
        return
    data = _UpgradeDue(
        connection_id=str(connection.id),
        connection_name=connection.name,
        source_id=str(connector.airbyte_source_id),
        repository=connector.repository,
        version=connector.version,
        support_state=connector.support_state,
        deadline=str(connector.deadline),
        upcoming_breaking_changes=Raw(connector.upcoming.encode()),
    )
    body = _encoded(event, data)
    await queries.add_deliveries(session, webhooks, repair_id=None, event=event, body=body)


async def notify_from_history(session: AsyncSession, event: TimelineEvent) -> None:
    """Add the messages about an event that is in the history of its connection.

    The event must be locked by the caller's transaction, which then ends its `to_notify`, so that
    the messages are added once.
    """
    webhooks = await queries.subscribed_webhooks(session, event.connection_id, event.type)
    if not webhooks:
        return
    connection = await registry.find_connection(session, event.connection_id)
    if event.type == EventType.SYNC_VOLUME_SUSPICIOUS:
        data: _Volume | _Credential = await _volume(session, connection, event)
    else:
        data = _credential(connection, event)
    body = _encoded(event.type, data, at=event.at)
    await queries.add_deliveries(session, webhooks, repair_id=None, event=event.type, body=body)


def _credential(connection: Connection, event: TimelineEvent) -> _Credential:
    source_id = connection.airbyte_source_id
    is_expiring = event.type == EventType.CREDENTIAL_EXPIRING
    return _Credential(
        connection_id=str(connection.id),
        connection_name=connection.name,
        source_id=None if source_id is None else str(source_id),
        credential_id=connection.credential_id,
        code=None if is_expiring else event.code,
        expires_at=event.code if is_expiring else None,
        operation_id=None if event.ref is None else str(event.ref),
    )


async def _volume(session: AsyncSession, connection: Connection, event: TimelineEvent) -> _Volume:
    stored = await queries.suspicious_streams(session, event.ref)
    streams = [] if stored is None else _STREAMS.decode(stored)
    return _Volume(
        connection_id=str(connection.id),
        connection_name=connection.name,
        job_id=None if event.ref is None else str(event.ref),
        code=event.code,
        suspicious_streams=streams[:_MOST_LOST],
        truncated=max(0, len(streams) - _MOST_LOST),
    )


def _body(repair: Repair, event: EventType, *, connection_name: str) -> str:
    changes = _read(repair)
    encoded_changes = _encode_changes(changes)
    return _encoded(
        event,
        _Data(
            connection_id=str(repair.connection_id),
            connection_name=connection_name,
            repair_id=str(repair.id),
            kind=repair.kind,
            state=repair.state,
            severity=worst(one.severity for one in changes) if changes else None,
            changes=encoded_changes,
            connector_step=(
                None if repair.connector_step is None else Raw(repair.connector_step.encode())
            ),
            truncated=len(changes) - len(encoded_changes),
            version=repair.restored_version or repair.version_number,
            code=repair.failure_code,
        ),
    )


def _read(repair: Repair) -> list[_Change]:
    """Decode the changes of a repair; empty if that fails, which must not keep it from ending.

    Another release may have written them.
    """
    try:
        return _CHANGES.decode(repair.changes)
    except msgspec.DecodeError:
        log.warning("changes_unreadable", repair=str(repair.id))
        return []


def _encode_changes(changes: list[_Change]) -> list[Raw]:
    """Encode the first changes, as many as fit into a message."""
    encoded_changes: list[Raw] = []
    left = _MOST_BYTES
    for change in changes[:_MOST_CHANGES]:
        change.loses = change.loses[:_MOST_LOST]
        if change.suggestion is not None:
            change.suggestion.removed = change.path
        encoded = msgspec.json.encode(change)
        left -= len(encoded)
        if left < 0:
            break
        encoded_changes.append(Raw(encoded))
    return encoded_changes


def body_of_test() -> str:
    """The body of a test message, without data."""
    return _encoded(TEST, {})


class _Message(msgspec.Struct):
    """A stored message, of which only the ids are read."""

    type: Raw
    timestamp: Raw
    data: dict[str, Raw]


_MESSAGE = msgspec.json.Decoder(_Message)


def with_link(body: str, console_url: str) -> str:
    """A message with `console_url`: the console's page of its repair, or else of its connection.

    Added when a message is sent, so a stored one never has an address that has changed since.
    """
    message = _MESSAGE.decode(body)
    for member, page in (("repair_id", "repairs"), ("connection_id", "connections")):
        if member in message.data:
            id_ = msgspec.json.decode(message.data[member], type=str)
            link = f"{console_url.rstrip('/')}/{page}/{id_}"
            message.data["console_url"] = Raw(msgspec.json.encode(link))
            return msgspec.json.encode(message).decode()
    return body


def _encoded(
    event: str,
    data: _Data | _UpgradeDue | _Credential | _Volume | dict[str, object],
    *,
    at: datetime | None = None,
) -> str:
    message = {"type": str(event), "timestamp": at or datetime.now(UTC), "data": data}
    return msgspec.json.encode(message).decode()
