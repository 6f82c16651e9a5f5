"""`python -m local`: the commands behind `make up`, `make demo`, `make events` and `make clean`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import typer
from pydantic import ValidationError

from local import up as mesh
from local.servers import ServerFailed
from local.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        names = ", ".join(f"AAM_{str(problem['loc'][0]).upper()}" for problem in error.errors())
        raise SystemExit(f"Not valid: {names}.") from None


def _finish(work: Coroutine[object, object, None]) -> None:
    try:
        asyncio.run(work)
    except (mesh.Refused, ServerFailed) as error:
        raise SystemExit(str(error)) from None


@app.command()
def up() -> None:
    """Run the whole mesh until Ctrl-C."""
    _finish(mesh.run(_settings()))


@app.command()
def clean() -> None:
    """Delete what a stopped mesh keeps."""
    try:
        mesh.clean(_settings())
    except mesh.Refused as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    app()
