"""AAM's view of Airbyte's responses, and the JSON structures that they are decoded from.

Catalogs remain the bytes that Airbyte sent: `{"streams": [...]}`. Unknown properties are ignored
and enums are plain strings, since Airbyte adds both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from shared import failure_causes
from shared.domain.catalog import StreamId
from shared.failure_causes import Reason

NOTHING = msgspec.Raw(b"null")
"""The default for an absent value; `Raw | None` would accept only null."""
NO_STREAMS = b'{"streams":[]}'

JobId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
EpochSeconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]
"""A time before the year 10000; a value in milliseconds is rejected."""


class Source(msgspec.Struct, frozen=True, rename="camel"):
    """A configured source, without its configuration."""

    source_id: UUID
    name: str
    workspace_id: UUID
    source_definition_id: UUID
    source_name: str | None = None
    """The connector's name."""


MASK = "**********"
"""What Airbyte returns in place of a secret; sent back, it leaves the secret unchanged."""


class ConfiguredSource(Source, frozen=True, rename="camel", kw_only=True):
    """A source with its configuration, secrets masked."""

    connection_configuration: dict[str, Any]


class Destination(msgspec.Struct, frozen=True, rename="camel"):
    """A configured destination, without its configuration."""

    destination_id: UUID
    name: str
    workspace_id: UUID
    destination_definition_id: UUID
    destination_name: str | None = None
    """The connector's name."""
    is_version_override_applied: bool | None = None
    """Whether it is pinned to another version than its definition has."""


class Workspace(msgspec.Struct, frozen=True, rename="camel"):
    """A workspace, to which sources, destinations and connections belong."""

    workspace_id: UUID
    name: str
    """Not unique."""


class Definition(msgspec.Struct, frozen=True):
    """A connector that Airbyte can run."""

    definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str
    documentation_url: str | None = None
    support_level: str | None = None
    """`certified`, `community`, `archived` or `none`; None where this Airbyte does not give it."""
    is_custom: bool = False


class SourceSpecification(msgspec.Struct, frozen=True, rename="camel"):
    """Response of source_definition_specifications/get: the connector's JSON Schema, as bytes."""

    source_definition_id: UUID
    connection_specification: msgspec.Raw = NOTHING
    documentation_url: str | None = None


class Discovered(msgspec.Struct, frozen=True):
    """What a source offers now; equal catalog ids mean equal catalogs."""

    catalog: bytes
    catalog_id: UUID | None
    configuration_updated: bool
    """The connector changed its own configuration (a rotated token): never write an older one."""


class Schedule(msgspec.Struct, frozen=True):
    """Airbyte's own sync schedule: `cron` in its time zone, else every `units` of `time_unit`."""

    cron: str | None = None
    time_zone: str = "UTC"
    units: int = 24
    time_unit: str = "hours"


