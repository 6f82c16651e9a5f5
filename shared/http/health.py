"""GET /health and GET /ready of every service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from shared.errors import AamError
from shared.http.dependencies import from_state
from shared.http.problems import RETRY_SOON
from shared.http.single_flight import SingleFlight

Check = Callable[[], Awaitable[object]]

_DECISIVE_WITHIN_S = 3.0
_OTHERS_WITHIN_S = 0.8
"""Less than the one second of a Kubernetes probe, so a hanging optional check cannot fail it."""


@dataclass(frozen=True, slots=True)
class Checks:
    """A check for each dependency by its name; raises an AamError while that is unavailable."""

    decisive: Mapping[str, Check]
    """Of dependencies that every request needs."""
    others: Mapping[str, Check]
    """Of dependencies that only some requests need."""
    _flight: SingleFlight[dict[str, str]] = field(default_factory=SingleFlight, init=False)

    async def states(self) -> dict[str, str]:
        """`ok` or the reason of each, decisive ones first.

        Anybody may ask for this without credentials, so at most one run is in progress.
        """
        return await self._flight.run(self._run)

    async def _run(self) -> dict[str, str]:
        found = await asyncio.gather(
            *(_state_of(check, within_s=_DECISIVE_WITHIN_S) for check in self.decisive.values()),
            *(_state_of(check, within_s=_OTHERS_WITHIN_S) for check in self.others.values()),
        )
        return dict(zip([*self.decisive, *self.others], found, strict=True))


class Health(BaseModel):
    """The process is running; its dependencies are not checked."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


class Readiness(BaseModel):
    """Whether the service can handle requests; each of `checks` is `ok` or the reason it fails.

    `ready` covers the dependencies that every request needs. `degraded` names the others that are
    unavailable while the service is ready: only the requests that need those fail.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ready": True,
                    "degraded": ["airbyte"],
                    "checks": {
                        "registry": "ok",
                        "airbyte": "Airbyte cannot be reached at the moment.",
                    },
                }
            ]
        }
    )

    ready: bool
    degraded: list[str] | None = None
    checks: dict[str, str]


router = APIRouter(tags=["operations"])


@router.get("/health")
async def health() -> Health:
    """Report that the process is running."""
    return Health()


@router.get(
    "/ready",
    response_model_exclude_none=True,
    responses={503: {"model": Readiness, "description": "It cannot respond at the moment"}},
)
async def readiness(
    response: Response, checks: Annotated[Checks, from_state("checks")]
) -> Readiness:
    """Report whether the service is ready: 200 while its registry responds and accepts writes.

    While another dependency, for example Airbyte, is unavailable, the service is `degraded`:
    callers can still read and decide, so a load balancer should keep it in rotation.
    """
    shown = await checks.states()
    is_ready = all(shown[name] == "ok" for name in checks.decisive)
    away = [name for name in checks.others if shown[name] != "ok"]
    if not is_ready:
        response.status_code = 503
        response.headers.update(RETRY_SOON)
    return Readiness(ready=is_ready, degraded=away if is_ready and away else None, checks=shown)


async def _state_of(check: Check, *, within_s: float) -> str:
    try:
        async with asyncio.timeout(within_s):
            if await check() is False:
                return "it reports that it is unavailable"
    except TimeoutError:
        return f"no response within {within_s:g} s"
    except AamError as error:
        return error.detail
    return "ok"
