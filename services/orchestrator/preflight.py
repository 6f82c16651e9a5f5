"""Reads of Airbyte that precede an operation: while it is unavailable, nothing is recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared import airbyte_reads
from shared.errors import UpstreamConflict, UpstreamUnknown, UpstreamUnreachable


@asynccontextmanager
async def nothing_recorded() -> AsyncIterator[None]:
    """Convert errors of an unavailable Airbyte in the block, and wait for it ten seconds at most.

    Raises:
        Unavailable: Airbyte gave no answer, so the request may be repeated.
    """
    try:
        async with airbyte_reads.airbyte_answers_by(airbyte_reads.airbyte_deadline()):
            yield
    except (UpstreamUnreachable, UpstreamUnknown, UpstreamConflict) as error:
        raise airbyte_reads.nothing_recorded(error) from None
