"""What callers send about policies and repairs, and what they get."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.drift_repair_agent.repairs.policy import Reaction
from shared.http.strict_json import By, Why
from shared.models import RepairState

_ID = "91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f"
_CONNECTION_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
_SNAPSHOT_ID = "1c9d8e7f-0a1b-4c2d-8e3f-4a5b6c7d8e9f"
_AT = "2026-11-24T09:30:00.123456Z"


Part = Annotated[str, Field(min_length=1, max_length=512)]
FieldPath = Annotated[list[Part], Field(min_length=1, max_length=32)]


class Choice(BaseModel):
    """What a person chooses about one change."""

    model_config = ConfigDict(extra="forbid")

    became: FieldPath | None = None
    """What a removed field or stream is called now; null: it is gone. Left out: as suggested, where
    the suggestion says `taken_by_approve`; else it is gone."""
    cursor: FieldPath | None = None
    """The cursor that the stream is read by from now on."""
    primary_key: Annotated[list[FieldPath], Field(min_length=1, max_length=100)] | None = None
    """The key that the stream is deduplicated by from now on."""


class Decide(BaseModel):
    """The order to reject a repair, or some of its changes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"why": "It comes back."}]}
    )

    by: By | None = None
    """Who decides. Left out: the caller, who is recorded in any case."""
    why: Why | None = None
    changes: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    """Ids of the changes that are decided; the rest stays open. Left out: all."""


class Approve(Decide):
    """The order to approve a repair, or some of its changes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"why": "Nobody uses it any more."}]},
    )

    choices: Annotated[dict[str, Choice], Field(max_length=10_000)] = {}
    """What is chosen, by the id of a change: `{"c1": {"became": ["amount"]}}`."""


class RollBack(BaseModel):
    """The order to put an older catalog version in force again."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"version": 1, "why": "Rows were doubled."}]},
    )

    version: int = Field(strict=True, ge=1, le=2**31 - 1)
    by: By | None = None
    """Who decides. Left out: the caller, who is recorded in any case."""
    why: Why | None = None


class PolicyOrder(BaseModel):
    """What is to be different in a connection's policy; what is left out stays as it is."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "reactions": {"field": {"added": "propose", "renamed": None}},
                    "never_select": ["*ssn*", "*password*", "*birth*"],
                    "verify": "sync",
                }
            ]
        },
    )

    reactions: dict[str, dict[str, Reaction | None]] = {}
    """By entity, then by what happened to it; null is the default again."""
    never_select: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)]
        | None
    ) = None
    """Patterns of fields that are never selected, in any case of letters; null is the default."""
    verify: Literal["read_back", "sync"] | None = None
    """How an applied repair is verified; null is the default."""
    rename_min_confidence: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    """From which confidence on a rename may be applied without a person; null is the default."""
    discoveries_per_day: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    """Most discoveries of the source in 24 hours; null is the default.

    Of several connections on one source the smallest counts. By default: DISCOVERIES_PER_DAY, else
    as many as the interval of observation needs, and 50 more.
    """
    by: By | None = None
    """Who wants it. Left out: the caller, who is recorded in any case."""


class PolicyView(BaseModel):
    """The policy in effect; `own` is what differs from the default."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "connection_id": _CONNECTION_ID,
                    "reactions": {
                        "stream": {"added": "ignore", "removed": "propose", "renamed": "propose"},
                        "field": {"added": "propose", "removed": "propose", "renamed": "propose"},
                        "type": {"widened": "apply", "narrowed": "propose", "clashing": "propose"},
                        "key": {"changed": "propose", "lost": "pause"},
                        "cursor": {"changed": "propose", "lost": "pause"},
                        "mode": {"lost": "pause"},
                    },
                    "never_select": ["*ssn*", "*password*", "*passwd*"],
                    "verify": "read_back",
                    "rename_min_confidence": 0.9,
                    "discoveries_per_day": None,
                    "own": {"reactions": {"field": {"added": "propose"}}},
                    "updated_by": "Ada",
                    "requested_by": "ada@example.com (key ab12cd34)",
                    "updated_at": _AT,
                }
            ]
        }
    )

    connection_id: UUID
    reactions: dict[str, dict[str, Reaction]]
    never_select: list[str]
    verify: Literal["read_back", "sync"]
    rename_min_confidence: float
    discoveries_per_day: int | None = None
    """Most discoveries of the source in 24 hours; null: the installation's default."""
    own: dict[str, Any]
    updated_by: str | None = None
    requested_by: str | None = None
    """Whose credentials asked for the newest change."""
    updated_at: datetime | None = None


SETTING_CHANGE: dict[str, Any] = {
    "at": _AT,
    "by": "Ada",
    "requested_by": "ada@example.com (key ab12cd34)",
    "change": {"reactions": {"field": {"added": "propose"}}},
}


class SettingChangeView(BaseModel):
    """One change of a setting, as it was ordered."""

    model_config = ConfigDict(json_schema_extra={"examples": [SETTING_CHANGE]})

    at: datetime
    by: str
    requested_by: str | None = None
    """Whose credentials asked for it."""
    change: dict[str, Any]


