"""Health checks: the console is ready as soon as it runs, whichever service is away."""

from __future__ import annotations

import asyncio
from functools import partial

from fastapi import APIRouter, Request

from services.console.api import SERVICES, Clients
from shared.http.health import Health, Readiness
from shared.http.single_flight import SingleFlight

router = APIRouter()


@router.get("/health")
async def health() -> Health:
    """Report that the process is running."""
    return Health()


@router.get("/ready", response_model_exclude_none=True)
async def ready(request: Request) -> Readiness:
    """Report which services answer; pages show what is missing, so the console stays ready."""
    clients: Clients = request.app.state.clients
    flight: SingleFlight[dict[str, str]] = request.app.state.readiness
    checks = await flight.run(partial(_checks, clients))
    away = [name for name, check in checks.items() if check != "ok"]
    return Readiness(ready=True, degraded=away or None, checks=checks)


async def _checks(clients: Clients) -> dict[str, str]:
    found = await asyncio.gather(*(clients.is_running(name) for name in SERVICES))
    return {
        name: "ok" if is_running else f"The {name} does not answer."
        for name, is_running in zip(SERVICES, found, strict=True)
    }
