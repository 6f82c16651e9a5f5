"""Settings of the console: its address, its sessions and how people sign in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AnyHttpUrl, Field, HttpUrl, SecretStr, model_validator

from shared.config import SHORTEST_KEY, Optional, Seconds, ServiceAddresses, is_secure_or_local


class ConsoleSettings(ServiceAddresses):
    """Settings of the console, which has no registry and no Redis."""

    console_url: HttpUrl = HttpUrl("http://localhost:8006")
    """Where people open the console, without a path; forms are accepted from this origin only.

    Must be https, except on this machine.
    """

    console_session_keys: SecretStr
    """Keys of 32 characters or more, separated by commas, that encrypt the cookie of a session.

    The first encrypts, all decrypt. Every replica has the same.
    """

    console_session_idle: Seconds = timedelta(hours=8)
    """How long a session lasts without a request."""

    console_session_lifetime: Seconds = timedelta(hours=24)
    """How long a session lasts at most."""

    console_name: Annotated[str, Field(max_length=100)] = ""
    """Name of this installation, for the pages' heads: `Halden Freight, production`."""

    airbyte_ui_url: Optional[AnyHttpUrl] = None
    """Where people open Airbyte, for links to its connections. Not set: there are no links."""

    console_sign_in_dir: Optional[Path] = None
    """Folder with one-time sign-in links, as `make up` makes them. Not set: there are none."""

    aam_console_key_login: Literal["on", "off"] = "on"
    """Whether people can sign in with an API key; `off` needs OIDC_CLIENT_ID."""

    oidc_client_secret: Optional[SecretStr] = None
    """Secret of OIDC_CLIENT_ID. Not set: the issuer has the console as a public client."""

    oidc_requested_scopes: str = "openid email"
    """Scopes that the console asks the issuer for, separated by spaces; with `openid`."""

    @property
    def has_oidc_login(self) -> bool:
        """Whether people can sign in at the issuer."""
        return self.oidc_issuer is not None and self.oidc_client_id is not None

    @model_validator(mode="after")
    def _console_is_set_up(self) -> Self:
        if not is_secure_or_local(str(self.console_url)):
            raise ValueError("CONSOLE_URL must be https, except on this machine")
        if (self.console_url.path or "/") != "/" or self.console_url.query is not None:
            raise ValueError("CONSOLE_URL must have no path: the console is the whole origin")
        keys = self.console_session_keys.get_secret_value().split(",")
        if any(len(key.strip()) < SHORTEST_KEY for key in keys):
            raise ValueError(
                f"CONSOLE_SESSION_KEYS must be keys of {SHORTEST_KEY} characters or more, "
                "separated by commas"
            )
        if "openid" not in self.oidc_requested_scopes.split():
            raise ValueError("OIDC_REQUESTED_SCOPES must contain openid")
        if self.oidc_client_secret is not None and not self.has_oidc_login:
            raise ValueError("OIDC_CLIENT_SECRET needs OIDC_ISSUER and OIDC_CLIENT_ID")
        has_links = self.console_sign_in_dir is not None
        if self.aam_console_key_login == "off" and not (self.has_oidc_login or has_links):
            raise ValueError("AAM_CONSOLE_KEY_LOGIN=off needs OIDC_ISSUER and OIDC_CLIENT_ID")
        return self
