"""Airbyte's representations, as functions of plain values and the release.

Null members are omitted, as Airbyte does; times are in epoch seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

from local.airbyte import mappers
from local.airbyte.api import defaults
from local.airbyte.api.backend import ActorVersion, Definition, Kind, Outcome
from local.airbyte.releases import Release

Json = dict[str, Any]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
CLEARING = frozenset({"clear", "reset_connection"})
_STAGES = {"certified": "generally_available", "community": "alpha", "none": "custom"}
_COUNTS = ("recordsEmitted", "bytesEmitted", "recordsCommitted", "bytesCommitted")


def present(members: Mapping[str, Any]) -> Json:
    """Omit null members."""
    return {name: value for name, value in members.items() if value is not None}


# Definitions and actors


def definition(of: Definition) -> Json:
    """Build a SourceDefinitionRead or DestinationDefinitionRead."""
    return present(
        {
            f"{of.kind}DefinitionId": of.id,
            "name": of.name,
            "dockerRepository": of.repository,
            "dockerImageTag": of.tag,
            "documentationUrl": of.documentation,
            "icon": icon(of),
            "protocolVersion": "0.2.0",
            "custom": of.custom,
            "supportLevel": of.support_level,
            "releaseStage": _STAGES[of.support_level],
            "sourceType": "api" if of.kind == "source" else None,
        }
    )


def icon(of: Definition) -> str:
    """Return the address of a connector's icon."""
    return f"{defaults.ICONS}/{of.repository}/latest/icon.svg"


def version(of: Definition, release: Release) -> Json:
    """Build an ActorDefinitionVersionRead."""
    return {
        "dockerRepository": of.repository,
        "dockerImageTag": of.tag,
        **defaults.version(release),
        "supportsRefreshes": of.supports_refreshes,
    }


def actor_version(of: Definition, version_of: ActorVersion, release: Release) -> Json:
    """Build the ActorDefinitionVersionRead of a source or destination."""
    return {
        **version(of, release),
        "dockerImageTag": version_of.tag,
        "supportLevel": of.support_level,
        **support(version_of, release),
    }


def support(version_of: ActorVersion, release: Release) -> Json:
    """Build the members about a version's support; only a user's pin counts as an override.

    Source: ConfigurationDefinitionVersionOverrideProvider and SupportStateUpdater of 310e6cb6ac.
    """
    upcoming = [
        {name: value for name, value in one.items() if release.since(1) or name != _ACTION}
        for one in version_of.upcoming
    ]
    deadlines = sorted(one["upgradeDeadline"] for one in upcoming)
    state = "supported"
    if deadlines:
        is_over = date.fromisoformat(deadlines[0]) < datetime.now(UTC).date()
        state = "unsupported" if is_over else "deprecated"
    changes: Json | None = None
    if deadlines:
        changes = {"upcomingBreakingChanges": upcoming, "minUpgradeDeadline": deadlines[0]}
        actions = [one[_ACTION] for one in upcoming if _ACTION in one]
        changes |= {_ACTION: actions[0]} if actions else {}
    return present(
        {
            "isVersionOverrideApplied": version_of.pinned_by == "user",
            "supportState": state,
            "breakingChanges": changes,
        }
    )


_ACTION = "deadlineAction"
"""A member that 0.63 does not have."""


def actor(
    of: Definition,
    *,
    actor_id: str,
    workspace_id: str,
    name: str,
    config: Json,
    created_at: int,
    release: Release,
) -> Json:
    """Build a SourceRead or DestinationRead, with the secrets of its configuration in clear."""
    kind = of.kind
    return present(
        {
            f"{kind}DefinitionId": of.id,
            f"{kind}Id": actor_id,
            "workspaceId": workspace_id,
            "connectionConfiguration": config,
            "name": name,
            f"{kind}Name": of.name,
            **defaults.actor(icon(of)),
            "createdAt": created_at if release.since(1) else None,
        }
    )


# Connector runs


def failure_reason(
    origin: str,
    kind: str,
    message: str,
    *,
    internal: str | None = None,
    retryable: bool | None = None,
    **more: Any,
) -> Json:
    """Build a FailureReason; it has all members, `for_release` omits those of later releases."""
    return present(
        {
            "timestamp": int(time.time() * 1000),
            "failureOrigin": origin,
            "failureType": kind,
            "externalMessage": message,
            "internalMessage": internal,
            "retryable": retryable,
            **more,
        }
    )


