"""Typed HTTP clients for the sibling services. A sibling's problem+json becomes its error class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import httpx
import orjson
import stamina
import structlog
from httpx_aiohttp import AiohttpTransport

from shared import logs
from shared.config import Settings
from shared.errors import (
    AamError,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
    from_problem,
)


class Peer:
    """One sibling service, by a pooled client with a total deadline per call."""

    name: str

    def __init__(self, base_url: str, *, deadline: float) -> None:
        self._deadline = deadline
        self._client = httpx.AsyncClient(
            base_url=base_url,
            transport=AiohttpTransport(),
            timeout=deadline,
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def health(self) -> None:
        """Ask whether the peer runs.

        Raises:
            UpstreamUnreachable: it does not.
        """
        async with self._in_time():
            await self._once("/health", {})

    async def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        """Read from the peer; repeated while that may help, within the deadline.

        Raises:
            AamError: what the peer raised, rebuilt from its answer; or that it cannot be reached.
        """
        async with self._in_time():
            async for attempt in stamina.retry_context(
                on=_worth_repeating,
                attempts=4,
                timeout=self._deadline,
                wait_initial=0.05,
                wait_jitter=0.05,
            ):
                with attempt:
                    return await self._once(path, parameters)
        raise AssertionError("unreachable")  # pragma: no cover

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except TimeoutError:
            raise UpstreamTimeout(f"The {self.name} did not answer in time.") from None

    async def _once(self, path: str, parameters: dict[str, str]) -> dict[str, Any]:
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        headers = {logs.REQUEST_ID_HEADER: request_id} if request_id else {}
        try:
            answer = await self._client.get(path, params=parameters, headers=headers)
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                raise UpstreamUnreachable(f"The {self.name} cannot be reached.") from None
            raise UpstreamUnknown(f"The {self.name} broke off its answer.") from None
        if answer.is_success:
            return self._json(answer)
        raise from_problem(answer.status_code, self._json(answer))

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            if isinstance(body := orjson.loads(answer.content), dict):
                return body
        raise UpstreamUnknown(f"The {self.name} answered {answer.status_code} with no JSON object.")


def _worth_repeating(error: Exception) -> bool:
    return isinstance(error, AamError) and error.retryable


class AuthBroker(Peer):
    """The auth_broker: connector configurations for credential ids."""

    name = "auth_broker"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The broker that the settings name."""
        return cls(str(settings.auth_broker_url), deadline=settings.peer_timeout.total_seconds())

    async def connector_config(self, source_type: str, credential_id: str) -> dict[str, Any]:
        """The configuration of a source type's connector. It holds secrets: never log or store it.

        Raises:
            NotFound: the broker has no such credential.
            Invalid: the credential lacks a variable; `variable` names it.
            UpstreamUnreachable: the broker is away.
        """
        part = quote(credential_id, safe="")
        return await self._get(f"/credentials/{part}/connector-config", source_type=source_type)