class NewConnection(msgspec.Struct, frozen=True):
    """A connection to create; only the selected streams of `sync_catalog` are sent.

    `source_catalog_id` is the discovery that `sync_catalog` came from; without it, Airbyte's own
    detection of schema changes stays wrong. Without a schedule, only AAM starts syncs.
    """

    name: str
    source_id: UUID
    destination_id: UUID
    sync_catalog: bytes
    source_catalog_id: UUID | None = None
    schedule: Schedule | None = None
    namespace_definition: str | None = None
    namespace_format: str | None = None
    prefix: str | None = None


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Settings of a connection besides its catalog; None where unset, or to be left as it is.

    `schedule_data` is Airbyte's own JSON. An empty `prefix` or `namespace_format` removes it.
    """

    name: str | None = None
    status: str | None = None
    schedule_type: str | None = None
    schedule_data: dict[str, Any] | None = None
    namespace_definition: str | None = None
    namespace_format: str | None = None
    prefix: str | None = None


class AirbyteConnection(msgspec.Struct, frozen=True):
    """A connection as Airbyte holds it; `sync_catalog` has only the selected streams and fields.

    `status` is active, inactive, locked, or deprecated once it was deleted; releases may add more.
    """

    connection_id: UUID
    name: str
    source_id: UUID
    destination_id: UUID
    status: str
    breaking_change: bool
    source_catalog_id: UUID | None
    schedule_type: str | None
    sync_catalog: bytes
    settings: ConnectionSettings = ConnectionSettings()


class ListedConnection(msgspec.Struct, frozen=True, rename="camel"):
    """A connection in a list, without its catalog."""

    connection_id: UUID
    name: str
    source_id: UUID
    destination_id: UUID
    status: str
    workspace_id: UUID | None = None
    """None where the list does not give it."""


class ConnectionStatus(msgspec.Struct, frozen=True):
    """A connection's sync status; `status` is Airbyte's value (running, failed, paused, synced …).

    `active_job_id` is None before Airbyte 1.0, which does not report it.
    """

    connection_id: UUID
    status: str | None
    active_job_id: int | None
    last_job_id: int | None

    @property
    def is_working(self) -> bool:
        """Whether a job is running or queued, even with a status that is newer than AAM."""
        return self.status in _WORKING or self.active_job_id is not None


_WORKING = frozenset({"running", "queued"})


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


class Instance(msgspec.Struct, frozen=True):
    """The version and settings of an Airbyte; `auth_mode` is none, simple or oidc."""

    version: str
    auth_mode: str | None
    default_workspace_id: UUID | None


# JSON structures of Airbyte's responses


class SourcePage(msgspec.Struct, frozen=True):
    """Response of sources/list."""

    sources: list[Source]


class DestinationPage(msgspec.Struct, frozen=True):
    """Response of destinations/list."""

    destinations: list[Destination]


class SourceDefinitionRead(msgspec.Struct, frozen=True, rename="camel"):
    """An item of source_definitions/list_for_workspace."""

    source_definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str
    documentation_url: str | None = None
    support_level: str | None = None
    custom: bool | None = None

    def to_domain(self) -> Definition:
        """Convert to AAM's type."""
        return Definition(
            self.source_definition_id,
            self.name,
            self.docker_repository,
            self.docker_image_tag,
            self.documentation_url,
            self.support_level,
            bool(self.custom),
        )


class SourceDefinitions(msgspec.Struct, frozen=True, rename="camel"):
    """Response of source_definitions/list_for_workspace."""

    source_definitions: list[SourceDefinitionRead]


class DestinationDefinitionRead(msgspec.Struct, frozen=True, rename="camel"):
    """An item of destination_definitions/list_for_workspace."""

    destination_definition_id: UUID
    name: str
    docker_repository: str
    docker_image_tag: str

    def to_domain(self) -> Definition:
        """Convert to AAM's type."""
        return Definition(
            self.destination_definition_id,
            self.name,
            self.docker_repository,
            self.docker_image_tag,
        )


