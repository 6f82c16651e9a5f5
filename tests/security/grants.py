"""The expected privileges of each service on each table and column of the registry.

Independent of `migrations/privileges.sql`, so that an additional grant there fails a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

SERVICES = ("orchestrator", "auth_broker", "drift_repair_agent", "schema_observer", "rag_engine")

_KEY_READ = "SELECT(id digest owner scopes labels expires_at last_used_at revoked_at)"
_KEY_USE = f"{_KEY_READ} UPDATE(last_used_at)"
_CONNECTOR = "connector_version manifest_version"
_SNAPSHOT_SEEN = f"UPDATE(seen_at raw_hashes stream_hashes airbyte_catalog_id {_CONNECTOR})"
_QUEUE = "SELECT INSERT UPDATE DELETE"
_QUEUE_USERS = {
    "orchestrator": _QUEUE,
    "drift_repair_agent": _QUEUE,
    "schema_observer": _QUEUE,
}

MATRIX: Mapping[str, Mapping[str, str]] = {
    "alembic_version": {},
    "api_keys": {
        "orchestrator": "SELECT INSERT UPDATE(last_used_at revoked_at)",
        "drift_repair_agent": _KEY_USE,
        "schema_observer": _KEY_USE,
        "rag_engine": _KEY_USE,
    },
    "refusals": dict.fromkeys(
        ("orchestrator", "drift_repair_agent", "schema_observer", "rag_engine"),
        "SELECT INSERT UPDATE(count first_at last_at)",
    ),
    "connections": {
        "orchestrator": "SELECT INSERT UPDATE",
        "drift_repair_agent": "SELECT UPDATE(status heal_id healing_since catalog_version"
        " has_mappers failure_code failure_detail drifted_upstream_at upstream_code paused_by"
        " unpaused_repair_id event_seq updated_at)",
        "schema_observer": "SELECT UPDATE(event_seq updated_at)",
        "rag_engine": "SELECT(id name)",
    },
    "connection_health": {
        "orchestrator": "SELECT INSERT UPDATE",
        "drift_repair_agent": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT INSERT UPDATE",
    },
    "credential_audit": {
        "orchestrator": "SELECT(id at caller credential_id source_type result request_id)",
        "auth_broker": "INSERT",
    },
    "credential_versions": {"orchestrator": "SELECT INSERT UPDATE DELETE"},
    "discoveries": {
        "orchestrator": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT INSERT UPDATE DELETE",
    },
    "drifts": {
        "orchestrator": "SELECT(id connection_id after_snapshot_id severity affects_sync summary"
        " connector_step first_seen_at)",
        "drift_repair_agent": "SELECT",
        "schema_observer": "SELECT INSERT",
    },
    "events": {
        "orchestrator": "SELECT INSERT UPDATE(published_at)",
        "drift_repair_agent": "SELECT INSERT",
        "schema_observer": "SELECT INSERT",
    },
    "import_items": {
        "orchestrator": "SELECT INSERT"
        " UPDATE(outcome code connection_id never_selected shared_tables)"
    },
    "job_history": {
        "orchestrator": "SELECT INSERT UPDATE",
        "drift_repair_agent": "SELECT",
        "schema_observer": "SELECT(id connection_id kind status failure_code started_at ended_at)",
    },
    "knowledge": {"rag_engine": "SELECT INSERT"},
    "periodic_runs": {
        "orchestrator": "SELECT INSERT UPDATE",
        "drift_repair_agent": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT INSERT UPDATE",
    },
    "observations": {
        "orchestrator": "SELECT(airbyte_source_id airbyte_workspace_id next_at claimed_by"
        " claimed_until outcome code detail suspicious_since observed_at overdue_at)",
        "drift_repair_agent": "SELECT(airbyte_source_id outcome code detail suspicious_since"
        " overdue_at)",
        "schema_observer": "SELECT INSERT UPDATE DELETE",
    },
    "operations": {
        "orchestrator": "SELECT INSERT UPDATE DELETE",
        "drift_repair_agent": "SELECT INSERT UPDATE DELETE",
        "schema_observer": "SELECT(connection_id kind status created_at)",
    },
    "pgqueuer": _QUEUE_USERS,
    "pgqueuer_log": _QUEUE_USERS,
    "pgqueuer_schedules": {},
    "pgqueuer_statistics": _QUEUE_USERS,
    "plans": {"drift_repair_agent": "SELECT INSERT UPDATE DELETE", "schema_observer": "SELECT"},
    "policies": {
        "orchestrator": "SELECT",
        "drift_repair_agent": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT(connection_id policy)",
    },
    "policy_layers": {
        "orchestrator": "SELECT",
        "drift_repair_agent": "SELECT INSERT UPDATE DELETE",
        "schema_observer": "SELECT(level name value policy)",
    },
    "repairs": {
        "orchestrator": "SELECT(id connection_id kind state drift_id parent_id superseded_by"
        " target_version decisions decided_at operation_id version_number restored_version job_id"
        " failure_code summary expires_at created_at ended_at)",
        "drift_repair_agent": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT(id connection_id state snapshot_id drift_id summary"
        " created_at ended_at)",
    },
    "setting_changes": {
        "orchestrator": "SELECT INSERT",
        "drift_repair_agent": "SELECT INSERT",
        "schema_observer": "SELECT INSERT",
    },
    "snapshots": {
        "orchestrator": f"SELECT INSERT {_SNAPSHOT_SEEN}",
        "drift_repair_agent": f"SELECT UPDATE({_CONNECTOR})",
        "schema_observer": f"SELECT INSERT {_SNAPSHOT_SEEN}",
    },
    "source_trials": {"orchestrator": "SELECT INSERT UPDATE DELETE"},
    "source_connectors": {
        "orchestrator": "SELECT INSERT UPDATE",
        "drift_repair_agent": "SELECT INSERT UPDATE",
        "schema_observer": "SELECT INSERT UPDATE DELETE",
    },
    "stream_schemas": {
        "orchestrator": "SELECT INSERT UPDATE(created_at)",
        "drift_repair_agent": "SELECT",
        "schema_observer": "SELECT INSERT UPDATE(created_at)",
    },
    "stream_states": {
        "orchestrator": "SELECT(operation_id saved_at) INSERT",
        "drift_repair_agent": "SELECT INSERT",
    },
    "sync_catalog_versions": {
        "orchestrator": "SELECT INSERT",
        "drift_repair_agent": "SELECT INSERT",
        "schema_observer": "SELECT",
    },
    "sync_volumes": {"orchestrator": "SELECT INSERT UPDATE(job_id ended_at volumes)"},
    "timeline_events": {
        "orchestrator": "SELECT INSERT",
        "drift_repair_agent": "SELECT INSERT UPDATE(to_notify)",
        "schema_observer": "SELECT INSERT",
    },
    "watches": {
        "orchestrator": "SELECT(connection_id interval_seconds)",
        "schema_observer": "SELECT INSERT UPDATE",
    },
    "webhook_deliveries": {"drift_repair_agent": "SELECT INSERT UPDATE"},
    "webhooks": {"drift_repair_agent": "SELECT INSERT UPDATE"},
}
"""For each table, each service's privileges: on the whole table, or on the columns in brackets."""


class Right(NamedTuple):
    """One privilege on one column; `*` if it applies to whole rows."""

    table: str
    column: str
    verb: str


def expected(service: str, columns: Mapping[str, set[str]]) -> set[Right]:
    """Return every privilege of a service, per column; `columns` lists each table's columns."""
    rights = set()
    for table, services in MATRIX.items():
        for verb, named in re.findall(r"([A-Z]+)(?:\(([^)]*)\))?", services.get(service, "")):
            if verb == "DELETE":
                rights.add(Right(table, "*", verb))
            else:
                of_these = set(named.split()) or columns[table]
                rights |= {Right(table, column, verb) for column in of_these}
    return rights
