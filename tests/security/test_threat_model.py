"""The threat model in docs/security.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = dict(re.findall(r"^\| (T\d+) \| (.+) \|$", PAGE, re.MULTILINE))
_NAMED = re.compile(r"`(tests/[a-z_/]+\.py)::(test_[a-z0-9_]+)`")


def named_in(path: str) -> set[str]:
    """Return the names of the tests in a file; empty if the file does not exist."""
    file = ROOT / path
    if not file.is_file():
        return set()
    return {
        node.name
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def test_threats_are_numbered() -> None:
    """Consecutively from T1, and each row has four cells."""
    assert list(ROWS) == [f"T{number}" for number in range(1, len(ROWS) + 1)]
    assert len(ROWS) >= 30
    assert all(row.count(" | ") == 2 for row in ROWS.values())


@pytest.mark.parametrize("threat", ROWS)
def test_each_threat_names_existing_tests(threat: str) -> None:
    """Each test is named by file and function."""
    shown_by = ROWS[threat].rpartition(" | ")[2]
    named = _NAMED.findall(shown_by)

    assert ", ".join(f"`{path}::{test}`" for path, test in named) == shown_by
    assert [(path, test) for path, test in named if test not in named_in(path)] == []


def test_missing_test_is_not_found() -> None:
    assert named_in("tests/security/test_nothing.py") == set()
    assert "test_nothing" not in named_in("tests/security/test_threat_model.py")


@pytest.mark.parametrize("heading", ["Data flow", "In scope", "Out of scope", "Threats"])
def test_page_has_its_sections(heading: str) -> None:
    assert f"\n### {heading}\n" in PAGE