class DestinationDefinitions(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destination_definitions/list_for_workspace."""

    destination_definitions: list[DestinationDefinitionRead]


class DestinationSpecification(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destination_definition_specifications/get."""

    destination_definition_id: UUID
    supported_destination_sync_modes: list[str] | None = None


class DestinationVersion(msgspec.Struct, frozen=True, rename="camel"):
    """Response of actor_definition_versions/get_for_destination."""

    docker_repository: str | None = None
    docker_image_tag: str | None = None
    """The one that runs: pins are applied."""
    supports_refreshes: bool = False


class _PlainSettings(msgspec.Struct, frozen=True):
    """The members of a destination's configuration that say where it writes; the rest is skipped.

    The same member has other types in other connectors.
    """

    schema: Any = None
    dataset_id: Any = None
    database: Any = None
    disable_type_dedupe: Any = None
    legacy_raw_tables_only: Any = None


class ConfiguredDestination(msgspec.Struct, frozen=True, rename="camel"):
    """Response of destinations/get, with those members of its configuration alone."""

    destination_id: UUID
    destination_definition_id: UUID
    connection_configuration: _PlainSettings = _PlainSettings()

    def default_schema(self, member: str | None) -> str | None:
        """The schema, dataset or database in this member; None if it is not set."""
        value = None if member is None else getattr(self.connection_configuration, member, None)
        return value if isinstance(value, str) and value else None

    @property
    def is_raw_only(self) -> bool:
        """Whether it is configured to write raw tables alone."""
        settings = self.connection_configuration
        return settings.disable_type_dedupe is True or settings.legacy_raw_tables_only is True


class FailureReason(msgspec.Struct, frozen=True, rename="camel"):
    """Why a connector's run failed; only a known cause is derived from its messages."""

    failure_type: str | None = None
    failure_origin: str | None = None
    retryable: bool | None = None
    external_message: Any = None
    internal_message: Any = None

    def __repr__(self) -> str:
        """Omit the messages, which may quote secrets."""
        return f"FailureReason({self.type!r}, {self.origin!r})"

    def reason(self, *more: Any, run: int | str | UUID | None = None) -> Reason:
        """The known cause found in the messages and in `more`; `run` is Airbyte's id of the run."""
        return failure_causes.find(
            self.external_message,
            self.internal_message,
            *more,
            failure_type=self.failure_type,
            run=run,
        )

    @property
    def type(self) -> str | None:
        """The failure's type, if it is an identifier."""
        return _word(self.failure_type)

    @property
    def origin(self) -> str | None:
        """The component that failed, if it is an identifier."""
        return _word(self.failure_origin)

    @property
    def passing(self) -> bool:
        """Whether the same run may succeed later."""
        if self.retryable is not None:
            return self.retryable
        return self.failure_type in {"transient_error", "system_error"}


def _word(value: str | None) -> str | None:
    """The value if it is a short identifier, as Airbyte's enum values are, and not a message."""
    return value if value and len(value) <= 40 and value.isidentifier() else None


class SynchronousJob(msgspec.Struct, frozen=True, rename="camel"):
    """The `jobInfo` of check_connection and discover_schema, which may be absent in the latter."""

    id: Any = None
    succeeded: bool = True
    connector_configuration_updated: bool | None = None
    failure_reason: FailureReason | None = None


class CheckRead(msgspec.Struct, frozen=True, rename="camel"):
    """Response of sources/check_connection; has no status when the job itself failed."""

    job_info: SynchronousJob
    status: str | None = None
    message: Any = None

    def __repr__(self) -> str:
        """Omit the message, which may quote secrets."""
        return f"CheckRead({_word(self.status)!r})"


class DiscoverRead(msgspec.Struct, frozen=True, rename="camel"):
    """Response of sources/discover_schema; may have a catalog and no `jobInfo`."""

    catalog: msgspec.Raw = NOTHING
    catalog_id: UUID | None = None
    job_info: SynchronousJob | None = None

    def __post_init__(self) -> None:
        """Reject JSON that contains neither a catalog nor a job."""
        if self.job_info is None and bytes(self.catalog) == b"null":
            raise ValueError("neither a catalog nor a job")


class Command(msgspec.Struct, frozen=True):
    """Response of commands/run/discover."""

    id: str


class DiscoverOutput(Command, frozen=True, rename="camel", kw_only=True):
    """Response of commands/output/discover."""

    status: str
    catalog: msgspec.Raw = NOTHING
    catalog_id: UUID | None = None
    connector_configuration_updated: bool | None = None
    failure_reason: FailureReason | None = None


class CommandStatus(Command, frozen=True, kw_only=True):
    """Response of commands/status; no status while Airbyte has not found the command's workload."""

    status: str | None = None


class ConnectionRead(msgspec.Struct, frozen=True, rename="camel"):
    """Response of connections/create, get and update, and an item of connections/list."""

    connection_id: UUID
    name: str
    source_id: UUID
    destination_id: UUID
    status: str
    breaking_change: bool | None = None
    source_catalog_id: UUID | None = None
    schedule_type: str | None = None
    schedule_data: dict[str, Any] | None = None
    namespace_definition: str | None = None
    namespace_format: str | None = None
    prefix: str | None = None
    sync_catalog: msgspec.Raw = msgspec.Raw(NO_STREAMS)

    def to_domain(self) -> AirbyteConnection:
        """Convert to AAM's type; the catalog is copied, so that the whole response can be freed."""
        return AirbyteConnection(
            self.connection_id,
            self.name,
            self.source_id,
            self.destination_id,
            self.status,
            bool(self.breaking_change),
            self.source_catalog_id,
            self.schedule_type,
            bytes(self.sync_catalog),
            ConnectionSettings(
                name=self.name,
                status=self.status,
                schedule_type=self.schedule_type,
                schedule_data=self.schedule_data,
                namespace_definition=self.namespace_definition,
                namespace_format=self.namespace_format,
                prefix=self.prefix,
            ),
        )


class Connections(msgspec.Struct, frozen=True):
    """Response of connections/list."""

    connections: list[ListedConnection]


class _SourceSnippet(msgspec.Struct, frozen=True, rename="camel"):
    source_id: UUID


class _DestinationSnippet(msgspec.Struct, frozen=True, rename="camel"):
    destination_id: UUID


class ConnectionItem(msgspec.Struct, frozen=True, rename="camel"):
    """An item of web_backend/connections/list."""

    connection_id: UUID
    name: str
    status: str
    source: _SourceSnippet
    destination: _DestinationSnippet

    def to_domain(self) -> ListedConnection:
        """Convert to AAM's type."""
        return ListedConnection(
            self.connection_id,
            self.name,
            self.source.source_id,
            self.destination.destination_id,
            self.status,
        )


class ConnectionPage(msgspec.Struct, frozen=True):
    """Response of web_backend/connections/list; `num_connections`, if given, counts all pages."""

    connections: list[ConnectionItem]
    num_connections: int | None = None


class _JobId(msgspec.Struct, frozen=True):
    id: int


class ConnectionStatusRead(msgspec.Struct, frozen=True, rename="camel"):
    """An item of connections/status, in 0.63 (`isRunning`) and later (`connectionSyncStatus`)."""

    connection_id: UUID
    connection_sync_status: str | None = None
    active_job: _JobId | None = None
    last_sync_job_id: int | None = None
    last_sync_job_status: str | None = None
    is_running: bool | None = None

    def to_domain(self) -> ConnectionStatus:
        """Convert to AAM's type."""
        before_1_0 = "running" if self.is_running else self.last_sync_job_status
        return ConnectionStatus(
            self.connection_id,
            self.connection_sync_status or before_1_0,
            self.active_job.id if self.active_job else None,
            self.last_sync_job_id,
        )


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


class StreamDescriptor(msgspec.Struct, frozen=True):
    """A stream's identity; an empty namespace means no namespace."""

    name: str
    namespace: str | None = None

    def to_domain(self) -> StreamId:
        """Convert to AAM's type."""
        return StreamId(self.namespace or None, self.name)


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
        connection_id=_uuid(job.config_id),
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


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


class _Auth(msgspec.Struct, frozen=True):
    mode: str | None = None


class InstanceRead(msgspec.Struct, frozen=True, rename="camel"):
    """Response of instance_configuration."""

    version: str
    auth: _Auth = _Auth()
    default_workspace_id: UUID | None = None


class Health(msgspec.Struct, frozen=True):
    """Response of health."""

    available: bool


class Token(msgspec.Struct, frozen=True):
    """Response of applications/token; a value that is invalid in a header is rejected."""

    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]+\Z")]
    expires_in: float | None = None
    """Its life in seconds, where it is stated."""


