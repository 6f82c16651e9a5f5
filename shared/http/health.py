"""Whether a process runs, and whether it can answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import BaseModel, ConfigDict

from shared.errors import AamError

Check = Callable[[], Awaitable[object]]


class Health(BaseModel):
    """The process runs; nothing is said about what it stands on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


class Readiness(BaseModel):
    """Whether the service can answer now; `checks` says `ok`, or what is missing.

    `ready` is about what no request can do without. `degraded` names what else is away while it is
    ready: most of the API answers, and what needs the missing part says so.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ready": True,
                    "degraded": ["airbyte"],
                    "checks": {"registry": "ok", "airbyte": "Airbyte cannot be reached now."},
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
                return "it says that it is not available"
    except TimeoutError:
        return f"no answer within {within_s:g} s"
    except AamError as error:
        return error.detail
    return "ok"
