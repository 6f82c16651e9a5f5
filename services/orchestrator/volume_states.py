"""What one sync brought of a stream, and how it is judged by the stream's syncs before it.

Pure: `shared.domain.volume` decides about rows; this adds what the registry records of a stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from shared.airbyte_client import Job, StreamCounts
from shared.domain import volume
from shared.domain.catalog import StreamId

_BATCH_SIZE: Final = 1000
"""How many streams' histories are in memory at once."""


class SyncedStream(NamedTuple):
    """A stream of a job's catalog; `namespace` is empty if it has none."""

    name: str
    namespace: str
    is_full_refresh: bool

    @property
    def id(self) -> StreamId:
        """Its identity."""
        return StreamId(self.namespace or None, self.name)


class Volume(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one sync brought of a stream, and how it was judged, as `sync_volumes` has it.

    Its state is that of the stream's newest sync.
    """

    stream_name: str
    stream_namespace: str
    ended_at: datetime
    """When the job ended, by Airbyte's clock."""
    is_full_refresh: bool
    """Whether the stream was read as a whole; else incrementally."""
    rows: int
    bytes_: int | None = msgspec.field(default=None, name="bytes")
    is_pending: bool = False
    """Whether the rows are judged with those of the next sync: those of a failed sync, or of one
    soon after another, of an incremental stream. The state is that of the sync before."""
    usual_low: int | None = None
    usual_high: int | None = None
    """The rows that were usual before this sync; None if too few syncs are known."""
    suspicious_since: datetime | None = None
    """The end of the first of the syncs in a row that were suspicious; None if it is not."""
    suspicious_version: int | None = None
    """The catalog version of that first sync."""
    usual_since: datetime | None = None
    """Older syncs are not compared, since the stream's volume has changed for good; None if it
    has not."""
    repeats: int = 0
    """Of a sync with far fewer rows than at other times, how many times before, each time a day or
    a week earlier, the stream had as few. From `volume.REPEATED` on they are usual then, and
    are not suspicious."""

    @property
    def stream(self) -> tuple[str, str]:
        """The namespace and the name of its stream."""
        return self.stream_namespace, self.stream_name

    @property
    def begins_episode(self) -> bool:
        """Whether this sync is the first of suspicious ones."""
        return not self.is_pending and self.suspicious_since == self.ended_at


_VOLUMES = msgspec.json.Decoder(list[Volume])


def encode(volumes: Sequence[Volume]) -> bytes:
    """What the registry records of one job: compressed JSON."""
    return zlib.compress(msgspec.json.encode(volumes))


def decode(recorded: bytes) -> list[Volume]:
    """The volumes of one job."""
    return _VOLUMES.decode(zlib.decompress(recorded))


def suspicious(volumes: Iterable[Volume]) -> bytes | None:
    """The streams that are suspicious, as JSON for `job_history`; None if there are none."""
    found = [
        {
            "stream": one.stream_name,
            "namespace": one.stream_namespace or None,
            "rows": one.rows,
            "usual_low": one.usual_low,
            "usual_high": one.usual_high,
            "suspicious_since": one.suspicious_since,
            "since_version": one.suspicious_version,
        }
        for one in sorted(volumes, key=lambda one: (one.stream_name, one.stream_namespace))
        if one.suspicious_since is not None and not one.is_pending
    ]
    return msgspec.json.encode(found) if found else None


def newest_of(
    recorded: Iterable[tuple[UUID, bytes]], streams: Collection[tuple[str, str]]
) -> dict[tuple[str, str], tuple[UUID, Volume]]:
    """The first volume of each of the streams, by namespace and name, and the id of its job."""
    found: dict[tuple[str, str], tuple[UUID, Volume]] = {}
    for job_id, volumes in recorded:
        for one in decode(volumes):
            if one.stream in streams:
                found.setdefault(one.stream, (job_id, one))
    return found


def judge_all(
    volumes: Sequence[Volume], recorded: Sequence[bytes], *, version: int
) -> list[Volume]:
    """Judge what a job brought by the connection's recorded jobs before it, newest first."""
    judged: list[Volume] = []
    for start in range(0, len(volumes), _BATCH_SIZE):
        batch = volumes[start : start + _BATCH_SIZE]
        histories: dict[tuple[str, str], list[Volume]] = {one.stream: [] for one in batch}
        for job in recorded:
            for was in decode(job):
                if (history := histories.get(was.stream)) is not None:
                    history.append(was)
        judged += [judge(one, histories[one.stream], version=version) for one in batch]
    return judged


def of_job(
    streams: Sequence[SyncedStream], job: Job, counts: StreamCounts, ended_at: datetime
) -> Iterator[Volume]:
    """What a job brought of each stream; zero for one without a count.

    A refreshed stream is left out, whose rows are those of many syncs. Of a job that did not
    succeed, only rows of incremental streams count: the next job continues where it ended.
    """
    has_succeeded = job.status == "succeeded"
    for stream in streams:
        count = counts.get(stream.id)
        rows, bytes_ = (0, 0) if count is None else (count.rows, count.bytes_)
        if stream.id in job.refreshed:
            continue
        if not has_succeeded and (stream.is_full_refresh or not rows):
            continue
        yield Volume(
            stream.name,
            stream.namespace,
            ended_at,
            stream.is_full_refresh,
            rows,
            bytes_,
            is_pending=not has_succeeded,
        )


def judge(one: Volume, recorded: Sequence[Volume], *, version: int) -> Volume:
    """Judge a stream's newest sync by those before it, which are given newest first.

    `version` is the catalog version that the sync ran with. Pending rows are counted with those
    of the next sync. Suspicious syncs are not compared with, until they have become usual; but
    after they have ended, syncs at the same time of the day or of the week are. A sync that is
    quiet at its time ends no episode. A change of the sync mode begins a new history.
    """
    recorded = list(takewhile(lambda was: was.is_full_refresh == one.is_full_refresh, recorded))
    state = recorded[0] if recorded else one
    usual: list[volume.Sync] = []
    lows: list[volume.Sync] = []
    episode: list[volume.Sync] = []
    begins_at, pending = None, 0
    for was in reversed(recorded):
        if was.is_pending:
            pending += was.rows
            continue
        sync = _sync(was, pending, begins_at)
        begins_at, pending = was.ended_at, 0
        if state.usual_since is not None and was.ended_at < state.usual_since:
            continue
        if was.suspicious_since in (None, state.usual_since):
            (lows if was.repeats and was.suspicious_since is None else usual).append(sync)
        else:
            (episode if was.suspicious_since == state.suspicious_since else lows).append(sync)
    newest = _sync(one, pending, begins_at)
    if one.is_pending or volume.is_early(usual, newest.window):
        return msgspec.structs.replace(
            one,
            is_pending=True,
            usual_low=state.usual_low,
            usual_high=state.usual_high,
            suspicious_since=state.suspicious_since,
            suspicious_version=state.suspicious_version,
            usual_since=state.usual_since,
        )
    found, usual_since = volume.judge(usual, newest, lows), state.usual_since
    if found.is_suspicious and volume.is_new_level(episode, newest):
        found, usual_since = volume.judge(episode, newest), state.suspicious_since
    low, high = found.low, found.high
    since, in_version = None, None
    if found.is_suspicious:
        since, in_version = one.ended_at, version
    if state.suspicious_since is not None and (found.is_suspicious or found.is_quiet):
        since, in_version = state.suspicious_since, state.suspicious_version
        if found.is_quiet:
            low, high = state.usual_low, state.usual_high
    return msgspec.structs.replace(
        one,
        usual_low=low,
        usual_high=high,
        suspicious_since=since,
        suspicious_version=in_version,
        usual_since=usual_since,
        repeats=found.repeats,
    )


def _sync(one: Volume, pending: int, begins_at: datetime | None) -> volume.Sync:
    """One sync with the pending rows before it, since the end of the stream's sync before."""
    window = None if one.is_full_refresh or begins_at is None else one.ended_at - begins_at
    return volume.Sync(one.ended_at, one.rows + pending, window, one.repeats)
