"""Settings of the sample API, a stand-in for any vendor's HTTP API."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The environment variable is `SAMPLE_API_` and the field's name in upper case.

    The credentials' defaults are sample values that protect nothing: the API listens on loopback
    only, and its rows are invented.
    """

    model_config = SettingsConfigDict(
        env_prefix="SAMPLE_API_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    port: int = Field(default=8012, ge=0, le=65535)
    """Port of both APIs, of `/control`, which changes them, and of `/health`. 0: a free one."""

    state_dir: Path = Path(".aam/sample_api")
    """Folder for the authorization header that `/control` requires (`auth`)."""

    api_key: SecretStr = SecretStr("sample-shop-api-key")
    """API key of the shop, in the header X-Api-Key."""

    client_id: str = "sample-desk-client-id"
    """Client id with which access tokens of the desk are requested."""

    client_secret: SecretStr = SecretStr("sample-desk-client-secret")
    """Client secret of the desk."""
