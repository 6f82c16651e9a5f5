"""The API's representations of jobs and connections, as the emulated release words them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from local.airbyte.errors import uncaught
from local.airbyte.job_logs import name_of
from local.airbyte.metadata import OPEN, Row
from local.airbyte.plane import Outcome, Plane
from local.airbyte.settings import Flavour

Json = dict[str, Any]


def job_info(plane: Plane, kind: str, config_id: str, outcome: Outcome) -> Json:
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
            "failureReason": _reason(plane, outcome.failure),
            **logs_of(plane, outcome.job_id),
        }
    )


def no_job(plane: Plane, kind: str) -> Json:
    """Build the job that Airbyte reports when no connector had to run."""
    return {
        "id": str(uuid4()),
        "configType": kind,
        "configId": "NoConfiguration",
        "createdAt": 0,
        "endedAt": 0,
        "succeeded": True,
        "connectorConfigurationUpdated": False,
        **logs_of(plane),
    }


def logs_of(plane: Plane, name: str | None = None) -> Json:
    """Return the last lines of a job's log; the first line is the path of the whole log."""
    lines: Json = {"logs": {"logLines": [] if name is None else plane.job_logs.lines(name)}}
    return lines | ({"logType": "formatted"} if plane.settings.flavour is Flavour.COMMANDS else {})


def command_logs(plane: Plane, name: str) -> Json:
    """Build the JobLogs of a command's output."""
    return {"logType": "formatted", "logLines": plane.job_logs.lines(name)}


def connection_status(plane: Plane, row: Row) -> Json:
    """Build a connection's status; the two releases answer this differently."""
    job = plane.metadata.one(
        "SELECT * FROM jobs WHERE connection_id = ? ORDER BY id DESC LIMIT 1", row["id"]
    )
    succeeded = plane.metadata.one(
        "SELECT max(updated_at) AS at FROM jobs WHERE connection_id = ? AND status = 'succeeded'",
        row["id"],
    )
    is_open = job is not None and job["status"] in OPEN
    told: Json = {
        "connectionId": row["id"],
        "lastSuccessfulSync": succeeded and succeeded["at"],
    }
    if job is not None:
        told["lastSyncJobId"] = job["id"]
        told |= _last_attempt(plane, job)
    if plane.settings.flavour is Flavour.SYNCHRONOUS:
        told |= {"isRunning": is_open, "isLastCompletedJobReset": False}
        return present(told | {"lastSyncJobStatus": job and job["status"]})
    told["scheduleData"] = row["settings"].get("scheduleData")
    told["connectionSyncStatus"] = _sync_status(row, job, told.get("failureReason"))
    if job is not None:
        told["lastSyncJobCreatedAt"] = job["created_at"]
        told["activeJob"] = job_read(plane, job) if is_open else None
    return present(told)


def _last_attempt(plane: Plane, job: Row) -> Json:
    last = attempts(plane, job["id"])[-1]
    failures = last.get("failureSummary", {}).get("failures", [])
    told: Json = {"lastSyncAttemptNumber": last["id"]}
    if failures and job["status"] == "failed":
        told["failureReason"] = failures[0]
    return told


def _sync_status(row: Row, job: Row | None, failure: Json | None) -> str:
    if row["settings"].get("breakingChange"):
        return "failed"
    if row["settings"]["status"] == "inactive":
        return "paused"
    if job is None:
        return "pending"
    if failure is not None and failure["failureType"] == "config_error":
        return "failed"
    told = {
        "pending": "running",
        "running": "running",
        "incomplete": "running",
        "succeeded": "synced",
        "failed": "incomplete",
        "cancelled": "incomplete",
    }
    return told[job["status"]]


def job_row(plane: Plane, job_id: int) -> Row:
    """Return a job as stored.

    Raises:
        Refusal: 500, as Airbyte answers for an unknown id.
    """
    row = plane.metadata.one("SELECT * FROM jobs WHERE id = ?", job_id)
    if row is None:
        raise uncaught(f"Could not find job with id: {job_id}", "java.lang.RuntimeException")
    return row


def job_and_attempts(plane: Plane, job_id: int, *, with_logs: bool = True) -> Json:
    """Build a JobInfoRead."""
    return {
        "job": job_read(plane, job_row(plane, job_id)),
        "attempts": [
            {
                "attempt": each,
                **logs_of(plane, name_of(job_id, each["id"]) if with_logs else None),
            }
            for each in attempts(plane, job_id)
        ],
    }


def job_read(plane: Plane, row: Row) -> Json:
    """Build a JobRead, with the counts of its last attempt."""
    last = attempts(plane, row["id"])[-1]
    streams = [{**_flat(each), **_rejected(plane)} for each in last["streamStats"]]
    counted = ("recordsEmitted", "bytesEmitted", "recordsCommitted", "bytesCommitted")
    total = {name: sum(each[name] for each in streams) for name in counted}
    return present(
        {
            "id": row["id"],
            "configType": "sync",
            "configId": row["connection_id"],
            "enabledStreams": row["streams"],
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
            "startedAt": row["started_at"],
            "status": row["status"],
            "aggregatedStats": {**total, **_rejected(plane)},
            "streamAggregatedStats": streams,
        }
    )


def _flat(stream: Json) -> Json:
    named = {key: value for key, value in stream.items() if key != "stats"}
    return {**named, **stream["stats"]}


def _rejected(plane: Plane) -> Json:
    """Count rejected records: always zero, and absent in the older release."""
    return {"recordsRejected": 0} if plane.settings.flavour is Flavour.COMMANDS else {}


def attempts(plane: Plane, job_id: int) -> list[Json]:
    """Build a job's AttemptReads, oldest first; there is always at least one."""
    rows = plane.metadata.all("SELECT * FROM attempts WHERE job_id = ? ORDER BY number", job_id)
    return [_attempt(plane, row) for row in rows]


def _attempt(plane: Plane, row: Row) -> Json:
    streams = [
        present(
            {
                "streamName": name,
                "streamNamespace": namespace,
                "stats": {
                    "recordsEmitted": records,
                    "bytesEmitted": size,
                    "recordsCommitted": committed_records,
                    "bytesCommitted": committed_size,
                },
            }
        )
        for namespace, name, records, size, committed_records, committed_size in row["stats"].get(
            "streams", []
        )
    ]

    def total(name: str) -> int:
        return sum(each["stats"][name] for each in streams)

    return present(
        {
            "id": row["number"],
            "status": row["status"],
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
            "endedAt": row["ended_at"],
            "recordsSynced": total("recordsCommitted"),
            "bytesSynced": total("bytesCommitted"),
            "totalStats": {
                "recordsEmitted": total("recordsEmitted"),
                "bytesEmitted": total("bytesEmitted"),
                "recordsCommitted": total("recordsCommitted"),
                "bytesCommitted": total("bytesCommitted"),
                "stateMessagesEmitted": row["stats"].get("states", 0),
            },
            "streamStats": streams,
            "failureSummary": _summary(plane, row["failure"]),
        }
    )


def _summary(plane: Plane, failure: Json | None) -> Json | None:
    if failure is None:
        return None
    return {**failure, "failures": [_reason(plane, each) for each in failure["failures"]]}


def _reason(plane: Plane, reason: Json | None) -> Json | None:
    """Build a FailureReason as the emulated release has it."""
    if reason is None or plane.settings.flavour is Flavour.COMMANDS:
        return reason
    newer = ("fromTraceMessage", "streamDescriptor")
    return {name: value for name, value in reason.items() if name not in newer}


def present(told: Json) -> Json:
    """Omit null members, as Airbyte does."""
    return {name: value for name, value in told.items() if value is not None}