def for_release(reason: Json | None, release: Release) -> Json | None:
    """Represent a FailureReason as a release does."""
    if reason is None or release.since(1):
        return reason
    newer = ("fromTraceMessage", "streamDescriptor")
    return {name: value for name, value in reason.items() if name not in newer}


def logs(lines: Sequence[str], release: Release) -> Json:
    """Build the log members of a job or an attempt."""
    body: Json = {"logs": {"logLines": list(lines)}}
    return body | ({"logType": "formatted"} if release.since(2) else {})


def synchronous_job(
    kind: str, config_id: str, outcome: Outcome, lines: Sequence[str], release: Release
) -> Json:
    """Build the SynchronousJobRead of a connector run."""
    return present(
        {
            "id": outcome.job_id,
            "configType": kind,
            "configId": config_id,
            "createdAt": outcome.started_at,
            "endedAt": outcome.ended_at,
            "succeeded": outcome.succeeded,
            "connectorConfigurationUpdated": outcome.renewed,
            "failureReason": for_release(outcome.failure, release),
            **logs(lines, release),
        }
    )


def no_job(kind: str, release: Release) -> Json:
    """Build the SynchronousJobRead that Airbyte reports when no connector had to run."""
    never = Outcome(job_id=str(uuid4()), started_at=0, ended_at=0, renewed=False)
    return synchronous_job(kind, "NoConfiguration", never, (), release)


# Connections


def connection(
    *,
    connection_id: str,
    source_id: str,
    destination_id: str,
    workspace_id: str,
    settings: Json,
    streams: list[Json],
    created_at: int,
    release: Release,
) -> Json:
    """Build a ConnectionRead."""
    body = {
        "connectionId": connection_id,
        "sourceId": source_id,
        "destinationId": destination_id,
        "workspaceId": workspace_id,
        "syncCatalog": {"streams": streams},
        "created_at": created_at,
        **defaults.connection(release),
        **settings,
    }
    if not release.since(2):
        body.pop("destinationCatalogId", None)
    return present(body)


def connection_read(held: Json) -> Json:
    """Show a connection: keys of mappers are masked, and old clients find a basic schedule."""
    held = mappers.masked(held)
    basic = (held.get("scheduleData") or {}).get("basicSchedule")
    return {**held, "schedule": basic} if basic and held["scheduleType"] == "basic" else held


def connection_item(
    held: Json,
    actors: Mapping[Kind, tuple[Json, Definition]],
    jobs: Sequence[Json],
    release: Release,
) -> Json:
    """Build a WebBackendConnectionListItem; `jobs` are the connection's, newest first."""
    item: Json = {
        "connectionId": held["connectionId"],
        "name": held["name"],
        "status": held["status"],
        "scheduleType": held.get("scheduleType"),
        "scheduleData": held.get("scheduleData"),
        "isSyncing": any(is_open(job) for job in jobs),
        "schemaChange": "breaking" if held["breakingChange"] else "no_change",
    }
    for kind, (actor, of) in actors.items():
        item[kind] = {
            f"{kind}Id": actor[f"{kind}Id"],
            "name": actor["name"],
            f"{kind}DefinitionId": of.id,
            f"{kind}Name": of.name,
            "icon": icon(of),
        }
        item[f"{kind}ActorDefinitionVersion"] = version(of, release)
    if jobs:
        item["latestSyncJobCreatedAt"] = jobs[0]["createdAt"]
        item["latestSyncJobStatus"] = jobs[0]["status"]
    if release.since(1):
        item["tags"] = held.get("tags") or []
    if release.is_head:
        item["onDemandEnabled"] = held.get("onDemandEnabled", False)
    return present(item)


