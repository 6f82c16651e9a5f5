"""Response classes of a connection's timeline, with examples."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Kind(StrEnum):
    """What an entry of a timeline is about."""

    SYNC = "sync"
    DRIFT = "drift"
    REPAIR_PROPOSED = "repair_proposed"
    REPAIR_DECIDED = "repair_decided"
    REPAIR_ENDED = "repair_ended"
    VERSION = "version"
    PAUSE = "pause"
    SETTING = "setting"
    CREDENTIAL = "credential"
    CONNECTOR = "connector"
    OBSERVATION = "observation"
    UPSTREAM = "upstream"
    VOLUME = "volume"
    OPERATION = "operation"
    ARCHIVED = "archived"


_REPAIR = "91aa0f3e-2b4c-4d5e-8f60-718293a4b5c6"
_DRIFT = "6f0c2f1e-7a1b-4c3d-8e9f-0a1b2c3d4e5f"
_EMPTY: dict[str, Any] = {
    "outcome": None,
    "actor": None,
    "requested_by": None,
    "reason": None,
    "code": None,
    "severity": None,
    "repair_id": None,
    "drift_id": None,
    "version": None,
    "job_id": None,
    "operation_id": None,
    "snapshot_id": None,
}
DECIDED: dict[str, Any] = {
    "id": f"decided:{_REPAIR}",
    "at": "2026-11-24T10:02:11.123456Z",
    "kind": "repair_decided",
    **_EMPTY,
    "outcome": "approved",
    "actor": "Ada",
    "requested_by": "ada@example.com (key ab12cd34)",
    "reason": "Sales renamed it.",
    "severity": "needs_review",
    "repair_id": _REPAIR,
    "drift_id": _DRIFT,
    "details": {
        "kind": "heal",
        "state": "applied",
        "target_version": None,
        "restored_version": None,
        "superseded_by": None,
        "parent_id": None,
        "change_count": 1,
        "changes_by_kind": {"field_renamed": 1},
        "first_changes": [
            {
                "id": "c1",
                "kind": "field_renamed",
                "stream": {"namespace": None, "name": "Account"},
                "path": ["Region__c"],
                "became": ["Sales_Region__c"],
            }
        ],
        "decisions": [
            {
                "verdict": "approved",
                "by": "Ada",
                "requested_by": "ada@example.com (key ab12cd34)",
                "at": "2026-11-24T10:02:11.123456Z",
                "reason": "Sales renamed it.",
                "change_count": 1,
                "is_copy": False,
            }
        ],
    },
}
SYNC: dict[str, Any] = {
    "id": "sync:c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
    "at": "2026-11-24T09:31:00.123456Z",
    "kind": "sync",
    **_EMPTY,
    "outcome": "failed",
    "actor": "airbyte",
    "code": "config_error",
    "version": 2,
    "job_id": "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c",
    "details": {
        "airbyte_job_id": 42,
        "records": 0,
        "bytes": 0,
        "attempts": 1,
        "cause": "credential_rejected",
        "follow_up": "rejected",
        "ended_at": "2026-11-24T09:31:14.654321Z",
    },
}
TIMELINE: dict[str, Any] = {"items": [DECIDED, SYNC], "next": None}


class TimelineEntry(BaseModel):
    """One fact of a connection's history; members that its kind does not have are null."""

    model_config = ConfigDict(json_schema_extra={"examples": [DECIDED]})

    id: str
    """Stable: the same entry has it in every response."""
    at: datetime
    kind: Kind
    outcome: str | None = None
    """What happened, or the present state: `failed` of a sync, `approved` of a decision, `repair`
    as the origin of a version, `paused` or `resumed`, `rejected` of a credential, …"""
    actor: str | None = None
    """Who: a person or caller, `policy`, or `airbyte`; null for AAM itself, or if unknown."""
    requested_by: str | None = None
    """Whose credentials requested it."""
    reason: str | None = None
    """Why, as the person gave it."""
    code: str | None = None
    """Why, as a code: of a failure, of a suspicion, of a difference in Airbyte; of a connector's
    upgrade both versions."""
    severity: Literal["harmless", "needs_review", "breaking"] | None = None
    """Of a drift; of a repair, that of its drift."""
    repair_id: UUID | None = None
    drift_id: UUID | None = None
    version: int | None = None
    """The catalog version that was created, or that a sync ran with."""
    job_id: UUID | None = None
    operation_id: UUID | None = None
    snapshot_id: UUID | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    """Further facts of the kind."""


class TimelinePage(BaseModel):
    """Entries, newest first; `next` is the next page's `before`, null on the last page."""

    model_config = ConfigDict(json_schema_extra={"examples": [TIMELINE]})

    items: list[TimelineEntry]
    next: str | None = None
