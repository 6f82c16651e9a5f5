"""`make test-all`: the whole suite, then each in-depth run; prints the duration of each.

A failed part does not stop the next ones; the command fails if any part failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

_PARALLEL = ("-n", "4", "--dist", "load")


@dataclass(frozen=True)
class Part:
    """A Python module to run with its arguments and additional environment variables."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def parts(suite: tuple[str, ...]) -> list[Part]:
    """Return the parts in the order they run; `suite` holds pytest's arguments for the suite."""
    return [
        Part("a browser for the journeys", ("tests.browser",)),
        Part("tests", ("pytest", *suite), {"AAM_DEEP": "1"}),
        Part(
            "fault matrix and 200 histories",
            (
                "pytest",
                *_PARALLEL,
                "tests/faults/test_fault_matrix.py",
                "tests/faults/test_histories.py",
            ),
            {"AAM_FAULTS": "all", "AAM_DEEP": "1"},
        ),
        Part(
            "100 random requests of each operation",
            ("pytest", *_PARALLEL, "tests/contract/test_schemathesis.py"),
            {"AAM_SCHEMATHESIS": "100", "AAM_DEEP": "1"},
        ),
        Part(
            "10,000 random bodies",
            ("pytest", "tests/security/test_random_bodies.py"),
            {"AAM_BODIES": "10000"},
        ),
        Part(
            "5 % of Airbyte calls fail",
            ("pytest", *_PARALLEL, "tests/integration", "--ignore", "tests/integration/local"),
            {"AAM_FAULT_RATE": "0.05"},
        ),
        Part("four third-party clients", ("tests.clients",)),
        Part("mutants", ("tests.mutants",)),
        Part("corpus of connector releases", ("tests.corpus",)),
        Part("scale: 1,000 connections", ("tests.scale", "1000")),
    ]


def main() -> int:
    """Run the parts sequentially; this command's arguments are passed to pytest for the suite."""
    outcomes: list[tuple[Part, int, float]] = []
    for part in parts(tuple(sys.argv[1:])):
        print(f"\n== {part.name}", flush=True)  # noqa: T201
        began = time.monotonic()
        run = subprocess.run(
            [sys.executable, "-m", *part.command],
            env={**os.environ, **part.environment},
            check=False,
        )
        outcomes.append((part, run.returncode, time.monotonic() - began))
    print()  # noqa: T201
    for part, code, took_s in outcomes:
        print(f"{'FAILED' if code else 'passed'} {took_s:7.1f} s  {part.name}")  # noqa: T201
    return int(any(code for _, code, _ in outcomes))


if __name__ == "__main__":
    sys.exit(main())
