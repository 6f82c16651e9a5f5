"""Answers of the services about one repair, for the pages that show and decide it."""

from __future__ import annotations

from typing import Any

from tests.console.double import Double, page

REPAIR_ID = "91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f"
NEWER_ID = "a2bb4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f"
CHILD_ID = "b3cc4c0e-7d3b-4f5a-8e21-6c0b9a8d7e6f"
CONNECTION_ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
OPERATION_ID = "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0"
AT = "2026-11-28T09:16:00.123456Z"
STRING = {"type": ["null", "string"]}
NUMBER = {"type": ["null", "number"]}


def change(id: str, kind: str, path: list[str], **more: Any) -> dict[str, Any]:
    """A planned change as the API returns it."""
    return {
        "id": id,
        "kind": kind,
        "stream": {"namespace": None, "name": "Account"},
        "path": path,
        "before": None,
        "after": None,
        "severity": "needs_review",
        "entity": "field",
        "what": "removed",
        "affects_sync": True,
        "reason": f"'{path[-1] if path else 'Account'}' is gone from 'Account'.",
        "loses": [],
        "resets": [],
        "reaction": "propose",
        "excluded": False,
        "pair": None,
        "suggestion": None,
        "choices": [],
        "suggestion_missing": False,
        "continuity": [],
        "destination": [],
        "decision": None,
    } | more


