"""Reads of Airbyte that precede an operation: while it is unavailable, nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Unavailable, UpstreamConflict, UpstreamUnknown, UpstreamUnreachable


@contextmanager
def nothing_recorded() -> Iterator[None]:
    """Convert errors of an unavailable Airbyte in the block.

    Raises:
        Unavailable: Airbyte gave no answer, so the request may be repeated.
    """
    try:
        yield
    except (UpstreamUnreachable, UpstreamUnknown, UpstreamConflict) as error:
        raise Unavailable(f"{error.detail} Nothing was recorded.", code=error.code) from None
