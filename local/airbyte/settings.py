"""Settings of the local Airbyte, the stand-in that runs real connectors."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from local.airbyte.releases import ErrorStyle, Release


class Flavour(StrEnum):
    """Which Airbyte release to behave as."""

    COMMANDS = "commands"
    SYNCHRONOUS = "synchronous"

    @property
    def release(self) -> Release:
        """The release whose answers this flavour gives."""
        return Release({"commands": "2.0.0", "synchronous": "0.63.19"}[self.value])


class Limits(BaseModel):
    """How long a connector may be silent, and how long it may run in all."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    idle: timedelta
    """Longest time without output."""

    total: timedelta
    """Longest total time."""


class Settings(BaseSettings):
    """The environment variable is `LOCAL_AIRBYTE_` and the field's name in upper case."""

    model_config = SettingsConfigDict(
        env_prefix="LOCAL_AIRBYTE_",
        env_nested_delimiter="__",
        frozen=True,
        use_attribute_docstrings=True,
    )

    port: int = Field(default=8000, ge=0, le=65535)
    """Port on the loopback interface; 0 takes a free one and prints it."""

    state_dir: Path = Path(".aam/airbyte")
    """Folder for sources (with their secrets, as in Airbyte's own database), connections and jobs.

    Its file `auth` holds the authorization header that every call must carry. Mode 0700.
    """

    connectors_dir: Path = Path(".aam/connectors")
    """Folder with a virtual environment per connector and version; meshes can share it."""

    job_logs_dir: Path | None = None
    """Folder for connector logs, a file for each job. Not set: `job_logs` in the state folder."""

    connectors: list[str] = Field(default_factory=list)
    """Connectors to offer beside the default ones: `["source-faker==7.2.1"]`."""

    manifests: list[Path] = Field(default_factory=list)
    """Low-code manifests, YAML files, to offer as sources: `["/home/ada/tickets.yaml"]`."""

    warehouse_url: SecretStr | None = None
    """URL of the Postgres behind the destination "Local warehouse". Not set: no destination."""

    flavour: Flavour = Flavour.COMMANDS
    """`commands` acts like Airbyte 2.0.0, `synchronous` like 0.63.19, the last with Compose."""

    error_style: ErrorStyle | None = None
    """Whether error bodies have a message or an error id. Not set: as in the flavour's release."""

    connector_env: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Extra environment variables by connector: `{"source-salesforce": {"HTTPS_PROXY": "..."}}`."""

    page_size: int = Field(default=20, ge=1)
    """Page size of sources/list and destinations/list, where the flavour has pages."""

    max_connectors: int = Field(default=2, ge=1)
    """Most connector processes at once; each takes 85 to 350 MB of memory."""

    spec: Limits = Limits(idle=timedelta(minutes=1), total=timedelta(minutes=2))
    """Time limits of a `spec`, which prints a connector's specification."""

    check: Limits = Limits(idle=timedelta(minutes=2), total=timedelta(minutes=5))
    """Time limits of a `check`; a connector that cannot reach its API retries for over 30 s."""

    discover: Limits = Limits(idle=timedelta(minutes=9), total=timedelta(minutes=30))
    """Time limits of a `discover`; a connector may read a big org for minutes before any output."""

    read: Limits = Limits(idle=timedelta(minutes=30), total=timedelta(hours=24))
    """Time limits of a `read`; waits for the warehouse do not count as time without output."""

    retry_delay: timedelta = timedelta(seconds=5)
    """Pause before the next attempt of a job whose failure may be temporary."""

    @property
    def job_logs(self) -> Path:
        """The folder of the job logs."""
        return self.job_logs_dir or self.state_dir / "job_logs"
