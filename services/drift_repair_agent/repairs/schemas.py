"""Request and response classes of the policy and repair routes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.drift_repair_agent.applying.reselection import OnGlobalState
from services.drift_repair_agent.repairs.layer_schemas import PolicyExplanation
from services.drift_repair_agent.repairs.policy import OnSuspiciousVolume, Reaction, SyncAfterHeal
from services.drift_repair_agent.states.decision import OnRenamedStream
from services.drift_repair_agent.states.schemas import StateOutcome
from shared.domain.drift import Severity
from shared.http.connector_step import ConnectorStep
from shared.http.strict_json import By, Why
from shared.models import RepairState

_ID = "91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f"
_CONNECTION_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
_SNAPSHOT_ID = "1c9d8e7f-0a1b-4c2d-8e3f-4a5b6c7d8e9f"
_AT = "2026-11-24T09:30:00.123456Z"


Part = Annotated[str, Field(min_length=1, max_length=512)]
FieldPath = Annotated[list[Part], Field(min_length=1, max_length=32)]


class Choice(BaseModel):
    """A person's choice for one change."""

    model_config = ConfigDict(extra="forbid")

    became: FieldPath | None = None
    """The new name of a removed field or stream; null if it was not renamed. If left out, the
    suggestion applies if it says `taken_by_approve`; otherwise it was not renamed."""
    cursor: FieldPath | None = None
    """The stream's new cursor."""
    primary_key: Annotated[list[FieldPath], Field(min_length=1, max_length=100)] | None = None
    """The stream's new primary key, by which it is deduplicated."""
    continuity: Literal["keep_column", "new_column"] | None = None
    """For a renamed field: `keep_column` writes it to its old column, with a field-renaming mapper
    in Airbyte; `new_column` starts a column of its new name. A cursor or a field of the key keeps
    its column only with an explicit `keep_column`. For a `mapping_conflict`, `new_column` ends the
    mapping, and anything else leaves the field that came back unselected."""
    mapper: Literal["drop", "follow", "keep_field"] | None = None
    """For lapsed mappers, one of the change's `choices`: `drop` removes the mappers that name the
    field; `follow` lets them name its new field, which is `became`, or else that of the field's
    removal; `keep_field` leaves the field in the catalog, with its mappers, although the source no
    longer offers it."""


class Decide(BaseModel):
    """A request to reject a repair or some of its changes."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "It comes back."}]}
    )

    by: By | None = None
    """Who decides. If left out, the caller, who is recorded in any case."""
    reason: Why | None = None
    changes: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    """Ids of the changes that are decided; the rest stays open. If left out, all are decided.

    A change has the same id for as long as the repair is proposed.
    """


class Approve(Decide):
    """A request to approve a repair or some of its changes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"reason": "It is no longer used."}]},
    )

    choices: Annotated[dict[str, Choice], Field(max_length=10_000)] = {}
    """Choices by change id: `{"c1": {"became": ["amount"]}}`."""
    continuity: Literal["keep_column", "new_column"] | None = None
    """What becomes of the columns of renamed fields without a choice of their own; see `Choice`.
    Without it the policy decides. If that is to `ask`, the response is 422 `continuity_required`.
    """
    on_global_state: OnGlobalState | None = None
    """What to do about streams that are selected again while the connection's state in Airbyte is
    global (CDC): `refresh` reads them from their start again and merges the rows, `accept_gap`
    resumes them without what changed meanwhile. Without it, the response is 409 `global_state`."""
    on_renamed_stream: OnRenamedStream = "take_state"
    """What a renamed stream starts from: the state of its old name, so that rows which were read
    before are only in the former table, or its start, so that the new table has all rows."""


