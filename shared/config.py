"""Settings: every environment variable that AAM's services read, and nothing else reads them.

Credentials of sources are not here: only the auth_broker knows them, by its own settings class.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    HttpUrl,
    RedisDsn,
    Secret,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.postgres_address import PostgresAddress, postgres_address

SHORTEST_KEY = 32
_CLOUD_HOST = "cloud.airbyte.com"
_CLOUD_PUBLIC_HOST = "api.airbyte.com"
_CLOUD_TOKEN_URL = f"https://{_CLOUD_PUBLIC_HOST}/v1/applications/token"
# Source of the limit: docs.airbyte.com, Airbyte Cloud limits.
_CLOUD_STREAMS = 1000


def is_loopback(host: str) -> bool:
    """Whether a host name means this machine, without asking any resolver."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_or_local(url: str) -> bool:
    """Whether what is fetched from a URL comes by TLS, or from this machine."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return False
    return bool(host) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    )


def _empty_as_none(value: object) -> object:
    return None if value == "" else value


T = TypeVar("T")
Optional = Annotated[T | None, BeforeValidator(_empty_as_none)]
"""A variable that may be missing, or set to an empty value, as compose passes it."""


def _number_is_seconds(value: object) -> object:
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return value


def _holds_a_ca(file: Path) -> bool:
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError):
        return False
    return True


def _networks_only(value: str) -> str:
    try:
        networks(value)
    except ValueError:
        raise ValueError("WEBHOOK_NETWORKS must be networks, such as 10.0.0.0/8") from None
    return value


def networks(value: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks in CIDR, with commas between.

    Raises:
        ValueError: one is none.
    """
    return [ipaddress.ip_network(one.strip()) for one in value.split(",") if one.strip()]


_DAY = timedelta(days=1)
_LONGEST = 36_500 * _DAY
"""What is longer leads to dates that neither Python nor Postgres can write."""

Seconds = Annotated[
    timedelta, BeforeValidator(_number_is_seconds), Field(gt=timedelta(0), le=_LONGEST)
]
"""A positive number of seconds in the environment, or an ISO 8601 duration such as PT10M."""


def _forever_is_none(value: object) -> object:
    return None if value in ("", "forever") else _number_is_seconds(value)


Retention = Annotated[
    Annotated[timedelta, Field(ge=_DAY, le=_LONGEST)] | None, BeforeValidator(_forever_is_none)
]
"""How long history is kept, a day or longer; `forever`, or an empty value, keeps it for good."""
_AuditRetention = Annotated[
    Annotated[timedelta, Field(ge=90 * _DAY, le=_LONGEST)] | None,
    BeforeValidator(_forever_is_none),
]


