"""The libraries that the specification names are required, and each is used for what it is for."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOR_THE_SERVICES = (
    "fastapi", "uvicorn", "pydantic-settings", "sqlalchemy", "asyncpg", "psycopg2-binary", "redis",
    "httpx", "alembic",
)  # fmt: skip
FOR_THE_TESTS = ("pytest", "pytest-asyncio", "respx")
_MODULES = {"psycopg2-binary": "psycopg2"}


def _named(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", one, maxsplit=1)[0].lower() for one in requirements}


def _pinned(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {line.partition("==")[0].partition("[")[0] for line in lines if "==" in line}


@cache
def _imported(*folders: str) -> set[str]:
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules.add((node.module or "").partition(".")[0])
    return modules


@pytest.mark.parametrize("name", FOR_THE_SERVICES)
def test_service_library_is_pinned_and_used(name: str) -> None:
    """In pyproject.toml, pinned in both requirement files, and used by what they install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert name in _named(project["dependencies"])
    assert name in _pinned("requirements.txt")
    assert name in _pinned("requirements-dev.txt")
    if name == "psycopg2-binary":  # SQLAlchemy imports it, by the dialect that its URL names
        assert 'driver="psycopg2"' in (ROOT / "shared/database.py").read_text()
        assert "connect_synchronously" in (ROOT / "migrations/env.py").read_text()
    else:
        assert name.replace("-", "_") in _imported("services", "shared", "migrations")


@pytest.mark.parametrize("name", FOR_THE_TESTS)
def test_test_library_is_pinned_and_used(name: str, pytestconfig: pytest.Config) -> None:
    """In the development requirements alone, and used by the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert name in _named(project["optional-dependencies"]["dev"])
    assert name in _pinned("requirements-dev.txt")
    assert name not in _pinned("requirements.txt")
    if name == "pytest-asyncio":
        assert pytestconfig.pluginmanager.has_plugin("asyncio")
    else:
        assert name in _imported("tests")
