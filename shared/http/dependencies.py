"""FastAPI dependencies that a service has stored on `app.state`."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, Request


def from_state(name: str) -> Any:
    """A dependency on `app.state.<name>`: `Annotated[Database, from_state("db")]`."""

    def read(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(read)
