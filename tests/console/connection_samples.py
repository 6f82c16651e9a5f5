"""What the services answer about one connection, for the tests of its pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.console.double import Double, page

ID: Final = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
DESTINATION: Final = "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a"
REPAIR: Final = "91aa0f3e-2b4c-4d5e-8f60-718293a4b5c6"
DRIFT: Final = "6f0c2f1e-7a1b-4c3d-8e9f-0a1b2c3d4e5f"
JOB: Final = "c2a9e4d0-3b1f-4f6e-9d8c-7b6a5f4e3d2c"
BASE: Final = f"/connections/{ID}"

CONNECTION: dict[str, Any] = {
    "id": ID,
    "name": "Salesforce production",
    "source_type": "Salesforce",
    "status": "ACTIVE",
    "credential_id": "salesforce-prod",
    "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
    "airbyte_destination_id": DESTINATION,
    "airbyte_workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "catalog_version": 14,
    "upstream_code": None,
    "paused_by": REPAIR,
    "pause_requested_by": None,
    "description": "Accounts and contacts for the sales dashboards.",
    "labels": {"team": "sales", "tier": "1"},
    "imported": False,
    "created_at": "2026-11-02T09:42:10.123456Z",
    "archived_at": None,
}
HEALTH: dict[str, Any] = {
    "health": "paused_by_repair",
    "code": "paused_by_repair",
    "reason": "3 changes wait for review, 1 is breaking.",
    "since": "2026-11-28T09:16:40.000000Z",
    "repair_id": REPAIR,
}
OBSERVATION: dict[str, Any] = {
    "connection_id": ID,
    "interval_seconds": None,
    "effective_interval_seconds": 900,
    "next_at": "2026-11-28T09:46:00Z",
    "observing": False,
    "observed_at": "2026-11-28T09:31:00Z",
    "outcome": "suspicious",
    "code": "synced_stream_missing",
    "detail": "1 of 214 streams are gone, and these are synced: 'Account'.",
    "failures": 2,
    "suspicious_since": "2026-11-28T09:16:00Z",
    "connector_version": "2.10.3",
    "discoveries_in_24_hours": 97,
}


def change(kind: str, stream: str, *path: str) -> dict[str, Any]:
    """A change of a schema."""
    return {
        "id": f"{kind}-{stream}-{'.'.join(path)}",
        "kind": kind,
        "stream": {"namespace": None, "name": stream},
        "path": list(path),
    }


def entry(kind: str, at: str, outcome: str | None = None, **more: Any) -> dict[str, Any]:
    """An entry of the timeline."""
    empty = dict.fromkeys(
        ("actor", "requested_by", "reason", "code", "severity", "repair_id", "drift_id")
    ) | dict.fromkeys(("version", "job_id", "operation_id", "snapshot_id"))
    return {
        **empty,
        "id": f"{kind}:{at}",
        "at": at,
        "kind": kind,
        "outcome": outcome,
        "details": {},
        **more,
    }


def sync(at: str, status: str = "succeeded", records: int = 1_204_881, **more: Any) -> Any:
    """A sync in the timeline, which took eight minutes."""
    details = {"records": records, "bytes": 612_000_000, "attempts": 1, "cause": None}
    ended_at = at.replace(":00:00Z", ":08:00Z")
    details |= {"follow_up": None, "ended_at": ended_at} | more.pop("details", {})
    return entry("sync", at, status, actor="airbyte", job_id=JOB, details=details, **more)


CHANGES: Final = [
    change("cursor_lost", "Shipment__c", "LastModified__c"),
    change("field_removed", "Account", "Region__c"),
    change("field_added", "Account", "Sales_Region__c"),
]
COUNTED: Final = {"change_count": 6, "first_changes": CHANGES}
TIMELINE: Final = [
    entry(
        *("repair_proposed", "2026-11-28T09:16:40Z", "proposed"),
        severity="breaking",
        repair_id=REPAIR,
        details={**COUNTED, "change_count": 3, "kind": "heal", "state": "proposed"},
    ),
    entry("pause", "2026-11-28T09:16:21Z", "paused", repair_id=REPAIR),
    entry(
        *("drift", "2026-11-28T09:16:02Z"),
        severity="breaking",
        drift_id=DRIFT,
        details={
            **COUNTED,
            "affects_sync": True,
            "connector_step": {"from_version": "2.10.2", "to_version": "2.10.3"},
        },
    ),
    entry(
        *("repair_proposed", "2026-11-28T08:46:00Z", "superseded"),
        repair_id=REPAIR,
        details={"change_count": 2, "first_changes": CHANGES[1:], "kind": "heal"},
    ),
    sync("2026-11-28T07:00:00Z"),
    sync("2026-11-28T04:00:00Z"),
    sync("2026-11-28T01:00:00Z"),
    entry(
        *("version", "2026-11-27T14:22:10Z", "rollback"),
        actor="sales-ops@halden.example",
        version=14,
        repair_id=REPAIR,
        details={"streams": 7},
    ),
    entry(
        *("repair_decided", "2026-11-27T14:22:00Z", "approved"),
        actor="sales-ops@halden.example",
        reason="Opportunity history belongs to the forecasting team.",
        repair_id=REPAIR,
        details={
            "kind": "rollback",
            "target_version": 12,
            "decisions": [{"verdict": "approved", "change_count": 0}],
        },
    ),
    entry(
        *("setting", "2026-11-27T11:05:00Z", "changed"),
        actor="platform@halden.example",
        details={
            "subject": "connection",
            "settings": ["prefix", "schedule"],
            "change": {
                "prefix": {"from": "", "to": "crm_"},
                "schedule": {"from": None, "to": {"units": 3, "time_unit": "hours"}},
            },
        },
    ),
    *(sync(f"2026-11-27T{hour:02}:00:00Z") for hour in (10, 7, 4, 1)),
    sync(
        *("2026-11-26T16:00:00Z", "failed"),
        code="transient_error",
        details={"cause": "quota_exceeded", "attempts": 3, "records": None},
    ),
    *(sync(f"2026-11-{day}T10:00:00Z") for day in (25, 24, 23)),
    entry("credential", "2026-11-22T10:00:00Z", "rotated", actor="ada@example.com"),
]


def job(at: str, status: str = "succeeded", records: int | None = 700, **more: Any) -> Any:
    """A sync in the list of jobs."""
    return {
        "job_id": JOB,
        "airbyte_job_id": 42,
        "status": status,
        "started_by": "airbyte",
        "requested_by": None,
        "catalog_version": 14,
        "attempts": 1,
        "records": records,
        "bytes": 181_034,
        "started_at": at,
        "ended_at": at,
        "duration_seconds": 494.5,
        "suspicious_streams": [],
        **more,
    }


HEIGHTS: Final = (38, 40, 36, 41, 39, 42, 37, 40, 44, 41, 39, 43, 40, 38, 41, 40)
JOBS: Final = [
    job("2026-11-28T10:00:00Z", "running", 12_000, ended_at=None, started_by="aam"),
    *(
        job(f"2026-11-{27 - n // 8:02}T{21 - n % 8 * 3:02}:00:00Z", records=30_000 * height)
        for n, height in enumerate(HEIGHTS)
    ),
    job(
        *("2026-11-25T18:00:00Z", "failed", None),
        failure_code="transient_error",
        failure_cause="quota_exceeded",
        failure_explanation="The source's quota of API calls is used up.",
        attempts=3,
    ),
    *(
        job(f"2026-11-25T{15 - 3 * n:02}:00:00Z", records=30_000 * height, requested_by="Ada")
        for n, height in enumerate(HEIGHTS[:5])
    ),
]
VERSIONS: Final = [
    {
        "version_number": number,
        "origin": origin,
        "streams": 7,
        "repair_id": REPAIR if origin != "import" else None,
        "decided_by": by,
        "policy_set_by": "Ada" if by == "policy" else None,
        "requested_by": None,
        "created_at": f"2026-11-{number + 13}T14:22:00Z",
    }
    for number, origin, by in (
        (14, "rollback", "sales-ops@halden.example"),
        (13, "repair", "platform@halden.example"),
        (12, "repair", "policy"),
        (11, "repair", "policy"),
        (10, "import", None),
    )
]


def stream(name: str, fields: int, selected: int, **more: Any) -> dict[str, Any]:
    """A stream of a catalog version."""
    return {
        "name": name,
        "namespace": None,
        "selected": True,
        "sync_mode": "incremental",
        "destination_sync_mode": "append_dedup",
        "cursor_field": ["SystemModstamp"],
        "primary_key": [["Id"]],
        "fields": fields,
        "selected_fields": selected,
        "mappers": 0,
        **more,
    }


STREAMS: Final = [
    stream("Account", 42, 38),
    stream("Contact", 29, 29),
    stream("Lead", 52, 44),
    stream("OpportunityLineItem", 22, 22),
    stream("Shipment__c", 17, 17),
    stream("User", 188, 12),
]


def field(name: str, type_: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A field of a stream."""
    return {
        "name": name,
        "type": dict(type_),
        "selected": True,
        "is_cursor": False,
        "is_key": False,
        **more,
    }


