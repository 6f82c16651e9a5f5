"""Decide which streams' states can be put back, and which are taken along to a new name.

A state is put back only where that loses and doubles nothing: into a stream that is deduplicated,
of a connection whose state is per stream, unless a sync may have replaced the stream's rows since
the state was saved, or the connector has another major version, whose states have another form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from services.drift_repair_agent.states.schemas import Reason
from shared.airbyte_client import ConnectionState, Job
from shared.domain.catalog import Catalog, ConfiguredStream, StreamId
from shared.domain.connector_versions import number
from shared.saved_states.store import Saved

_PER_STREAM: Final = ("stream", "not_set")
MOST_JOBS: Final = 20
"""Jobs since a state was saved that are examined; with more, it is not put back."""
_REPLACES_ROWS: Final = ("overwrite", "overwrite_dedup")

OnRenamedStream: TypeAlias = Literal["take_state", "read_again"]
"""What a renamed stream starts from: the state of its old name, or its start."""


class Renamed(msgspec.Struct, frozen=True):
    """A stream that a heal syncs under a new name."""

    old: StreamId
    new: StreamId


def lost_candidates(
    wanted: Catalog, before: Catalog, *, only_changed: bool = False
) -> tuple[StreamId, ...]:
    """The streams that one catalog reads incrementally and the other does not.

    With `only_changed`, without those that the other does not select.

    Airbyte deletes the state of a stream whose sync mode changes: since 1.8 with the update, before
    with the first sync that reads the stream in full.
    """
    known = before.by_id()
    return tuple(
        stream.id
        for stream in wanted.streams
        if stream.selected
        and stream.config.sync_mode == "incremental"
        and not _reads_incrementally(known.get(stream.id))
        and (not only_changed or (stream.id in known and known[stream.id].selected))
    )


def losing(after: Catalog, before: Catalog) -> list[StreamId]:
    """The streams that stay selected but lose their state, being no longer read incrementally."""
    wanted = after.by_id()
    return [
        stream.id
        for stream in before.streams
        if _reads_incrementally(stream)
        and (new := wanted.get(stream.id)) is not None
        and new.selected
        and not _reads_incrementally(new)
    ]


def _reads_incrementally(stream: ConfiguredStream | None) -> bool:
    return stream is not None and stream.selected and stream.config.sync_mode == "incremental"


def expect_deduplicated(stream: ConfiguredStream | None) -> Reason | None:
    """Whether rows that are read twice are merged; the reason if not."""
    is_merged = stream is not None and stream.config.destination_sync_mode == "append_dedup"
    return None if is_merged else "not_deduplicated"


def expect_put_back(
    wanted: ConfiguredStream,
    saved: Saved,
    *,
    held: ConnectionState,
    jobs: Sequence[Job],
    since: Sequence[Catalog],
    connector: str | None,
) -> Reason | None:
    """Whether a saved state of a stream without state may be put back; the reason if not.

    `jobs` are the connection's newest jobs, at most `MOST_JOBS`. `since` are the versions from that
    of the saved state to the head, and `connector` is what the source runs now, in the form of
    `Saved.connector_version`.
    """
    if held.type not in _PER_STREAM or saved.state.type != "stream":
        return "global_state"
    then = since[0].by_id().get(wanted.id) if since else None
    if saved.state.of(wanted.id) is None or not _reads_incrementally(then):
        return "not_saved"
    if then is not None and then.cursor != wanted.cursor:
        return "cursor_changed"
    if not is_same_major(saved.connector_version, connector):
        return "connector_changed"
    later = [job for job in jobs if job.id > (saved.airbyte_job_id or 0)]
    replaces_rows = any(_replaces_rows(catalog.by_id().get(wanted.id)) for catalog in since)
    if len(later) >= MOST_JOBS or any(
        job.config_type != "sync" or (replaces_rows and not _did_nothing(job)) for job in later
    ):
        return "synced_since"
    return None


def _replaces_rows(stream: ConfiguredStream | None) -> bool:
    """Whether a sync reads the stream in full and replaces its rows with what it read."""
    if stream is None or not stream.selected:
        return False
    return stream.config.destination_sync_mode in _REPLACES_ROWS


def _did_nothing(job: Job) -> bool:
    """Whether a job failed before its source sent a record, so that it replaced no rows.

    The destination replaces a stream's rows only when the stream was read to its end.
    """
    return job.ended and job.status in ("failed", "cancelled") and job.emitted == 0


def expect_taken_along(
    renamed: Renamed, *, held: ConnectionState, before: Catalog, after: Catalog
) -> Reason | None:
    """Whether a renamed stream may resume from the state of its old name; the reason if not."""
    if held.type != "stream":
        return "not_saved" if held.type == "not_set" else "global_state"
    old, new = before.by_id().get(renamed.old), after.by_id().get(renamed.new)
    if new is None or not _reads_incrementally(new):
        return "not_incremental"
    if old is None or not _reads_incrementally(old) or held.of(renamed.old) is None:
        return "not_saved"
    if old.cursor != new.cursor:
        return "cursor_changed"
    return expect_deduplicated(new)


def is_same_major(one: str | None, other: str | None) -> bool:
    """Whether two versions of a connector have the same form of states, as far as is known."""
    if one is None or other is None:
        return False
    if one == other:
        return True
    first, second = number(one), number(other)
    return first is not None and second is not None and first[0] == second[0]
