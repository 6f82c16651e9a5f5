"""Limits the size of logs that processes hold open: the end is copied, then the log truncated.

Processes append, so they continue at the start of the truncated file. A line written in the
microseconds between the copy and the truncation is lost; the alternative, reopening the log on a
signal, is not supported by every program.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from local.processes.servers import private_log


def rotate(path: Path, *, most_bytes: int, keep: int) -> bool:
    """Truncate a log that is larger than `most_bytes`, after saving its end.

    The last `keep` ends are retained as `.1` (the newest) and so on, none larger than `most_bytes`.
    Where nothing can be copied, as on a full disk, the log is truncated anyway. Returns whether the
    log was too large.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    if size <= most_bytes:
        return False
    for number in range(keep, 0, -1):
        with suppress(FileNotFoundError):
            _end(path, number).replace(_end(path, number + 1))
    _end(path, keep + 1).unlink(missing_ok=True)
    newest = _end(path, 1)
    with suppress(OSError):
        _copy_end(path, newest, most_bytes)
    os.truncate(path, 0)
    with suppress(OSError):
        _trim(newest, most_bytes)
    return True


def rotate_all(folder: Path, *, most_bytes: int, keep: int) -> None:
    """Rotate every `*.log` of a folder."""
    for path in folder.glob("*.log"):
        rotate(path, most_bytes=most_bytes, keep=keep)


def _copy_end(path: Path, target: Path, most_bytes: int) -> None:
    with path.open("rb") as source, private_log(target) as copy:
        source.seek(max(0, path.stat().st_size - most_bytes))
        shutil.copyfileobj(source, copy)


def _trim(end: Path, most_bytes: int) -> None:
    """Drop the oldest lines if the log grew while its end was copied."""
    if end.stat().st_size <= most_bytes:
        return
    trimmed = end.with_name(f"{end.name}.trimmed")
    try:
        trimmed.unlink(missing_ok=True)
        _copy_end(end, trimmed, most_bytes)
        trimmed.replace(end)
    finally:
        trimmed.unlink(missing_ok=True)


def _end(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
