"""The health of a connection: which word, since when, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.domain.health import (
    NEWEST_JOBS,
    Facts,
    Health,
    JobFact,
    ObservationFact,
    OpenRepair,
    derive,
)

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
REPAIR, JOB = UUID(int=1), UUID(int=2)
SUSPICIOUS = ObservationFact("suspicious", "streams_missing", "9 of 10 are gone.", NOW, NOW)
FAILED_LOOK = ObservationFact("failed", "discovery_failed", None, NOW, NOW)


def job(status: str, minutes: int = 0, code: str | None = None) -> JobFact:
    """A job that started so many minutes ago, and has ended unless it is running."""
    at = NOW - timedelta(minutes=minutes)
    return JobFact(JOB, status, at, None if status == "running" else at, code)


EVERYTHING = Facts(
    status="FAILED",
    archived_at=NOW,
    failure_code="upstream_mismatch",
    upstream_code="locked",
    drifted_upstream_at=NOW,
    paused_by=REPAIR,
    pause_requested_by="Ada",
    proposed=OpenRepair(REPAIR, "proposed", NOW, {"breaking": 1, "harmless": 2}),
    under_way=OpenRepair(UUID(int=3), "applying", NOW),
    jobs=[job("running"), job("failed", 9)],
    observation=SUSPICIOUS,
)
PEELED: tuple[tuple[dict[str, Any], Health], ...] = (
    ({}, Health.ARCHIVED),
    ({"archived_at": None}, Health.FAILED),
    ({"status": "HEALING"}, Health.PAUSED_BY_REPAIR),
    ({"paused_by": None}, Health.PAUSED),
    ({"pause_requested_by": None}, Health.NEEDS_REVIEW),
    ({"proposed": None}, Health.DIFFERS),
    ({"upstream_code": None}, Health.SYNC_FAILING),
    ({"jobs": [job("running")]}, Health.SUSPICIOUS),
    ({"observation": FAILED_LOOK}, Health.OVERDUE),
    ({"observation": None}, Health.HEALING),
    ({"under_way": None}, Health.HEALING),
    ({"status": "ACTIVE"}, Health.SYNCING),
    ({"jobs": []}, Health.HEALTHY),
)


def test_first_word_that_applies_wins() -> None:
    """Each reason that is taken away uncovers the next word, in the order of Health."""
    facts, words = EVERYTHING, []
    for taken, expected in PEELED:
        facts = replace(facts, **taken)
        words.append(derive(facts).verdict.health)
        assert words[-1] == expected
    assert [Health.ARCHIVED, *[word for word in Health if word is not Health.ARCHIVED]] == list(
        dict.fromkeys(words)
    )


@pytest.mark.parametrize("is_under_way", [True, False])
def test_decided_repair_that_paused_is_carried_out_or_has_ended(*, is_under_way: bool) -> None:
    """A rejected or expired one leaves the connection paused."""
    under_way = OpenRepair(REPAIR, "approved", NOW) if is_under_way else None

    verdict = derive(Facts("ACTIVE", paused_by=REPAIR, under_way=under_way)).verdict

    assert (verdict.health, verdict.repair_id) == (Health.PAUSED_BY_REPAIR, REPAIR)
    assert verdict.reason == (
        "A repair paused it, which is being carried out."
        if is_under_way
        else "A repair paused it, which has ended without resuming it."
    )


@pytest.mark.parametrize(
    "changes, reason, severity",
    [
        ({"breaking": 1, "harmless": 2}, "3 changes wait for review, 1 is breaking.", "breaking"),
        ({"breaking": 2}, "2 changes wait for review, 2 are breaking.", "breaking"),
        ({"needs_review": 1}, "1 change waits for review.", "needs_review"),
        ({"harmless": 4}, "4 changes wait for review.", "harmless"),
    ],
)
def test_review_says_how_many_and_how_severe(
    changes: dict[str, int], reason: str, severity: str
) -> None:
    verdict = derive(Facts("ACTIVE", proposed=OpenRepair(REPAIR, "proposed", NOW, changes))).verdict

    assert (verdict.reason, verdict.severity, verdict.since) == (reason, severity, NOW)
    assert verdict.repair_id == REPAIR


def test_failed_syncs_are_counted_since_the_last_success() -> None:
    """Cancelled and running ones neither count nor end the row of failures."""
    jobs = [
        *(job("running"), job("failed", 1, "config_error"), job("cancelled", 2)),
        *(job("failed", 3), job("succeeded", 4), job("failed", 5)),
    ]

    derived = derive(Facts("ACTIVE", jobs=jobs))

    assert derived.failed_syncs == 2
    assert derived.verdict.code == "config_error"
    assert derived.verdict.since == NOW - timedelta(minutes=3)
    assert derived.verdict.reason == "2 syncs in a row failed, the last one: config_error."
    assert derived.last_job == jobs[0]


def test_count_of_failed_syncs_names_its_bound() -> None:
    jobs = [job("failed", n) for n in range(NEWEST_JOBS)]

    assert derive(Facts("ACTIVE", jobs=jobs)).verdict.reason.startswith("10 or more syncs in a row")


def test_rejected_credential_is_a_failing_sync() -> None:
    facts = Facts("ACTIVE", credential_rejected_since=NOW, jobs=[job("succeeded")])

    verdict = derive(facts).verdict

    assert (verdict.health, verdict.code) == (Health.SYNC_FAILING, "credential_rejected")


@pytest.mark.parametrize("status", ["PENDING", "FAILED"])
def test_source_of_a_connection_that_is_not_live_is_never_overdue(status: str) -> None:
    assert derive(Facts(status, observation=SUSPICIOUS)).overdue_at is None


def test_unreported_failure_of_an_observation_only_delays() -> None:
    """Airbyte was away: the word changes when the check is overdue, not before."""
    facts = Facts("ACTIVE", observation=replace(FAILED_LOOK, suspicious_since=None))

    derived = derive(facts)

    assert (derived.verdict.health, derived.overdue_at) == (Health.HEALTHY, NOW)
