"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import (
    compare,
    connections,
    inbox,
    login,
    preferences,
    repair_review,
    repairs,
)

ROUTERS: tuple[APIRouter, ...] = (
    compare.router,
    connections.router,
    inbox.router,
    login.router,
    preferences.router,
    repair_review.router,
    repairs.router,
)
