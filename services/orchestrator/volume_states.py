"""What one sync brought of a stream, and how it is judged by the stream's syncs before it.

Pure: `shared.domain.volume` decides about rows; this adds what the registry records of a stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from typing import NamedTuple

import msgspec

from shared.airbyte_client import Job, StreamCounts
from shared.domain import volume
from shared.domain.catalog import StreamId


class SyncedStream(NamedTuple):
    """A stream of a job's catalog; `namespace` is empty if it has none."""

    name: str
    namespace: str
    is_full_refresh: bool

    @property
    def id(self) -> StreamId:
        """Its identity."""
        return StreamId(self.namespace or None, self.name)


class Volume(msgspec.Struct, frozen=True):
    """What one sync brought of a stream: the columns of StreamVolume except the ids."""

    stream_name: str
    stream_namespace: str
    ended_at: datetime
    is_full_refresh: bool
    rows: int
    bytes_: int | None = None
    is_pending: bool = False
    usual_low: int | None = None
    usual_high: int | None = None
    suspicious_since: datetime | None = None
    suspicious_version: int | None = None
    usual_since: datetime | None = None

    @property
    def begins_episode(self) -> bool:
        """Whether this sync is the first of suspicious ones."""
        return not self.is_pending and self.suspicious_since == self.ended_at


class Recorded(msgspec.Struct, frozen=True, array_like=True):
    """An earlier sync of a stream, as `volume_queries.histories` returns it."""

    ended_at: datetime
    is_full_refresh: bool
    rows: int
    is_pending: bool = False
    usual_low: int | None = None
    usual_high: int | None = None
    suspicious_since: datetime | None = None
    suspicious_version: int | None = None
    usual_since: datetime | None = None


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


def judge(one: Volume, recorded: Sequence[Recorded], *, version: int) -> Volume:
    """Judge a stream's newest sync by those before it, which are given newest first.

    `version` is the catalog version that the sync ran with. Pending rows are counted with those
    of the next sync. Suspicious syncs are not compared with, until they have become usual. A
    change of the sync mode begins a new history.
    """
    recorded = list(takewhile(lambda was: was.is_full_refresh == one.is_full_refresh, recorded))
    state = recorded[0] if recorded else Recorded(one.ended_at, one.is_full_refresh, 0)
    usual: list[volume.Sync] = []
    episode: list[volume.Sync] = []
    begins_at, pending = None, 0
    for was in reversed(recorded):
        if was.is_pending:
            pending += was.rows
            continue
        sync = _sync(was.ended_at, was.rows + pending, None if was.is_full_refresh else begins_at)
        begins_at, pending = was.ended_at, 0
        if was.suspicious_since not in (None, state.usual_since):
            if was.suspicious_since == state.suspicious_since:
                episode.append(sync)
        elif state.usual_since is None or was.ended_at >= state.usual_since:
            usual.append(sync)
    newest = _sync(one.ended_at, one.rows + pending, None if one.is_full_refresh else begins_at)
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
    found, usual_since = volume.judge(usual, newest), state.usual_since
    if found.is_suspicious and volume.is_new_level(episode, newest):
        found, usual_since = volume.judge(episode, newest), state.suspicious_since
    is_first = state.suspicious_since is None
    since, in_version = (
        (one.ended_at, version) if is_first else (state.suspicious_since, state.suspicious_version)
    )
    return msgspec.structs.replace(
        one,
        usual_low=found.low,
        usual_high=found.high,
        suspicious_since=since if found.is_suspicious else None,
        suspicious_version=in_version if found.is_suspicious else None,
        usual_since=usual_since,
    )


def _sync(ended_at: datetime, rows: int, begins_at: datetime | None) -> volume.Sync:
    return volume.Sync(ended_at, rows, None if begins_at is None else ended_at - begins_at)
