"""One-time links: `make up` leaves a key in a folder under a link's digest, and prints the link.

A link's file is taken by renaming it, which only one process can do, whichever replica is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from pathlib import Path
from typing import Final

_VALID_S: Final = 60.0
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{32,64}")


async def redeemed(folder: Path | None, token: str) -> str | None:
    """The API key of a link, once; None if it was used, is too old, or there are no links."""
    if folder is None or not _TOKEN.fullmatch(token):
        return None
    return await asyncio.to_thread(_redeemed, folder, token)


def _redeemed(folder: Path, token: str) -> str | None:
    offered = folder / hashlib.sha256(token.encode()).hexdigest()
    taken = offered.with_suffix(".taken")
    try:
        offered.rename(taken)
    except FileNotFoundError:
        return None
    try:
        age_s = time.time() - taken.stat().st_mtime
        return taken.read_text().strip() if 0 <= age_s < _VALID_S else None
    finally:
        taken.unlink()
