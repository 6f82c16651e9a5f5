"""What Airbyte fills in where a request leaves something out, and what all instances share."""

from __future__ import annotations

from typing import Any

from local.airbyte.releases import Release

Json = dict[str, Any]

PAGE_SIZE = 20
JOBS_PAGE_SIZE = 200
ORGANIZATION_ID = "00000000-0000-0000-0000-000000000000"
UNIT_SECONDS = {"minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800, "months": 2592000}
"""The units of a basic schedule."""

ICONS = "https://connectors.airbyte.com/files/metadata"


def workspace(release: Release) -> Json:
    """Return the members of the workspace that are the same everywhere."""
    members: Json = {
        "initialSetupComplete": True,
        "displaySetupWizard": False,
        "anonymousDataCollection": False,
        "news": False,
        "securityUpdates": False,
        "notifications": [],
    }
    return members if release.since(1) else {**members, "defaultGeography": "auto"}


def connection_name(source_name: str, destination_name: str) -> str:
    """Return the name of a connection that is created without one."""
    return f"{source_name} <> {destination_name}"


def connection(release: Release) -> Json:
    """Return the settings of a connection that is created without any."""
    settings: Json = {
        "namespaceDefinition": "source",
        "operationIds": [],
        "scheduleType": "manual",
        "breakingChange": False,
        "notifySchemaChanges": False,
        "notifySchemaChangesByEmail": False,
        "nonBreakingChangesPreference": "ignore",
        "backfillPreference": "disabled",
    }
    if release.since(1):
        settings["tags"] = []
    else:
        settings["geography"] = "auto"
    if release.is_head:
        settings["onDemandEnabled"] = False
    return settings


def actor(definition_icon: str) -> Json:
    """Return the members of a source or destination that no request sets."""
    return {
        "icon": definition_icon,
        "isVersionOverrideApplied": False,
        "supportState": "supported",
        "status": "active",
    }


def version(release: Release) -> Json:
    """Return the members of a connector version that do not depend on the connector."""
    members: Json = {
        "supportState": "supported",
        "isVersionOverrideApplied": False,
    }
    if release.since(2):
        members |= {"supportsFileTransfer": False, "supportsDataActivation": False}
    return members
