"""Settings of the commands that run the mesh on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SAMPLE_MANIFESTS = Path(__file__).parent / "sample_api" / "manifests"


class Settings(BaseSettings):
    """The environment variable is `AAM_` and the field's name in upper case."""

    model_config = SettingsConfigDict(
        env_prefix="AAM_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    state_dir: Path = Path(".aam")
    """Folder for everything that a running mesh stores: databases, logs, and the file `env`."""

    connectors_dir: Path = Path(".aam/connectors")
    """Folder of the installed connectors; meshes on the same machine can share it."""

    connectors: str = ""
    """Connectors to install and offer beside the default ones: `source-faker source-x==1.2.3`."""

    manifests: str = ""
    """Low-code manifests to offer as sources: paths of YAML files, separated by spaces."""

    sample_api: bool = False
    """Whether to run the sample API, and to offer its two manifests as sources."""

    free_ports: str = Field(default="20000-32000", pattern=r"^\d{4,5}-\d{4,5}$")
    """Port range of the servers that tests and `make demo` start; parallel runs need one each."""

    postgres_port: int = Field(default=54329, ge=1, le=65535)
    """Port of the Postgres server with the registry and the warehouse."""

    valkey_port: int = Field(default=63799, ge=1, le=65535)
    """Port of the Valkey server for lifecycle events."""

    airbyte_port: int = Field(default=8000, ge=1, le=65535)
    """Port of the local Airbyte's API."""

    orchestrator_port: int = Field(default=8001, ge=1, le=65535)
    """Port of the orchestrator."""

    auth_broker_port: int = Field(default=8002, ge=1, le=65535)
    """Port of the auth_broker."""

    drift_repair_agent_port: int = Field(default=8003, ge=1, le=65535)
    """Port of the drift_repair_agent."""

    schema_observer_port: int = Field(default=8004, ge=1, le=65535)
    """Port of the schema_observer."""

    rag_engine_port: int = Field(default=8005, ge=1, le=65535)
    """Port of the rag_engine."""

    console_port: int = Field(default=8006, ge=1, le=65535)
    """Port of the console."""

    orchestrator_metrics_port: int = Field(default=8021, ge=1, le=65535)
    """Metrics port of the orchestrator."""

    auth_broker_metrics_port: int = Field(default=8022, ge=1, le=65535)
    """Metrics port of the auth_broker."""

    drift_repair_agent_metrics_port: int = Field(default=8023, ge=1, le=65535)
    """Metrics port of the drift_repair_agent."""

    schema_observer_metrics_port: int = Field(default=8024, ge=1, le=65535)
    """Metrics port of the schema_observer."""

    rag_engine_metrics_port: int = Field(default=8025, ge=1, le=65535)
    """Metrics port of the rag_engine."""

    console_metrics_port: int = Field(default=8026, ge=1, le=65535)
    """Metrics port of the console."""

    sample_org_port: int = Field(default=8010, ge=1, le=65535)
    """Port of the sample org's API, including `/org`, which changes the org."""

    sample_org_proxy_port: int = Field(default=8011, ge=1, le=65535)
    """Port of the proxy through which the connector reaches the sample org."""

    sample_api_port: int = Field(default=8012, ge=1, le=65535)
    """Port of the sample API, including `/control`, which changes it."""

    tied_to_pid: str = Field(default="", pattern=r"^\s*(\d{1,10}(\s+\d{1,10})*)?\s*$")
    """Process ids, separated by spaces: when one of these processes ends, so does the mesh."""

    log_max_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    """Size in bytes above which a process's log is rotated to `<log>.1`."""

    log_keep: int = Field(default=3, ge=1, le=100)
    """How many rotated files of each log are kept."""

    replicas: int = Field(default=1, ge=1, le=4)
    """Processes of each service; the ports of each further one are 100 higher."""

    postgres_bin: Path | None = None
    """Folder with `initdb` and `postgres` (17 or newer) to run instead of the embedded ones."""

    valkey_bin: Path | None = None
    """Path of a `valkey-server` or `redis-server` to run instead of the embedded one."""

    unprivileged_dir: Path = Path("/var/tmp/aam")  # noqa: S108 (refused unless it is root's alone)
    """For root only: folder for files that Postgres's unprivileged user cannot reach elsewhere."""

    @property
    def manifest_paths(self) -> list[Path]:
        """The manifests to offer, those of the sample API included if it runs."""
        ours = sorted(SAMPLE_MANIFESTS.glob("*.yaml")) if self.sample_api else []
        return [*ours, *(Path(path).resolve() for path in self.manifests.split())]

    def url_of(self, name: str) -> str:
        """The address of a service, `airbyte`, `sample_org` or another process with a port."""
        return f"http://127.0.0.1:{getattr(self, f'{name}_port')}"

    @classmethod
    def port_names(cls) -> list[str]:
        """The fields that name a port."""
        return [name for name in cls.model_fields if name.endswith("_port")]

    def for_another_mesh(self, state_dir: Path, ports: Sequence[int]) -> Self:
        """The same settings for one more mesh: its own state and ports, the same connectors."""
        own = dict(zip(self.port_names(), ports, strict=True))
        return self.model_copy(update={"state_dir": state_dir, **own})