class SettingHistory(BaseModel):
    """Changes, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [SETTING_CHANGE], "next": None}]}
    )

    items: list[SettingChangeView]
    next: str | None = None


_CHANGE: dict[str, Any] = {
    "id": "c1",
    "kind": "field_removed",
    "stream": {"namespace": None, "name": "Account"},
    "path": ["Total__c"],
    "before": {"type": ["null", "number"]},
    "after": None,
    "severity": "needs_review",
    "entity": "field",
    "what": "removed",
    "concerns": True,
    "reason": "'Total__c' is gone from 'Account'.",
    "loses": ["Total__c"],
    "resets": ["The column of 'Total__c' keeps what it has and is null in new rows."],
    "reaction": "propose",
    "excluded": False,
    "pair": "c2",
    "suggestion": {
        "became": ["Amount__c"],
        "confidence": 0.81,
        "more_than_names": False,
        "types_clash": False,
        "rival": 0.12,
        "taken_by_approve": True,
        "not_taken_because": None,
        "evidence": [{"kind": "type", "score": 1.0, "detail": "Both are numbers."}],
        "alternatives": [],
    },
    "suggestion_missing": False,
    "decision": None,
}
REPAIR: dict[str, Any] = {
    "id": _ID,
    "connection_id": _CONNECTION_ID,
    "connection_name": "Salesforce production",
    "kind": "heal",
    "state": "proposed",
    "drift_id": "2f0c9d1e-5b4a-4c3d-9e8f-7a6b5c4d3e2f",
    "parent_id": None,
    "superseded_by": None,
    "snapshot_id": _SNAPSHOT_ID,
    "base_version": 2,
    "target_version": None,
    "changes": [_CHANGE],
    "decisions": [],
    "verify": "read_back",
    "operation_id": None,
    "version_number": None,
    "restored_version": None,
    "job_id": None,
    "suggestions_missing": False,
    "waits_for": None,
    "failure_code": None,
    "failure_detail": None,
    "not_learned": [],
    "paused": False,
    "expires_at": "2026-12-01T09:30:00.123456Z",
    "created_at": _AT,
    "updated_at": _AT,
    "ended_at": None,
}
_DIFF: dict[str, Any] = {
    "schema_changes": [{**{k: _CHANGE[k] for k in ("kind", "stream", "path", "before", "after")}}],
    "config_changes": [],
    "effects": [],
    "problems": [],
}


class _Repair(BaseModel):
    id: UUID
    connection_id: UUID
    connection_name: str
    kind: Literal["heal", "rollback"]
    state: RepairState
    drift_id: UUID | None = None
    parent_id: UUID | None = None
    """The repair that it was split from."""
    superseded_by: UUID | None = None
    snapshot_id: UUID | None = None
    base_version: int
    target_version: int | None = None
    decisions: list[dict[str, Any]]
    """Who decided what, when and why, oldest first."""
    verify: Literal["read_back", "sync"]
    operation_id: UUID | None = None
    version_number: int | None = None
    restored_version: int | None = None
    job_id: UUID | None = None
    suggestions_missing: bool
    """Whether the rag_engine could not be asked yet."""
    waits_for: str | None = None
    """The code of what keeps a decided repair waiting."""
    failure_code: str | None = None
    failure_detail: str | None = None
    not_learned: list[dict[str, str]] = []
    """Decisions that the rag_engine did not take: the `change`, and the `code` of why."""
    paused: bool
    """Whether the connection is paused in Airbyte until this is decided."""
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None


class RepairView(_Repair):
    """A plan for a connection, what was decided about it, and what came of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [REPAIR]})

    changes: list[dict[str, Any]]


_FIRST = {name: _CHANGE[name] for name in ("id", "kind", "stream", "path")}
SUMMARY: dict[str, Any] = {name: of for name, of in REPAIR.items() if name != "changes"} | {
    "change_count": 1,
    "changes_by_kind": {"field_removed": 1},
    "changes_by_reaction": {"propose": 1},
    "first_changes": [_FIRST],
}


class RepairSummary(_Repair):
    """A repair as a list shows it: how many changes of each kind, and the first three by name."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMMARY]})

    change_count: int
    changes_by_kind: dict[str, int]
    changes_by_reaction: dict[str, int]
    first_changes: list[dict[str, Any]]
    """The rest is at GET /repairs/{repair_id}/changes."""


class ChangePage(BaseModel):
    """Changes in the repair's order; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_CHANGE], "next": None}]})

    items: list[dict[str, Any]]
    next: str | None = None


class RepairDetail(RepairView):
    """The same, with the catalog before and after it: what differs, never the whole."""

    model_config = ConfigDict(json_schema_extra={"examples": [REPAIR | {"catalog": _DIFF}]})

    catalog: dict[str, Any] | None = None
    """`schema_changes` and `config_changes` between the catalog before and after, the `effects` of
    applying it in words, and the `problems` that would keep it from being applied."""


class RepairPage(BaseModel):
    """Repairs, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [SUMMARY], "next": None}]})

    items: list[RepairSummary]
    next: str | None = None


class Unchanged(BaseModel):
    """The version means what the head means: nothing was done."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"connection_id": _CONNECTION_ID, "changed": False}]}
    )

    connection_id: UUID
    changed: Literal[False] = False