class ProcessSettings(BaseSettings):
    """What every service reads; the environment variable is the field's name in upper case."""

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    aam_env: Literal["production", "test"] = "production"
    """`test` permits AAM_FAILPOINTS and changes nothing else."""

    aam_failpoints: str = ""
    """Places in the code where a test has this process killed or stopped."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is logged; logs go to standard output, one JSON object per line."""

    aam_docs: Literal["on", "off"] = "on"
    """Whether `/docs` and `/openapi.json` are served; they need no key."""

    service_public_keys_dir: Optional[Path] = None
    """Folder with the services' public keys, each as `<service>.<kid>.pem`.

    Required by the services that other services call.
    """

    service_private_key_dir: Optional[Path] = None
    """Folder with the service's own private key, `<service>.pem`; it signs its service tokens.

    Required by the services that call other services.
    """

    body_deadline: Seconds = timedelta(seconds=30)
    """How long the body of a request may take to arrive; then the answer is 408."""

    metrics_port: Optional[Annotated[int, Field(ge=1, le=65535)]] = None
    """Port where Prometheus scrapes /metrics, without a key. Not set: no metrics are collected."""

    metrics_host: str = "127.0.0.1"
    """Address that METRICS_PORT listens on."""

    otel_exporter_otlp_endpoint: Optional[HttpUrl] = None
    """Collector of OpenTelemetry traces (OTLP over HTTP). Not set: nothing is traced."""

    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests, jobs and operations to trace, unless the caller has already decided it."""

    requests_per_second: Annotated[float, Field(gt=0)] = 100
    """Requests per second that one caller may send to one process, twice as many in a burst.

    Calls between services are not limited.
    """

    failed_keys_per_minute: Annotated[float, Field(gt=0)] = 20
    """Failed authentications per minute from one address, beyond which it is answered 429."""

    oidc_issuer: Optional[str] = None
    """OpenID Connect issuer whose tokens are accepted besides API keys, as in their `iss` claim.

    Must be https, except on this machine. Set together with OIDC_AUDIENCE.
    """

    oidc_audience: Optional[str] = None
    """What the `aud` claim of such a token must be or contain: the issuer's name for AAM."""

    oidc_scope_claim: str = "scope"
    """Claim with the scopes of such a caller, named as those of keys, as a string or a list."""

    oidc_client_id: Optional[str] = None
    """Client id with which people sign in at that issuer; not secret, `GET /about` shows it."""

    @model_validator(mode="after")
    def _oidc_settings_are_complete(self) -> Self:
        if (self.oidc_issuer is None) != (self.oidc_audience is None):
            raise ValueError("OIDC_ISSUER and OIDC_AUDIENCE go together: set both or none")
        if self.oidc_issuer is not None and not is_secure_or_local(self.oidc_issuer):
            raise ValueError("OIDC_ISSUER must be an https URL")
        return self

    @model_validator(mode="after")
    def _failpoints_are_for_tests(self) -> Self:
        if self.aam_failpoints and self.aam_env != "test":
            raise ValueError("AAM_FAILPOINTS is for tests: it needs AAM_ENV=test")
        return self


class RegistrySettings(ProcessSettings):
    """What a service that uses the registry reads."""

    supabase_db_url: Secret[str]
    """URL of the registry as Supabase's dashboard shows it: direct connection or session pooler."""

    supabase_db_ca_file: Optional[Path] = None
    """CA certificate to verify the registry's server with; Supabase's dashboard offers it."""

    registry_connections: Annotated[int, Field(ge=2, le=200)] = 20
    """Most connections to the registry that one process opens at once.

    The orchestrator, the drift_repair_agent and the schema_observer each open one more to listen.
    """

    @model_validator(mode="after")
    def _registry_is_reachable_by_url(self) -> Self:
        variable, url = self._login
        try:
            named = postgres_address(url.get_secret_value()).ssl_root_cert
        except ValueError as error:
            raise ValueError(f"{variable} {error}") from None
        if self.supabase_db_ca_file is not None and not _holds_a_ca(self.supabase_db_ca_file):
            raise ValueError("SUPABASE_DB_CA_FILE is not a file with a certificate")
        if self.supabase_db_ca_file is None and named is not None and not _holds_a_ca(named):
            raise ValueError(f"{variable} names a CA (sslrootcert) that cannot be read")
        return self

    @property
    def _login(self) -> tuple[str, Secret[str]]:
        """The URL that is used, after the variable that it comes from."""
        return "SUPABASE_DB_URL", self.supabase_db_url

    @property
    def registry_address(self) -> PostgresAddress:
        """The registry's address, with the CA of `SUPABASE_DB_CA_FILE` where it is set."""
        _, url = self._login
        address = postgres_address(url.get_secret_value())
        if self.supabase_db_ca_file is None:
            return address
        return replace(address, ssl_root_cert=self.supabase_db_ca_file)


class MigrationSettings(RegistrySettings):
    """What the migrations read, and no service: the login of the tables' owner."""

    migration_db_url: Optional[Secret[str]] = None
    """URL of the registry with the login that owns its tables. Not set: SUPABASE_DB_URL is used."""

    @property
    def _login(self) -> tuple[str, Secret[str]]:
        if self.migration_db_url is None:
            return super()._login
        return "MIGRATION_DB_URL", self.migration_db_url


