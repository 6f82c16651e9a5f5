"""What the commands that run the mesh on one machine read from the environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment variable is the field name in capitals after `AAM_`."""

    model_config = SettingsConfigDict(
        env_prefix="AAM_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    state_dir: Path = Path(".aam")
    """Everything that a running mesh keeps: databases, logs, `env`."""

    connectors_dir: Path = Path(".aam/connectors")
    """Installed connectors; throw-away stacks share them."""

    free_ports: str = Field(default="20000-32000", pattern=r"^\d{4,5}-\d{4,5}$")
    """From where throw-away servers take their ports; tests side by side each have their own."""

    postgres_port: int = Field(default=54329, ge=1, le=65535)
    """The registry's and the warehouse's server."""

    valkey_port: int = Field(default=63799, ge=1, le=65535)
    """The server of the lifecycle events."""

    airbyte_port: int = Field(default=8000, ge=1, le=65535)
    """The local Airbyte's API."""

    orchestrator_port: int = Field(default=8001, ge=1, le=65535)
    """Each service's own."""

    auth_broker_port: int = Field(default=8002, ge=1, le=65535)
    """Each service's own."""

    drift_repair_agent_port: int = Field(default=8003, ge=1, le=65535)
    """Each service's own."""

    schema_observer_port: int = Field(default=8004, ge=1, le=65535)
    """Each service's own."""

    rag_engine_port: int = Field(default=8005, ge=1, le=65535)
    """Each service's own."""

    orchestrator_metrics_port: int = Field(default=8021, ge=1, le=65535)
    """What Prometheus scrapes of it."""

    auth_broker_metrics_port: int = Field(default=8022, ge=1, le=65535)
    """What Prometheus scrapes of it."""

    drift_repair_agent_metrics_port: int = Field(default=8023, ge=1, le=65535)
    """What Prometheus scrapes of it."""

    schema_observer_metrics_port: int = Field(default=8024, ge=1, le=65535)
    """What Prometheus scrapes of it."""

    rag_engine_metrics_port: int = Field(default=8025, ge=1, le=65535)
    """What Prometheus scrapes of it."""

    sample_org_port: int = Field(default=8010, ge=1, le=65535)
    """The sample org's API and its control over HTTP."""

    sample_org_proxy_port: int = Field(default=8011, ge=1, le=65535)
    """The proxy that the connector reaches the sample org by."""

    tied_to_pid: str = Field(default="", pattern=r"^\s*(\d{1,10}(\s+\d{1,10})*)?\s*$")
    """Processes, by their ids with spaces between: when one of them is gone, the mesh ends too."""

    log_max_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    """A process's log that is larger is rotated: its end goes to `<log>.1`."""

    log_keep: int = Field(default=3, ge=1, le=100)
    """How many ends of each log are kept."""

    replicas: int = Field(default=1, ge=1, le=4)
    """How many processes of each service; the ports of the next are a hundred further on."""

    postgres_bin: Path | None = None
    """Folder with `initdb` and `postgres` (17 or newer) to run instead of the embedded ones."""

    valkey_bin: Path | None = None
    """A `valkey-server` or `redis-server` to run instead of the embedded one."""

    unprivileged_dir: Path = Path("/var/tmp/aam")  # noqa: S108 (refused unless it is root's alone)
    """For root only: what the unprivileged user of Postgres needs and cannot reach elsewhere."""

    @classmethod
    def port_names(cls) -> list[str]:
        """The fields that name a port."""
        return [name for name in cls.model_fields if name.endswith("_port")]

    def elsewhere(self, state_dir: Path, ports: Sequence[int]) -> Self:
        """The same settings for one more mesh: its own state and ports, the same connectors."""
        own = dict(zip(self.port_names(), ports, strict=True))
        return self.model_copy(update={"state_dir": state_dir, **own})
