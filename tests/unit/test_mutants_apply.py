"""Every mutant applies to the current code; one that does not proves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MUTANTS = sorted((ROOT / "tests/mutants").glob("*.patch"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.stem for one in MUTANTS])
def test_mutant_applies(mutant: Path) -> None:
    """`make mutants` checks whether a test fails with it."""
    command = ["git", "apply", "--check", str(mutant)]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr


def test_mutants_are_found() -> None:
    assert len(MUTANTS) > 20
