"""Response schemas of the health of connections."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from shared.domain.health import Health

HEALTH: dict[str, Any] = {
    "health": "needs_review",
    "code": "repair_proposed",
    "reason": "3 changes wait for review, 1 is breaking.",
    "since": "2026-11-22T09:30:04.654321Z",
    "severity": "breaking",
    "repair_id": "91aa4c1e-2b3d-4e5f-8a6b-7c8d9e0f1a2b",
    "last_job_id": "4c5d6e7f-8091-4a2b-9c3d-4e5f60718293",
    "last_sync_status": "succeeded",
    "last_sync_started_at": "2026-11-22T09:00:00.000000Z",
    "last_sync_ended_at": "2026-11-22T09:04:12.000000Z",
    "failed_syncs": 0,
    "observed_at": "2026-11-22T09:29:58.123456Z",
    "next_observation_at": "2026-11-22T10:29:58.123456Z",
}

SUMMARY: dict[str, Any] = {
    "total": 247,
    "health": {word.value: 0 for word in Health}
    | {"failed": 1, "needs_review": 5, "syncing": 5, "healthy": 236},
    "statuses": {"ACTIVE": 246, "FAILED": 1},
    "source_types": [{"source_type": "Salesforce", "count": 247}],
    "destinations": [
        {"destination_id": "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a", "count": 247},
    ],
}


class HealthView(BaseModel):
    """The health of a connection: the first word that applies, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [HEALTH]})

    health: Health
    code: str
    """The reason, for programs."""
    reason: str
    """The reason as a sentence."""
    since: datetime
    severity: str | None = None
    """The highest severity of the changes that wait."""
    repair_id: UUID | None = None
    last_job_id: UUID | None = None
    last_sync_status: str | None = None
    last_sync_started_at: datetime | None = None
    last_sync_ended_at: datetime | None = None
    failed_syncs: int
    """How many syncs in a row have failed, at most ten."""
    observed_at: datetime | None = None
    """When the last observation of its source ended."""
    next_observation_at: datetime | None = None


class SourceTypeCount(BaseModel):
    """How many connections have a source of a type."""

    source_type: str
    count: int


class DestinationCount(BaseModel):
    """How many connections have a destination."""

    destination_id: UUID
    count: int


class ConnectionSummary(BaseModel):
    """Counts of connections; those of each member add up to `total` unless it is cut off."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMMARY]})

    total: int
    health: dict[Health, int]
    """Every word, the most urgent first."""
    statuses: dict[str, int]
    source_types: list[SourceTypeCount]
    """The 100 most frequent, most connections first."""
    destinations: list[DestinationCount]
    """The 100 most frequent, most connections first."""
