"""How long properties are tried, and what is left out where there is nothing to judge it by.

The same examples each time, on a machine that others use too.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.bench import renames

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "searching", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect, and say so once, what needs the renames that developers declared."""
    if renames.FILE.is_file():
        return
    judged = [item for item in items if "declared_rename" in item.name]
    if not judged:
        return
    items[:] = [item for item in items if item not in judged]
    config.hook.pytest_deselected(items=judged)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"{len(judged)} tests are left out: {renames.ABSENT}")
