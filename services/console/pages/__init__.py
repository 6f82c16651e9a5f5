"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import (
    access,
    connection_bulk,
    connections,
    drifts,
    imports,
    inbox,
    knowledge,
    live,
    login,
    notifications,
    observations,
    onboard,
    operations,
    preferences,
    search,
    system,
)

ROUTERS: tuple[APIRouter, ...] = (
    access.router,
    connection_bulk.router,
    connections.router,
    drifts.router,
    imports.router,
    inbox.router,
    knowledge.router,
    live.router,
    login.router,
    notifications.router,
    observations.router,
    onboard.router,
    operations.router,
    preferences.router,
    search.router,
    system.router,
)
