"""Requests and responses about jobs: lists, logs, cancellation, and refreshes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.orchestrator.edit_schemas import Effect
from shared.http.strict_json import plain
from shared.models import JobStarter

_JOB: dict[str, Any] = {
    "job_id": "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
    "airbyte_job_id": 42,
    "status": "failed",
}
LOG: dict[str, Any] = {
    **_JOB,
    "attempt": 0,
    "attempts": 1,
    "failures": [
        {
            "type": "config_error",
            "origin": "source",
            "stream": "Account",
            "message": "HTTP 401: ***",
            "internal_message": None,
        }
    ],
    "items": ["2026-11-22 09:31:04 error source > HTTP 401 for url: ***"],
    "next": None,
}


JOB: dict[str, Any] = {
    "job_id": "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "connection_name": "Salesforce production",
    "airbyte_job_id": 42,
    "kind": "sync",
    "status": "succeeded",
    "started_by": "aam",
    "requested_by": "ada@example.com (key ab12cd34)",
    "catalog_version": 1,
    "attempts": 1,
    "records": 700,
    "bytes": 181034,
    "started_at": "2026-11-22T09:31:00.123456Z",
    "ended_at": "2026-11-22T09:31:14.654321Z",
    "duration_seconds": 14.531,
}


class SuspiciousStream(BaseModel):
    """A stream that brought no rows in a sync, or far fewer than usual."""

    stream: str
    namespace: str | None = None
    rows: int
    usual_low: int
    usual_high: int
    suspicious_since: datetime
    """The end of the first of the syncs in a row that were suspicious."""


class JobView(BaseModel):
    """One job, with its progress; `records` and `bytes` count what was committed."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    job_id: UUID
    connection_id: UUID
    connection_name: str
    airbyte_job_id: int
    kind: str
    """Airbyte's word: `sync`, `refresh`, or `clear` and `reset_connection`, which only clear data
    and do not count as syncs elsewhere."""
    status: str
    started_by: JobStarter
    requested_by: str | None = None
    """Whose credentials requested the sync from AAM."""
    catalog_version: int
    attempts: int
    records: int | None = None
    bytes: int | None = None
    failure_code: str | None = None
    failure_cause: str | None = None
    """The known cause of a failed sync; `unknown` where its log has to be read."""
    failure_explanation: str | None = None
    "The cause as a sentence; for callers with connections:write."
    follow_up: (
        Literal["due", "observed", "retried", "rejected", "skipped", "awaits_heal", "synced"] | None
    ) = None
    """What AAM did after a failure of the source: observed it, retried the sync with a new
    credential, or found the credential rejected; `due` until then.

    With the policy `sync_after_heal`, a sync whose source was observed is `awaits_heal`, and
    `synced` once AAM has started it again after the heal.
    """
    started_at: datetime
    ended_at: datetime | None = None
    duration_seconds: float
    """Up to now, while it runs."""
    suspicious_streams: list[SuspiciousStream] = []
    """At most 20; GET /connections/{connection_id}/volume lists all."""


class FailureView(BaseModel):
    """An error of an attempt, as the connector or Airbyte reported it, masked."""

    type: str | None = None
    origin: str | None = None
    """The component that failed: source, destination, replication, …"""
    stream: str | None = None
    message: str | None = None
    internal_message: str | None = None


class JobLogView(BaseModel):
    """A part of the log of one attempt; everything in it that is not known to be harmless is `***`.

    `items` are the last lines, in their order; `next` leads to the lines before them.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [LOG]})

    job_id: UUID
    airbyte_job_id: int
    status: str
    attempt: int | None = None
    """The attempt whose log this is; null if Airbyte has none."""
    attempts: int
    failures: list[FailureView]
    items: list[str]
    next: str | None = None


class JobCancelled(BaseModel):
    """The job after its cancellation; it may have ended in another way just before."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
                    **_JOB,
                    "status": "cancelled",
                }
            ]
        }
    )

    operation_id: UUID
    job_id: UUID
    airbyte_job_id: int
    status: str


_StreamName = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(plain)]


class RefreshedStream(BaseModel):
    """A stream of the connection."""

    model_config = ConfigDict(extra="forbid")

    name: _StreamName
    namespace: _StreamName | None = None


class Refresh(BaseModel):
    """The request to read streams again from their start."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"streams": [{"name": "Account"}]}]},
    )

    streams: list[RefreshedStream] = Field(min_length=1, max_length=1000)
    mode: Literal["merge", "truncate"] = Field(
        default="merge",
        description="`merge` keeps the rows in the destination. `truncate` removes those of "
        "earlier syncs when the job has succeeded, and needs connections:write, too.",
    )


class RefreshStarted(BaseModel):
    """A refresh that Airbyte has accepted; without `job_id`, one that is still being started."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "operation_id": "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0",
                    **_JOB,
                    "status": "running",
                    "effects": [
                        {"code": "streams_read_again", "message": "The job reads Account from …"}
                    ],
                }
            ]
        }
    )

    operation_id: UUID
    job_id: UUID | None = None
    airbyte_job_id: int | None = None
    status: str
    """`stored` if Airbyte carries the refresh out with its next job."""
    effects: list[Effect] = []
