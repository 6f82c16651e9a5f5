"""Reads of Airbyte before anything is recorded: how long they may take, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from shared.errors import (
    Unavailable,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)

READ_FAILURES: Final = (UpstreamUnreachable, UpstreamUnknown, UpstreamConflict, UpstreamDenied)
"""The errors of a read that gave no result."""
_WITHIN_S: Final = 10.0
"""How long one request's checks wait for Airbyte in all; shorter than PEER_TIMEOUT's default."""


def airbyte_deadline() -> float:
    """Until when a request that begins now waits for Airbyte, by the event loop's clock.

    Reads of Airbyte are repeated up to AIRBYTE_TIMEOUT, which is longer than callers wait.
    """
    return asyncio.get_running_loop().time() + _WITHIN_S


@asynccontextmanager
async def airbyte_answers_by(deadline: float | None) -> AsyncIterator[None]:
    """Limit the block, which only reads from Airbyte, to a deadline; None for no limit.

    Raises:
        Unavailable: Airbyte has not answered by then.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        late = UpstreamTimeout(f"Airbyte gave no answer within {_WITHIN_S:g} s.")
        raise nothing_recorded(late) from None


def nothing_recorded(
    error: UpstreamUnreachable | UpstreamUnknown | UpstreamConflict | UpstreamDenied,
) -> Unavailable:
    """The error of a request whose read failed before anything was recorded."""
    return Unavailable(f"{error.detail} Nothing was recorded.", code=error.code)