class ServiceAddresses(ProcessSettings):
    """Where the services are that another one calls."""

    orchestrator_url: HttpUrl = HttpUrl("http://localhost:8001")
    """Where the orchestrator listens."""

    drift_repair_agent_url: HttpUrl = HttpUrl("http://localhost:8003")
    """Where the drift_repair_agent listens."""

    schema_observer_url: HttpUrl = HttpUrl("http://localhost:8004")
    """Where the schema_observer listens."""

    rag_engine_url: HttpUrl = HttpUrl("http://localhost:8005")
    """Where the rag_engine listens."""

    plain_http_hosts: str = ""
    """Other hosts than this machine that may be called over plain http, separated by commas.

    For Airbyte and the other services, on a network that no one else can read.
    """

    peer_timeout: Seconds = timedelta(seconds=15)
    """Timeout of one call to another AAM service."""

    @model_validator(mode="after")
    def _upstream_urls_are_https(self) -> Self:
        plain = {host.strip().lower() for host in self.plain_http_hosts.split(",")}
        for name in (field for field in type(self).model_fields if field.endswith("_url")):
            url = getattr(self, name)
            if not isinstance(url, HttpUrl) or url.scheme == "https":
                continue
            host = (url.host or "").strip("[]")
            if not is_loopback(host) and host not in plain:
                raise ValueError(
                    f"{name.upper()} must be https, or its host must be in PLAIN_HTTP_HOSTS: plain "
                    "HTTP can be read on the way"
                )
        return self


