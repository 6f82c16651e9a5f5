"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import (
    access,
    compare,
    connection,
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
    repair_review,
    repairs,
    search,
    system,
)

ROUTERS: tuple[APIRouter, ...] = (
    access.router,
    compare.router,
    connection.router,
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
    repair_review.router,
    repairs.router,
    search.router,
    system.router,
)
