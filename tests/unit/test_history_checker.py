"""The history checker finds each anomaly by name, and reports none in a clean history."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.histories import Call, Ending, History, anomalies

CLEAN = History(
    calls=[
        Call("apply", "c", 1.0, 2.0, 200, "a", 1, 2),
        Call("apply", "c", 2.5, 3.0, 409, "b"),
        Call("apply", "c", 3.5, None, None, "d"),
        Call("apply", "c", 5.0, 6.0, 200, "e", 3, 4),
        Call("sync", "c", 1.0, 2.0, 202, job=7),
        Call("sync", "c", 1.0, 2.0, 409),
    ],
    endings={
        "c": Ending(
            versions=[(1, ""), (2, "a"), (3, "d"), (4, "e")],
            head=4,
            status="ACTIVE",
            held="e",
            jobs=[7],
            recorded_jobs=[7],
        )
    },
)
END = CLEAN.endings["c"]


def ending(**changes: object) -> History:
    return replace(CLEAN, endings={"c": replace(END, **changes)})  # type: ignore[arg-type]


def calling(*calls: Call) -> History:
    return replace(CLEAN, calls=[*CLEAN.calls, *calls])


def test_clean_history_has_no_anomaly() -> None:
    """An answer that never came may have been applied or not."""
    assert anomalies(CLEAN) == []


@pytest.mark.parametrize(
    "planted, name",
    [
        (ending(versions=[(1, ""), (2, "a"), (4, "e")]), "gap"),
        (ending(head=3, held="d"), "gap"),
        (ending(versions=[(1, ""), (2, "a"), (2, "x"), (3, "d"), (4, "e")]), "duplicate"),
        (ending(versions=[*END.versions, (5, "d")], head=5, held="d"), "applied_twice"),
        (ending(versions=[(1, ""), (2, "x"), (3, "d"), (4, "e")]), "acknowledged_but_lost"),
        (calling(Call("apply", "c", 7.0, 8.0, 422, "d")), "refused_but_applied"),
        (calling(Call("apply", "c", 7.0, 8.0, 503, "d")), "refused_but_applied"),
        (calling(Call("apply", "c", 4.0, 4.5, 200, "d", 1, 3)), "expectation_ignored"),
        (calling(Call("apply", "c", 7.0, 8.0, 200, "d", None, 3)), "real_time_order"),
        (ending(held="d"), "head_not_in_airbyte"),
        (ending(held=None), "head_not_in_airbyte"),
        (ending(status="HEALING"), "stuck"),
        (ending(updates_at_once=2), "two_heals_at_once"),
        (ending(jobs=[7, 8], recorded_jobs=[7, 8]), "job_doubled"),
        (ending(jobs=[], recorded_jobs=[]), "job_lost"),
        (ending(recorded_jobs=[]), "job_lost"),
        (replace(CLEAN, orphans=["source 1"]), "orphan"),
        (replace(CLEAN, missing=["source 1"]), "orphan"),
        (replace(CLEAN, open_operations=["1"]), "stuck"),
    ],
)
def test_each_anomaly_is_found(planted: History, name: str) -> None:
    assert name in {anomaly.partition(":")[0] for anomaly in anomalies(planted)}


@given(st.lists(st.sampled_from(["done", "refused", "lost", "unheard"]), max_size=30))
def test_sequential_calls_have_no_anomaly(outcomes: list[str]) -> None:
    calls, versions = [], [(1, "")]
    for position, outcome in enumerate(outcomes):
        mark, at = f"m{position}", float(position)
        if outcome in ("done", "unheard"):
            versions.append((len(versions) + 1, mark))
        calls.append(
            Call("apply", "c", at, at + 0.5, 200, mark, len(versions) - 1, len(versions))
            if outcome == "done"
            else Call("apply", "c", at, at + 0.5, 409, mark)
            if outcome == "refused"
            else Call("apply", "c", at, mark=mark)
        )
    head, held = versions[-1]
    assert anomalies(History(calls, {"c": Ending(versions, head, "ACTIVE", held)})) == []
