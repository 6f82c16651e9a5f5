"""The routes of webhooks: subscriptions and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias, get_args
from uuid import UUID

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.drift_repair_agent.webhooks import queries
from services.drift_repair_agent.webhooks.messages import SUBSCRIBED_BY_DEFAULT
from services.drift_repair_agent.webhooks.subscriptions import (
    Receivers,
    require_allowed_url,
    without_secrets,
)
from shared import registry
from shared.auth.scopes import Caller, Scope, caller_of, may
from shared.database import Database
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import After, Limit, Page
from shared.http.problems import problems
from shared.http.setting_history import HistoryPage, SettingHistory
from shared.models import Webhook, WebhookDelivery

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

EventName: TypeAlias = Literal[
    "repair.proposed",
    "repair.applied",
    "repair.failed",
    "repair.rolled_back",
    "repair.expired",
    "repair.rejected",
    "repair.superseded",
    "mapper.lapsed",
    "connector.upgrade_due",
    "sync.volume_suspicious",
    "credential.rotated",
    "credential.changed",
    "credential.rejected",
    "credential.expiring",
]

_ID = "c0a8f3d2-7b1e-4f6a-9d3c-5e2b1a0f9c8d"
_DELIVERY_ID = "3e9d1c7a-5b2f-4e8d-a6c1-0f4b7d2e9a53"
_REPAIR_ID = "91aa6c1e-8f64-4f0b-9a3c-0b1c2d3e4f50"
_SECRET = "whsec_YW4gZXhhbXBsZSwgd2hpY2ggc2lnbnMgbm90aGluZw=="  # noqa: S105 - it signs nothing
_WEBHOOK: dict[str, Any] = {
    "id": _ID,
    "url": "https://hooks.example.com/aam",
    "events": list(SUBSCRIBED_BY_DEFAULT),
    "connection_id": None,
    "connection_name": None,
    "created_at": "2026-11-22T09:30:00.123456Z",
    "created_by": "ada@example.com (key ab12cd34)",
    "rotated_at": None,
    "rotated_by": None,
    "deleted_at": None,
    "deleted_by": None,
}
_DELIVERY: dict[str, Any] = {
    "id": _DELIVERY_ID,
    "repair_id": _REPAIR_ID,
    "type": "repair.proposed",
    "state": "delivered",
    "attempts": 2,
    "next_at": None,
    "last_status": 204,
    "last_code": None,
    "created_at": "2026-11-22T09:30:00.123456Z",
    "ended_at": "2026-11-22T09:30:05.654321Z",
}


def _meant(url: str) -> str:
    try:
        require_allowed_url(url)
    except ValueError as error:
        raise PydanticCustomError("aam_webhook_url", f"The URL {error}") from None
    return url


class NewWebhook(BaseModel):
    """A request to create a webhook."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://hooks.example.com/aam"}]},
    )

    url: Annotated[str, AfterValidator(_meant)] = Field(
        max_length=2048,
        description="An https URL, or http on this machine. Messages are sent by POST.",
    )
    events: list[EventName] = Field(
        default_factory=lambda: list(SUBSCRIBED_BY_DEFAULT),  # type: ignore[arg-type]  # its values
        min_length=1,
        max_length=len(get_args(EventName)),
        description=("Default: all of repairs, except `repair.rejected` and `repair.superseded`."),
    )
    connection_id: UUID | None = Field(
        default=None, description="Send only this connection's events. Default: all connections."
    )


class WebhookView(BaseModel):
    """A webhook, without the secret that its messages are signed with."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})

    id: UUID
    url: str = Field(
        description="Complete for callers with `connections:write`; without the path for others."
    )
    events: list[str]
    connection_id: UUID | None = None
    connection_name: str | None = None
    created_at: datetime
    created_by: str | None = Field(
        default=None,
        description="The caller who requested it; likewise for `rotated_by` and `deleted_by`.",
    )
    rotated_at: datetime | None = Field(
        default=None,
        description="When its secret was last rotated; the previous one signs for another day.",
    )
    rotated_by: str | None = None
    deleted_at: datetime | None = Field(
        default=None, description="Set by a caller, or when its receiver responds 410."
    )
    deleted_by: str | None = None


class WebhookWithSecret(WebhookView):
    """A webhook with the secret to verify its messages with, by Standard Webhooks."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK | {"secret": _SECRET}]})

    secret: str


