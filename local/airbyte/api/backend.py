"""What the HTTP front end requires of a back end.

Sources, destinations, connections, jobs and attempts are passed as Airbyte represents them, built
by the functions of `reads`; configurations have their secrets in plain text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from local.airbyte.errors import Refusal
from local.airbyte.releases import ErrorStyle, Release

Json = dict[str, Any]
Kind = Literal["source", "destination"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What an Airbyte reports about itself."""

    url: str
    auth_mode: str
    email: str
    workspace_id: str
    """The default workspace."""
    workspaces: Mapping[str, str]
    """The names of all workspaces by their ids."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A connector, as the lists of definitions name it."""

    kind: Kind
    id: str
    name: str
    repository: str
    tag: str
    documentation: str
    support_level: str
    custom: bool = False
    supports_refreshes: bool = False


PinnedBy = Literal["user", "breaking_change", "connector_rollout"]


@dataclass(frozen=True, kw_only=True)
class ActorVersion:
    """The version of its connector that a source or destination runs."""

    tag: str
    pinned_by: PinnedBy | None = None
    """The origin of the pin that keeps it at this version; None: it follows the definition."""
    upcoming: Sequence[Json] = ()
    """The breaking changes of newer versions, as ActorDefinitionBreakingChange."""


@dataclass(frozen=True)
class Check:
    """A connector's verdict on a configuration."""

    succeeded: bool
    message: str | None