class RollBack(BaseModel):
    """A request to restore an older catalog version."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"version": 1, "reason": "Rows were duplicated."}]},
    )

    version: int = Field(strict=True, ge=1, le=2**31 - 1)
    by: By | None = None
    """Who decides. If left out, the caller, who is recorded in any case."""
    reason: Why | None = None
    on_global_state: OnGlobalState | None = None
    """As for an approval: what to do about streams that are selected again while the connection's
    state in Airbyte is global (CDC)."""


class PolicyOrder(BaseModel):
    """A partial update of the policy of a connection or a layer above.

    Members that are left out stay unchanged, and null removes an entry, so that the value of the
    next layer above applies, or the default.
    """

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
    """By entity, then by what happened to it; null removes the entry."""
    never_select: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=200)]
        | None
    ) = None
    """Patterns of field names that are never selected, case-insensitive.

    They are added to the patterns of the layers above; only the installation's replace the default.
    """
    verify: Literal["read_back", "sync"] | None = None
    """How an applied repair is verified; null for the default."""
    rename_min_confidence: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    """Lowest confidence at which a rename may be applied without a person; null for the default."""
    discoveries_per_day: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = None
    """Most discoveries of the source in 24 hours; null for the default.

    If several connections share a source, the smallest value applies. The default is
    DISCOVERIES_PER_DAY if set, else the number that the observation interval needs plus 50.
    """
    on_suspicious_volume: OnSuspiciousVolume | None = None
    """What to do if a stream has no rows, or far fewer than usual, since the sync that verifies a
    repair: `report` it (the default), or restore the previous version (`rollback`)."""
    credentials: Literal["apply", "propose", "ignore"] | None = None
    """What happens when the connection's credential changes in its store; null for the default.

    `apply` checks it and sends it to the source, `propose` only reports it. If several connections
    share a source, the strictest value applies.
    """
    continuity: Literal["keep_column", "new_column", "ask"] | None = None
    """What happens to the destination's column when a field is renamed; null for the default.

    `keep_column` writes the field to its old column, with a field-renaming mapper in Airbyte 1.3 or
    later. Airbyte documents mappings as a paid feature, although its open-source server carries
    them out, so the default is to `ask`: an approval of a rename needs the choice, and no policy
    applies the rename. `new_column` starts a new column, and so does every value where Airbyte
    cannot keep the column.
    """
    sync_after_heal: SyncAfterHeal | None = None
    """Whether AAM runs a sync again that failed because of its source, once its changes are healed;
    null for the default, `never`.

    `once` starts one sync, unless the connection has synced since, is paused, or is healed more
    than a day later. If that sync fails, too, it is not run again by this policy.
    """
    two_approvals_from: Severity | None = None
    """The lowest severity of changes that two different callers must approve; null for none."""
    by: By | None = None
    """Who requests the change. If left out, the caller, who is recorded in any case."""


class PolicyView(BaseModel):
    """The policy in effect; `own` holds the entries that are set for the connection itself."""

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
                        "mapper": {"lapsed": "pause"},
                    },
                    "never_select": ["*ssn*", "*password*", "*passwd*"],
                    "verify": "read_back",
                    "rename_min_confidence": 0.9,
                    "discoveries_per_day": None,
                    "on_suspicious_volume": "report",
                    "credentials": "apply",
                    "continuity": "ask",
                    "sync_after_heal": "never",
                    "two_approvals_from": None,
                    "own": {"reactions": {"field": {"added": "propose"}}},
                    "updated_by": "Ada",
                    "requested_by": "ada@example.com (key ab12cd34)",
                    "updated_at": _AT,
                    "explanation": None,
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
    """Most discoveries of the source in 24 hours; null for the installation's default."""
    on_suspicious_volume: OnSuspiciousVolume
    credentials: Literal["apply", "propose", "ignore"] = "apply"
    """What happens when the connection's credential changes in its store."""
    continuity: Literal["keep_column", "new_column", "ask"] = "ask"
    """What becomes of the destination's column when a field is renamed."""
    sync_after_heal: SyncAfterHeal = "never"
    """Whether a sync that failed because of its source is run again once its changes are healed."""
    two_approvals_from: Severity | None = None
    """The lowest severity of changes that two different callers must approve; null for none."""
    own: dict[str, Any]
    updated_by: str | None = None
    requested_by: str | None = None
    """Whose credentials requested the newest change."""
    updated_at: datetime | None = None
    explanation: PolicyExplanation | None = None
    """Which layer each value comes from; only with `explain`."""


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
    "affects_sync": True,
    "reason": "'Total__c' is gone from 'Account'.",
    "loses": ["Total__c"],
    "resets": ["The column of 'Total__c' keeps its values and is null in new rows."],
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
    "choices": [],
    "suggestion_missing": False,
    "continuity": [
        {
            "choice": "keep_column",
            "effect": "'Amount__c' of Account is written into the column 'Total__c', which is "
            "kept: a field-renaming mapper, the first of the stream, gives it that name. Airbyte "
            "moves the records of a connection with mappers through a slower transport.",
        },
        {
            "choice": "new_column",
            "effect": "Postgres 3.0.14 keeps the column 'Total__c'; it is NULL in rows written "
            "from now on.",
        },
    ],
    "destination": [
        {
            "verdict": "safe",
            "code": "column_kept",
            "message": "Postgres 3.0.14 keeps the column 'Total__c'; it is NULL in rows written "
            "from now on.",
            "names": ["Total__c"],
            "columns": ["Total__c"],
        }
    ],
    "decision": None,
}
REPAIR: dict[str, Any] = {
    "id": _ID,
    "connection_id": _CONNECTION_ID,
    "connection_name": "Salesforce production",
    "kind": "heal",
    "state": "proposed",
    "severity": "needs_review",
    "drift_id": "2f0c9d1e-5b4a-4c3d-9e8f-7a6b5c4d3e2f",
    "parent_id": None,
    "superseded_by": None,
    "snapshot_id": _SNAPSHOT_ID,
    "connector_step": None,
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
    severity: Severity | None = None
    """That of the most severe change; null without changes."""
    drift_id: UUID | None = None
    parent_id: UUID | None = None
    """The repair that it was split from."""
    superseded_by: UUID | None = None
    snapshot_id: UUID | None = None
    connector_step: ConnectorStep | None = None
    """The change of the connector's version that came with the changes, and may be their cause."""
    base_version: int
    target_version: int | None = None
    decisions: list[dict[str, Any]]
    """Who decided what, when and why, oldest first.

    The `verdict` is `approved`, `rejected` or `rolled_back`. `first_approval` waits for that of
    another caller. `carried_over` is what a newer plan took over from a decided repair that became
    stale, and `carried_from` names that repair."""
    verify: Literal["read_back", "sync"]
    operation_id: UUID | None = None
    version_number: int | None = None
    restored_version: int | None = None
    job_id: UUID | None = None
    suggestions_missing: bool
    """Whether suggestions are missing because the rag_engine has not answered yet."""
    waits_for: str | None = None
    """The code of the error that keeps a decided repair waiting."""
    failure_code: str | None = None
    failure_detail: str | None = None
    not_learned: list[dict[str, str]] = []
    """Decisions that the rag_engine did not accept: the `change` and the error `code`."""
    paused: bool
    """Whether the connection is paused in Airbyte because of this repair."""
    expires_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None


class RepairView(_Repair):
    """A repair of a connection: its planned changes, the decisions, and the outcome."""

    model_config = ConfigDict(json_schema_extra={"examples": [REPAIR]})

    changes: list[dict[str, Any]]


_FIRST = {name: _CHANGE[name] for name in ("id", "kind", "stream", "path", "severity")}
SUMMARY: dict[str, Any] = {name: of for name, of in REPAIR.items() if name != "changes"} | {
    "change_count": 1,
    "decided_count": 0,
    "changes_by_kind": {"field_removed": 1},
    "changes_by_reaction": {"propose": 1},
    "changes_by_severity": {"needs_review": 1},
    "first_changes": [_FIRST],
}


class RepairSummary(_Repair):
    """A repair in a list: the counts of its changes, and the first three of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMMARY]})

    change_count: int
    """A rename counts once, as proposed or decided: its two halves are one change."""
    decided_count: int
    """How many of the changes are decided."""
    changes_by_kind: dict[str, int]
    """With `field_renamed` and `stream_renamed`, which GET /repairs/{repair_id}/changes lists as a
    removal and an addition."""
    changes_by_reaction: dict[str, int]
    changes_by_severity: dict[Severity, int]
    first_changes: list[dict[str, Any]]
    """The first three; a rename has what it `became`. GET /repairs/{repair_id}/changes has all."""


class ChangePage(BaseModel):
    """Changes in the repair's order; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_CHANGE], "next": None}]})

    items: list[dict[str, Any]]
    next: str | None = None


class RepairDetail(RepairView):
    """A repair with the difference between the catalog before and after it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [REPAIR | {"sync_state": None, "catalog": _DIFF}]}
    )

    sync_state: StateOutcome | None = None
    """Whether Airbyte's state of the connection was saved before, and what was put back; null
    before the repair is applied, and once its operation is pruned."""
    catalog: dict[str, Any] | None = None
    """`schema_changes` and `config_changes` between the catalog before and after, the `effects` of
    applying it as text, and the `problems` that prevent applying it."""


class RepairPage(BaseModel):
    """Repairs, newest first; `next` is the next page's `after`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [SUMMARY], "next": None}]})

    items: list[RepairSummary]
    next: str | None = None


class RepairCounts(BaseModel):
    """Counts of the repairs that have not ended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "open": 4,
                    "by_state": {"proposed": 3, "approved": 1},
                    "proposed_by_severity": {"needs_review": 2, "breaking": 1},
                    "pausing": 1,
                    "next_expiry_at": "2026-12-01T09:30:00.123456Z",
                }
            ]
        }
    )

    open: int
    by_state: dict[RepairState, int]
    """States without a repair are left out."""
    proposed_by_severity: dict[Severity, int]
    """The proposals by their most severe change."""
    pausing: int
    """How many of them have paused their connection in Airbyte."""
    next_expiry_at: datetime | None = None
    """When the first proposal expires; null without proposals."""


class Unchanged(BaseModel):
    """The version is equivalent to the current one: nothing was done."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"connection_id": _CONNECTION_ID, "changed": False}]}
    )

    connection_id: UUID
    changed: Literal[False] = False
