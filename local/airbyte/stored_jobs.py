"""Jobs and their attempts, as they are stored and as Airbyte represents them."""

from __future__ import annotations

from collections.abc import Collection

from local.airbyte.api import reads
from local.airbyte.api.backend import Json
from local.airbyte.errors import uncaught
from local.airbyte.metadata import Metadata, Row
from local.airbyte.releases import Release


class StoredJobs:
    """The jobs of one local Airbyte process, running or ended."""

    def __init__(self, metadata: Metadata, release: Release) -> None:
        self.metadata = metadata
        self.release = release

    def list_jobs(
        self,
        connection_id: str | None = None,
        *,
        workspaces: Collection[str] | None = None,  # noqa: ARG002
    ) -> list[Json]:
        """Return the jobs of a connection, or all, newest first."""
        rows = self.metadata.all(
            "SELECT * FROM jobs WHERE ? IS NULL OR connection_id = ? ORDER BY id DESC",
            connection_id,
            connection_id,
        )
        return [self._job(row) for row in rows]

    def job(self, job_id: int) -> Json:
        """Return a job.

        Raises:
            Refusal: 500, as Airbyte answers for an unknown id.
        """
        row = self.metadata.one("SELECT * FROM jobs WHERE id = ?", job_id)
        if row is None:
            raise uncaught(f"Could not find job with id: {job_id}", "java.lang.RuntimeException")
        return self._job(row)

    def _job(self, row: Row) -> Json:
        """Build a JobRead, with the counts of its last attempt."""
        streams = [
            {
                **{name: value for name, value in each.items() if name != "stats"},
                **reads.job_counts(each["stats"], self.release),
            }
            for each in self.list_attempts(row["id"])[-1]["streamStats"]
        ]
        refreshed = [reads.descriptor(each) for each in self.metadata.refreshes(row["id"])]
        job = reads.job(
            job_id=row["id"],
            config_type="refresh" if refreshed else "sync",
            connection_id=row["connection_id"],
            streams=row["streams"],
            status=row["status"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            started_at=row["started_at"],
            refreshed=refreshed,
        )
        job["aggregatedStats"] = reads.job_counts(reads.total(streams), self.release)
        job["streamAggregatedStats"] = streams
        return job

    def list_attempts(self, job_id: int) -> list[Json]:
        """Return a job's attempts, oldest first; there is always at least one."""
        rows = self.metadata.all("SELECT * FROM attempts WHERE job_id = ? ORDER BY number", job_id)
        return [self._attempt(row) for row in rows]

    def _attempt(self, row: Row) -> Json:
        streams = [
            reads.present(
                {
                    "streamName": name,
                    "streamNamespace": namespace,
                    "stats": reads.counts(*numbers),
                }
            )
            for namespace, name, *numbers in row["stats"].get("streams", [])
        ]
        return reads.attempt(
            number=row["number"],
            status=row["status"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            ended_at=row["ended_at"],
            counted={
                **reads.total([each["stats"] for each in streams]),
                "stateMessagesEmitted": row["stats"].get("states", 0),
            },
            streams=streams,
            failure=row["failure"],
            release=self.release,
        )
