"""Reads of Airbyte before anything is recorded, and after a change was sent; what if they fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from shared.errors import (
    Unavailable,
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamMissing,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)

AWAY: Final = (UpstreamUnreachable, UpstreamUnknown, UpstreamConflict, UpstreamDenied)
"""The errors of a read after which nothing is known."""
_WITHIN_S: Final = 10.0
"""How long one request's checks wait for Airbyte in all; shorter than PEER_TIMEOUT's default."""


def airbyte_deadline() -> float:
    """The time of the event loop's clock until which a request that begins now waits for Airbyte.

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
    """Convert an error of a read before anything is recorded."""
    return Unavailable(f"{error.detail} Nothing was recorded.", code=error.code)


@contextmanager
def reading_back() -> Iterator[None]:
    """Within it, only Airbyte is read, to find out whether a change that was sent took effect.

    A read that fails, even for good, says nothing about the change, which may take effect later.

    Raises:
        UpstreamMissing: Airbyte does not have the object, so it cannot change any more.
        UpstreamUnknown: the read failed in any other way.
    """
    try:
        yield
    except UpstreamMissing:
        raise
    except Upstream as error:
        raise UpstreamUnknown(
            f"Whether the change took effect is unknown. {error.detail}"
        ) from None
