"""Requests and responses about single jobs: their logs, their cancellation, and refreshes."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from services.orchestrator.edit_schemas import Effect
from shared.http.strict_json import plain

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
