"""What the commands that run the mesh on one machine read from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment variable is the field name in capitals after `AAM_`."""

    model_config = SettingsConfigDict(
        env_prefix="AAM_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    state_dir: Path = Path(".aam")
    """Everything that a running mesh keeps: databases, logs, connectors, `env`."""

    postgres_bin: Path | None = None
    """Folder with `initdb` and `postgres` to run instead of the embedded ones."""

    valkey_bin: Path | None = None
    """A `valkey-server` or `redis-server` to run instead of the embedded one."""

    unprivileged_dir: Path = Path("/var/tmp/aam")  # noqa: S108 (refused unless it is root's alone)
    """For root only: what the unprivileged user of Postgres needs and cannot reach elsewhere."""
