"""`python -m local.airbyte` serves the local Airbyte, `… install NAME` installs a connector."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
import uvicorn
from pydantic import ValidationError

from local.airbyte.connector import InvalidConnector, Manifest
from local.airbyte.connector_store import InstallFailed, Store
from local.airbyte.manifests import InvalidManifest, load_all
from local.airbyte.metadata import InUse, Metadata
from local.airbyte.server import app_of
from local.airbyte.settings import Settings
from shared.observability import logs

cli = typer.Typer(add_completion=False, help="AAM's local execution plane.")


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        for fault in error.errors():
            name = "__".join(str(part) for part in fault["loc"]).upper()
            typer.echo(f"LOCAL_AIRBYTE_{name}: {fault['msg']}", err=True)
        sys.exit(2)


def _manifests(settings: Settings) -> list[Manifest]:
    """Check the connectors and the manifests before anything is served; exits if one is invalid."""
    store = Store(settings.connectors_dir)
    try:
        for text in settings.connectors:
            store.choose(text)
        return load_all(store, settings.manifests)
    except (InvalidConnector, InvalidManifest, InstallFailed) as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


@cli.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve Airbyte's API on the loopback interface until stopped.

    Callers must send the header stored in the file `auth` of LOCAL_AIRBYTE_STATE_DIR.
    """
    if context.invoked_subcommand is not None:
        return
    os.umask(0o077)
    settings = _settings()
    logs.set_up("local_airbyte")
    try:
        Metadata(settings.state_dir).close()
    except InUse as error:
        typer.echo(f"LOCAL_AIRBYTE_STATE_DIR: {error}", err=True)
        sys.exit(1)
    uvicorn.run(
        app_of(settings, _manifests(settings)),
        host="127.0.0.1",
        port=settings.port,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=5,
    )


@cli.command()
def install(names: Annotated[list[str], typer.Argument(help="source-salesforce …")]) -> None:
    """Install each connector in its own virtual environment.

    `source-NAME` is the pinned version, or the newest one of a connector that is not pinned;
    `source-NAME==VERSION` is that version.
    """
    store = Store(_settings().connectors_dir)
    for name in names:
        try:
            typer.echo(str(store.install(store.choose(name))))
        except InvalidConnector as error:
            typer.echo(str(error), err=True)
            sys.exit(2)
        except InstallFailed as error:
            typer.echo(f"{name}: {error}", err=True)
            sys.exit(1)


if __name__ == "__main__":
    cli()
