"""Reads of Airbyte that precede an operation: while it is unavailable, nothing is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from shared.airbyte_reads import airbyte_answers_by, airbyte_deadline
from shared.airbyte_reads import nothing_recorded as unavailable
from shared.errors import UpstreamConflict, UpstreamUnknown, UpstreamUnreachable


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Convert errors of an unavailable Airbyte in the block, which may start a connector.

    Raises:
        Unavailable: Airbyte gave no answer, so the request may be repeated.
    """
    try:
        yield
    except (UpstreamUnreachable, UpstreamUnknown, UpstreamConflict) as error:
        raise unavailable(error) from None


@asynccontextmanager
async def answered_soon() -> AsyncIterator[None]:
    """As `nothing_recorded`, for a block that starts no connector: Airbyte has ten seconds.

    Raises:
        Unavailable: Airbyte gave no answer by then, so the request may be repeated.
    """
    with nothing_recorded():
        async with airbyte_answers_by(airbyte_deadline()):
            yield