class _Selection(msgspec.Struct, frozen=True):
    selected: bool = False


class _Selectable(msgspec.Struct, frozen=True):
    config: _Selection


class _Streams(msgspec.Struct, frozen=True):
    streams: list[_Selectable]


class _RawStreams(msgspec.Struct, frozen=True):
    streams: list[msgspec.Raw]


_SELECTION = msgspec.json.Decoder(_Streams)
_RAW_STREAMS = msgspec.json.Decoder(_RawStreams)


def only_selected(catalog: bytes) -> bytes:
    """The catalog with only its selected streams; the same object when all are selected.

    Raises:
        msgspec.DecodeError: it is not a catalog.
    """
    chosen = [pair.config.selected for pair in _SELECTION.decode(catalog).streams]
    if chosen and all(chosen):
        return catalog
    pairs = _RAW_STREAMS.decode(catalog).streams
    selected: list[Any] = [pair for pair, keep in zip(pairs, chosen, strict=True) if keep]
    return msgspec.json.encode({"streams": selected})


class _Properties(msgspec.Struct, frozen=True):
    properties: dict[str, msgspec.Raw] = {}


class _Stream(msgspec.Struct, frozen=True, rename="camel"):
    json_schema: _Properties = _Properties()


class _FieldSelection(msgspec.Struct, frozen=True, rename="camel"):
    field_selection_enabled: bool = False
    selected_fields: list[msgspec.Raw] = []


class _StreamFields(msgspec.Struct, frozen=True):
    stream: _Stream = _Stream()
    config: _FieldSelection = _FieldSelection()

    @property
    def count(self) -> int:
        if self.config.field_selection_enabled:
            return len(self.config.selected_fields)
        return len(self.stream.json_schema.properties)


class _FieldsOfStreams(msgspec.Struct, frozen=True):
    streams: list[_StreamFields]


_FIELDS = msgspec.json.Decoder(_FieldsOfStreams)


def count_selected(catalog: bytes) -> tuple[int, int]:
    """Count the streams and their selected top-level fields in a catalog of selected streams.

    A malformed stream counts as one without fields, since its limit is not what is wrong with it.
    """
    streams = len(_RAW_STREAMS.decode(catalog).streams)
    try:
        return streams, sum(one.count for one in _FIELDS.decode(catalog).streams)
    except msgspec.DecodeError:
        return streams, 0
