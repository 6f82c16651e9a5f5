"""The assignment of the rag_engine, compared with SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from services.rag_engine.assignment import highest_gain


def _gains(seed: int) -> NDArray[np.float64]:
    """A matrix of gains between 0 and 1: sparse, with ties, or neither."""
    random = np.random.default_rng(seed)
    gain = random.random(random.integers(1, 41, size=2))
    if seed % 3 == 1:
        gain[random.random(gain.shape) < 0.9] = 0
    return np.round(gain, 1) if seed % 3 == 2 else gain


@pytest.mark.parametrize("seed", range(150))
def test_assignment_is_that_of_scipy(seed: int) -> None:
    """The same cells, also where several assignments have the same total."""
    gain = _gains(seed)

    rows, columns = highest_gain(gain)

    expected = linear_sum_assignment(gain, maximize=True)
    assert (rows.tolist(), columns.tolist()) == (expected[0].tolist(), expected[1].tolist())


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_assignment_of_nothing_is_empty(shape: tuple[int, int]) -> None:
    """No confidence may be high enough for a suggestion."""
    rows, columns = highest_gain(np.zeros(shape))
    assert rows.size == columns.size == 0


def test_assignment_of_four_hundred_fields() -> None:
    """As many as are renamed at once, with the few likely columns that each row then has."""
    random = np.random.default_rng(4)
    gain = random.random((400, 400)) * (random.random((400, 400)) < 0.05)

    rows, columns = highest_gain(gain)

    expected = linear_sum_assignment(gain, maximize=True)
    assert gain[rows, columns].sum() == pytest.approx(gain[expected].sum())
