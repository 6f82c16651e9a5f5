"""Files of shell variables, readable only by their owner."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Replace the file; it also sets a umask of 077 in the shell that sources it."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text("".join(["umask 077\n", *lines]))


def read(path: Path) -> dict[str, str]:
    """The variables that the file exports; empty if there is no file."""
    if not path.exists():
        return {}
    words = (shlex.split(line) for line in path.read_text().splitlines())
    pairs = (line[1].partition("=") for line in words if line[:1] == ["export"])
    return {name: value for name, _, value in pairs}
