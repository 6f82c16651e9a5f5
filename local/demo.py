"""The demo: the life of a self-healing connection on a temporary mesh, with each step checked.

It onboards a Salesforce org with the real connector, changes the org in every supported way, and
shows what AAM repairs automatically, what a person has to decide, and what it rolls back. Then it
onboards a source of another type, by its connector's specification.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from local.airbyte.connector import PINNED, RUNNER
from local.airbyte.connector_store import InstallFailed, Store
from local.airbyte.manifests import InvalidManifest
from local.demo_steps import NO_SCHEDULED_OBSERVATIONS, Journey
from local.environment import given_environment
from local.mesh_client import Mesh, StepFailed, require
from local.processes.servers import ServerFailed
from local.settings import Settings
from local.supervisor import Refused, temporary_stack


class Steps:
    """Numbers the steps, and prints each with its result and its duration."""

    def __init__(self, console: Console, count: int, *, logs: Path) -> None:
        self._console = console
        self._count = count
        self._logs = logs
        self._number = 0

    async def take(self, title: str, work: Callable[[], Awaitable[str]]) -> None:
        """Run one step; a failed one ends the demo.

        Raises:
            SystemExit: the step failed; the message says where the logs are.
        """
        self._number += 1
        began = time.monotonic()
        with self._console.status(f"{title} ..."):
            try:
                result, passed = await work(), True
            except (StepFailed, ServerFailed, Refused, InstallFailed, InvalidManifest) as error:
                result, passed = str(error), False
        mark = "[green]✓[/]" if passed else "[red]✗[/]"
        took = f"{time.monotonic() - began:.1f} s"
        self._console.print(f"{mark} [bold]{self._number}/{self._count} {title}[/]  [dim]{took}[/]")
        self._console.print(f"      {escape(result)}")
        if not passed:
            raise SystemExit(f"This step failed. The logs are in {self._logs}.")


async def run() -> None:
    """Run the demo, and print its steps.

    Raises:
        SystemExit: a step failed; it was printed.
    """
    began = time.monotonic()
    this = asyncio.current_task()
    assert this is not None  # noqa: S101 (a running coroutine has a task)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    settings = Settings()
    console = Console(highlight=False, soft_wrap=True)
    journey = Journey()
    async with AsyncExitStack() as cleanup:
        journey.credentials = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))

        async def install() -> str:
            store = Store(settings.connectors_dir)
            wanted = (PINNED["source-salesforce"], RUNNER)
            for connector in wanted:
                await asyncio.to_thread(store.install, connector)
            named = " and ".join(f"{one.package} {one.version}" for one in wanted)
            return f"{named}, each in its own environment"

        async def start() -> str:
            stack = await cleanup.enter_async_context(
                temporary_stack(
                    settings=settings.model_copy(update={"sample_api": True}),
                    environment=given_environment()
                    | NO_SCHEDULED_OBSERVATIONS
                    | {"CREDENTIALS_DIR": str(journey.credentials), "ROTATION_INTERVAL": "1"},
                    say=partial(console.print, markup=False),
                    keep_logs=settings.state_dir / "demo-logs",
                )
            )
            journey.mesh = Mesh(stack)
            return f"{len(stack.processes)} processes are ready, on free ports"

        async def stop() -> str:
            pids = [server.pid for server in journey.mesh.stack.processes]
            await cleanup.aclose()
            require(not any(map(_is_alive, pids)), "a process is still running")
            return "all processes have ended, and all files are deleted"

        story: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("Install Airbyte's Salesforce connector, and the CDK for low-code ones", install),
            ("Start a temporary mesh", start),
            ("Onboard Salesforce's Account and Contact", journey.onboard),
            ("Sync", journey.sync),
            ("Nothing changes: no event is published", journey.nothing_changed),
            ("Fields are added: repaired automatically", journey.field_added),
            ("A field's type is widened: repaired automatically", journey.field_widened),
            ("A field is dropped: a person decides", journey.field_dropped),
            ("A field is renamed: one suggestion, with evidence", journey.field_renamed),
            (
                "A cursor is lost: paused until a decision, then resumed",
                journey.cursor_lost,
            ),
            (
                "An object is hidden: the discovery is not trusted",
                journey.object_hidden,
            ),
            ("A repair breaks the sync: it is rolled back", journey.bad_heal),
            ("Two connections of one source: two decisions", journey.two_of_one_source),
            (
                "Another source type, onboarded from its specification alone",
                journey.another_type,
            ),
            ("A credential changes: given to Airbyte after a check", journey.credential_changed),
            ("A sync brings no rows: an alarm", journey.rows_missing),
            ("Read the events", journey.read_events),
            ("Stop the mesh", stop),
        ]
        steps = Steps(console, len(story), logs=settings.state_dir / "demo-logs")
        for title, work in story:
            await steps.take(title, work)
    took = f"{time.monotonic() - began:.1f} s"
    console.print(f"[green]All steps passed[/] in {took}.")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
