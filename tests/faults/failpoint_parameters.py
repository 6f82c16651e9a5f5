"""Failpoints as pytest parameters."""

from __future__ import annotations

from typing import Any

import pytest


def points(*quick: str, deep: tuple[str, ...]) -> list[Any]:
    """Return parameters for all of them; those in `deep` run only with AAM_DEEP=1."""
    return [*quick, *(pytest.param(point, marks=pytest.mark.deep) for point in deep)]