class Settings(RegistrySettings, ServiceAddresses):
    """What a service reads that also uses Redis or Airbyte; one instance per process."""

    redis_url: Secret[RedisDsn] = Secret(RedisDsn("redis://localhost:6379/0"))
    """Redis server for lifecycle events. While it is unavailable, only the events wait."""

    airbyte_api_url: HttpUrl = HttpUrl("http://localhost:8000/api/v1")
    """URL of Airbyte's Configuration API; it ends with /api/v1.

    Of Airbyte Cloud: https://cloud.airbyte.com/api/v1.
    """

    airbyte_token_url: Optional[HttpUrl] = None
    """URL that issues tokens for AIRBYTE_CLIENT_ID, if it is not under AIRBYTE_API_URL.

    Not set: `applications/token` under AIRBYTE_API_URL, or Airbyte Cloud's URL if that is Cloud's.
    """

    airbyte_api_key: Optional[SecretStr] = None
    """A long-lived bearer token for Airbyte, if you have one."""

    airbyte_client_id: Optional[str] = None
    """Client id of an Airbyte application (`abctl local credentials`), to request tokens with."""

    airbyte_client_secret: Optional[SecretStr] = None
    """Client secret of the same application. Set together with AIRBYTE_CLIENT_ID."""

    airbyte_username: Optional[str] = None
    """User name for Basic authentication, as Airbyte's docker compose releases use it."""

    airbyte_password: Optional[SecretStr] = None
    """Password for Basic authentication. Set together with AIRBYTE_USERNAME."""

    airbyte_workspace_id: Optional[UUID] = None
    """Airbyte workspace to work in. Not set: the instance's default workspace.

    Required for Airbyte Cloud, which has no default workspace.
    """

    airbyte_max_streams: Optional[Annotated[int, Field(ge=1)]] = None
    """Most streams in one connection. Not set: 1000 for Airbyte Cloud, otherwise no limit."""

    airbyte_destination_id: Optional[UUID] = None
    """Airbyte destination of new connections. Not set: each onboarding must name its own."""

    auth_broker_url: HttpUrl = HttpUrl("http://localhost:8002")
    """Where the auth_broker listens; internal only."""

    console_url: Optional[HttpUrl] = None
    """Where people open the console. Webhook messages then link to its pages."""

    airbyte_timeout: Seconds = timedelta(seconds=60)
    """Timeout of one ordinary Airbyte call, from connecting to the last byte."""

    airbyte_secret_references: bool = False
    """Whether this Airbyte (1.7 or newer) has a secret store of its own.

    Then a credential may have `secret_coordinate::NAME` instead of a secret: Airbyte reads the
    secret from its store, and AAM never has it.
    """

    airbyte_slow_calls: Annotated[int, Field(ge=1, le=25)] = 10
    """Most slow Airbyte calls (check, discover, create, sync) that one process makes at once."""

    check_timeout: Seconds = timedelta(minutes=5)
    """Timeout of one connection check, which includes the start of a connector."""

    discover_timeout: Seconds = timedelta(minutes=10)
    """Timeout of one schema discovery, which includes the start of a connector."""

    in_flight_window: Seconds = timedelta(seconds=90)
    """In-flight window: how long Airbyte, or a proxy before it, may still act on a lost request."""

    operation_deadline: Seconds = timedelta(minutes=30)
    """How long an operation is retried before it is given up.

    The time in which no process ran it does not count.
    At least twice the longest step: DISCOVER_TIMEOUT or 4 x AIRBYTE_TIMEOUT, plus IN_FLIGHT_WINDOW.
    """

    request_wait: Seconds = timedelta(seconds=55)
    """How long a request waits for its operation before it answers 202; `?wait=` overrides it."""

    sweep_grace: Seconds = timedelta(minutes=10)
    """How long after an operation's end its leftovers in Airbyte may be deleted.

    At least IN_FLIGHT_WINDOW.
    """

    sweep_interval: Seconds = timedelta(minutes=5)
    """How often Airbyte is searched for leftovers of operations that have ended."""

    reconcile_interval: Seconds = timedelta(minutes=5)
    """How often each connection's newest catalog version is compared with what Airbyte holds."""

    on_upstream_drift: Literal["report", "reapply"] = "report"
    """What to do when Airbyte holds another catalog than the connection's newest version.

    `report` records an event, `reapply` also puts the newest version back, unless that selects a
    stream again whose changes a global (CDC) state would skip.
    """

    job_poll_interval: Seconds = timedelta(seconds=2)
    """How often the state of running syncs is read from Airbyte."""

    job_lost_after: Seconds = timedelta(minutes=5)
    """How long Airbyte may report a running sync as unknown before it is recorded as `cancelled`,
    with the reason `job_lost`."""

    observe_interval: Seconds = timedelta(minutes=15)
    """How often the schema of each source is observed, unless a connection has its own interval."""

    discoveries_at_once: Annotated[int, Field(ge=1, le=25)] = 4
    """Most discoveries at once in one Airbyte workspace, over all replicas."""

    discoveries_per_day: Optional[Annotated[int, Field(ge=1, le=100_000)]] = None
    """Most discoveries of one source in 24 hours, unless the policy of a connection sets a limit.

    Not set: as many as its interval needs, plus 50. Scheduled observations leave a quarter of the
    limit for discoveries that people request.
    """

    suspicion_time: Seconds = timedelta(hours=6)
    """How long a suspicious discovery must persist before it is accepted."""

    connector_check_interval: Seconds = timedelta(hours=6)
    """How often the version of each source's connector, and its support, is read from Airbyte."""

    upgrade_notice: Seconds = timedelta(days=14)
    """How long before the deadline of a connector's breaking change it is announced."""

    rotation_interval: Seconds = timedelta(minutes=5)
    """How often stored credentials are compared with those that sources have; needs
    ROTATION_DIGEST_KEY."""

    expiry_notice: Seconds = timedelta(days=14)
    """How long before its expiry a credential is announced as expiring."""

    repair_expiry: Seconds = timedelta(days=7)
    """How long a proposed repair waits for a decision before it expires without any change."""

    repair_deadline: Seconds = timedelta(days=1)
    """How long a decided repair may wait to be started, or for the sync that verifies it."""

    event_relay_interval: Seconds = timedelta(milliseconds=250)
    """How often new events are published from the outbox."""

    event_streams_per_caller: Annotated[int, Field(ge=1, le=500)] = 12
    """Most event streams (`GET /events/stream`) of one caller that one process serves at once."""

    event_stream_lifetime: Seconds = timedelta(minutes=15)
    """How long an event stream lasts; its reader then connects again where it was."""

    event_retention: Retention = 7 * _DAY
    """How long the outbox keeps events that were published."""

    timeline_retention: Retention = 365 * _DAY
    """How long pauses by AAM, events of credentials and connectors, failures of observations and
    edits in Airbyte stay on a connection's timeline."""

    job_retention: Retention = 21 * _DAY
    """How long syncs that ended are kept; the newest of each connection is always kept."""

    volume_retention: Retention = 90 * _DAY
    """How long the rows that each sync brought by stream are kept, at most 240 syncs of a
    connection; eight weeks are compared."""

    operation_retention: Retention = 30 * _DAY
    """How long operations that ended are kept."""

    delivery_retention: Retention = 30 * _DAY
    """How long webhook messages that were delivered or given up are kept."""

    repair_retention: Retention = 365 * _DAY
    """How long repairs that ended are kept; those that made a catalog version are always kept."""

    drift_retention: Retention = 365 * _DAY
    """How long drifts that no repair refers to are kept."""

    state_retention: Retention = 30 * _DAY
    """How long Airbyte's state of a connection is kept that was saved before a change."""

    snapshot_retention: Retention = 90 * _DAY
    """How long a snapshot that nothing refers to is kept, from when a source last matched it."""

    api_key_retention: _AuditRetention = 400 * _DAY
    """How long an API key stays listed after it was revoked or expired."""

    audit_retention: _AuditRetention = 400 * _DAY
    """How long the audit log of credential reads is kept."""

    refusal_retention: Retention = 30 * _DAY
    """How long the counts of refused requests are kept."""

    key_environment: Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")] = "live"
    """A word in new API keys, `aam_<word>_...`, that shows which environment a key belongs to."""

    webhook_signing_key: Optional[SecretStr] = None
    """Key of 32 characters or more from which the webhooks' signing secrets are derived.

    Without it, webhooks are disabled.
    """

    rotation_digest_key: Optional[SecretStr] = None
    """Key of 32 characters or more for the digests that show whether a credential has changed.

    Without it, credentials are not rotated.
    """

    state_encryption_keys: Optional[SecretStr] = None
    """Keys of 32 characters or more, separated by commas, that encrypt saved states of connections.

    The first encrypts, all decrypt. Without one, no state is saved before a change, so a rollback
    cannot put it back.
    """

    webhook_networks: Annotated[str, AfterValidator(_networks_only)] = ""
    """Private networks that webhook receivers may be in: `10.0.0.0/8, 127.0.0.1/32`.

    Link-local addresses, such as those of cloud metadata services, are never called.
    """

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        for one, other in (
            ("airbyte_client_id", "airbyte_client_secret"),
            ("airbyte_username", "airbyte_password"),
        ):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one.upper()} and {other.upper()} go together: set both or none")
        return self

    @property
    def is_airbyte_cloud(self) -> bool:
        """Whether AIRBYTE_API_URL is Airbyte Cloud's."""
        return self.airbyte_api_url.host == _CLOUD_HOST

    @property
    def token_url(self) -> str | None:
        """The URL that issues tokens; None: `applications/token` under AIRBYTE_API_URL."""
        if self.airbyte_token_url is not None:
            return str(self.airbyte_token_url)
        return _CLOUD_TOKEN_URL if self.is_airbyte_cloud else None

    @property
    def stream_limit(self) -> int | None:
        """The most streams in one connection; None: no limit."""
        if self.airbyte_max_streams is None and self.is_airbyte_cloud:
            return _CLOUD_STREAMS
        return self.airbyte_max_streams

    @model_validator(mode="after")
    def _cloud_is_set_up(self) -> Self:
        if self.airbyte_api_url.host == _CLOUD_PUBLIC_HOST:
            raise ValueError(
                "AIRBYTE_API_URL is the public API of Airbyte Cloud, which cannot read schemas: "
                f"set it to https://{_CLOUD_HOST}/api/v1"
            )
        if self.is_airbyte_cloud and self.airbyte_workspace_id is None:
            raise ValueError(
                "AIRBYTE_WORKSPACE_ID is required where AIRBYTE_API_URL is Airbyte Cloud's: it is "
                "the UUID in the address of the workspace's page"
            )
        if self.airbyte_token_url is not None and self.airbyte_client_id is None:
            raise ValueError("AIRBYTE_TOKEN_URL needs AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET")
        return self

    @model_validator(mode="after")
    def _timeouts_are_consistent(self) -> Self:
        longest = max(self.discover_timeout, 4 * self.airbyte_timeout)
        if self.operation_deadline < 2 * (longest + self.in_flight_window):
            raise ValueError(
                "OPERATION_DEADLINE is too short: two attempts of the longest step must fit into "
                "it, 2 x (the longer of DISCOVER_TIMEOUT and 4 x AIRBYTE_TIMEOUT, + "
                "IN_FLIGHT_WINDOW)"
            )
        if self.sweep_grace < self.in_flight_window:
            raise ValueError("SWEEP_GRACE must not be shorter than IN_FLIGHT_WINDOW")
        return self

    @model_validator(mode="after")
    def _keys_are_long_enough(self) -> Self:
        for name in ("webhook_signing_key", "rotation_digest_key"):
            key = getattr(self, name)
            if key is not None and len(key.get_secret_value()) < SHORTEST_KEY:
                raise ValueError(f"{name.upper()} must have {SHORTEST_KEY} characters or more")
        return self

    @model_validator(mode="after")
    def _state_keys_are_long_enough(self) -> Self:
        if self.state_encryption_keys is None:
            return self
        keys = self.state_encryption_keys.get_secret_value().split(",")
        if any(len(key.strip()) < SHORTEST_KEY for key in keys):
            raise ValueError(
                f"STATE_ENCRYPTION_KEYS must be keys of {SHORTEST_KEY} characters or more, "
                "separated by commas"
            )
        return self


