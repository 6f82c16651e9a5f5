"""Jobs of Airbyte, their counts by stream, and the JSON that they are decoded from."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from shared import failure_causes
from shared.airbyte_client._schemas import EpochSeconds, FailureReason, JobId, StreamDescriptor
from shared.domain.catalog import StreamId
from shared.failure_causes import Reason


class StreamCount(msgspec.Struct, frozen=True):
    """The committed rows of a stream and their bytes; the emitted ones where Airbyte has none."""

    rows: int
    bytes_: int | None


StreamCounts = Mapping[StreamId, StreamCount]


class Job(msgspec.Struct, frozen=True):
    """One run of a connection; records and bytes count what was committed, None while unknown."""

    id: int
    connection_id: UUID | None
    config_type: str
    status: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    attempts: int
    records: int | None
    bytes_: int | None
    failure_type: str | None
    failure_origin: str | None
    reason: Reason | None = None
    """The known cause of its failures; None where it did not fail."""
    refreshed: frozenset[StreamId] = frozenset()
    """The streams that a job of type `refresh` reads from their start again."""
    emitted: int | None = None
    """The records that the source sent, whether or not they were committed; None while unknown."""
    streams: StreamCounts = {}
    """Airbyte's own totals by stream; empty where it has none."""
    streams_by_attempt: tuple[StreamCounts, ...] = ()
    """The counts of each attempt that reports any, oldest first."""

    def counts(self, *, full_refresh: Collection[StreamId]) -> StreamCounts | None:
        """The rows of each stream; None if no attempt reports any, which does not mean zero.

        A stream without rows may be missing. Airbyte's own totals are used where it has them.
        Otherwise the attempts are added up as Airbyte does: an attempt continues an incremental
        stream where the one before it ended, and reads one of `full_refresh` again.
        Source: StatsAggregationHelper, airbyte-platform 310e6cb6ac
        """
        if not self.streams_by_attempt:
            return None
        if self.streams:
            return self.streams
        total: dict[StreamId, StreamCount] = {}
        for attempt in self.streams_by_attempt:
            for stream, count in attempt.items():
                before = None if stream in full_refresh else total.get(stream)
                total[stream] = count if before is None else _sum(before, count)
        return total

    @property
    def ended(self) -> bool:
        """Whether the job has ended; `incomplete` means that another attempt follows.

        A status that AAM does not know counts as an end once the last attempt has ended.
        """
        return self.ended_at is not None


_ENDED = frozenset({"failed", "succeeded", "cancelled"})
_OPEN = frozenset({"pending", "queued", "running", "incomplete"})


class _Stats(msgspec.Struct, frozen=True, rename="camel"):
    records_committed: int | None = None
    bytes_committed: int | None = None
    records_emitted: int | None = None
    bytes_emitted: int | None = None

    def to_domain(self) -> StreamCount | None:
        """Convert to AAM's type; None where nothing is counted."""
        rows = _first(self.records_committed, self.records_emitted)
        bytes_ = _first(self.bytes_committed, self.bytes_emitted)
        return None if rows is None else StreamCount(rows, bytes_)


class _StreamStats(_Stats, frozen=True, rename="camel", kw_only=True):
    stream_name: str
    stream_namespace: str | None = None


class _AttemptStreamStats(msgspec.Struct, frozen=True, rename="camel"):
    stream_name: str
    stats: _Stats
    stream_namespace: str | None = None


class _RefreshConfig(msgspec.Struct, frozen=True, rename="camel"):
    streams_to_refresh: list[StreamDescriptor] | None = None


class _JobRead(msgspec.Struct, frozen=True, rename="camel"):
    id: JobId
    config_type: str
    config_id: str
    created_at: EpochSeconds
    updated_at: EpochSeconds
    status: str
    started_at: EpochSeconds | None = None
    aggregated_stats: _Stats | None = None
    stream_aggregated_stats: list[_StreamStats] | None = None
    refresh_config: _RefreshConfig | None = None


class _FailureSummary(msgspec.Struct, frozen=True):
    failures: list[FailureReason] | None = None


class _AttemptRead(msgspec.Struct, frozen=True, rename="camel"):
    ended_at: EpochSeconds | None = None
    bytes_synced: int | None = None
    records_synced: int | None = None
    stream_stats: list[_AttemptStreamStats] | None = None
    failure_summary: _FailureSummary | None = None


class _AttemptInfo(msgspec.Struct, frozen=True):
    attempt: _AttemptRead


