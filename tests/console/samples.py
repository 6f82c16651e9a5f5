"""What the services answer, for tests of pages; the names are invented."""

from __future__ import annotations

from typing import Any

ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
OPERATION_ID = "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0"
WEBHOOK_ID = "c0a8f3d2-7b1e-4f6a-9d3c-5e2b1a0f9c8d"
DELIVERY_ID = "3e9d1c7a-5b2f-4e8d-a6c1-0f4b7d2e9a53"
AT = "2026-11-28T09:30:00.123456Z"

SOURCE_TYPE: dict[str, Any] = {
    "id": "decd338e-5647-4c0b-adf4-da0e75f5a750",
    "name": "Postgres",
    "version": "3.6.1",
    "support_level": "certified",
    "documentation_url": "https://docs.airbyte.com/integrations/sources/postgres",
    "is_custom": False,
}
POSTGRES: dict[str, Any] = {
    "type": "object",
    "required": ["host", "port", "database", "username"],
    "properties": {
        "host": {
            "title": "Host",
            "type": "string",
            "order": 0,
            "description": 'Hostname of the <a href="https://example.com">database</a>.',
        },
        "port": {
            "title": "Port",
            "type": "integer",
            "minimum": 0,
            "maximum": 65536,
            "default": 5432,
            "order": 1,
        },
        "database": {"title": "Database Name", "type": "string", "order": 2},
        "schemas": {
            "title": "Schemas",
            "description": "The list of schemas to sync from. Case sensitive.",
            "type": "array",
            "items": {"type": "string"},
            "order": 3,
        },
        "username": {"title": "Username", "type": "string", "order": 4},
        "password": {"title": "Password", "type": "string", "airbyte_secret": True, "order": 5},
        "replication_method": {
            "title": "Update Method",
            "type": "object",
            "order": 6,
            "description": "How changes are extracted from the database.",
            "oneOf": [
                {
                    "title": "Read Changes using Write-Ahead Log (CDC)",
                    "description": "Sees deletions. Needs a replication slot.",
                    "required": ["method", "replication_slot"],
                    "properties": {
                        "method": {"type": "string", "const": "CDC", "order": 0},
                        "replication_slot": {
                            "title": "Replication Slot",
                            "type": "string",
                            "order": 1,
                        },
                        "lsn_commit_behaviour": {
                            "title": "LSN commit behaviour",
                            "type": "string",
                            "enum": ["While reading Data", "After loading Data in the destination"],
                            "default": "After loading Data in the destination",
                            "order": 2,
                        },
                    },
                },
                {
                    "title": "Detect Changes with Xmin System Column",
                    "required": ["method"],
                    "properties": {"method": {"type": "string", "const": "Xmin"}},
                },
                {
                    "title": "Scan Changes with User Defined Cursor",
                    "required": ["method"],
                    "properties": {"method": {"type": "string", "const": "Standard"}},
                },
            ],
        },
        "filters": {
            "title": "Filters",
            "type": "array",
            "order": 7,
            "items": {
                "type": "object",
                "title": "Filter",
                "required": ["value"],
                "properties": {
                    "criteria": {"type": "string", "enum": ["contains", "exacts"], "order": 0},
                    "value": {"title": "Search value", "type": "string", "order": 1},
                },
            },
        },
        "ssl": {"title": "Encrypt with TLS", "type": "boolean", "default": True, "order": 8},
        "jdbc_url_params": {
            "title": "JDBC URL Parameters",
            "description": "Passed on when the database is connected.",
            "type": "string",
            "default": "",
            "order": 9,
        },
    },
}
SPECIFICATION: dict[str, Any] = {
    "id": SOURCE_TYPE["id"],
    "name": "Postgres",
    "version": "3.6.1",
    "documentation_url": SOURCE_TYPE["documentation_url"],
    "specification": POSTGRES,
    "secret_paths": ["$.password"],
}
CREDENTIAL: dict[str, Any] = {
    "credential_id": "vault:postgres-planning",
    "store": "vault",
    "state": "rejected",
    "rejected_since": AT,
    "rejected_cause": "credential_rejected",
    "changed_at": None,
    "rotated_at": "2026-10-01T08:00:00.123456Z",
    "expires_at": None,
    "source_types": ["Postgres"],
    "connection_count": 1,
    "connections": [
        {
            "connection_id": ID,
            "name": "Planning",
            "source_type": "Postgres",
            "rejected_since": AT,
            "changed_at": None,
        }
    ],
}
DESTINATION: dict[str, Any] = {
    "id": "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a",
    "name": "Warehouse",
    "workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "definition_id": "25c5221d-dce2-4163-ade9-739ef790f503",
    "type": "Postgres",
    "version": "3.0.14",
}
OPERATION: dict[str, Any] = {
    "operation_id": OPERATION_ID,
    "kind": "onboard",
    "connection_id": ID,
    "connection_name": "Planning",
    "status": "running",
    "step": "discover",
    "step_since": AT,
    "waits_for": "upstream_timeout",
    "attempts": 1,
    "requested_by": "ada@example.com (key ab12cd34)",
    "problem": None,
    "response_status": None,
    "notes": None,
    "created_at": AT,
    "deadline": "2026-11-28T10:00:00.123456Z",
    "ended_at": None,
}
FAILED: dict[str, Any] = {
    **OPERATION,
    "status": "failed",
    "waits_for": None,
    "problem": {
        "code": "discovery_failed",
        "detail": "The connector could not list the source's schema.",
        "explanation": "The database refuses the password.",
        "request_id": "request-7",
    },
    "ended_at": AT,
}
IMPORT: dict[str, Any] = {
    "operation_id": OPERATION_ID,
    "workspace_id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "dry_run": True,
    "status": "done",
    "outcomes": {"would_import": 2, "already_managed": 1, "not_importable": 1},
    "items": [
        {
            "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
            "name": "Salesforce → Warehouse",
            "outcome": "would_import",
            "never_selected": [
                {"stream": {"namespace": None, "name": "Contact"}, "fields": ["Email", "Phone"]}
            ],
        },
        {
            "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4e",
            "name": "HubSpot → Warehouse",
            "outcome": "would_import",
            "shared_tables": [
                {
                    "stream": {"namespace": None, "name": "contacts"},
                    "message": "“HubSpot (old)” writes the table contacts, too.",
                }
            ],
        },
        {
            "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c4f",
            "name": "Planning → Warehouse",
            "outcome": "already_managed",
            "connection_id": ID,
        },
        {
            "airbyte_connection_id": "5a1d2c3b-4e5f-4a6b-8c7d-9e0f1a2b3c50",
            "name": "Old files",
            "outcome": "not_importable",
            "code": "connection_deprecated",
        },
    ],
    "next": None,
}
CHANGE: dict[str, Any] = {
    "kind": "field_removed",
    "stream": {"namespace": None, "name": "Account"},
    "path": ["Region__c"],
    "before": {"type": ["null", "string"]},
    "after": None,
    "severity": "needs_review",
    "entity": "field",
    "what": "removed",
    "affects_sync": True,
    "reason": "'Region__c' is gone from 'Account'.",
    "loses": ["Region__c"],
    "resets": ["The column of 'Region__c' keeps its values and is null in new rows."],
}
DRIFT: dict[str, Any] = {
    "id": "6f0c2f1e-7a1b-4c3d-8e9f-0a1b2c3d4e5f",
    "connection_id": ID,
    "connection_name": "Salesforce production",
    "before_snapshot_id": "1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d",
    "after_snapshot_id": "2b3c4d5e-6f7a-4b8c-9d0e-1f2a3b4c5d6e",
    "severity": "needs_review",
    "affects_sync": True,
    "connector_step": {
        "from_version": "2.10.3",
        "to_version": "3.0.0",
        "from_manifest": None,
        "to_manifest": None,
        "breaking_changes": [{"version": "3.0.0", "guide": "https://docs.airbyte.com/x"}],
    },
    "open": True,
    "change_count": 2,
    "first_seen_at": AT,
    "changes": [
        CHANGE,
        {
            **CHANGE,
            "kind": "field_added",
            "path": ["Sales_Region__c"],
            "severity": "harmless",
            "what": "added",
            "affects_sync": False,
            "reason": "'Sales_Region__c' is new in 'Account'.",
            "loses": [],
            "resets": [],
        },
    ],
}
SOURCE: dict[str, Any] = {
    "source_id": "0b6f3c1e-52a7-4d55-8f7e-3f0c8a6f2f10",
    "workspace_id": "3c1f7a52-8a4e-4b7e-9a43-6d2b1f0e9c87",
    "effective_interval_seconds": 900,
    "next_at": AT,
    "overdue": False,
    "observing": False,
    "postponed_since": None,
    "observed_at": AT,
    "outcome": "suspicious",
    "code": "synced_stream_missing",
    "detail": "1 of 214 streams are gone, and these are synced: 'Account'.",
    "cause": None,
    "failures": 2,
    "suspicious_since": AT,
    "snapshot_id": None,
    "connector_version": "2.10.3",
    "manifest_version": None,
    "connection_count": 1,
    "connections": [
        {"connection_id": ID, "name": "Salesforce production", "source_type": "Salesforce"}
    ],
}
WEBHOOK: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "url": "https://hooks.example.com/aam",
    "events": ["repair.proposed", "repair.failed"],
    "connection_id": None,
    "connection_name": None,
    "created_at": AT,
    "created_by": "ada@example.com (key ab12cd34)",
    "rotated_at": None,
    "rotated_by": None,
    "deleted_at": None,
    "deleted_by": None,
}
DELIVERY: dict[str, Any] = {
    "id": DELIVERY_ID,
    "repair_id": "91aa6c1e-8f64-4f0b-9a3c-0b1c2d3e4f50",
    "type": "repair.proposed",
    "state": "failed",
    "attempts": 9,
    "next_at": None,
    "last_status": 500,
    "last_code": "refused",
    "created_at": AT,
    "ended_at": AT,
}
KEY: dict[str, Any] = {
    "id": "ab12cd34",
    "owner": "ada@example.com",
    "scopes": ["connections:read", "repairs:decide", "admin"],
    "created_by": "first (key 0f1e2d3c)",
    "created_at": AT,
    "expires_at": "2027-02-23T00:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}
REFUSAL: dict[str, Any] = {
    "minute": "2026-11-24T09:30:00Z",
    "service": "orchestrator",
    "caller": "key:ab12cd34",
    "method": "DELETE",
    "route": "/connections/{connection_id}",
    "status": 403,
    "code": "forbidden",
    "count": 3,
    "first_at": "2026-11-24T09:30:01Z",
    "last_at": "2026-11-24T09:30:41Z",
}
READ: dict[str, Any] = {
    "at": AT,
    "reader": "service orchestrator",
    "credential_id": "vault:postgres-planning",
    "source_type": "Postgres",
    "result": "granted",
    "request_id": "0f3c1d2b4e5f4b9d9a577d0c7f4e6a3c",
}
KNOWLEDGE: dict[str, Any] = {
    "decision_id": "0d9f6f0e-1f3e-4a53-9f0b-6a1f2c3d4e5f",
    "source_type": "Salesforce",
    "entity": "field",
    "stream": {"namespace": None, "name": "Account"},
    "removed": ["Region__c"],
    "became": ["Sales_Region__c"],
    "verdict": "accepted",
    "decided_by": "ada@example.com",
    "requested_by": None,
    "reason": "Sales renamed it.",
    "connection_id": ID,
    "connection_name": "Salesforce production",
    "created_at": AT,
}
ABOUT: dict[str, Any] = {
    "environment": "live",
    "console_url": "https://aam.example.com/",
    "oidc": None,
    "version": "0.1.0",
    "airbyte_version": "1.8.0",
    "features": {"webhooks": True, "credential_rotation": True, "saved_states": False},
}
WORKSPACE: dict[str, Any] = {
    "id": "2f0c9b8a-7d6e-4c5b-8a49-3827160f5e4d",
    "name": "Halden Freight",
    "failure_code": None,
    "is_default": True,
    "connections": 214,
    "discoveries_at_once": 4,
    "discoveries_running": 1,
    "sources_due": 3,
}
READY: dict[str, Any] = {"ready": True, "checks": {"registry": "ok"}}


def listed(*items: dict[str, Any]) -> dict[str, Any]:
    """A page of a list."""
    return {"items": list(items), "next": None}


def answers() -> dict[str, Any]:
    """An answer for every request of the pages."""
    type_id = SOURCE_TYPE["id"]
    return {
        "GET /source-types": listed(SOURCE_TYPE),
        f"GET /source-types/{type_id}/specification": SPECIFICATION,
        "GET /destinations": listed(DESTINATION),
        "GET /credentials": listed(CREDENTIAL),
        "GET /credential-reads": listed(READ),
        "GET /refusals": listed(REFUSAL),
        "POST /sources/check": {"status": "succeeded", "notes": []},
        "POST /sources/preview": {
            "items": [{"name": "orders"}, {"name": "customers"}],
            "next": None,
            "streams": 2,
            "notes": [],
        },
        "POST /connections/onboard": {"id": ID},
        "POST /connections/import": {"operation_id": OPERATION_ID},
        f"GET /imports/{OPERATION_ID}": IMPORT,
        "GET /operations": listed(OPERATION, FAILED),
        f"GET /operations/{OPERATION_ID}": OPERATION,
        "GET /drifts": listed(DRIFT),
        f"GET /drifts/{DRIFT['id']}": DRIFT,
        "GET /repairs": listed({"id": ID, "drift_id": DRIFT["id"], "state": "proposed"}),
        "GET /observations": listed(SOURCE),
        f"POST /connections/{ID}/observe": {"status": "observing"},
        "GET /webhooks": listed(WEBHOOK),
        "POST /webhooks": {**WEBHOOK, "secret": "whsec_c2VjcmV0"},
        f"GET /webhooks/{WEBHOOK_ID}": WEBHOOK,
        f"GET /webhooks/{WEBHOOK_ID}/deliveries": listed(DELIVERY),
        f"POST /webhooks/{WEBHOOK_ID}/test": {
            "delivered": True,
            "status": 204,
            "code": None,
            "ms": 41.7,
        },
        f"POST /webhooks/{WEBHOOK_ID}/rotate": {**WEBHOOK, "secret": "whsec_bmV3"},
        f"DELETE /webhooks/{WEBHOOK_ID}": WEBHOOK,
        f"POST /webhooks/{WEBHOOK_ID}/deliveries/{DELIVERY_ID}/retry": DELIVERY,
        "GET /api-keys": listed(KEY),
        "POST /api-keys": {"id": "ab12cd34", "key": "aam_test_ab12cd34_shown-once"},
        "DELETE /api-keys/ab12cd34": KEY,
        "POST /credentials/vault:postgres-planning/rotate": {
            "credential_id": "vault:postgres-planning",
            "connections": [
                {"connection_id": ID, "name": "Planning", "outcome": "check_failed", "code": "x"}
            ],
        },
        "GET /knowledge": listed(KNOWLEDGE),
        "GET /about": ABOUT,
        "GET /workspaces": listed(WORKSPACE),
        "GET /ready": READY,
    }
