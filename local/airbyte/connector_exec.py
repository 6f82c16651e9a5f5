"""Asks Linux to kill this process when the plane exits, then replaces it by the connector.

Run as a plain file with `-I -S`, so that it starts in milliseconds and imports nothing of the
project. `preexec_fn` could do the same, but is unsafe in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by `argv[2:]`, unless its parent `argv[1]` has died meanwhile."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - replacing this process by the connector is its purpose


if __name__ == "__main__":
    main()
