"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import (
    access,
    connections,
    drifts,
    imports,
    inbox,
    knowledge,
    login,
    notifications,
    observations,
    onboard,
    operations,
    preferences,
    system,
)

ROUTERS: tuple[APIRouter, ...] = (
    access.router,
    connections.router,
    drifts.router,
    imports.router,
    inbox.router,
    knowledge.router,
    login.router,
    notifications.router,
    observations.router,
    onboard.router,
    operations.router,
    preferences.router,
    system.router,
)