class RagEngineSettings(RegistrySettings):
    """What the rag_engine reads."""

    rag_explainer: str = ""
    """`module:callable` that writes the explanation of a suggestion, but cannot change it."""

    rag_explainer_timeout: Seconds = timedelta(seconds=5)
    """How long a response waits for that explanation before it is sent without one."""


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S]) -> S:
    """The process's settings, or the end of the process with one line.

    The line names the variable and what it must be, never its value. A variable may also be a file
    of that name (in lower case) in the folder that AAM_SETTINGS_DIR names.

    Raises:
        SystemExit: a variable is missing or invalid.
    """
    folder = os.environ.get("AAM_SETTINGS_DIR") or None
    if folder is not None and not Path(folder).is_dir():
        raise SystemExit("AAM_SETTINGS_DIR is not a directory")
    try:
        return settings(_secrets_dir=folder)
    except ValidationError as error:
        raise SystemExit("; ".join(_describe(problem) for problem in error.errors())) from None


def _describe(problem: ErrorDetails) -> str:
    name = "_".join(str(part) for part in problem["loc"]).upper()
    if problem["type"] == "missing":
        return f"{name} is not set"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    return f"{name} is invalid: {_EXPECTED.get(problem['type'], 'see .env.example')}"


_EXPECTED = {
    "uuid_parsing": "it must be a UUID",
    "url_parsing": "it must be a URL",
    "url_scheme": "its scheme is not supported here",
    "literal_error": "it is not one of the allowed values",
    "time_delta_parsing": "it must be a number of seconds",
    "greater_than": "it must be greater than 0",
    "greater_than_equal": "it is too small or too short",
    "less_than_equal": "it is too large or too long",
}
