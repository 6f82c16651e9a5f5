"""Request and response classes of groups of repairs and of decisions about several."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from services.drift_repair_agent.repairs.schemas import REPAIR, Choice
from shared.http.strict_json import By, Why
from shared.models import RepairState

MOST_DECIDED = 200
"""Most repairs that one request decides."""
_GROUP_ID = "0f" * 32
GroupId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class GroupMember(BaseModel):
    """A change of a group in one connection's repair."""

    repair_id: UUID
    change_id: str
    connection_id: UUID
    connection_name: str
    reaction: str
    suggested: list[str] | None = None
    """What a removed field or stream probably became; null without a suggestion."""


class RepairGroup(BaseModel):
    """The same change of the same source type that waits for a decision on several connections."""

    id: str
    """Equal as long as its change is the same."""
    source_type: str
    kind: str
    """`field_renamed` or `stream_renamed` where all members propose the same new name."""
    became: list[str] | None = None
    """That name; null for other changes."""
    stream: dict[str, Any]
    path: list[str]
    before: Any = None
    after: Any = None
    change: dict[str, Any]
    """The change in the repair of its first member, as GET /repairs/{repair_id}/changes has it."""
    pair: dict[str, Any] | None = None
    """The other half of a rename there."""
    severity: str
    """The highest of its members."""
    connection_count: int
    members: list[GroupMember]
    """The first 100, by the connection's name."""


class RepairGroupPage(BaseModel):
    """Groups, those of most connections first; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "id": _GROUP_ID,
                            "source_type": "Salesforce",
                            "kind": "field_renamed",
                            "became": ["Amount__c"],
                            "stream": {"namespace": None, "name": "Account"},
                            "path": ["Total__c"],
                            "before": {"type": ["null", "number"]},
                            "after": None,
                            "change": REPAIR["changes"][0],
                            "severity": "needs_review",
                            "connection_count": 12,
                            "members": [
                                {
                                    "repair_id": REPAIR["id"],
                                    "change_id": "c1",
                                    "connection_id": REPAIR["connection_id"],
                                    "connection_name": "Salesforce production",
                                    "reaction": "propose",
                                    "suggested": ["Amount__c"],
                                }
                            ],
                        }
                    ],
                    "next": None,
                }
            ]
        }
    )

    items: list[RepairGroup]
    next: str | None = None


class DecideSeveral(BaseModel):
    """One decision about several repairs: those that are listed, or those of a group."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"verdict": "reject", "repairs": [REPAIR["id"]], "reason": "It comes back."},
                {
                    "verdict": "approve",
                    "group": _GROUP_ID,
                    "choice": {"became": ["Amount__c"]},
                    "reason": "Renamed in release 12.",
                },
            ]
        },
    )

    verdict: Literal["approve", "reject"]
    repairs: Annotated[list[UUID], Field(min_length=1, max_length=MOST_DECIDED)] | None = None
    """Ids of proposed repairs, of which all changes are decided."""
    group: GroupId | None = None
    """`id` of a group: only its change is decided, in at most 200 repairs."""
    choice: Choice | None = None
    """For an approved group: the choice for its change, as in `choices` of an approval."""
    by: By | None = None
    """Who decides. If left out, the caller, who is recorded in any case."""
    reason: Why | None = None


class Decided(BaseModel):
    """What became of one repair."""

    repair_id: UUID
    """The repair as it was listed, or that has the group's change."""
    decided_id: UUID | None = None
    """The repair with the decision: a new one if only some changes were decided."""
    state: RepairState | None = None
    """Its state now; null if nothing was decided."""
    code: str | None = None
    """The code of the error for which nothing was decided; null otherwise."""
    message: str | None = None


class DecidedSeveral(BaseModel):
    """The result per repair, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "repair_id": REPAIR["id"],
                            "decided_id": REPAIR["id"],
                            "state": "rejected",
                            "code": None,
                            "message": None,
                        }
                    ]
                }
            ]
        }
    )

    items: list[Decided]
