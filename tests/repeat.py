"""`make test-repeat N=10`: run the suite N times, each time in a different random order.

Prints one line per run: number, seed, result, duration and counts. For a failed run it also prints
the failures and the path of the complete output. `--randomly-seed` of pytest reproduces a run.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_FAULTS = re.compile(r"^(?:FAILED|ERROR|LEAKED|INTERNALERROR>) ?.*", re.MULTILINE)
_TOTALS = re.compile(
    r"^=* ?(\d+ (?:passed|failed|skipped|error)[^=]*?) in [\d.]+s.*$", re.MULTILINE
)


def main() -> int:
    """Run the suite; the arguments are the number of runs, then those of pytest."""
    count, arguments = int(sys.argv[1]), sys.argv[2:]
    failures = 0
    for number in range(1, count + 1):
        seed = random.SystemRandom().getrandbits(32)
        began = time.monotonic()
        run = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, f"--randomly-seed={seed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        took_s = time.monotonic() - began
        totals = _TOTALS.findall(run.stdout)
        counts = totals[-1] if totals else f"pytest ended with {run.returncode}"
        result = "FAILED" if run.returncode else "passed"
        print(f"{number:3d}  seed {seed:10d}  {result}  {took_s:6.1f} s  {counts}", flush=True)  # noqa: T201
        if run.returncode:
            failures += 1
            faults = _FAULTS.findall(run.stdout) or run.stdout.splitlines()[-20:]
            output = Path(tempfile.gettempdir(), f"aam-repeat-{seed}.txt")
            output.write_text(run.stdout)
            print("\n".join(f"     {line}" for line in [*faults, str(output)]), flush=True)  # noqa: T201
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
