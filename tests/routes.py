"""Caches FastAPI's route analysis, so that it runs once for all applications of a test run.

An application analyses the parameters and models of each included router before its first request.
For the services of a mesh that takes a tenth of a second, which each test would repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, _EffectiveRouteContext

_CACHED = "_aam_cached_context"


@pytest.fixture(autouse=True, scope="session")
def routes_are_analysed_once() -> Iterator[None]:
    """Share the analysis between applications, which is safe as none overrides dependencies."""
    analyse = _EffectiveRouteContext.from_api_route

    def analyse_once(
        cls: type[_EffectiveRouteContext], *, original_route: APIRoute, include_context: Any
    ) -> _EffectiveRouteContext:
        key = (
            include_context.prefix,
            include_context.tags,
            [one.dependency for one in include_context.dependencies],
        )
        cached = original_route.__dict__.get(_CACHED)
        if cached is None or cached[0] != key:
            analysed = analyse(original_route=original_route, include_context=include_context)
            cached = original_route.__dict__[_CACHED] = (key, analysed)
        context: _EffectiveRouteContext = cached[1]
        return context

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_EffectiveRouteContext, "from_api_route", classmethod(analyse_once))
        yield
