"""Schema discovery: synchronous up to Airbyte 1.6, by commands since 1.7."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from uuid import UUID, uuid4

import msgspec

from shared.airbyte_client import _schemas as shapes
from shared.airbyte_client._calls import Calls, explain, is_no_such_endpoint, run_id
from shared.airbyte_client._schemas import Discovered
from shared.errors import (
    DiscoverFailed,
    UpstreamDenied,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
)

_COMMANDS_SINCE = (1, 7)
_FIRST_POLL_S = 0.1
_SLOWEST_POLL_S = 2.0
_COMMAND_APPEARS_WITHIN_S = 30.0
_DISCOVER = msgspec.json.Decoder(shapes.DiscoverRead)
_DISCOVER_OUTPUT = msgspec.json.Decoder(shapes.DiscoverOutput)
_COMMAND = msgspec.json.Decoder(shapes.Command)
_COMMAND_STATUS = msgspec.json.Decoder(shapes.CommandStatus)


class Discovery(Calls):
    """Schema discovery: synchronous up to Airbyte 1.6, by commands since 1.7."""

    async def discover_schema(self, source_id: UUID) -> Discovered:
        """Read a source's schema from the source itself, bypassing Airbyte's cache.

        No connection id is sent: with one, Airbyte could disable the connection because of the
        result. The server's version decides which of the two endpoints is used.

        Endpoint: POST commands/run/discover, commands/status, commands/output/discover (since 1.7)
        Sends:    {"id": generated, "actor_id": uuid}, then {"id"}, then {"id", "with_logs": false}
        Receives: {"status": "succeeded" | "failed", "catalog"?, "catalogId"?, "failureReason"?}
        Endpoint: POST sources/discover_schema (before)
        Sends:    {"sourceId": uuid, "disable_cache": true}
        Receives: {"catalog"?: {"streams": [...]}, "catalogId"?, "jobInfo"?: {"succeeded", ...}}
        Time:     seconds to minutes, since a connector starts; `discover_timeout` at most.

        Raises:
            DiscoverFailed: status 200, but the connector failed or there is no catalog.
            UpstreamMissing: Airbyte has no such source.
            UpstreamTimeout: no response in `discover_timeout`; the connector may still be running.
        """
        has_commands = await self.is_since_1_7()
        async with self._turn("sources/discover_schema"):
            return await self._discover_with_fallback(source_id, has_commands=has_commands)

    async def is_since_1_7(self) -> bool:
        """Whether this Airbyte is 1.7 or newer: it has commands, and references to secrets.

        Source: airbyte-platform 1.7.0, CommandApiController and SecretsHelpers
        """
        if self._has_commands is None:
            self._has_commands = await self._find_commands()
        return self._has_commands

    async def _discover_with_fallback(self, source_id: UUID, *, has_commands: bool) -> Discovered:
        try:
            return await self._discover(source_id, by_command=has_commands)
        except UpstreamUnknown:
            self._has_commands = None
            raise
        except UpstreamRefused as refused:
            if not is_no_such_endpoint(refused):
                raise
            self._has_commands = await self._find_commands()
            if self._has_commands is has_commands:
                raise
        return await self._discover(source_id, by_command=not has_commands)

    async def _find_commands(self) -> bool:
        """Whether this Airbyte has `commands/*`, by its version, else by trying the endpoint."""
        try:
            version = re.match(r"v?(\d+)\.(\d+)\.", (await self.instance()).version)
        except (UpstreamRefused, UpstreamDenied):
            version = None
        if version is not None:
            return (int(version[1]), int(version[2])) >= _COMMANDS_SINCE
        try:
            await self._post("commands/status", {"id": str(uuid4())}, _COMMAND_STATUS, repeat=True)
        except UpstreamRefused as refused:
            return not is_no_such_endpoint(refused)
        except UpstreamDenied:
            return True
        return True

    async def _discover(self, source_id: UUID, *, by_command: bool) -> Discovered:
        if not by_command:
            return await self._discover_at_once(source_id)
        try:
            async with asyncio.timeout(self._discover_timeout):
                return await self._discover_by_command(source_id)
        except TimeoutError:
            pass
        raise UpstreamTimeout(
            f"The discovery of source {source_id} took more than {self._discover_timeout:g} s."
        )

    async def _discover_at_once(self, source_id: UUID) -> Discovered:
        try:
            read = await self._post(
                "sources/discover_schema",
                {"sourceId": source_id, "disable_cache": True},
                _DISCOVER,
                timeout=self._discover_timeout,
                repeat=True,
                runs_connector=True,
            )
        except UpstreamUnknown as error:
            error.has_run = error.is_over
            raise
        job = read.job_info or shapes.SynchronousJob()
        if bytes(read.catalog) == b"null" or not job.succeeded:
            raise _discover_failed(source_id, job.failure_reason, run_id(job.id))
        return Discovered(
            bytes(read.catalog), read.catalog_id, bool(job.connector_configuration_updated)
        )

    async def _discover_by_command(self, source_id: UUID) -> Discovered:
        # The id makes the command idempotent, so it may be retried after a lost response.
        command = {"id": str(uuid4())}
        await self._post(
            "commands/run/discover", {**command, "actor_id": source_id}, _COMMAND, repeat=True
        )
        if not await self._completed(command):
            cancelled = shapes.FailureReason("manual_cancellation")
            raise _discover_failed(source_id, cancelled, command["id"])
        output = await self._post(
            "commands/output/discover",
            {**command, "with_logs": False},
            _DISCOVER_OUTPUT,
            repeat=True,
        )
        if bytes(output.catalog) == b"null" or output.status != "succeeded":
            raise _discover_failed(source_id, output.failure_reason, command["id"])
        return Discovered(
            bytes(output.catalog), output.catalog_id, bool(output.connector_configuration_updated)
        )

    async def _completed(self, command: Mapping[str, str]) -> bool:
        """Wait until a command has ended; False when it was cancelled.

        A failed command is `completed` as well; one that Airbyte does not know yet has no status.
        """
        clock = asyncio.get_running_loop().time
        appears_by = clock() + _COMMAND_APPEARS_WITHIN_S
        wait_s = _FIRST_POLL_S
        while True:
            answer = await self._post("commands/status", command, _COMMAND_STATUS, repeat=True)
            if answer.status in {"completed", "cancelled"}:
                return answer.status == "completed"
            if answer.status is None and clock() > appears_by:
                raise UpstreamUnknown(
                    "Airbyte accepted a discovery, but does not know it after "
                    f"{_COMMAND_APPEARS_WITHIN_S:g} s."
                )
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.25, _SLOWEST_POLL_S)


def _discover_failed(
    source_id: UUID, reason: shapes.FailureReason | None, run: str | None
) -> DiscoverFailed:
    reason = reason or shapes.FailureReason()
    failed = DiscoverFailed(
        f"The connector of source {source_id} did not deliver a schema.",
        failure_type=reason.type,
        retryable=reason.is_transient,
    )
    failed.retryable = reason.is_transient
    explain(failed, reason.reason(run=run))
    return failed
