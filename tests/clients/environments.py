"""Virtual environments of the clients, created from their requirement files when first needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements")
ENVIRONMENTS = ROOT / ".venv-clients"
CLIENTS = tuple(sorted(path.stem for path in REQUIREMENTS.glob("*.txt")))


def python_of(client: str) -> Path:
    """Return the interpreter of a client's environment; new pins create it again.

    The first time takes minutes: PyAirbyte and its dependencies have 780 MB.

    Raises:
        CalledProcessError: the packages cannot be installed.
    """
    home, requirements = ENVIRONMENTS / client, REQUIREMENTS / f"{client}.txt"
    python, made = home / "bin/python", home / "made-from.txt"
    if made.exists() and made.read_bytes() == requirements.read_bytes():
        return python
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    # The file names every dependency, and pip cannot match its extras to those that packages need.
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
    ]
    subprocess.run([*install, "-r", requirements], check=True)
    shutil.copyfile(requirements, made)
    return python
