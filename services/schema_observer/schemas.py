"""Request and response schemas of the schema_observer's API, with examples."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.drift import Severity
from shared.http.connector_step import STEP, ConnectorStep

_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
_SOURCE = "0b6f3c1e-52a7-4d55-8f7e-3f0c8a6f2f10"
_DRIFT = "6f0c2f1e-7a1b-4c3d-8e9f-0a1b2c3d4e5f"
_BEFORE = "1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d"
_AFTER = "2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e"
_AT = "2026-11-24T09:30:00.123456Z"

CHANGE: dict[str, Any] = {
    "kind": "field_removed",
    "stream": {"namespace": None, "name": "Account"},
    "path": ["Region__c"],
    "before": {"type": ["null", "string"]},
    "after": None,
}
JUDGED: dict[str, Any] = {
    **CHANGE,
    "severity": "needs_review",
    "entity": "field",
    "what": "removed",
    "affects_sync": True,
    "reason": "'Region__c' is gone from 'Account'.",
    "loses": ["Region__c"],
    "resets": ["The column of 'Region__c' keeps its values and is null in new rows."],
}

Interval = Annotated[int, Field(strict=True, ge=60, le=604_800)]
Outcome = Literal["unchanged", "changed", "pending", "suspicious", "failed"]
"""`pending`: the source was read; this connection is compared with it once it is ACTIVE."""

SourceOutcome = Literal["unchanged", "changed", "suspicious", "failed"]
"""Of a source, whether its connections are compared with it yet or not."""


def _shown(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": list(examples)})


class StreamView(BaseModel):
    """The identity of a stream within its source."""

    namespace: str | None = None
    name: str


class ChangeView(BaseModel):
    """One change in what a source offers; `path` is empty for the stream itself."""

    model_config = _shown(CHANGE)

    kind: str
    stream: StreamView
    path: list[str]
    before: Any = None
    after: Any = None


class JudgedChange(ChangeView):
    """A change, and what it means for the connection."""

    model_config = _shown(JUDGED)

    severity: Severity
    entity: str
    what: str
    affects_sync: bool
    """Whether it affects what the connection syncs."""
    reason: str
    loses: list[str]
    resets: list[str]
    """What applying the change deletes or resets."""


class ObserveRequest(BaseModel):
    """Options of an observation."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"accept_missing": False}]}
    )

    accept_missing: bool = Field(
        default=False,
        strict=True,
        description=(
            "Accept the result of this observation, whatever is missing: a person has checked it. "
            "It also runs during a sync."
        ),
    )


RESULT: dict[str, Any] = {
    "connection_id": _ID,
    "source_id": _SOURCE,
    "outcome": "changed",
    "snapshot_id": _AFTER,
    "drift_id": _DRIFT,
    "changes": [JUDGED],
    "connector_step": None,
    "code": None,
    "detail": None,
    "cause": None,
    "explanation": None,
    "log": None,
}


class ObservationResult(BaseModel):
    """The result of observing a connection's source."""

    model_config = _shown(RESULT)

    connection_id: UUID
    source_id: UUID
    outcome: Outcome
    snapshot_id: UUID | None = None
    """The snapshot that is trusted."""
    drift_id: UUID | None = None
    changes: list[JudgedChange]
    connector_step: ConnectorStep | None = None
    """The change of the connector's version that came with the drift."""
    code: str | None = None
    """Why it was suspicious, or failed."""
    detail: str | None = None
    cause: str | None = None
    """The known cause of the connector's failure: `quota_exceeded`, `tls_failed`, …"""
    explanation: str | None = None
    """The cause in a sentence."""
    log: str | None = None
    """The Airbyte job that has the connector's log."""


class ObservationContinues(BaseModel):
    """A continuing observation; GET /connections/{connection_id}/observation shows its end."""

    model_config = _shown({"connection_id": _ID, "source_id": _SOURCE, "status": "observing"})

    connection_id: UUID
    source_id: UUID
    status: Literal["observing"]


