"""Applies each mutant to a copy of the project, and requires the test that it names to fail.

A test that passes with its mutant applied proves nothing; then this command fails.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = sorted((ROOT / "tests" / "mutants").glob("*.patch"))
_TESTS_FAILED = 1
"""pytest's exit code if tests failed; a test that cannot be collected has another one."""


def is_killed_by_its_test(patch: Path) -> tuple[bool, str]:
    """Whether the test that a patch names fails with it, and pytest's line about that."""
    tests = patch.read_text().splitlines()[0].removeprefix("Must fail: ")
    with tempfile.TemporaryDirectory(prefix="aam-mutant-") as folder:
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        subprocess.run(["git", "apply", str(patch)], cwd=folder, check=True)
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "120", *shlex.split(tests)],
            cwd=folder,
            env={**os.environ, "AAM_FAULTS": "all", "AAM_DEEP": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED ")]
    return run.returncode == _TESTS_FAILED and bool(failed), (failed or [tests])[0]


def main() -> int:
    """Run every mutant, or those whose names begin with an argument; return 1 if one is alive."""
    wanted = sys.argv[1:]
    chosen = [one for one in PATCHES if not wanted or one.stem.startswith(tuple(wanted))]
    alive = []
    for patch in chosen:
        is_killed, verdict = is_killed_by_its_test(patch)
        print(f"{'killed' if is_killed else 'ALIVE '} {patch.stem}: {verdict}", flush=True)  # noqa: T201
        if not is_killed:
            alive.append(patch.stem)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} mutants were killed")  # noqa: T201
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
