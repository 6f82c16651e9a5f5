"""Answers of the services about some connections, for the inbox and the list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.console.connection_filter import WORDS
from tests.console.double import Double, page

WAREHOUSE = "9c8b7a6d-5e4f-4d3c-9b2a-1f0e9d8c7b6a"
GROUP = "0f" * 32
IDS = [f"7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e{n:02d}" for n in range(60)]
REPAIRS = [f"91aa4c0e-7d3b-4f5a-8e21-6c0b9a8d7e{n:02d}" for n in range(60)]
_AT = "2026-11-28T09:16:00.000000Z"


def connection(number: int, name: str, health: str = "healthy", **more: Any) -> dict[str, Any]:
    """A row of GET /connections with `include=health`."""
    row: dict[str, Any] = {
        "id": IDS[number],
        "name": name,
        "source_type": "Salesforce",
        "status": "FAILED" if health == "failed" else "ACTIVE",
        "airbyte_destination_id": WAREHOUSE,
        "catalog_version": 3 + number,
        "failure_code": None,
        "labels": {},
        "created_at": "2026-11-02T09:42:10.123456Z",
        "health": health_of(health),
    }
    of_health = {key: more.pop(key) for key in list(more) if key in row["health"]}
    row["health"] |= of_health
    return row | more


def health_of(word: str, **more: Any) -> dict[str, Any]:
    """The health of a connection."""
    return {
        "health": word,
        "code": word,
        "reason": "Nothing needs attention.",
        "since": _AT,
        "severity": None,
        "repair_id": None,
        "last_job_id": None,
        "last_sync_status": "succeeded",
        "last_sync_started_at": "2026-11-28T09:00:00.000000Z",
        "last_sync_ended_at": "2026-11-28T09:04:12.000000Z",
        "failed_syncs": 0,
        "observed_at": "2026-11-28T09:29:58.123456Z",
        "next_observation_at": "2026-11-28T09:59:58.123456Z",
    } | more


def summary(**words: int) -> dict[str, Any]:
    """The answer of GET /connections/summary."""
    return {
        "total": sum(words.values()),
        "health": dict.fromkeys(WORDS, 0) | words,
        "statuses": {"ACTIVE": sum(words.values())},
        "source_types": [
            {"source_type": "Salesforce", "count": 200},
            {"source_type": "HubSpot", "count": 47},
        ],
        "destinations": [{"destination_id": WAREHOUSE, "count": sum(words.values())}],
    }


def change(kind: str, path: list[str], stream: str = "Account", **more: Any) -> dict[str, Any]:
    """A change of a repair, as lists have it."""
    return {
        "id": f"c-{kind}-{'.'.join(path)}",
        "kind": kind,
        "stream": {"namespace": None, "name": stream},
        "path": path,
        "severity": "needs_review",
    } | more


def repair(number: int, name: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row of GET /repairs."""
    return {
        "id": REPAIRS[number],
        "connection_id": IDS[number],
        "connection_name": name,
        "kind": "heal",
        "state": "proposed",
        "severity": "needs_review",
        "base_version": 2,
        "target_version": None,
        "version_number": None,
        "verify": "read_back",
        "paused": False,
        "expires_at": "2026-12-05T09:16:00.000000Z",
        "created_at": _AT,
        "updated_at": _AT,
        "ended_at": None,
        "change_count": len(changes),
        "decided_count": 0,
        "first_changes": list(changes[:3]),
    } | more


def group(one: dict[str, Any], *members: dict[str, Any], id: str = GROUP) -> dict[str, Any]:
    """A row of GET /repairs/groups, of proposals with the same change."""
    return {
        **{key: one[key] for key in ("kind", "stream", "path", "severity")},
        "id": id,
        "source_type": "HubSpot",
        "before": None,
        "after": None,
        "connection_count": len(members),
        "members": [
            {
                "repair_id": member["id"],
                "change_id": one["id"],
                "connection_id": member["connection_id"],
                "connection_name": member["connection_name"],
                "reaction": "propose",
                "suggested": one.get("suggested"),
            }
            for member in members
        ],
    }


