"""Deselects the contract tests with Airbyte if its OpenAPI documents are not available."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.openapi import FOLDER

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that need the documents, and report their number."""
    if FOLDER.is_dir():
        return
    judged = [item for item in items if _HERE in item.path.parents and "airbyte" in item.path.name]
    if not judged:
        return
    items[:] = [item for item in items if item not in judged]
    config.hook.pytest_deselected(items=judged)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(
            f"{len(judged)} contract tests are deselected: no Airbyte OpenAPI documents in "
            f"{FOLDER} (set AIRBYTE_OPENAPI_DIR to their path)."
        )
