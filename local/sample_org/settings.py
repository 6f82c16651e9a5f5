"""Settings of the sample org, the stand-in for Salesforce."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment variable is `SAMPLE_ORG_` and the field's name in upper case.

    The credentials' defaults are sample values that protect nothing: the org listens on loopback
    only, and its rows are invented.
    """

    model_config = SettingsConfigDict(
        env_prefix="SAMPLE_ORG_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    port: int = Field(default=8010, ge=0, le=65535)
    """Port of Salesforce's API, `/org`, which changes the org, and `/health`. 0: a free one."""

    proxy_port: int = Field(default=8011, ge=0, le=65535)
    """Port of the CONNECT proxy that redirects an unmodified connector here. 0: a free one."""

    state_dir: Path = Path(".aam/sample_org")
    """Folder for the CA `ca.pem` and its key, for the changes made to the org (`org.json`), and for
    the authorization header that `/org` requires (`auth`)."""

    client_id: str = "sample-org-client-id"
    """Client id of the connected app that requests access tokens."""

    client_secret: SecretStr = SecretStr("sample-org-client-secret")
    """Client secret of the connected app."""

    refresh_token: SecretStr = SecretStr("sample-org-refresh-token")
    """Refresh token, valid until the org rotates it; then the newest one in `org.json` is."""

    objects: int = Field(default=0, ge=0, le=9999)
    """Number of generated custom objects (`Custom_0001__c` …) besides the standard ones."""

    fields: int = Field(default=100, ge=20, le=800)
    """Number of fields of each generated object, including system fields."""

    row_factor: int = Field(default=1, ge=1, le=1000)
    """How many times the rows of each standard object except users are repeated, with new ids."""
