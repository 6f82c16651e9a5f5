"""Whether a discovery is believed, or so much is missing that it is doubted first. Pure.

An object that a lost permission hides vanishes from a discovery exactly as a dropped one does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec

from shared.domain.catalog import StreamId

FEW: Final = 5
"""So many streams may go at once from any source: somebody tidied up."""
SHARE: Final = 0.2
"""Of a big source, so large a part may go: more looks like another user's view of it."""
_NAMED: Final = 3

Code = Literal["no_streams", "streams_missing", "synced_stream_missing"]


class Doubt(msgspec.Struct, frozen=True):
    """Why a discovery is not believed at the first sight."""

    code: Code
    detail: str


def doubt(
    *, before: int, now: int, gone: Collection[StreamId], synced: Collection[StreamId]
) -> Doubt | None:
    """Why a source that offered `before` streams and offers `now` is not believed; None if it is.

    `gone` are those it does not offer any more, `synced` those that connections sync. One synced
    stream is enough. Of others, more than FEW and SHARE together, or more than half.
    """
    if now == 0:
        return Doubt("no_streams", f"The source offers no streams; before, it offered {before}.")
    lost = sorted(set(gone) & set(synced), key=lambda stream: stream.order)
    told = f"{len(gone)} of {before} streams are gone"
    if lost:
        names = ", ".join(str(stream) for stream in lost[:_NAMED])
        more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
        return Doubt("synced_stream_missing", f"{told}, and these are synced: {names}{more}.")
    if len(gone) > min(before / 2, max(FEW, SHARE * before)):
        return Doubt("streams_missing", f"{told}.")
    return None
