"""Base of the Airbyte client's calls: timeouts, concurrency limit, paging and retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar
from uuid import UUID

import msgspec

from shared.airbyte_client import _schemas as shapes
from shared.airbyte_client._access_tokens import ClientCredentials, Credentials
from shared.airbyte_client._response_origin import UNSUPPORTED
from shared.airbyte_client._schemas import Instance
from shared.airbyte_client._transport import Transport
from shared.config import Settings
from shared.errors import (
    ConnectorFailed,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)
from shared.failure_causes import Reason

T = TypeVar("T")
_HEALTH_TIMEOUT_S = 5.0
PAGE = 100
SMALLEST_PAGE = 20
MOST_PAGES = 1000
_LONGEST_LISTING = 10
"""Time limit for reading all pages of one list, as a multiple of the ordinary timeout."""
_NOTHING = msgspec.json.Decoder(None)
_INSTANCE = msgspec.json.Decoder(shapes.InstanceRead)
_HEALTH = msgspec.json.Decoder(shapes.Health)
Item = TypeVar("Item")


class Calls:
    """What the calls of every resource share: transport, timeouts, concurrency limit and paging."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials | None = None,
        *,
        workspace_id: UUID | None = None,
        timeout: float = 60.0,
        check_timeout: float = 300.0,
        discover_timeout: float = 600.0,
        slow_calls: int = 10,
        max_streams: int | None = None,
        has_commands: bool | None = None,
    ) -> None:
        self._transport = Transport(base_url, credentials or Credentials())
        self._slow_calls = slow_calls
        self._slots = asyncio.Semaphore(slow_calls)
        self._workspace_id = workspace_id
        self._timeout = timeout
        self._check_timeout = check_timeout
        self._discover_timeout = discover_timeout
        self._has_commands = has_commands
        self._max_streams = max_streams
        self._lists_jobs_of_instance = True

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A client with the given settings; a bearer key takes precedence over other logins."""
        return cls(
            str(settings.airbyte_api_url),
            _credentials(settings),
            workspace_id=settings.airbyte_workspace_id,
            timeout=settings.airbyte_timeout.total_seconds(),
            check_timeout=settings.check_timeout.total_seconds(),
            discover_timeout=settings.discover_timeout.total_seconds(),
            slow_calls=settings.airbyte_slow_calls,
            max_streams=settings.stream_limit,
            # Airbyte Cloud is always newer than 1.7.
            has_commands=True if settings.is_airbyte_cloud else None,
        )

    async def __aenter__(self) -> Self:
        """Enter the context; connections are opened by the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def instance(self) -> Instance:
        """The version of this Airbyte and its default workspace; needs no token.

        Endpoint: GET instance_configuration
        Receives: {"version": str, "auth": {"mode": str}, "defaultWorkspaceId": uuid, ...}
        """
        read = await self._get("instance_configuration", _INSTANCE, repeat=True)
        return Instance(read.version, read.auth.mode, read.default_workspace_id)

    async def health(self) -> bool:
        """Whether Airbyte reports that it is available and accepts AAM's login.

        Endpoint: GET health
        Receives: {"available": bool}

        Raises:
            Upstream: Airbyte cannot be reached, another server answers in its place, or it issues
                no token; the detail says which.
        """
        read = await self._get("health", _HEALTH, timeout=_HEALTH_TIMEOUT_S)
        await self._transport.log_in()
        return read.available

    @asynccontextmanager
    async def _turn(self, path: str) -> AsyncIterator[None]:
        """Take one of the slots for slow calls, which share a small thread pool in Airbyte.

        Raises:
            UpstreamUnreachable: none was free within the ordinary timeout; nothing was sent.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise UpstreamUnreachable(
                f"{self._slow_calls} slow calls to Airbyte are in progress; {path} was not sent.",
                code="airbyte_busy",
            ) from None
        try:
            yield
        finally:
            self._slots.release()

    @asynccontextmanager
    async def _listing(self, path: str) -> AsyncIterator[None]:
        """Limit the total time for all pages of a list, which no page's own timeout would limit.

        Raises:
            UpstreamTimeout: it took longer.
        """
        within_s = _LONGEST_LISTING * self._timeout
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError:
            raise UpstreamTimeout(
                f"Listing Airbyte's {path} took more than {within_s:g} s."
            ) from None

    async def _get(
        self,
        path: str,
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float | None = None,
        repeat: bool = False,
    ) -> T:
        """GET an endpoint that needs no login."""
        return await self._transport.call(
            path, None, answer, timeout=timeout or self._timeout, repeat=repeat, anonymous=True
        )

    async def _post(
        self,
        path: str,
        order: Mapping[str, Any],
        answer: msgspec.json.Decoder[T],
        *,
        timeout: float | None = None,
        repeat: bool = False,
        only_status: int | None = None,
        runs_connector: bool = False,
    ) -> T:
        return await self._transport.call(
            path,
            msgspec.json.encode(order),
            answer,
            timeout=timeout or self._timeout,
            repeat=repeat,
            only_status=only_status,
            runs_connector=runs_connector,
        )

    async def _delete(
        self,
        path: str,
        order: Mapping[str, Any],
        listed: Callable[[UUID], Awaitable[bool]],
        workspace_id: UUID | None,
    ) -> None:
        """Delete an object; if Airbyte's answer is ambiguous, list whether the object exists.

        For an unknown id Airbyte answers 404, 403 or 500, depending on version and login. The
        object's own workspace is listed where known, else the one that AAM uses.
        """
        try:
            await self._post(path, order, _NOTHING, repeat=True, only_status=204)
        except UpstreamMissing:
            return
        except (UpstreamForbidden, UpstreamUnknown):
            workspace_id = (
                workspace_id or self._workspace_id or (await self.instance()).default_workspace_id
            )
            if workspace_id is None or await listed(workspace_id):
                raise

    async def _all_pages(
        self,
        path: str,
        workspace_id: UUID,
        answer: msgspec.json.Decoder[T],
        items: Callable[[T], list[Item]],
        id_of: Callable[[Item], UUID],
    ) -> list[Item]:
        """Follow the cursor until a page brings nothing new.

        Before 1.8 the cursor is ignored, and each request returns everything.
        """
        found: dict[UUID, Item] = {}
        cursor: dict[str, UUID] = {}
        async with self._listing(path):
            for _ in range(MOST_PAGES):
                body = {"workspaceId": workspace_id, "pageSize": PAGE, **cursor}
                try:
                    page = items(await self._post(path, body, answer, repeat=True))
                except UpstreamMissing:
                    if not cursor:
                        raise
                    raise UpstreamUnknown(
                        f"Airbyte's {path} cannot be continued: the item that was listed last has "
                        "been deleted."
                    ) from None
                before = len(found)
                found.update((id_of(item), item) for item in page)
                if len(page) < SMALLEST_PAGE or len(found) == before:
                    return list(found.values())
                cursor = {"cursor": id_of(page[-1])}
        raise UpstreamUnknown(f"Airbyte's {path} has more than {MOST_PAGES} pages.")


def expect_requested(path: str, body_id: UUID | int, requested: UUID | int) -> None:
    """Check that a response is about the requested object.

    Raises:
        UpstreamUnknown: it is about another object.
    """
    if body_id != requested:
        raise UpstreamUnknown(f"Airbyte's {path} returned another object than was requested.")


def _credentials(settings: Settings) -> Credentials:
    if settings.airbyte_api_key is not None:
        return Credentials.bearer(settings.airbyte_api_key.get_secret_value())
    if settings.airbyte_client_id is not None and settings.airbyte_client_secret is not None:
        return ClientCredentials(
            settings.airbyte_client_id,
            settings.airbyte_client_secret.get_secret_value(),
            token_url=settings.token_url,
        )
    if settings.airbyte_username is not None and settings.airbyte_password is not None:
        return Credentials.basic(
            settings.airbyte_username, settings.airbyte_password.get_secret_value()
        )
    return Credentials()


def is_no_such_endpoint(refused: UpstreamRefused) -> bool:
    return refused.code == UNSUPPORTED


def explain(failed: ConnectorFailed, reason: Reason) -> None:
    failed.cause, failed.explanation, failed.log = reason.cause, reason.explanation, reason.log


def run_id(value: Any) -> str | None:
    """Airbyte's id of a run, or None where it is not a string; `causes` validates it further."""
    return value if isinstance(value, str) else None
