"""`make demo` succeeds: each step checks its own result, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.deep
def test_demo_runs_to_its_end() -> None:
    """The exit code is 0 only if every step's checks passed."""
    run = processes.run(
        [sys.executable, "-m", "local", "demo"],
        cwd=REPOSITORY,
        timeout=480,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "All steps passed" in run.stdout
