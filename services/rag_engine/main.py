"""The rag_engine's HTTP side: health and readiness only, for now."""

from __future__ import annotations

from fastapi import FastAPI

from shared import logs
from shared.app import create_app
from shared.config import ProcessSettings, load


def build(settings: ProcessSettings) -> FastAPI:
    """The application for these settings."""
    logs.set_up("rag_engine", level=settings.log_level)
    return create_app(
        service="rag_engine",
        description="Says what a vanished field probably became. It has no routes of its own yet.",
    )


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return build(load(ProcessSettings))