LOST_CURSOR = change(
    "c1",
    "field_removed",
    ["SystemModstamp"],
    stream={"namespace": "sf", "name": "Shipment__c"},
    before={"type": ["null", "string"], "format": "date-time"},
    severity="breaking",
    entity="cursor",
    what="lost",
    reaction="pause",
    reason="The cursor 'SystemModstamp' of sf.Shipment__c is gone.",
    loses=["SystemModstamp"],
    resets=["With another cursor, the next sync reads the whole stream once."],
)
RENAMED = change(
    "c2",
    "field_removed",
    ["Region__c"],
    before=STRING,
    loses=["Region__c"],
    resets=["The column of 'Region__c' keeps its values and is null in new rows."],
    pair="c3",
    suggestion={
        "became": ["Sales_Region__c"],
        "confidence": 0.87,
        "more_than_names": True,
        "types_clash": False,
        "rival": 0.06,
        "taken_by_approve": True,
        "not_taken_because": None,
        "evidence": [
            {"kind": "values", "score": 0.94, "detail": "94% of the sampled values are the same."},
            {"kind": "type", "score": 1.0, "detail": "Both are strings."},
            {"kind": "count", "score": -0.2, "detail": "2 fields are gone and 3 are new."},
        ],
        "alternatives": [{"became": ["Partner_Tier__c"], "confidence": 0.06}],
    },
    continuity=[
        {
            "choice": "keep_column",
            "effect": "'Sales_Region__c' is written into the column 'Region__c', which is kept.",
        },
        {"choice": "new_column", "effect": "The column 'Region__c' is NULL in new rows."},
    ],
)
NEW_NAME = change(
    "c3",
    "field_added",
    ["Sales_Region__c"],
    after=STRING,
    severity="harmless",
    what="added",
    pair="c2",
    reason="'Sales_Region__c' is new; rows that are not synced again have no value for it.",
)
GONE = change(
    "c4",
    "field_removed",
    ["Credit_Limit__c"],
    before=NUMBER,
    loses=["Credit_Limit__c"],
    resets=["The column of 'Credit_Limit__c' keeps its values and is null in new rows."],
    destination=[
        {
            "verdict": "safe",
            "code": "column_kept",
            "message": "Snowflake does not drop the column.",
            "names": ["Credit_Limit__c"],
            "columns": ["CREDIT_LIMIT__C"],
        }
    ],
)
ADDED = change(
    "c5",
    "field_added",
    ["Partner_Tier__c"],
    after=STRING,
    severity="harmless",
    what="added",
    reason="'Partner_Tier__c' is new; rows that are not synced again have no value for it.",
)
RETYPED = change(
    "c6",
    "field_retyped",
    ["Employees__c"],
    before={"type": ["null", "integer"]},
    after=NUMBER,
    entity="type",
    what="widened",
    reason="'Employees__c' has a wider type: integer became number.",
    resets=["The column of 'Employees__c' changes its type."],
)
CHANGES = [LOST_CURSOR, RENAMED, NEW_NAME, GONE, ADDED, RETYPED]
DIFF: dict[str, Any] = {
    "schema_changes": [
        {
            "kind": "field_removed",
            "stream": {"namespace": None, "name": "Account"},
            "path": ["Region__c"],
            "before": STRING,
            "after": None,
        },
        {
            "kind": "field_added",
            "stream": {"namespace": None, "name": "Account"},
            "path": ["Sales_Region__c"],
            "before": None,
            "after": STRING,
        },
        {
            "kind": "field_retyped",
            "stream": {"namespace": None, "name": "Account"},
            "path": ["Employees__c"],
            "before": {"type": ["null", "integer"]},
            "after": NUMBER,
        },
    ],
    "config_changes": [
        {
            "kind": "cursor_changed",
            "stream": {"namespace": "sf", "name": "Shipment__c"},
            "path": [],
            "before": ["SystemModstamp"],
            "after": ["LastModifiedDate"],
        }
    ],
    "effects": [
        {
            "stream": {"namespace": "sf", "name": "Shipment__c"},
            "code": "state_reset",
            "message": "sf.Shipment__c is read from its start; its last full read took 52 min.",
        }
    ],
    "problems": [],
}
REPAIR: dict[str, Any] = {
    "id": REPAIR_ID,
    "connection_id": CONNECTION_ID,
    "connection_name": "Salesforce production",
    "kind": "heal",
    "state": "proposed",
    "severity": "breaking",
    "drift_id": "2f0c9d1e-5b4a-4c3d-9e8f-7a6b5c4d3e2f",
    "parent_id": None,
    "superseded_by": None,
    "snapshot_id": None,
    "connector_step": None,
    "base_version": 14,
    "target_version": None,
    "changes": CHANGES,
    "decisions": [],
    "verify": "sync",
    "operation_id": None,
    "version_number": None,
    "restored_version": None,
    "job_id": None,
    "suggestions_missing": False,
    "waits_for": None,
    "failure_code": None,
    "failure_detail": None,
    "not_learned": [],
    "paused": True,
    "expires_at": "2026-12-05T09:16:00Z",
    "created_at": AT,
    "updated_at": AT,
    "ended_at": None,
    "sync_state": None,
    "catalog": DIFF,
}
DRY_RUN: dict[str, Any] = {
    "dry_run": True,
    "connection_id": CONNECTION_ID,
    "repair_id": REPAIR_ID,
    "outcome": "applied",
    "base_version": 14,
    "changes": ["c2", "c3", "c5"],
    "open_changes": 3,
    "catalog": DIFF,
    "resumed": [],
    "refreshed": [],
    "afterwards": "resumed",
    "waits_for": "sync_running",
    "waits_for_detail": "A sync is running: apply the catalog when it has ended.",
}
SUMMARY: dict[str, Any] = {
    name: value for name, value in REPAIR.items() if name not in ("changes", "catalog")
} | {
    "change_count": 6,
    "decided_count": 0,
    "changes_by_kind": {"field_removed": 3, "field_added": 2, "field_retyped": 1},
    "changes_by_reaction": {"propose": 5, "pause": 1},
    "changes_by_severity": {"breaking": 1, "needs_review": 3, "harmless": 2},
    "first_changes": [
        {name: one[name] for name in ("id", "kind", "stream", "path", "severity")}
        for one in CHANGES[:3]
    ],
}
COUNTS: dict[str, Any] = {
    "open": 4,
    "by_state": {"proposed": 3, "approved": 1},
    "proposed_by_severity": {"needs_review": 2, "breaking": 1},
    "pausing": 1,
    "next_expiry_at": AT,
}
VERSION: dict[str, Any] = {
    "version_number": 15,
    "origin": "repair",
    "fingerprint": "f00dfeed00112233",
    "snapshot_id": None,
    "streams": 7,
    "repair_id": REPAIR_ID,
    "decided_by": "ada",
    "requested_by": "ada@example.com",
    "created_at": AT,
}
OPERATION: dict[str, Any] = {
    "operation_id": OPERATION_ID,
    "kind": "apply",
    "connection_id": CONNECTION_ID,
    "connection_name": "Salesforce production",
    "status": "running",
    "step": "update",
    "step_since": AT,
    "waits_for": None,
    "attempts": 2,
    "requested_by": "ada@example.com",
    "created_at": AT,
    "deadline": AT,
    "ended_at": None,
}
GROUP: dict[str, Any] = {
    "id": "0f" * 32,
    "source_type": "Salesforce",
    "kind": "field_renamed",
    "became": ["Sales_Region__c"],
    "change": RENAMED,
    "pair": NEW_NAME,
    "stream": {"namespace": None, "name": "Account"},
    "path": ["Region__c"],
    "before": STRING,
    "after": None,
    "severity": "needs_review",
    "connection_count": 2,
    "members": [
        {
            "repair_id": REPAIR_ID,
            "change_id": "c1",
            "connection_id": CONNECTION_ID,
            "connection_name": "Salesforce production",
            "reaction": "propose",
            "suggested": ["Sales_Region__c"],
        },
        {
            "repair_id": NEWER_ID,
            "change_id": "c4",
            "connection_id": CONNECTION_ID,
            "connection_name": "Salesforce Europe",
            "reaction": "propose",
            "suggested": None,
        },
    ],
}
FIELDS = [
    {"name": name, "type": STRING, "selected": True, "is_cursor": False, "is_key": False}
    for name in ("Id", "LastModifiedDate", "SystemModstamp")
]


def answer(double: Double, **changed: Any) -> dict[str, Any]:
    """Let the services know the repair, with some members changed; the repair as it is answered."""
    repair = REPAIR | changed
    connection = f"/connections/{CONNECTION_ID}"
    double.answers |= {
        f"GET /repairs/{REPAIR_ID}": repair,
        "GET /repairs/summary": COUNTS,
        f"POST /repairs/{REPAIR_ID}/approve": DRY_RUN,
        f"GET {connection}/policy": {"two_approvals_from": None, "continuity": "ask"},
        f"GET {connection}/catalog-versions/14/fields": page(*FIELDS),
        f"GET {connection}/catalog-versions": page(VERSION, VERSION | {"version_number": 14}),
        f"GET /operations/{OPERATION_ID}": OPERATION,
    }
    return repair