class DeliveryView(BaseModel):
    """One message and the state of its delivery."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [_DELIVERY]})

    id: UUID = Field(description="The message's `webhook-id`, the same on every attempt.")
    repair_id: UUID | None = Field(
        default=None, description="Null for a message that is about no repair."
    )
    type: str
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    next_at: datetime | None = Field(
        default=None, description="When the next attempt is due; null when it has ended."
    )
    last_status: int | None = Field(
        default=None, description="Null if the receiver did not respond."
    )
    last_code: str | None = Field(
        default=None,
        description="Why the last attempt failed: `refused`, `redirected`, `gone`, `timeout`,"
        " `unreachable`, `tls_failed`, `no_answer`, `not_sent`, `webhook_deleted`.",
    )
    created_at: datetime
    ended_at: datetime | None = None


class Tested(BaseModel):
    """The outcome of a test message."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"delivered": True, "status": 204, "code": None, "ms": 41.7}]
        }
    )

    delivered: bool
    status: int | None = None
    code: str | None = Field(default=None, description="Like `last_code` of a delivery.")
    ms: float


Saga = Annotated[Receivers, from_state("receivers")]
Registry = Annotated[Database, from_state("db")]


@router.post(
    "",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    status_code=201,
    responses={
        201: links(
            "GET /webhooks/{webhook_id}",
            "POST /webhooks/{webhook_id}/test",
            "GET /webhooks/{webhook_id}/deliveries",
            "POST /webhooks/{webhook_id}/rotate",
            "DELETE /webhooks/{webhook_id}",
            webhook_id="$response.body#/id",
        ),
        **problems(422, 503),
    },
)
async def add_webhook(
    order: NewWebhook, receivers: Saga, db: Registry, response: Response
) -> WebhookWithSecret:
    """Create a webhook that is notified of repairs.

    The secret is returned only here; `/rotate` replaces a lost one. Each message says what changed
    and is signed by [Standard Webhooks](https://www.standardwebhooks.com). Delivery is at least
    once and unordered; deduplicate by `webhook-id`. A 2xx response confirms a message, a 410
    deletes the webhook, and anything else is retried for three days.
    """
    events = sorted(set(order.events))
    row, secret = await receivers.add(order.url, events, order.connection_id)
    return await _with_secret(db, row, secret, response)


@router.get(
    "",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    responses={200: example({"items": [_WEBHOOK], "next": None}), **problems(422, 503)},
)
async def webhooks(
    request: Request, db: Registry, after: After = None, limit: Limit = 100
) -> Page[WebhookView]:
    """List the webhooks, newest first, without the deleted ones.

    Callers without `connections:write` see only the scheme and host of a URL, since many services
    put a secret into the path or query.
    """
    async with db.read() as session:
        rows, following = await queries.page_of_webhooks(session, cursor=after, limit=limit)
    return Page(items=await _shown(db, rows, caller_of(request)), next=following)


@router.get(
    "/{webhook_id}", dependencies=[may(Scope.CONNECTIONS_READ)], responses=problems(404, 422, 503)
)
async def webhook(webhook_id: UUID, request: Request, db: Registry) -> WebhookView:
    """Get one webhook, deleted or not; its full URL only with `connections:write`."""
    async with db.read() as session:
        row = await queries.find_webhook(session, webhook_id)
    (shown,) = await _shown(db, [row], caller_of(request))
    return shown


@router.delete(
    "/{webhook_id}", dependencies=[may(Scope.CONNECTIONS_WRITE)], responses=problems(404, 422, 503)
)
async def delete_webhook(
    webhook_id: UUID, request: Request, receivers: Saga, db: Registry
) -> WebhookView:
    """Delete the webhook: nothing more is sent to it, but its messages stay readable."""
    (shown,) = await _shown(db, [await receivers.delete(webhook_id)], caller_of(request))
    return shown


