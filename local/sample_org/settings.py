"""What one sample org needs to know before it starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One instance per process; the variable is `SAMPLE_ORG_` and the field name in capitals.

    The credentials' defaults are sample values that protect nothing: the org listens on loopback
    only and holds invented rows.
    """

    model_config = SettingsConfigDict(
        env_prefix="SAMPLE_ORG_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    port: int = Field(default=8010, ge=0, le=65535)
    """Plain HTTP: Salesforce's API, the org's own `/org`, and `/health`. 0 takes a free port."""

    proxy_port: int = Field(default=8011, ge=0, le=65535)
    """The CONNECT proxy through which an unchanged connector arrives. 0 takes a free port."""

    state_dir: Path = Path(".aam/sample_org")
    """Holds `ca.pem`, its key, `org.json`: what was changed since the org was born, and `auth`:
    the header with the token that `/org` asks for."""

    client_id: str = "sample-org-client-id"
    """The connected app that may ask for access tokens."""

    client_secret: SecretStr = SecretStr("sample-org-client-secret")
    """The connected app's secret."""

    refresh_token: SecretStr = SecretStr("sample-org-refresh-token")
    """Accepted until the org rotates it; after that the newest one in `org.json` is."""

    objects: int = Field(default=0, ge=0, le=9999)
    """Generated custom objects, `Custom_0001__c` and on, beside the standard ones."""

    fields: int = Field(default=100, ge=20, le=800)
    """Fields of each generated object, system fields included."""

    row_factor: int = Field(default=1, ge=1, le=1000)
    """Repeats the rows of every standard object except users so often, under other ids."""
