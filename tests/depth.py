"""Deselects the deep tests, which `make test-all` runs, unless AAM_DEEP is set.

`@pytest.mark.deep(after=2)` is about the cases of a parametrized test after its second one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Deselect before pytest-randomly shuffles the items, so that every run has the same."""
    if not os.environ.get("AAM_DEEP"):
        deep = _deep_ones(items)
        config.hook.pytest_deselected(items=deep)
        deselected = set(deep)
        items[:] = [one for one in items if one not in deselected]
    return (yield)


def _deep_ones(items: list[pytest.Item]) -> list[pytest.Item]:
    seen: Counter[str] = Counter()
    deep = []
    for item in items:
        if (mark := item.get_closest_marker("deep")) is not None:
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > mark.kwargs.get("after", 0):
                deep.append(item)
    return deep
