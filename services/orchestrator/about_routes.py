"""GET /about: what a login page has to know, and for callers what this installation is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from shared.airbyte_client import AirbyteClient
from shared.auth import label_limits
from shared.config import Settings
from shared.errors import AamError
from shared.http.authentication import ABOUT
from shared.http.dependencies import from_state
from shared.http.problems import problems
from shared.observability import logs

log = logs.get(__name__)

_FRESH_S: Final = 600.0
_RETRY_S: Final = 30.0
_LONGEST_VERSION: Final = 60

_OIDC: dict[str, Any] = {
    "issuer": "https://login.example.com/realms/data",
    "client_id": "aam-console",
    "audience": "aam",
}
_ABOUT: dict[str, Any] = {
    "environment": "live",
    "console_url": "https://aam.example.com/",
    "oidc": _OIDC,
    "version": "0.1.0",
    "airbyte_version": "1.8.0",
    "features": {"webhooks": True, "credential_rotation": True, "saved_states": True},
}


class OidcLogin(BaseModel):
    """How to sign in at the OpenID Connect issuer."""

    issuer: str
    client_id: str | None
    """The client id of the console; null if OIDC_CLIENT_ID is not set."""
    audience: str


class Features(BaseModel):
    """What the settings of this installation enable."""

    webhooks: bool
    credential_rotation: bool
    saved_states: bool
    """Whether the sync state is saved before a change, so that a rollback can restore it."""


class About(BaseModel):
    """An installation of AAM; the last three members are for authenticated callers."""

    model_config = ConfigDict(json_schema_extra={"examples": [_ABOUT]})

    environment: str
    """The word in the installation's API keys, `KEY_ENVIRONMENT`."""
    console_url: str | None
    oidc: OidcLogin | None
    """Null if only API keys are accepted."""
    version: str | None = None
    airbyte_version: str | None = None
    """As last read from Airbyte; null until then."""
    features: Features | None = None


class Installation:
    """Describes this installation; never waits for Airbyte."""

    def __init__(
        self,
        settings: Settings,
        airbyte: AirbyteClient,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._airbyte = airbyte
        self._clock = clock
        self._airbyte_version: str | None = None
        self._read_again_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def for_anybody(self) -> About:
        """What a login page shows, without any version or feature."""
        settings = self._settings
        oidc = None
        if settings.oidc_issuer is not None and settings.oidc_audience is not None:
            oidc = OidcLogin(
                issuer=settings.oidc_issuer,
                client_id=settings.oidc_client_id,
                audience=settings.oidc_audience,
            )
        return About(
            environment=settings.key_environment,
            console_url=None if settings.console_url is None else str(settings.console_url),
            oidc=oidc,
        )

    def for_callers(self, *, version: str) -> About:
        """The same, with versions and features.

        A stale Airbyte version is refreshed in the background.
        """
        if self._reading is None and self._clock() >= self._read_again_at:
            with label_limits.registry_wide():
                self._reading = asyncio.create_task(self._read())
        settings = self._settings
        return self.for_anybody().model_copy(
            update={
                "version": version,
                "airbyte_version": self._airbyte_version,
                "features": Features(
                    webhooks=settings.webhook_signing_key is not None,
                    credential_rotation=settings.rotation_digest_key is not None,
                    saved_states=settings.state_encryption_keys is not None,
                ),
            }
        )

    async def close(self) -> None:
        """Stop reading Airbyte's version."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        pause_s = _RETRY_S
        try:
            self._airbyte_version = (await self._airbyte.instance()).version[:_LONGEST_VERSION]
            pause_s = _FRESH_S
        except AamError as error:
            log.info("airbyte_version_unknown", code=error.code)
        finally:
            self._read_again_at = self._clock() + pause_s
            self._reading = None


router = APIRouter(tags=["operations"])


@router.get(ABOUT, responses=problems(401, 429, 503))
async def about(
    request: Request, installation: Annotated[Installation, from_state("installation")]
) -> About:
    """Get what a login page has to know; with credentials, also versions and features.

    Without credentials the answer has only the word of the installation's keys, the console's URL,
    and how to sign in. Airbyte's version is the last one that was read: this never waits for it.
    """
    if getattr(request.state, "caller", None) is None:
        return installation.for_anybody()
    return installation.for_callers(version=request.app.version)
