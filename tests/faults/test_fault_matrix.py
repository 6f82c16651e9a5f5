"""The fault matrix: real processes, kill -9, stopped servers; all invariants hold afterwards."""

from __future__ import annotations

import os

import pytest

from tests.faults.case import Cell
from tests.faults.cells import CELLS
from tests.faults.world import World

pytestmark = pytest.mark.process

_RUN_ALL = bool(os.environ.get("AAM_FAULTS"))
"""Whether to run every cell instead of an evenly spread sample."""
_SAMPLED = 10


def _chosen() -> list[Cell]:
    return CELLS if _RUN_ALL else CELLS[:: len(CELLS) // _SAMPLED][:_SAMPLED]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in _chosen()])
async def test_fault_matrix_cell(world: World, cell: Cell) -> None:
    """After the fault and the recovery from it, every invariant holds again."""
    await cell.run(world)


def test_matrix_is_complete() -> None:
    """Cell ids are unique, and the number of cells has not dropped."""
    assert len({cell.id for cell in CELLS}) == len(CELLS) >= 130
    assert sum("-then-" in cell.id for cell in CELLS) >= 20
