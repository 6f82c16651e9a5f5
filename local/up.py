"""`make up`: runs the whole mesh until it is stopped, and prints where everything is."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from local import sign_in
from local.airbyte.connector import DEFAULTS, RUNNER
from local.airbyte.connector_store import Store
from local.processes import servers
from local.processes.servers import CONSOLE
from local.service_processes import Program
from local.settings import Settings
from local.supervisor import Stack, lock_state


async def run(settings: Settings) -> None:
    """Run the mesh until Ctrl-C or SIGTERM, and print where everything is.

    Raises:
        Refused: the mesh cannot start in this environment.
        ServerFailed: a part of it did not start.
        InvalidConnector: a requested connector has an invalid name.
        InstallFailed: a connector could not be installed.
        InvalidManifest: a manifest cannot be run.
    """
    console = Console(soft_wrap=True, highlight=False, markup=False)
    stop_requested = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(one, stop_requested.set)
    stack = Stack(settings, say=console.print)
    had_key = stack.auth_file.exists()
    began = time.monotonic()

    async def start() -> None:
        nonlocal began
        await stack.claim()
        await _install_missing_connectors(settings, console)
        console.print("Starting ...")
        began = time.monotonic()
        await stack.start()

    starting = asyncio.create_task(start())
    stopping = asyncio.create_task(stop_requested.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop_requested.is_set():
            starting.result()
            console.print(_first_step(stack))
            console.print(_table(stack))
            console.print(
                _next_steps(stack, is_key_new=not had_key, took_s=time.monotonic() - began)
            )
            await stop_requested.wait()
        console.print("Stopping ...")
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        stopping.cancel()
        began = time.monotonic()
        await stack.stop()
    console.print(f"Stopped in {time.monotonic() - began:.1f} s.")


async def _install_missing_connectors(settings: Settings, console: Console) -> None:
    """Install missing connectors now, so that the first onboarding does not wait for them."""
    store = Store(settings.connectors_dir)
    requested = [
        await asyncio.to_thread(store.choose, text) for text in settings.connectors.split()
    ]
    runner = [RUNNER] if settings.manifest_paths else []
    for connector in [*DEFAULTS, *requested, *runner]:
        if not store.is_installed(connector):
            console.print(f"Installing {connector.package} {connector.version} (only once) ...")
            await asyncio.to_thread(store.install, connector)


def _table(stack: Stack) -> Table:
    table = Table(
        "service", "URL", Column("docs", overflow="fold"), "pid", box=SIMPLE_HEAD, pad_edge=False
    )
    for server in stack.processes:
        where = server.url if isinstance(server, Program) else f"127.0.0.1:{server.port}"
        docs = server.docs_url if isinstance(server, Program) else ""
        table.add_row(server.name, where, docs, str(server.pid))
    return table


def _first_step(stack: Stack) -> str:
    """Where to look first: the console, with a link that signs in."""
    url = stack.url_of(CONSOLE)
    link = sign_in.new_link(stack.settings.state_dir.resolve(), url)
    if link is None:
        return f"The console: {url}"
    return (
        f"The console: {url}\n"
        f"This link signs you in, once and within a minute (`make sign-in` prints another):\n{link}"
    )


def _next_steps(stack: Stack, *, is_key_new: bool, took_s: float) -> str:
    state = stack.settings.state_dir
    key = f"The API key is in {stack.auth_file}; Authorize on the docs pages accepts it too."
    if is_key_new:
        header = stack.auth_file.read_text().strip()
        key = f"{key} It is shown only once: {header.rpartition(' ')[2]}"
    org = "the sample org" if stack.uses_sample_org else "the org of CREDENTIAL_SALESFORCE_PROD__…"
    return (
        f"Ready in {took_s:.1f} s. Salesforce is {org}; logs are in {state}/logs.\n"
        f"{key}\n"
        f"Next, in another shell: source {state}/env, then run the commands of the README; "
        "`make events` shows the events.\n"
        "Ctrl-C stops everything."
    )


def clean(settings: Settings) -> None:
    """Delete the state folder.

    Raises:
        Refused: a mesh runs in it.
    """
    if not settings.state_dir.exists():
        return
    with lock_state(settings.state_dir):
        servers.remove(settings.state_dir.resolve() / "postgres")
        shutil.rmtree(settings.state_dir)
