"""AAM's view of Airbyte's responses, and the JSON structures that they are decoded from.

Catalogs remain the bytes that Airbyte sent: `{"streams": [...]}`. Unknown properties are ignored
and enums are plain strings, since Airbyte adds both.
"""

from __future__ import annotations

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
    def is_transient(self) -> bool:
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


class StreamDescriptor(msgspec.Struct, frozen=True):
    """A stream's identity; an empty namespace means no namespace."""

    name: str
    namespace: str | None = None

    def to_domain(self) -> StreamId:
        """Convert to AAM's type."""
        return StreamId(self.namespace or None, self.name)


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