class ObservationInterval(BaseModel):
    """How often a connection's source is observed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"interval_seconds": 300}]}
    )

    interval_seconds: Interval | None = Field(
        description="From a minute to a week. Null for the default, OBSERVE_INTERVAL."
    )


class ObservationView(BaseModel):
    """How a connection's source is observed, and what the newest observation found."""

    model_config = _shown(
        {
            "connection_id": _ID,
            "source_id": _SOURCE,
            "interval_seconds": None,
            "effective_interval_seconds": 900,
            "next_at": "2026-11-24T09:31:02.123456Z",
            "observing": False,
            "observed_at": _AT,
            "outcome": "suspicious",
            "code": "synced_stream_missing",
            "detail": "1 of 214 streams are gone, and these are synced: 'Account'.",
            "failures": 1,
            "suspicious_since": _AT,
            "snapshot_id": _BEFORE,
            "compared_snapshot_id": _BEFORE,
            "connector_version": "2.10.3",
            "manifest_version": None,
            "cause": None,
            "explanation": None,
            "log": None,
            "postponed_since": None,
            "discoveries_in_24_hours": 97,
            "configuration_renewed_at": None,
        }
    )

    connection_id: UUID
    source_id: UUID | None = None
    interval_seconds: int | None = None
    """As set for this connection; null: the default."""
    effective_interval_seconds: float | None = None
    """The shortest interval of the source's connections; null: it is not observed."""
    next_at: datetime | None = None
    observing: bool
    observed_at: datetime | None = None
    outcome: Outcome | None = None
    code: str | None = None
    detail: str | None = None
    failures: int
    """How many consecutive observations were suspicious or failed."""
    suspicious_since: datetime | None = None
    snapshot_id: UUID | None = None
    """The snapshot that is trusted."""
    compared_snapshot_id: UUID | None = None
    """The snapshot up to which this connection's drifts are recorded."""
    connector_version: str | None = None
    """The version of the source's connector, as it was checked last."""
    manifest_version: int | None = None
    """The active manifest of a connector that was made in the connector builder."""
    cause: str | None = None
    """The known cause of the connector's failure."""
    explanation: str | None = None
    """The cause in a sentence; for callers with connections:write."""
    log: str | None = None
    """The Airbyte job that has the connector's log; for the same callers."""
    postponed_since: datetime | None = None
    """Since when it has been due, waiting for a running sync or for the daily limit."""
    discoveries_in_24_hours: int
    """How often the source was discovered, by any caller; `discoveries_per_day` limits it."""
    configuration_renewed_at: datetime | None = None
    """When a discovery last found that the connector had renewed its configuration in Airbyte."""


SOURCE: dict[str, Any] = {
    "source_id": _SOURCE,
    "workspace_id": "3c1f7a52-8a4e-4b7e-9a43-6d2b1f0e9c87",
    "effective_interval_seconds": 900,
    "next_at": "2026-11-24T09:31:02.123456Z",
    "overdue": False,
    "observing": False,
    "postponed_since": None,
    "observed_at": _AT,
    "outcome": "suspicious",
    "code": "synced_stream_missing",
    "detail": "1 of 214 streams are gone, and these are synced: 'Account'.",
    "cause": None,
    "failures": 1,
    "suspicious_since": _AT,
    "snapshot_id": _BEFORE,
    "connector_version": "2.10.3",
    "manifest_version": None,
    "connection_count": 1,
    "connections": [
        {"connection_id": _ID, "name": "Salesforce production", "source_type": "Salesforce"}
    ],
}


class ObservedConnection(BaseModel):
    """A connection of an observed source."""

    connection_id: UUID
    name: str
    source_type: str


class ObservedSource(BaseModel):
    """How a source is observed, for all of its live connections."""

    model_config = _shown(SOURCE)

    source_id: UUID
    workspace_id: UUID | None = None
    effective_interval_seconds: float
    """The shortest interval of its connections."""
    next_at: datetime
    overdue: bool
    """Whether it was requested, or has been due for more than a minute, and has neither been
    started nor postponed."""
    observing: bool
    postponed_since: datetime | None = None
    """Since when it has been due, waiting for a running sync or for the daily limit."""
    observed_at: datetime | None = None
    outcome: SourceOutcome | None = None
    """Null before the first observation."""
    code: str | None = None
    detail: str | None = None
    cause: str | None = None
    """The known cause of the connector's failure."""
    failures: int
    """How many consecutive observations were suspicious or failed."""
    suspicious_since: datetime | None = None
    """Since when it has been reported for this `code`, suspicious or failed."""
    snapshot_id: UUID | None = None
    """The snapshot that is trusted."""
    connector_version: str | None = None
    manifest_version: int | None = None
    connection_count: int
    connections: list[ObservedConnection]
    """The first 20 by name."""


class ObservedSourcePage(BaseModel):
    """Sources by id; `next` is the next page's `after`, null on the last page."""

    model_config = _shown({"items": [SOURCE], "next": None})

    items: list[ObservedSource]
    next: UUID | None = None


DRIFT: dict[str, Any] = {
    "id": _DRIFT,
    "connection_id": _ID,
    "connection_name": "Salesforce production",
    "before_snapshot_id": _BEFORE,
    "after_snapshot_id": _AFTER,
    "severity": "needs_review",
    "affects_sync": True,
    "connector_step": STEP,
    "open": True,
    "change_count": 1,
    "first_seen_at": _AT,
}