@router.post(
    "/{webhook_id}/rotate",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses=problems(404, 409, 422, 503),
)
async def rotate_webhook(
    webhook_id: UUID, receivers: Saga, db: Registry, response: Response
) -> WebhookWithSecret:
    """Rotate the webhook's secret; the new one is returned only here.

    For 24 hours messages are signed with both secrets, so that the receiver has time to switch.
    """
    row, secret = await receivers.rotate(webhook_id)
    return await _with_secret(db, row, secret, response)


@router.post(
    "/{webhook_id}/test",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses=problems(404, 409, 422, 503),
)
async def test_webhook(webhook_id: UUID, receivers: Saga) -> Tested:
    """Send a signed `webhook.test` message once, now, and report the outcome.

    Takes at most ten seconds.
    """
    outcome = await receivers.test(webhook_id)
    return Tested(
        delivered=outcome.code is None,
        status=outcome.status,
        code=outcome.code,
        ms=round(outcome.took / timedelta(milliseconds=1), 1),
    )


@router.get(
    "/{webhook_id}/deliveries",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    responses={
        200: example({"items": [_DELIVERY], "next": None})
        | links(
            "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/retry",
            webhook_id="$request.path.webhook_id",
            delivery_id="$response.body#/items/0/id",
        ),
        **problems(404, 422, 503),
    },
)
async def deliveries(
    webhook_id: UUID, db: Registry, after: After = None, limit: Limit = 100
) -> Page[DeliveryView]:
    """List the webhook's messages, newest first; ended ones are kept for DELIVERY_RETENTION."""
    async with db.read() as session:
        await queries.find_webhook(session, webhook_id)
        rows, following = await queries.page_of_deliveries(
            session, webhook_id, cursor=after, limit=limit
        )
    return Page(items=[_delivery(row) for row in rows], next=following)


@router.get(
    "/{webhook_id}/history",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    response_model=SettingHistory,
    responses=problems(404, 422, 503),
)
async def webhook_history(webhook_id: UUID, db: Registry, page: HistoryPage) -> Response:
    """List who created, rotated and deleted the webhook, newest first."""
    async with db.read() as session:
        await queries.find_webhook(session, webhook_id)
        return await page.of(session, "webhook", webhook_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/retry",
    dependencies=[may(Scope.CONNECTIONS_WRITE)],
    status_code=202,
    responses=problems(404, 409, 422, 503),
)
async def retry_delivery(webhook_id: UUID, delivery_id: UUID, receivers: Saga) -> DeliveryView:
    """Send a message again now; one that was given up gets one more attempt."""
    return _delivery(await receivers.retry(webhook_id, delivery_id))


async def _shown(db: Database, rows: Sequence[Webhook], caller: Caller | None) -> list[WebhookView]:
    """Views of webhooks with what this caller may see; None sees everything."""
    async with db.read() as session:
        names = await registry.connection_names(
            session, [row.connection_id for row in rows if row.connection_id is not None]
        )
    may_see_urls = caller is None or Scope.CONNECTIONS_WRITE in caller.scopes
    return [
        WebhookView(
            id=row.id,
            url=row.url if may_see_urls else without_secrets(row.url),
            events=msgspec.json.decode(row.events),
            connection_id=row.connection_id,
            connection_name=None if row.connection_id is None else names[row.connection_id],
            created_at=row.created_at,
            created_by=row.created_by,
            rotated_at=row.rotated_at,
            rotated_by=row.rotated_by,
            deleted_at=row.deleted_at,
            deleted_by=row.deleted_by,
        )
        for row in rows
    ]


async def _with_secret(
    db: Database, row: Webhook, secret: str, response: Response
) -> WebhookWithSecret:
    response.headers["cache-control"] = "no-store"
    (shown,) = await _shown(db, [row], None)
    return WebhookWithSecret(**shown.model_dump(), secret=secret)


def _delivery(row: WebhookDelivery) -> DeliveryView:
    shown = DeliveryView.model_validate(row)
    return shown if row.ended_at is None else shown.model_copy(update={"next_at": None})