def source(number: int, name: str, outcome: str = "suspicious", **more: Any) -> dict[str, Any]:
    """A row of GET /observations."""
    return {
        "source_id": IDS[50 + number % 10],
        "next_at": "2026-11-28T09:50:00.000000Z",
        "overdue": False,
        "observing": False,
        "outcome": outcome,
        "code": "synced_stream_missing",
        "detail": "38 of 41 streams are gone, and these are synced: 'orders', 'customers'.",
        "failures": 2,
        "suspicious_since": _AT,
        "connection_count": 1,
        "connections": [{"connection_id": IDS[number], "name": name, "source_type": "Postgres"}],
    } | more


def fill(double: Double) -> None:
    """Let the services have a fleet in which everything happens."""
    gone = change("field_removed", ["lifecycle_stage_old"], "contacts")
    several = [
        repair(n, name, gone)
        for n, name in ((2, "HubSpot marketing"), (3, "HubSpot Nordics"), (4, "HubSpot partners"))
    ]
    salesforce = repair(
        1,
        "Salesforce production",
        change("cursor_changed", [], "Shipment__c", severity="breaking"),
        change("field_removed", ["Region__c"]),
        change("field_added", ["Sales_Region__c"]),
        change("field_added", ["Tier__c"]),
        severity="breaking",
        paused=True,
    )
    stripe = repair(5, "Stripe EU billing", change("field_removed", ["source"], "charges"))
    ended = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    shopify = repair(
        6,
        "Shopify Nordics",
        change("field_added", ["tags"], "orders"),
        change("field_added", ["locale"], "orders"),
        state="applied",
        verify="sync",
        base_version=18,
        version_number=19,
        ended_at=ended,
    )
    rolled = repair(
        7,
        "GitHub engineering",
        change("field_retyped", ["number"], "issues"),
        state="rolled_back",
        base_version=31,
        version_number=33,
        ended_at=ended,
    )
    google = connection(
        8,
        "Google Ads DE",
        "failed",
        source_type="Google Ads",
        code="upstream_mismatch",
        reason="Airbyte accepted version 7 and holds another catalog.",
        last_sync_status="failed",
    )
    zendesk = connection(
        9,
        "Zendesk support",
        "sync_failing",
        source_type="Zendesk Support",
        code="config_error",
        reason="4 syncs in a row failed, the last one: config_error.",
        failed_syncs=4,
        last_sync_status="failed",
        labels={"team": "support"},
    )
    jira = connection(
        10,
        "Jira product",
        "differs",
        source_type="Jira",
        code="catalog_differs",
        reason="Airbyte holds another catalog than AAM applied.",
    )
    rows = [
        google,
        connection(
            1,
            "Salesforce production",
            "paused_by_repair",
            reason="4 changes wait for review, 1 is breaking.",
            repair_id=salesforce["id"],
            labels={"tier": "1", "team": "sales"},
        ),
        connection(
            2,
            "HubSpot marketing",
            "needs_review",
            source_type="HubSpot",
            reason="1 change waits for review.",
            repair_id=several[0]["id"],
        ),
        jira,
        zendesk,
        connection(
            11,
            "Postgres orders",
            "suspicious",
            source_type="Postgres",
            reason="38 of 41 streams are gone, and these are synced: 'orders', 'customers'.",
        ),
        connection(12, "Workday people", "syncing", reason="A sync is running."),
        connection(13, "SAP plant Halden", "paused", reason="platform@halden.example paused it."),
        connection(14, "Mailchimp newsletter", source_type="Mailchimp", labels={"team": "crm"}),
    ]
    counts = summary(
        failed=1,
        sync_failing=1,
        paused_by_repair=1,
        needs_review=4,
        differs=1,
        suspicious=1,
        syncing=5,
        healing=1,
        paused=2,
        healthy=230,
    )
    double.answers |= {
        "GET /connections/summary": counts,
        "GET /repairs/groups": page(group(gone, *several)),
        "GET /repairs/summary": {"open": 5, "by_state": {"proposed": 5}, "pausing": 1},
        "GET /observations": page(source(11, "Postgres orders")),
        "GET /destinations": page({"id": WAREHOUSE, "name": "Snowflake analytics"}),
    }
    double.by_query |= {
        ("GET /repairs", "state=proposed"): page(*several, stripe, salesforce),
        ("GET /repairs", "state=applied"): page(shopify, rolled),
        ("GET /connections", "health=failed&health=differs"): page(google, jira, zendesk),
        ("GET /connections", ""): page(*rows, next="cursor-2"),
    }
