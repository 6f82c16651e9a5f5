"""Response classes of operations."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared.models import OperationStatus

_ID = "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0"
OPERATION: dict[str, Any] = {
    "operation_id": _ID,
    "kind": "onboard",
    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "connection_name": "Salesforce production",
    "status": "running",
    "step": "discover",
    "step_since": "2026-11-22T09:30:01.123456Z",
    "waits_for": "upstream_timeout",
    "attempts": 1,
    "requested_by": "ada@example.com (key ab12cd34)",
    "created_at": "2026-11-22T09:30:00.123456Z",
    "deadline": "2026-11-22T10:00:00.123456Z",
}


class Accepted(BaseModel):
    """The operation is recorded and runs; GET /operations/{operation_id} reports its progress."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operation_id": _ID, "status": "running"}]}
    )

    operation_id: UUID
    status: OperationStatus


class OperationView(BaseModel):
    """An operation on a connection or a workspace, and its progress."""

    model_config = ConfigDict(json_schema_extra={"examples": [OPERATION]})

    operation_id: UUID
    kind: str
    connection_id: UUID | None = None
    """The connection that it changes; null for the import of a workspace."""
    connection_name: str | None = None
    status: OperationStatus
    step: str
    step_since: datetime
    waits_for: str | None = None
    """The error code of what it waits for."""
    attempts: int
    """How often a process has started or resumed it."""
    requested_by: str | None = None
    """The caller who requested it; null if AAM started it."""
    problem: dict[str, Any] | None = None
    response_status: int | None = None
    notes: list[dict[str, Any]] | None = None
    """Of an onboarding: the streams and fields that were excluded, and why."""
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None = None
