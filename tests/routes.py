"""FastAPI's analysis of a route, made once for all the applications that a run builds.

An application analyses each router that it includes, its parameters and models, before the first
request: a tenth of a second for the services of a mesh, which every test of theirs would spend.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute, _EffectiveRouteContext

_KEPT = "_aam_kept_context"


@pytest.fixture(autouse=True, scope="session")
def routes_are_analysed_once() -> Iterator[None]:
    """No service overrides dependencies, so applications can share the stored analysis."""
    analyse = _EffectiveRouteContext.from_api_route

    def analyse_once(
        cls: type[_EffectiveRouteContext], *, original_route: APIRoute, include_context: Any
    ) -> _EffectiveRouteContext:
        key = (
            include_context.prefix,
            include_context.tags,
            [one.dependency for one in include_context.dependencies],
        )
        kept = original_route.__dict__.get(_KEPT)
        if kept is None or kept[0] != key:
            analysed = analyse(original_route=original_route, include_context=include_context)
            kept = original_route.__dict__[_KEPT] = (key, analysed)
        context: _EffectiveRouteContext = kept[1]
        return context

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_EffectiveRouteContext, "from_api_route", classmethod(analyse_once))
        yield