class DriftRow(BaseModel):
    """How a source's schema changed for one connection: an immutable record."""

    model_config = _shown(DRIFT)

    id: UUID
    connection_id: UUID
    connection_name: str
    before_snapshot_id: UUID | None = None
    """Null where the source was never observed before: the catalog was compared instead."""
    after_snapshot_id: UUID
    severity: Severity
    """The highest severity of its changes."""
    affects_sync: bool
    """Whether any change affects what the connection syncs."""
    connector_step: ConnectorStep | None = None
    """The change of the connector's version that came with it; null without one, or if unknown."""
    open: bool
    """Whether it still awaits a plan, or the end of a repair."""
    change_count: int
    """A rename that its repair proposes or decided counts once."""
    first_seen_at: datetime


class Rename(BaseModel):
    """A removed field or stream, and what it became."""

    kind: Literal["field_renamed", "stream_renamed"]
    stream: dict[str, Any]
    path: list[str]
    became: list[str]


class DriftView(DriftRow):
    """A drift with its changes."""

    model_config = _shown({**DRIFT, "changes": [JUDGED], "renames": []})

    changes: list[JudgedChange]
    renames: list[Rename]
    """Which removals and additions are one change, as far as its newest repair knows."""


class DriftPage(BaseModel):
    """Drifts, newest first; `next` is the next page's `after`, null on the last page."""

    model_config = _shown({"items": [DRIFT], "next": None})

    items: list[DriftRow]
    next: str | None = None


SNAPSHOT: dict[str, Any] = {
    "snapshot_id": _AFTER,
    "taken_at": _AT,
    "seen_at": "2026-11-24T10:45:01.123456Z",
    "streams": 214,
    "connector_version": "3.0.0",
    "manifest_version": None,
}


class SnapshotView(BaseModel):
    """What a source offered at one time, without its streams."""

    model_config = _shown(SNAPSHOT)

    snapshot_id: UUID
    taken_at: datetime
    seen_at: datetime
    """When an observation last found the source unchanged."""
    streams: int
    connector_version: str | None = None
    """The connector's version when an observation last found this schema, as far as it is known."""
    manifest_version: int | None = None
    """The same of the manifest of a connector that was made in the connector builder."""


class UpcomingChange(BaseModel):
    """A breaking change of a newer version of a connector."""

    version: str
    message: str
    """What changes, as the connector's registry describes it."""
    guide: str | None = None
    """URL of its migration guide."""
    deadline: date | None = None
    """The day after which the older version is not supported any more."""
    action: str | None = None
    """What Airbyte Cloud does after the deadline: `auto_upgrade` or `disable`."""


CONNECTOR: dict[str, Any] = {
    "connection_id": _ID,
    "source_id": _SOURCE,
    "repository": "airbyte/source-salesforce",
    "version": "2.10.3",
    "manifest_version": None,
    "known_since": _AT,
    "support_state": "deprecated",
    "pinned": False,
    "upcoming_breaking_changes": [
        {
            "version": "3.0.0",
            "message": "Fields of several streams are renamed.",
            "guide": "https://docs.airbyte.com/integrations/sources/salesforce-migrations",
            "deadline": "2026-12-31",
            "action": "disable",
        }
    ],
    "deadline": "2026-12-31",
    "checked_at": _AT,
}


class ConnectorView(BaseModel):
    """The version of its connector that a connection's source runs, and what lies ahead of it."""

    model_config = _shown(CONNECTOR)

    connection_id: UUID
    source_id: UUID
    repository: str
    version: str
    manifest_version: int | None = None
    """The active manifest of a connector that was made in the connector builder."""
    known_since: datetime
    """When this version was first found."""
    support_state: str
    """`supported`, `deprecated` (a breaking change has a deadline) or `unsupported` (it passed)."""
    pinned: bool
    """Whether a user pinned the source to this version in Airbyte: it cannot be upgraded then."""
    upcoming_breaking_changes: list[UpcomingChange]
    """The breaking changes of newer versions, nearest deadline first."""
    deadline: date | None = None
    """The nearest of their deadlines."""
    checked_at: datetime


class SnapshotDiff(BaseModel):
    """The changes between two snapshots of a source."""

    model_config = _shown(
        {
            "before_snapshot_id": _BEFORE,
            "after_snapshot_id": _AFTER,
            "changes": [CHANGE],
            "next": None,
        }
    )

    before_snapshot_id: UUID
    after_snapshot_id: UUID
    changes: list[ChangeView]
    next: str | None = None
    """With `limit`, the next page's `after`; null on the last page."""
