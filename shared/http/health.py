"""Health and readiness responses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict

from shared.errors import AamError

Check = Callable[[], Awaitable[object]]


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


async def state_of(check: Check, *, within_s: float) -> str:
    try:
        async with asyncio.timeout(within_s):
            if await check() is False:
                return "it reports that it is unavailable"
    except TimeoutError:
        return f"no response within {within_s:g} s"
    except AamError as error:
        return error.detail
    return "ok"
