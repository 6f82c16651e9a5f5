"""The fault matrix: real processes, real kill -9, real servers stopped; the world is looked at."""

from __future__ import annotations

import os

import pytest

from tests.faults.case import Cell
from tests.faults.cells import CELLS
from tests.faults.world import World

_IS_WHOLE = bool(os.environ.get("AAM_FAULTS"))
"""Whether every cell is played, and not a spread sample."""
_SAMPLED = 20


def _chosen() -> list[Cell]:
    return CELLS if _IS_WHOLE else CELLS[:: len(CELLS) // _SAMPLED][:_SAMPLED]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in _chosen()])
async def test_fault_matrix_cell(world: World, cell: Cell) -> None:
    """After the fault and the recovery from it, every invariant holds again."""
    await cell.run(world)


def test_matrix_is_complete() -> None:
    """No cell is listed twice, and none is missing."""
    assert len({cell.id for cell in CELLS}) == len(CELLS) >= 130
    assert sum("-then-" in cell.id for cell in CELLS) >= 20