_TEXT: Final = {"type": ["null", "string"]}
FIELDS: Final = [
    field("AnnualRevenue", {"type": ["null", "number"]}),
    field("Birth_Date__c", {"type": ["null", "string"], "format": "date"}, selected=False),
    field("Id", _TEXT, is_key=True),
    field("Name", _TEXT),
    field("Region__c", _TEXT),
    field("ShippingAddress", {"type": ["null", "object"]}),
    field("SystemModstamp", {**_TEXT, "format": "date-time"}, is_cursor=True),
]
REACTIONS: Final = {
    "stream": {"added": "ignore", "removed": "propose", "renamed": "propose"},
    "field": {"added": "propose", "removed": "propose", "renamed": "propose"},
    "type": {"widened": "apply", "narrowed": "propose", "clashing": "propose"},
    "key": {"changed": "propose", "lost": "pause"},
    "cursor": {"changed": "propose", "lost": "pause"},
    "mode": {"lost": "pause"},
    "mapper": {"lapsed": "pause"},
}
_SETTINGS: Final = {
    "verify": "read_back",
    "rename_min_confidence": 0.9,
    "discoveries_per_day": None,
    "on_suspicious_volume": "report",
    "credentials": "apply",
    "continuity": "ask",
    "sync_after_heal": "never",
    "two_approvals_from": None,
}
_LAYERS: Final = {
    "default": {"level": "default", "name": None, "value": None},
    "own": {"level": "connection", "name": None, "value": None},
    "label": {"level": "label", "name": "team", "value": "sales"},
}


