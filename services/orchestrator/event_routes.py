"""HTTP routes of lifecycle events: pages of them, and a stream."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from services.orchestrator.event_log import Position, Wanted
from services.orchestrator.event_pages import EventPages
from services.orchestrator.event_streams import HEADERS, EventStreams, Reader
from shared.auth.scopes import Scope, caller_of, may, recheck_of
from shared.http.dependencies import from_state
from shared.http.openapi import example
from shared.http.paging import Limit
from shared.http.problems import problems
from shared.http.request_log import is_head
from shared.http.responses import raw_json
from shared.outbox import EventType

_EVENT: dict[str, Any] = {
    "id": "1764500000123-0",
    "event_id": "0b9f5c0e-3c57-4d0e-9d4b-6a5e4f3c2b1a",
    "type": "drift.detected",
    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "ref": "3f1e2d3c-4b5a-4968-8776-655443322110",
    "status": "ACTIVE",
    "version": 3,
    "code": "needs_review",
    "at": "2026-11-30T09:30:00.123Z",
}
_STREAM = f"""\
retry: 3120

: heartbeat
id: 1764500000000-0

id: {_EVENT["id"]}
data: {{"id":"{_EVENT["id"]}","type":"drift.detected","connection_id":"{_EVENT["connection_id"]}"}}

"""


class EventView(BaseModel):
    """A change of a connection, by ids and codes only."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EVENT]})

    id: str
    """Its place in the order of all events."""
    event_id: UUID | None
    """The same for a repeated delivery, which has another `id`."""
    type: str
    connection_id: UUID | None
    ref: UUID | None
    """The job, snapshot, drift, operation or repair that the event is about."""
    status: str | None
    """The connection's status at that time, or that of the job."""
    version: int | None
    """The connection's newest catalog version at that time."""
    code: str | None
    at: datetime | None


class EventPage(BaseModel):
    """Events, oldest first."""

    items: list[EventView]
    next: str
    """Pass it as `after` for the events that follow, now or later."""
    has_more: bool
    """Whether there are more events already."""
    gap: bool
    """Whether events after `after` are no longer kept: read the state again."""


router = APIRouter(prefix="/events", tags=["events"])

AfterId = Annotated[
    str | None,
    Query(
        pattern=r"^[0-9]{1,20}(-[0-9]{1,20})?$",
        max_length=41,
        description="Id of an event, or `next` of a page; `0` for the oldest event that is kept",
    ),
]
Types = Annotated[
    list[EventType] | None, Query(max_length=50, description="Only events of these types")
]
ConnectionId = Annotated[UUID | None, Query(description="Only events of this connection")]


@router.get(
    "",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=EventPage,
    responses={
        200: example({"items": [_EVENT], "next": _EVENT["id"], "has_more": False, "gap": False}),
        **problems(422, 503),
    },
)
async def events(
    pages: Annotated[EventPages, from_state("event_pages")],
    after: AfterId = None,
    types: Types = None,
    connection_id: ConnectionId = None,
    limit: Limit = 100,
) -> Response:
    """List lifecycle events, oldest first: those after `after`, by default the newest ones.

    `next` is never null: pass it as `after` to get what has happened since. The newest 100,000
    events are kept. An event can be published twice, with the same `event_id`. With filters, a page
    can have fewer items than `limit` while `has_more` is true.
    """
    wanted = Wanted.of(types, connection_id)
    if after is None:
        return raw_json(await pages.newest(wanted, limit=limit))
    return raw_json(await pages.after(Position.of(after), wanted, limit=limit))


@router.get(
    "/stream",
    dependencies=[may(Scope.CONNECTIONS_READ, service=Scope.EVENTS_READ)],
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events",
            "content": {"text/event-stream": {"example": _STREAM}},
        },
        **problems(422, 429, 503),
    },
)
async def event_stream(
    request: Request,
    streams: Annotated[EventStreams, from_state("event_streams")],
    after: AfterId = None,
    types: Types = None,
    connection_id: ConnectionId = None,
    last_event_id: Annotated[
        str | None,
        Header(
            pattern=r"^[0-9]{1,20}(-[0-9]{1,20})?$",
            max_length=41,
            description="Like `after`, which it overrides; browsers send it when they reconnect",
        ),
    ] = None,
) -> Response:
    """Follow lifecycle events as server-sent events, from now on or after an event.

    `data` is an item of `GET /events`, and `id` its `id`, which any replica resumes after. The
    event `reset` means that events may be lost: read the state again. While Redis is unavailable,
    there are no events between `away` and `back`. A comment is sent every 15 seconds. The stream
    ends after 15 minutes (`EVENT_STREAM_LIFETIME`), when its credentials stop being valid, and
    after `reset` if the reader is too slow. 429 `too_many_streams`: the caller has as many open as
    `EVENT_STREAMS_PER_CALLER` allows in this process. AAM's console needs the scope `events:read`
    instead.
    """
    position = last_event_id or after
    reader = Reader(
        caller_of(request),
        recheck_of(request),
        Wanted.of(types, connection_id),
        None if position is None else Position.of(position),
    )
    if is_head(request):
        streams.expect_room(reader.caller)
        return Response(headers=HEADERS)
    return streams.open(reader)
