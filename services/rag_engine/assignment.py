"""The assignment of rows to columns with the highest total gain.

By shortest augmenting paths: each row is added to the assignment of those before it along the
cheapest alternating path, as Dijkstra's algorithm finds it with reduced costs (D. F. Crouse, On
implementing 2D rectangular assignment algorithms, 2016). O(n³) at worst, one row of the matrix at
a time. Nothing else of SciPy is needed, which would be a quarter of the image.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Indexes: TypeAlias = NDArray[np.intp]

_FREE = -1


def highest_gain(gain: NDArray[np.float64]) -> tuple[Indexes, Indexes]:
    """The rows and columns of the assigned cells, ordered by row: min(gain.shape) of them.

    Among equal totals, it finds the assignment that scipy.optimize.linear_sum_assignment finds.
    """
    if gain.shape[0] > gain.shape[1]:
        columns, rows = _lowest_cost(-gain.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    return _lowest_cost(-gain)


def _lowest_cost(cost: NDArray[np.float64]) -> tuple[Indexes, Indexes]:
    """The same for costs, with at most as many rows as columns."""
    count, width = cost.shape
    of_row = np.zeros(count)
    of_column = np.zeros(width)
    column_of = np.full(count, _FREE, dtype=np.intp)
    row_of = np.full(width, _FREE, dtype=np.intp)
    for added in range(count):
        distance = np.full(width, np.inf)
        came_from = np.full(width, _FREE, dtype=np.intp)
        # In reverse, and the last one takes the place of one that leaves: that decides ties.
        open_columns = np.arange(width - 1, -1, -1, dtype=np.intp)
        closed: list[int] = []
        visited: list[int] = []
        row, reached = added, 0.0
        while True:
            visited.append(row)
            through = reached + cost[row, open_columns] - of_row[row] - of_column[open_columns]
            is_shorter = through < distance[open_columns]
            shorter = open_columns[is_shorter]
            distance[shorter] = through[is_shorter]
            came_from[shorter] = row
            place = _nearest(distance[open_columns], row_of[open_columns])
            column = int(open_columns[place])
            reached = float(distance[column])
            closed.append(column)
            if row_of[column] == _FREE:
                break
            row = int(row_of[column])
            open_columns[place] = open_columns[-1]
            open_columns = open_columns[:-1]
        others = np.array(visited[1:], dtype=np.intp)
        of_row[added] += reached
        of_row[others] += reached - distance[column_of[others]]
        of_column[closed] -= reached - distance[closed]
        while True:
            row = int(came_from[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
            if row == added:
                break
    return np.arange(count, dtype=np.intp), column_of


def _nearest(distances: NDArray[np.float64], rows: Indexes) -> int:
    """The index of the shortest distance: of equal ones the last without a row, or the first."""
    is_nearest = distances == distances.min()
    free = np.flatnonzero(is_nearest & (rows == _FREE))
    return int(free[-1] if free.size else np.argmax(is_nearest))
