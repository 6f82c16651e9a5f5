"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import connections, inbox, login, onboard, preferences

ROUTERS: tuple[APIRouter, ...] = (
    connections.router,
    inbox.router,
    login.router,
    onboard.router,
    preferences.router,
)
