"""One-time links that sign in at the console with the first API key.

A link is valid once, for a minute. Only its digest is stored, with a copy of the key; the console
deletes the file when it uses it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path

_VALID_S = 60.0


def links_in(state_dir: Path) -> Path:
    """The folder with the links that were not used yet."""
    return state_dir / "sign-in"


def new_link(state_dir: Path, console_url: str) -> str | None:
    """Make a link for the first API key; None if its file does not exist."""
    header = state_dir / "auth"
    if not header.is_file():
        return None
    key = header.read_text().strip().rpartition(" ")[2]
    folder = links_in(state_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    _delete_old(folder)
    token = secrets.token_urlsafe(32)
    made = folder / f"{token_digest(token)}.new"
    with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(f"{key}\n")
    made.rename(made.with_suffix(""))
    return f"{console_url}/sign-in?token={token}"


def token_digest(token: str) -> str:
    """The name of a link's file."""
    return hashlib.sha256(token.encode()).hexdigest()


def _delete_old(folder: Path) -> None:
    for file in folder.iterdir():
        if time.time() - file.stat().st_mtime > _VALID_S:
            file.unlink(missing_ok=True)
