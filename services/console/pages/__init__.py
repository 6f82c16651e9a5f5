"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import connections, inbox, login, preferences

ROUTERS: tuple[APIRouter, ...] = (
    connections.router,
    inbox.router,
    login.router,
    preferences.router,
)
