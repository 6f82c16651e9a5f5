"""`python -m local`: the commands behind `make up`, `make demo`, `make events` and others."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from urllib.parse import unquote, urlsplit

import typer
from pydantic import ValidationError

from local import demo as main_job
from local import env_files, sign_in
from local import print_events as lifecycle
from local import up as mesh
from local.airbyte.connector import InvalidConnector
from local.airbyte.connector_store import InstallFailed
from local.airbyte.manifests import InvalidManifest
from local.exit_with_process import tie_to
from local.processes import servers
from local.settings import Settings
from local.supervisor import Refused

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        names = ", ".join(f"AAM_{str(problem['loc'][0]).upper()}" for problem in error.errors())
        raise SystemExit(f"Invalid settings: {names}.") from None


def _tied_settings() -> Settings:
    """Load the settings, and tie this process to those of AAM_TIED_TO_PID: it ends with them."""
    settings = _settings()
    try:
        tie_to([int(pid) for pid in settings.tied_to_pid.split()])
    except ProcessLookupError:
        raise SystemExit("A process of AAM_TIED_TO_PID has already ended.") from None
    return settings


def _run(work: Coroutine[object, object, None]) -> None:
    try:
        asyncio.run(work)
    except (
        Refused,
        servers.ServerFailed,
        InvalidConnector,
        InstallFailed,
        InvalidManifest,
        lifecycle.Unreachable,
    ) as error:
        raise SystemExit(str(error)) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise SystemExit(130) from None


@app.command()
def up() -> None:
    """Run the whole mesh until Ctrl-C."""
    _run(mesh.run(_tied_settings()))


@app.command()
def demo() -> None:
    """Run the demo on a temporary mesh, and check each step."""
    _tied_settings()
    _run(main_job.run())


@app.command()
def events(*, once: bool = False) -> None:
    """Follow the lifecycle events of the running mesh, or of REDIS_URL's server."""
    _run(lifecycle.follow(_address("REDIS_URL"), once=once))


@app.command()
def psql(sql: str = "") -> None:
    """Open psql on the warehouse of the running mesh, or run one statement there."""
    warehouse = urlsplit(_address("WAREHOUSE_URL"))
    # Not as arguments, which every user of the machine can read.
    address = {
        "PGHOST": warehouse.hostname or "",
        "PGPORT": str(warehouse.port or ""),
        "PGUSER": unquote(warehouse.username or ""),
        "PGPASSWORD": unquote(warehouse.password or ""),
        "PGDATABASE": warehouse.path.removeprefix("/"),
    }
    command = [str(servers.psql()), "--no-psqlrc", "--pset", "pager=off"]
    statement = ["--command", sql] if sql else []
    os.execve(command[0], [*command, *statement], os.environ | address)  # noqa: S606 (our own)


def _address(variable: str) -> str:
    """The value from the environment, else from the `env` file of the running mesh."""
    running = _settings().state_dir / "env"
    address = os.environ.get(variable) or env_files.read(running).get(variable)
    if not address:
        raise SystemExit(f"No mesh is running in {running.parent}: start one with `make up`.")
    return address


@app.command(name="sign-in")
def print_sign_in_link() -> None:
    """Print a link that signs in at the console of the running mesh, once and within a minute."""
    link = sign_in.new_link(_settings().state_dir.resolve(), _address("CONSOLE"))
    if link is None:
        raise SystemExit("The first API key is not there: make one with `make key`.")
    sys.stdout.write(f"{link}\n")


@app.command()
def check_migrations() -> None:
    """Migrate an empty registry, compare it with the models, and downgrade it again."""
    _tied_settings()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is deleted
    folder = servers.temporary_dir()
    try:
        with servers.start_postgres(folder, options=servers.THROWAWAY_OPTIONS) as postgres:
            env = os.environ | dict.fromkeys(
                ("SUPABASE_DB_URL", "MIGRATION_DB_URL"), f"{postgres.url}?sslmode=disable"
            )
            for order in (["upgrade", "head"], ["check"], ["downgrade", "base"]):
                subprocess.run(  # noqa: S603 (our own command lines)
                    [sys.executable, "-m", "alembic", *order], env=env, check=True
                )
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    finally:
        servers.remove(folder)


@app.command()
def clean() -> None:
    """Delete the state of a stopped mesh."""
    try:
        mesh.clean(_settings())
    except Refused as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    app()
