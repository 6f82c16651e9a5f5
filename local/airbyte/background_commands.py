"""Checks and discoveries that run in the background, under ids that the client chose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from local.airbyte.api.backend import Check, Command, Json, Outcome
from local.airbyte.errors import Refusal
from local.airbyte.jobs import failure_reason
from local.airbyte.metadata import Metadata, dump


class BackgroundCommands:
    """The commands of one local Airbyte process."""

    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self._commands: dict[str, asyncio.Task[None]] = {}

    async def stop_commands(self) -> None:
        """Cancel what is still running."""
        tasks = list(self._commands.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run_command(
        self,
        command_id: str,
        kind: str,
        source_id: str | None,
        run: Callable[[], Awaitable[Outcome]],
    ) -> None:
        """Start a check or a discovery, unless a command with this id exists."""
        created = self.metadata.write(
            "INSERT OR IGNORE INTO commands VALUES (?, ?, 'pending', ?, ?)",
            command_id,
            kind,
            dump({"sourceId": source_id}),
            int(time.time()),
        )
        if created:
            work = self._command(command_id, source_id, run)
            self._commands[command_id] = asyncio.create_task(work)

    async def _command(
        self, command_id: str, source_id: str | None, run: Callable[[], Awaitable[Outcome]]
    ) -> None:
        self._set_command(command_id, "running", {})
        try:
            outcome = await run()
        except asyncio.CancelledError:
            reason = failure_reason("airbyte_platform", "manual_cancellation", "It was cancelled.")
            self._set_command(command_id, "cancelled", {"failureReason": reason})
        except Refusal as refusal:
            reason = failure_reason("airbyte_platform", "system_error", refusal.message)
            self._set_command(command_id, "completed", {"failureReason": reason})
        else:
            result = {
                "sourceId": source_id,
                "jobId": outcome.job_id,
                "connectorConfigurationUpdated": outcome.renewed,
            }
            if outcome.check is not None:
                result |= {"succeeded": outcome.check.succeeded, "message": outcome.check.message}
            if outcome.catalog_id is not None:
                result |= {"succeeded": True, "catalogId": outcome.catalog_id}
            self._set_command(command_id, "completed", result | {"failureReason": outcome.failure})
        finally:
            del self._commands[command_id]

    def _set_command(self, command_id: str, status: str, output: Json) -> None:
        self.metadata.write(
            "UPDATE commands SET status = ?, output = ? WHERE id = ?",
            status,
            dump(output),
            command_id,
        )

    def command(self, command_id: str) -> Command | None:
        """Return a command, if there is one with this id."""
        row = self.metadata.one("SELECT * FROM commands WHERE id = ?", command_id)
        if row is None:
            return None
        output, outcome = row["output"], None
        if row["status"] in ("completed", "cancelled"):
            has_verdict = row["kind"] == "check" and "succeeded" in output
            outcome = Outcome(
                job_id=output.get("jobId") or "",
                started_at=row["created_at"],
                ended_at=row["created_at"],
                renewed=output.get("connectorConfigurationUpdated", False),
                check=Check(output["succeeded"], output["message"]) if has_verdict else None,
                catalog_id=output.get("catalogId"),
                failure=output.get("failureReason"),
            )
        return Command(
            id=command_id,
            kind=row["kind"],
            source_id=output.get("sourceId"),
            status=row["status"],
            outcome=outcome,
        )

    def command_status(self, command_id: str) -> str | None:
        """Return the status of a command."""
        command = self.command(command_id)
        return None if command is None else command.status

    async def cancel_command(self, command_id: str) -> None:
        """Cancel a command that is still running."""
        task = self._commands.get(command_id)
        if task is not None:
            await asyncio.sleep(0)  # cancelled before its first step, it would record nothing
            task.cancel()
            await asyncio.wait([task])