def connection_status(
    held: Json, jobs: Sequence[Json], attempts: Sequence[Json], release: Release
) -> Json:
    """Build a ConnectionStatusRead.

    `jobs` are the connection's, newest first, and `attempts` those of the newest job.
    """
    last = jobs[0] if jobs else None
    succeeded = [job["updatedAt"] for job in jobs if job["status"] == "succeeded"]
    failures = attempts[-1].get("failureSummary", {}).get("failures", []) if attempts else []
    failure = failures[0] if last and last["status"] == "failed" and failures else None
    active = next((job for job in jobs if is_open(job)), None)
    body: Json = {
        "connectionId": held["connectionId"],
        "lastSuccessfulSync": max(succeeded, default=None),
        "lastSyncJobId": last and last["id"],
        "lastSyncAttemptNumber": attempts[-1]["id"] if attempts else None,
        "failureReason": failure,
    }
    if not release.since(1):
        ended = next((job for job in jobs if not is_open(job)), None)
        body["isRunning"] = active is not None
        body["isLastCompletedJobReset"] = ended is not None and ended["configType"] in CLEARING
        body["lastSyncJobStatus"] = last and last["status"]
        return present(body)
    body["scheduleData"] = held.get("scheduleData")
    body["connectionSyncStatus"] = _sync_status(held, last, active, failure)
    body["lastSyncJobCreatedAt"] = last and last["createdAt"]
    body["activeJob"] = active
    return present(body)


def _sync_status(held: Json, last: Json | None, active: Json | None, failure: Json | None) -> str:
    if active is not None:
        return "queued" if active["status"] == "queued" else "running"
    if held["breakingChange"]:
        return "failed"
    if held["status"] != "active":
        return "paused"
    if last is None:
        return "pending"
    if failure is not None and failure["failureType"] == "config_error":
        return "failed"
    return "synced" if last["status"] == "succeeded" else "incomplete"


# Jobs


def is_open(job: Json) -> bool:
    """Whether a job has not ended yet."""
    return job["status"] not in ENDED


def descriptor(stream: Mapping[str, Any]) -> Json:
    """Build a StreamDescriptor."""
    return present({"name": stream["name"], "namespace": stream.get("namespace") or None})


def counts(
    records_emitted: int, bytes_emitted: int, records_committed: int, bytes_committed: int
) -> Json:
    """Build the counts of a stream, an attempt or a job."""
    numbers = (records_emitted, bytes_emitted, records_committed, bytes_committed)
    return dict(zip(_COUNTS, numbers, strict=True))


def total(streams: Sequence[Json]) -> Json:
    """Add up the counts of streams."""
    return {name: sum(each[name] for each in streams) for name in _COUNTS}


def job(
    *,
    job_id: int,
    config_type: str,
    connection_id: str,
    streams: Sequence[Json],
    status: str,
    created_at: int,
    updated_at: int,
    started_at: int | None,
    refreshed: Sequence[Json] = (),
) -> Json:
    """Build a JobRead without counts; `streams` are descriptors, `refreshed` some of them."""
    return present(
        {
            "id": job_id,
            "configType": config_type,
            "configId": connection_id,
            "enabledStreams": list(streams),
            "refreshConfig": {"streamsToRefresh": list(refreshed)} if refreshed else None,
            "createdAt": created_at,
            "updatedAt": updated_at,
            "startedAt": started_at,
            "status": status,
        }
    )


def job_counts(counted: Json, release: Release) -> Json:
    """Build a job's JobAggregatedStats or StreamStats: rejected records are counted since 2.0."""
    return {**counted, **({"recordsRejected": 0} if release.since(2) else {})}


def attempt(
    *,
    number: int,
    status: str,
    created_at: int,
    updated_at: int,
    ended_at: int | None = None,
    counted: Json | None = None,
    streams: Sequence[Json] | None = None,
    failure: Json | None = None,
    release: Release,
) -> Json:
    """Build an AttemptRead; `counted` has its counts, `failure` is an AttemptFailureSummary."""
    if failure is not None:
        failures = [for_release(reason, release) for reason in failure["failures"]]
        failure = {**failure, "failures": failures}
    return present(
        {
            "id": number,
            "status": status,
            "createdAt": created_at,
            "updatedAt": updated_at,
            "endedAt": ended_at,
            "recordsSynced": counted and counted["recordsCommitted"],
            "bytesSynced": counted and counted["bytesCommitted"],
            "totalStats": counted,
            "streamStats": None if streams is None else list(streams),
            "failureSummary": failure,
        }
    )
