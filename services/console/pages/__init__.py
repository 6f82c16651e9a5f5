"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import (
    connection_bulk,
    connections,
    inbox,
    live,
    login,
    preferences,
    search,
)

ROUTERS: tuple[APIRouter, ...] = (
    connection_bulk.router,
    connections.router,
    inbox.router,
    live.router,
    login.router,
    preferences.router,
    search.router,
)
