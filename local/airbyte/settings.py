"""What the local execution plane can be told, each variable once."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Flavour(StrEnum):
    """Which Airbyte is played."""

    COMMANDS = "commands"
    SYNCHRONOUS = "synchronous"

    @property
    def version(self) -> str:
        """The release whose answers this flavour gives."""
        return {"commands": "2.0.0", "synchronous": "0.63.19"}[self.value]


class ErrorStyle(StrEnum):
    """How much an error says: Airbyte up to 1.8 told a message, from 2.0.0 mostly an id."""

    MESSAGE = "message"
    ERROR_ID = "error_id"


class Limits(BaseModel):
    """How long a connector may be silent, and how long it may run in all."""

    model_config = ConfigDict(frozen=True)

    idle: timedelta
    total: timedelta


class Settings(BaseSettings):
    """One instance per process; a variable is `LOCAL_AIRBYTE_` and the field's name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="LOCAL_AIRBYTE_",
        env_nested_delimiter="__",
        frozen=True,
        use_attribute_docstrings=True,
    )

    port: int = Field(default=8000, ge=0, le=65535)
    """Loopback port; 0 takes a free one, which is printed."""

    state_dir: Path = Path(".aam/airbyte")
    """Sources (with their secrets, as in Airbyte's own database), connections, jobs, and `auth`:
    the header with the token that every call has to carry. Mode 0700."""

    connectors_dir: Path = Path(".aam/connectors")
    """One virtual environment per connector and version; stacks may share it."""

    job_logs_dir: Path | None = None
    """What connectors log, a file for each job; None: `job_logs` in the state directory."""

    warehouse_url: SecretStr | None = None
    """postgresql:// URL of the destination "Local warehouse"; None: there is none."""

    flavour: Flavour = Flavour.COMMANDS
    """`commands` plays 2.0.0; `synchronous` 0.63.19, the last release under docker compose."""

    error_style: ErrorStyle | None = None
    """None: the style of the flavour's release."""

    connector_env: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Extra environment of one connector alone: {"source-salesforce": {"HTTPS_PROXY": ...}}."""

    page_size: int = Field(default=20, ge=1)
    """Items of one page of sources/list and destinations/list, where the flavour has pages."""

    max_connectors: int = Field(default=2, ge=1)
    """Connector processes at once; each takes 85 to 350 MB."""

    spec: Limits = Limits(idle=timedelta(minutes=1), total=timedelta(minutes=2))
    """`LOCAL_AIRBYTE_SPEC__IDLE` and `…__TOTAL`, and so on for each verb."""

    check: Limits = Limits(idle=timedelta(minutes=2), total=timedelta(minutes=5))
    """A connector that cannot reach its API retries silently for half a minute and more."""

    discover: Limits = Limits(idle=timedelta(minutes=9), total=timedelta(minutes=30))
    """A big org is described object by object before the first line is written."""

    read: Limits = Limits(idle=timedelta(minutes=30), total=timedelta(hours=24))
    """Time that the warehouse takes does not count as silence."""

    retry_delay: timedelta = timedelta(seconds=5)
    """Pause before the next attempt of a job that failed transiently."""

    @property
    def job_logs(self) -> Path:
        """Where the jobs' logs are."""
        return self.job_logs_dir or self.state_dir / "job_logs"

    @property
    def errors(self) -> ErrorStyle:
        """The error style that is played."""
        if self.error_style is not None:
            return self.error_style
        return ErrorStyle.ERROR_ID if self.flavour is Flavour.COMMANDS else ErrorStyle.MESSAGE
