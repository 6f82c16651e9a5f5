"""The console's pages: one module for each, with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from services.console.pages import connection, connections, inbox, login, preferences

ROUTERS: tuple[APIRouter, ...] = (
    connection.router,
    connections.router,
    inbox.router,
    login.router,
    preferences.router,
)
