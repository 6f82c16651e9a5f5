"""Response classes about the states of connections; none has a value of a state."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared.domain.catalog import StreamId
from shared.saved_states.queries import Kind, NotSaved

OUTCOME: dict[str, Any] = {"saved": True, "not_saved": None, "put_back": [], "not_put_back": []}


class StreamName(BaseModel):
    """A stream by namespace and name."""

    namespace: str | None = None
    name: str

    @classmethod
    def of(cls, stream: StreamId) -> Self:
        """Convert from the domain's type."""
        return cls(namespace=stream.namespace, name=stream.name)


Reason = Literal[
    "global_state",
    "not_deduplicated",
    "not_incremental",
    "cursor_changed",
    "not_saved",
    "connector_changed",
    "synced_since",
    "sync_running",
    "has_state",
    "refused",
]
"""Why a stream's state is not put back; see docs/guides/rollback.md."""


class NotPutBack(BaseModel):
    """A stream that is read from its start, or resumes from another state, and why."""

    stream: StreamName
    reason: Reason


class StateOutcome(BaseModel):
    """What became of Airbyte's state of the connection."""

    model_config = ConfigDict(json_schema_extra={"examples": [OUTCOME]})

    saved: bool
    """Whether it was saved before the change, so that it can be put back."""
    not_saved: NotSaved | None = None
    """Why it was not: `no_key` (STATE_ENCRYPTION_KEYS is not set), `no_state` (Airbyte has none),
    `too_large`, or `unreadable` (Airbyte did not return it)."""
    put_back: list[StreamName] = []
    """The streams whose state was put back, or taken along to a new name."""
    not_put_back: list[NotPutBack] = []
    """The streams that lost their state, or were renamed, and are read from their start."""


_STREAM = {"namespace": None, "name": "Account"}
STATE: dict[str, Any] = {
    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "type": "stream",
    "shared": None,
    "streams": [
        {"stream": _STREAM, "selected": True, "shape": {"SystemModstamp": "string"}},
        {
            "stream": {"namespace": None, "name": "Lead"},
            "selected": False,
            "shape": {"SystemModstamp": "string"},
        },
    ],
    "orphaned": [{"namespace": None, "name": "Lead"}],
    "saved": {
        "saved_at": "2026-11-30T09:30:00.123456Z",
        "kind": "heal",
        "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
        "catalog_version": 3,
        "connector_version": "2.10.3",
    },
    "not_saved": None,
}


class StreamShape(BaseModel):
    """The state of one stream, without its values."""

    stream: StreamName
    selected: bool
    """Whether the head selects the stream."""
    shape: Any
    """The types of its parts and the names of its keys. A key that may be a value is shown as `*`,
    with an array of shapes."""


class SavedView(BaseModel):
    """When the state was saved, before which change."""

    saved_at: datetime
    kind: Kind
    operation_id: UUID
    catalog_version: int
    """The head at that time."""
    connector_version: str | None = None
    """What the source ran at that time."""


class StateView(BaseModel):
    """What a connection's next sync resumes from, without values."""

    model_config = ConfigDict(json_schema_extra={"examples": [STATE]})

    connection_id: UUID
    type: str
    """stream, global, legacy, not_set, or one that AAM does not know."""
    shared: Any = None
    """The shape of the part that the streams of a global state share, or of a legacy state."""
    streams: list[StreamShape]
    orphaned: list[StreamName]
    """The streams that have state and that the head does not select. Selected again, they resume;
    with a global state, they would miss what changed meanwhile."""
    saved: SavedView | None = None
    """The newest state that AAM saved; null if it never has, or it was pruned."""
    not_saved: NotSaved | None = None
    """Why nothing was saved before the newest change; `no_key` also before the first change."""