class JobInfo(msgspec.Struct, frozen=True):
    """Response of jobs/get* and connections/sync; jobs/get_light has no attempts."""

    job: _JobRead
    attempts: list[_AttemptInfo] | None = None

    def to_domain(self) -> Job:
        """Convert to AAM's type."""
        return _job(self.job, [info.attempt for info in self.attempts or ()])


class RefreshRead(msgspec.Struct, frozen=True):
    """Response of connections/refresh: `value` in 0.63, a job or nothing later."""

    job: _JobRead | None = None
    value: bool | None = None

    def to_domain(self) -> Job | None:
        """Convert to AAM's type."""
        return None if self.job is None else _job(self.job, ())


class JobWithAttempts(msgspec.Struct, frozen=True):
    """An item of jobs/list, whose attempts are not wrapped."""

    job: _JobRead
    attempts: list[_AttemptRead] | None = None

    def to_domain(self) -> Job:
        """Convert to AAM's type."""
        return _job(self.job, self.attempts or ())


class Jobs(msgspec.Struct, frozen=True):
    """Response of jobs/list; its jobs are decoded one by one."""

    jobs: list[msgspec.Raw]

    def to_domain(self) -> Iterator[Job | None]:
        """Convert to AAM's type; None for a job that cannot be decoded; the rest is unaffected."""
        for raw in self.jobs:
            try:
                yield _JOB_WITH_ATTEMPTS.decode(raw).to_domain()
            except msgspec.ValidationError:
                yield None


_JOB_WITH_ATTEMPTS = msgspec.json.Decoder(JobWithAttempts)


def _job(job: _JobRead, attempts: Sequence[_AttemptRead]) -> Job:
    stats = job.aggregated_stats or _Stats(
        _total([attempt.records_synced for attempt in attempts]),
        _total([attempt.bytes_synced for attempt in attempts]),
    )
    last = attempts[-1] if attempts else _AttemptRead()
    failures = (last.failure_summary.failures if last.failure_summary else None) or []
    # Prefer a failure that has a type.
    typed = [one for one in failures if one.type is not None]
    failure = (typed or failures or [FailureReason()])[0]
    is_known = job.status in _ENDED | _OPEN
    ended = job.status in _ENDED if is_known else last.ended_at is not None
    return Job(
        id=job.id,
        connection_id=read_uuid(job.config_id),
        config_type=job.config_type,
        status=job.status,
        created_at=_moment(job.created_at),
        started_at=None if job.started_at is None else _moment(job.started_at),
        ended_at=_moment(last.ended_at or job.updated_at) if ended else None,
        attempts=len(attempts),
        records=stats.records_committed,
        bytes_=stats.bytes_committed,
        failure_type=failure.type,
        failure_origin=failure.origin,
        reason=_reason(job.id, failures) if ended and job.status == "failed" else None,
        refreshed=_refreshed(job),
        emitted=stats.records_emitted,
        streams=_counts((one, one) for one in job.stream_aggregated_stats or ()),
        streams_by_attempt=tuple(
            _counts((one, one.stats) for one in attempt.stream_stats)
            for attempt in attempts
            if attempt.stream_stats is not None
        ),
    )


def _counts(
    stats: Iterable[tuple[_StreamStats | _AttemptStreamStats, _Stats]],
) -> StreamCounts:
    counted = (
        (StreamId(stream.stream_namespace or None, stream.stream_name), one.to_domain())
        for stream, one in stats
    )
    return {stream: count for stream, count in counted if count is not None}


def _sum(one: StreamCount, other: StreamCount) -> StreamCount:
    return StreamCount(one.rows + other.rows, _total([one.bytes_, other.bytes_]))


def _first(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)


def _refreshed(job: _JobRead) -> frozenset[StreamId]:
    streams = (job.refresh_config and job.refresh_config.streams_to_refresh) or []
    return frozenset(stream.to_domain() for stream in streams)


def _reason(job_id: int, failures: Sequence[FailureReason]) -> Reason:
    """The cause of a failed job: the first known one among its failures."""
    reasons = [failure.reason(run=job_id) for failure in failures]
    known = [one for one in reasons if one.cause is not failure_causes.Cause.UNKNOWN]
    return next(iter(known or reasons), failure_causes.find(run=job_id))


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _moment(epoch_s: int) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def read_uuid(text: str) -> UUID | None:
    """An id; None where the text is not a UUID."""
    try:
        return UUID(text)
    except ValueError:
        return None