@dataclass(frozen=True)
class Refresh:
    """Streams to read from their start again; `mode` is Merge or Truncate."""

    streams: list[Json]
    """Descriptors."""

    mode: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a check or a discovery; both API styles are rendered from it."""

    job_id: str
    started_at: int
    ended_at: int
    renewed: bool
    """Whether the connector changed the configuration."""
    check: Check | None = None
    catalog_id: str | None = None
    failure: Json | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the connector reached a verdict, even a negative one."""
        return self.failure is None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A check or a discovery in the background, under an id that the client chose."""

    id: str
    kind: str
    source_id: str | None
    status: str | None
    outcome: Outcome | None


class Backend(Protocol):
    """The state behind the API, and what runs there."""

    @property
    def release(self) -> Release:
        """The release to behave as."""

    @property
    def error_style(self) -> ErrorStyle | None:
        """The style of error bodies; None: as in the release."""

    @property
    def instance(self) -> Instance:
        """What this Airbyte reports about itself."""

    @property
    def page_size(self) -> int:
        """The size of a page if the client sends none."""

    def unknown(self, kind: str, given: str) -> Refusal:
        """Return the refusal of an unknown object; `kind` is Airbyte's name for its type."""

    # Definitions

    def definitions(self, kind: Kind) -> list[Definition]:
        """Return the connectors of a kind."""

    async def specification(self, definition: Definition) -> Json:
        """Return the JSON schema of a connector's configuration."""

    def destination_sync_modes(self, definition: Definition) -> list[str]:
        """Return the sync modes that a destination supports."""

    # Sources and destinations

    def list_actors(self, kind: Kind, workspace_id: str | None = None) -> list[Json]:
        """Return the sources or destinations of a workspace, or of all."""

    def actor(self, kind: Kind, actor_id: str, *, with_deleted: bool = False) -> Json:
        """Return a source or destination.

        Raises:
            Refusal: it does not exist or, with `with_deleted`, never existed.
        """

    def config_faults(self, config: Json, schema: Json) -> list[str]:
        """List where a configuration violates its schema."""

    def create_actor(
        self, definition: Definition, name: str, config: Json, *, workspace_id: str
    ) -> Json:
        """Add a source or destination to a workspace; its configuration is valid."""

    def update_actor(self, kind: Kind, actor: Json, name: str, config: Json) -> Json:
        """Change the name and the whole configuration."""

    async def delete_actor(self, kind: Kind, actor: Json) -> None:
        """Delete a source or destination and all its connections."""

    # Connector versions

    def actor_version(self, kind: Kind, actor: Json) -> ActorVersion:
        """Return the version that a source or destination runs."""

    def unpin_source(self, source: Json) -> None:
        """Remove a source's pin, so that it runs the definition's version."""

    def manifests(self, definition: Definition) -> Sequence[Json] | None:
        """Return the DeclarativeManifestVersionReads of a connector; None: it has none."""

    # Connector runs

    async def check(self, definition: Definition, actor: Json | None, config: Json) -> Outcome:
        """Check a configuration; if the connector changes it, the actor's is replaced."""

    async def discover(self, source: Json) -> Outcome:
        """Discover a source's catalog and store it under an id derived from its content."""

    def cached_catalog(self, source: Json) -> str | None:
        """Return the catalog id of an earlier discovery with the same configuration and version."""

    async def discovered(self, source: Json, catalog_id: str) -> Any:
        """Return a discovered catalog as a syncCatalog: a dict or an orjson.Fragment."""

    def newest_discovery(self, source: Json) -> Json:
        """Return the time of the newest discovery and what the connector offered in it."""

    def log_lines(self, job_id: int | str, attempt: int = 0) -> list[str]:
        """Return the last lines of the log of a job's attempt, or of a check or discovery."""

    # Commands

    async def run_command(
        self,
        command_id: str,
        kind: str,
        source_id: str | None,
        run: Callable[[], Awaitable[Outcome]],
    ) -> None:
        """Start a check or a discovery, unless a command with this id exists."""

    def command(self, command_id: str) -> Command | None:
        """Return a command, if there is one with this id."""

    def command_status(self, command_id: str) -> str | None:
        """Return the status of a command, which a client polls; None: it is not known yet."""

    async def cancel_command(self, command_id: str) -> None:
        """Cancel a command that is still running."""

    # Connections

    def list_connections(self, workspace_id: str) -> list[Json]:
        """Return all connections of a workspace, oldest first."""

    def connection(self, connection_id: str, *, with_deleted: bool = False) -> Json:
        """Return a connection.

        Raises:
            Refusal: it does not exist or, with `with_deleted`, never existed.
        """

    async def create_connection(
        self, source: Json, destination: Json, settings: Json, sync_catalog: Json
    ) -> Json:
        """Connect a source to a destination of the same workspace.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """

    async def update_connection(
        self, connection: Json, settings: Json, sync_catalog: Json | None
    ) -> Json:
        """Change the given settings, remove those that are None; a given catalog replaces the old.

        Nothing is reset or refreshed, whatever the new catalog or status is, and a deselected
        stream keeps its state. Since 1.8, a stream whose sync mode changes loses it.

        Raises:
            Refusal: the catalog is invalid, or cannot be written.
        """

    async def delete_connection(self, connection: Json) -> None:
        """Delete a connection; its tables remain in the warehouse."""

    def state(self, connection_id: str) -> Json:
        """Return the ConnectionState, without the connection's id."""

    def put_states(
        self, connection_id: str, kind: str, states: Mapping[tuple[str | None, str], Any]
    ) -> None:
        """Write states of streams, and the shared one under (None, "")."""

    # Jobs

    def before_read(self, job: Json) -> None:
        """Notice that a client is about to read a job; a scripted job may end here."""

    def list_jobs(
        self, connection_id: str | None = None, *, workspaces: Collection[str] | None = None
    ) -> list[Json]:
        """Return the jobs of a connection, or all, or those of workspaces, newest first."""

    def job(self, job_id: int) -> Json:
        """Return a job.

        Raises:
            Refusal: 500, as Airbyte answers for an unknown id.
        """

    def list_attempts(self, job_id: int) -> list[Json]:
        """Return a job's attempts, oldest first; there is always at least one."""

    def start_sync(self, connection: Json) -> int:
        """Start a sync and return the job's id.

        Raises:
            Refusal: 409 while another job is running.
        """

    def refresh(self, connection: Json, refresh: Refresh) -> int | None:
        """Store a refresh, which the next job carries out, and start that job.

        Returns None if no job can be started now: another one runs, or the connection is inactive.
        """

    async def cancel_job(self, job_id: int) -> bool:
        """Cancel an open job; return False if it had already ended."""
