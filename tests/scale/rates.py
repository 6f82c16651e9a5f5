"""What the simulated fleet is and does: every assumption, with its unit and its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """One assumption about the fleet."""

    what: str
    value: float
    reason: str


CONNECTIONS_PER_SOURCE: Final = Rate(
    "connections of one source", 3, "a warehouse, a lake and a test system, for example"
)
YEARS: Final = Rate("years of history", 2, "long enough for every retention to have taken effect")
CHANGES_A_YEAR: Final = Rate(
    "schema changes of one source a year",
    2,
    "assumed; APIs change more rarely, databases and CRMs more often",
)
SYNCS_A_DAY: Final = Rate("syncs of one connection a day", 1, "daily loads, kept for JOB_RETENTION")
SYNCED_STREAMS: Final = Rate(
    "streams that one connection syncs",
    3,
    "each is counted with every sync; large orgs sync hundreds",
)
OFFERED_STREAMS: Final = Rate(
    "streams that one source offers", 12, "with their fields, a catalog of 26 kB"
)
FIELDS: Final = Rate("fields of one stream", 20, "an ordinary table")
REMOVALS: Final = Rate(
    "share of the changes that remove a field", 0.25, "they wait for a person; others are applied"
)
OPEN_REPAIRS: Final = Rate(
    "share of the connections with an open repair", 0.01, "a backlog that people work off"
)
RARE_EVENTS_A_YEAR: Final = Rate(
    "timeline events of one connection a year", 4, "failed observations, pauses, edits in Airbyte"
)
EVENTS_PER_SYNC: Final = Rate("events of one sync", 2, "triggered and finished, kept for a week")
OPERATIONS_A_MONTH: Final = Rate(
    "operations of one connection in 30 days", 1, "a sync, an edit or an apply by request"
)
FAILED_SYNCS: Final = Rate("share of the syncs that fail", 0.02, "assumed; most are retried")
MEDIAN_S: Final = Rate("median of a discovery, in seconds", 20, "a connector's container starts")
P99_S: Final = Rate("99th percentile of a discovery, in seconds", 300, "large orgs, slow APIs")
LONGEST_S: Final = Rate(
    "longest discovery, in seconds", 600, "DISCOVER_TIMEOUT ends those that take longer: 0.2 %"
)
THREADS: Final = Rate("discoveries at once in one workspace", 25, "Airbyte's own limit")
LARGEST_WORKSPACE: Final = Rate(
    "share of the sources in the largest workspace", 0.25, "so that others could be starved"
)
INTERVAL_S: Final = Rate(
    "seconds between two observations of a source", DAY_S, "once a day: OBSERVE_INTERVAL=86400"
)

RATES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Rate))

SIGMA: Final = math.log(P99_S.value / MEDIAN_S.value) / 2.326348
"""Of the logarithm of a discovery's time, which is normally distributed."""
MEAN_S: Final = MEDIAN_S.value * math.exp(SIGMA**2 / 2)
"""The mean of a discovery, without the cut at `LONGEST_S`."""
_SMALLEST: Final = 8
_BUSY: Final = 0.5
"""How much of a workspace's threads may be in use on average."""


def sources(connections: int) -> int:
    """How many sources so many connections have."""
    return math.ceil(connections / CONNECTIONS_PER_SOURCE.value)


def in_flight(connections: int, interval: timedelta) -> float:
    """How many discoveries run at once on average: their rate times their mean time."""
    return sources(connections) / interval.total_seconds() * MEAN_S


def workspaces(connections: int, interval: timedelta) -> int:
    """How many workspaces the sources need, so that half of each one's threads suffices."""
    needed = in_flight(connections, interval) / (THREADS.value * _BUSY)
    return max(_SMALLEST, math.ceil(needed / (1 - LARGEST_WORKSPACE.value)) + 1)
