"""What a failed read of Airbyte says about a change that was sent before it."""

from __future__ import annotations

import pytest

from shared.airbyte_reads import reading_back
from shared.errors import (
    Upstream,
    UpstreamConflict,
    UpstreamDenied,
    UpstreamForbidden,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
)


@pytest.mark.parametrize(
    "kind",
    [
        *(Upstream, UpstreamConflict, UpstreamDenied, UpstreamForbidden, UpstreamRefused),
        *(UpstreamTimeout, UpstreamUnknown, UpstreamUnreachable),
    ],
)
def test_failed_read_leaves_the_outcome_unknown(kind: type[Upstream]) -> None:
    """Also one that Airbyte itself answered: that request is over, but not the change."""
    error = kind("It cannot be read.")
    error.is_over = True

    with pytest.raises(UpstreamUnknown) as unknown, reading_back():
        raise error

    assert unknown.value.is_over is False
    assert "It cannot be read." in unknown.value.detail


def test_missing_object_cannot_change() -> None:
    with pytest.raises(UpstreamMissing), reading_back():
        raise UpstreamMissing("There is no such connection.")
