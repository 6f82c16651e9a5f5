"""`python -m tests.clients`: install the clients where that is needed, then run the tests of them.

Apart from the tests, since the first installation takes longer than a test may. Arguments are
pytest's.
"""

from __future__ import annotations

import subprocess
import sys
import time

from tests.clients.environments import CLIENTS, python_of


def main() -> int:
    """Return pytest's exit code."""
    for client in CLIENTS:
        began = time.monotonic()
        python_of(client)
        print(f"{time.monotonic() - began:7.1f} s  {client} is installed", flush=True)  # noqa: T201
    tests = "tests/clients/check_clients.py"
    command = [sys.executable, "-m", "pytest", tests, "--durations=0", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