def policy(own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A policy in effect, explained; by default new fields are the connection's own entry."""
    entries = {"reactions": {"field": {"added": "propose"}}} if own is None else dict(own)
    values = {
        f"{entity}.{what}": {"value": reaction, "layer": _LAYERS["default"], "overrides": []}
        for entity, whats in REACTIONS.items()
        for what, reaction in whats.items()
    } | {
        name: {"value": value, "layer": _LAYERS["default"], "overrides": []}
        for name, value in _SETTINGS.items()
    }
    values["field.added"] = {
        "value": "propose",
        "layer": _LAYERS["own"],
        "set_by": "Ada",
        "overrides": [{"layer": _LAYERS["default"], "value": "apply"}],
    }
    values["verify"]["layer"] = _LAYERS["label"]
    patterns = [
        {"pattern": "*ssn*", "layer": _LAYERS["default"]},
        {"pattern": "*birth*", "layer": _LAYERS["label"]},
    ]
    return {
        "connection_id": ID,
        "reactions": REACTIONS,
        "never_select": ["*ssn*", "*birth*"],
        **_SETTINGS,
        "own": entries,
        "updated_by": "Ada",
        "updated_at": "2026-11-24T09:30:00Z",
        "explanation": {"values": values, "never_select": patterns},
    }


DRIFTS: Final = [
    {
        "id": DRIFT,
        "severity": "breaking",
        "affects_sync": True,
        "connector_step": {"from_version": "2.10.2", "to_version": "2.10.3"},
        "open": True,
        "change_count": 6,
        "first_seen_at": "2026-11-28T09:16:02Z",
    },
    {
        "id": DRIFT,
        "severity": "harmless",
        "affects_sync": False,
        "connector_step": None,
        "open": False,
        "change_count": 1_204,
        "first_seen_at": "2026-11-12T09:16:02Z",
    },
]
PREVIEW: Final = page(
    {
        "drift_id": DRIFT,
        "first_seen_at": "2026-11-24T09:30:00Z",
        "change_count": 2,
        "different": 1,
        "changes": [
            {
                **change("field_added", "Account", "Tier__c"),
                "severity": "harmless",
                "now": "propose",
                "previewed": "apply",
            },
            {
                **change("field_removed", "Account", "Old__c"),
                "severity": "needs_review",
                "now": "propose",
                "previewed": "propose",
            },
        ],
    }
)
LOG: Final = {
    "job_id": JOB,
    "airbyte_job_id": 42,
    "status": "failed",
    "attempt": 2,
    "attempts": 3,
    "failures": [
        {
            "type": "transient_error",
            "origin": "source",
            "stream": "Account",
            "message": "REQUEST_LIMIT_EXCEEDED",
            "internal_message": None,
        }
    ],
    "items": ["2026-11-25 18:00:04 error source > HTTP 403 for url: ***"],
    "next": "earlier",
}


def answer(double: Double) -> None:
    """Let a double answer everything that the pages of the connection ask."""
    double.answers |= {
        f"GET {BASE}": CONNECTION,
        "GET /connections": page({**CONNECTION, "health": HEALTH}),
        f"GET {BASE}/observation": OBSERVATION,
        f"GET {BASE}/timeline": page(*TIMELINE, next="older-1"),
        f"GET {BASE}/jobs": page(*JOBS, next="jobs-2"),
        f"GET {BASE}/jobs/{JOB}/logs": LOG,
        f"GET {BASE}/catalog-versions": {**page(*VERSIONS), "next": 9},
        f"GET {BASE}/catalog-versions/14/streams": page(*STREAMS, next="streams-2"),
        f"GET {BASE}/catalog-versions/14/fields": page(*FIELDS, next="100"),
        "GET /repairs/summary": {},
        "GET /repairs": page({"id": REPAIR, "change_count": 3}),
        f"GET /repairs/{REPAIR}/changes": page(*CHANGES),
        "GET /drifts": page(*DRIFTS, next="drifts-2"),
        f"GET {BASE}/snapshots": page(
            {
                "snapshot_id": DRIFT,
                "taken_at": "2026-11-28T09:16:00Z",
                "seen_at": "2026-11-28T09:31:00Z",
                "streams": 214,
                "connector_version": "2.10.3",
            }
        ),
        f"GET {BASE}/policy": policy(),
        f"POST {BASE}/policy/preview": PREVIEW,
        f"POST {BASE}/discover": merged(),
        f"GET {BASE}/catalog-versions/14": {
            "streams": [
                *merged()["sync_catalog"]["streams"],
                {"stream": {"name": "Contact", "jsonSchema": {}}, "config": {"selected": True}},
            ]
        },
        "POST /repair/apply_new_catalog": REHEARSAL,
        "GET /destinations": page({"id": DESTINATION, "name": "Snowflake analytics"}),
    }


def merged() -> dict[str, Any]:
    """A catalog merged with what the source offers, as a discovery returns it."""
    names = ("Birth_Date__c", "Id", "Name", "Region__c", "SystemModstamp")
    return {
        "connection_id": ID,
        "expected_version": 14,
        "snapshot_id": DRIFT,
        "notes": [],
        "sync_catalog": {
            "streams": [
                {
                    "stream": {
                        "name": "Account",
                        "jsonSchema": {"properties": dict.fromkeys(names, _TEXT)},
                        "sourceDefinedPrimaryKey": [["Id"]],
                        "defaultCursorField": ["SystemModstamp"],
                    },
                    "config": {
                        "selected": True,
                        "fieldSelectionEnabled": True,
                        "selectedFields": [
                            {"fieldPath": [name]} for name in ("Id", "Name", "SystemModstamp")
                        ],
                    },
                }
            ]
        },
    }


REHEARSAL: dict[str, Any] = {
    "dry_run": True,
    "outcome": "applied",
    "base_version": 14,
    "waits_for": None,
    "catalog": {
        "schema_changes": [],
        "config_changes": [
            change("field_selected", "Account", "Region__c"),
            change("field_deselected", "Account", "Name"),
        ],
        "effects": [
            {
                "stream": {"namespace": None, "name": "Account"},
                "code": "column_kept",
                "message": "The column 'Name' keeps its values.",
            }
        ],
        "problems": [],
    },
}
