"""The health of a connection: one word, the first that applies, with its reason.

`derive` depends on nothing but its facts. What depends on the clock is decided when the health is
read: a connection in one of `TIMED` is OVERDUE instead once `overdue_at` has passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID


class Health(StrEnum):
    """The health words, the most urgent first; a connection has the first that applies."""

    FAILED = "failed"
    """Onboarding failed, or a repair left Airbyte in an unknown state."""
    PAUSED_BY_REPAIR = "paused_by_repair"
    """AAM paused it in Airbyte until a repair is decided."""
    PAUSED = "paused"
    """A person paused it."""
    NEEDS_REVIEW = "needs_review"
    """A repair waits for a person."""
    DIFFERS = "differs"
    """Airbyte's connection differs from the registry."""
    SYNC_FAILING = "sync_failing"
    """Its last sync failed, or its source rejects its credential."""
    SUSPICIOUS = "suspicious"
    """The last discovery of its source was implausible."""
    OVERDUE = "overdue"
    """The last observation of its source failed, or is overdue."""
    HEALING = "healing"
    """AAM is changing it in Airbyte: it is being onboarded or repaired."""
    SYNCING = "syncing"
    HEALTHY = "healthy"
    ARCHIVED = "archived"


TIMED: Final = (Health.HEALING, Health.SYNCING, Health.HEALTHY)
"""The words that OVERDUE goes before."""
NEWEST_JOBS: Final = 10
"""How many of a connection's syncs are facts; so many failures in a row are counted at most."""


@dataclass(frozen=True, slots=True)
class OpenRepair:
    """A repair that waits for a person, or that is in progress."""

    id: UUID
    state: str
    created_at: datetime
    severities: Mapping[str, int] = field(default_factory=dict)
    """The number of its changes by severity."""


@dataclass(frozen=True, slots=True)
class JobFact:
    """A sync job."""

    id: UUID
    status: str
    started_at: datetime
    ended_at: datetime | None = None
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class ObservationFact:
    """The state of observing a connection's source."""

    outcome: str | None
    code: str | None
    detail: str | None
    suspicious_since: datetime | None
    overdue_at: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the health of a connection is derived from, as the registry has it."""

    status: str
    archived_at: datetime | None = None
    failure_code: str | None = None
    failure_detail: str | None = None
    upstream_code: str | None = None
    drifted_upstream_at: datetime | None = None
    paused_by: UUID | None = None
    pause_requested_by: str | None = None
    healing_since: datetime | None = None
    credential_rejected_since: datetime | None = None
    proposed: OpenRepair | None = None
    under_way: OpenRepair | None = None
    jobs: Sequence[JobFact] = ()
    """The newest syncs, at most NEWEST_JOBS, newest first; no jobs that only clear data."""
    observation: ObservationFact | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word and why it applies."""

    health: Health
    code: str
    """The reason, for programs."""
    reason: str
    """The reason as a sentence."""
    since: datetime | None = None
    """None if no fact says; then the time of the last change of health or code is used."""
    severity: str | None = None
    repair_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Derived:
    """The health of a connection, apart from what the clock adds."""

    verdict: Verdict
    overdue_at: datetime | None
    """When it becomes OVERDUE, if it then has one of the words of TIMED; None: never."""
    last_job: JobFact | None
    failed_syncs: int
    """How many syncs in a row have failed, the newest included; at most NEWEST_JOBS."""


def derive(facts: Facts) -> Derived:
    """The first word that applies, in the order of `Health`; ARCHIVED before all others."""
    failed = _failed_in_a_row(facts.jobs)
    verdict = _verdict(facts, failed)
    is_observed = facts.archived_at is None and facts.status in ("ACTIVE", "HEALING")
    observation = facts.observation if is_observed else None
    return Derived(
        verdict,
        overdue_at=None if observation is None else observation.overdue_at,
        last_job=facts.jobs[0] if facts.jobs else None,
        failed_syncs=len(failed),
    )


def _verdict(facts: Facts, failed: Sequence[JobFact]) -> Verdict:
    if facts.archived_at is not None:
        return Verdict(Health.ARCHIVED, "archived", "It is archived.", facts.archived_at)
    return (
        _failed(facts)
        or _paused(facts)
        or _needs_review(facts)
        or _differs(facts)
        or _sync_failing(facts, failed)
        or _not_trusted(facts)
        or _healing(facts)
        or _syncing(facts)
        or Verdict(Health.HEALTHY, "healthy", "Nothing needs attention.")
    )


def _failed(facts: Facts) -> Verdict | None:
    if facts.status != "FAILED":
        return None
    code = facts.failure_code or "failed"
    return Verdict(Health.FAILED, code, facts.failure_detail or f"It failed: {code}.")


def _paused(facts: Facts) -> Verdict | None:
    if facts.paused_by is not None:
        waiting = facts.proposed
        if waiting is None or waiting.id != facts.paused_by:
            what = "has ended without resuming it"
            if facts.under_way is not None:
                what = "is being carried out"
            return Verdict(
                Health.PAUSED_BY_REPAIR,
                "paused_by_repair",
                f"A repair paused it, which {what}.",
                repair_id=facts.paused_by,
            )
        return _of_repair(Health.PAUSED_BY_REPAIR, "paused_by_repair", waiting)
    if facts.pause_requested_by is not None:
        return Verdict(Health.PAUSED, "paused_by_person", f"{facts.pause_requested_by} paused it.")
    return None


def _needs_review(facts: Facts) -> Verdict | None:
    if facts.proposed is None:
        return None
    return _of_repair(Health.NEEDS_REVIEW, "repair_proposed", facts.proposed)


_SEVERITIES: Final = ("breaking", "needs_review", "harmless")
"""As in `shared.domain.drift`, the highest first."""


def _of_repair(health: Health, code: str, repair: OpenRepair) -> Verdict:
    total, breaking = sum(repair.severities.values()), repair.severities.get("breaking", 0)
    reason = "1 change waits for review" if total == 1 else f"{total} changes wait for review"
    if breaking:
        reason += f", {breaking} {'is' if breaking == 1 else 'are'} breaking"
    return Verdict(
        health,
        code,
        f"{reason}.",
        repair.created_at,
        severity=next((one for one in _SEVERITIES if repair.severities.get(one)), None),
        repair_id=repair.id,
    )


_DIFFERENCES: Final = {
    "upstream_missing": "Airbyte does not have the connection any more.",
    "catalog_differs": "Airbyte holds another catalog than AAM applied.",
    "breaking_change": "Airbyte disabled it because of a breaking schema change.",
    "paused": "It was paused in Airbyte, not by AAM.",
    "resumed": "It was resumed in Airbyte, although a person paused it in AAM.",
    "locked": "Airbyte locked it.",
    "status_unknown": "Airbyte reports a status that AAM does not know.",
}


def _differs(facts: Facts) -> Verdict | None:
    code = facts.upstream_code
    if code is None:
        return None
    reason = _DIFFERENCES.get(code, f"Airbyte's connection differs: {code}.")
    return Verdict(Health.DIFFERS, code, reason, facts.drifted_upstream_at)


def _failed_in_a_row(jobs: Sequence[JobFact]) -> list[JobFact]:
    """The failed jobs since the last success, newest first; cancelled ones do not count."""
    failed = []
    for job in jobs:
        if job.ended_at is None or job.status == "cancelled":
            continue
        if job.status == "succeeded":
            break
        failed.append(job)
    return failed


def _sync_failing(facts: Facts, failed: Sequence[JobFact]) -> Verdict | None:
    if facts.credential_rejected_since is not None:
        return Verdict(
            Health.SYNC_FAILING,
            "credential_rejected",
            "The source rejects its credential.",
            facts.credential_rejected_since,
        )
    if not failed:
        return None
    code = failed[0].failure_code or failed[0].status
    many = len(failed) if len(failed) < NEWEST_JOBS else f"{NEWEST_JOBS} or more"
    reason = f"The last sync failed: {code}."
    if len(failed) > 1:
        reason = f"{many} syncs in a row failed, the last one: {code}."
    return Verdict(Health.SYNC_FAILING, code, reason, failed[-1].ended_at)


def _not_trusted(facts: Facts) -> Verdict | None:
    """Whether the last observation was suspicious or failed for a reason of the source."""
    seen = facts.observation
    if seen is None or facts.status not in ("ACTIVE", "HEALING"):
        return None
    if seen.outcome == "suspicious":
        code = seen.code or "suspicious"
        reason = seen.detail or "The last discovery of its source was implausible."
        return Verdict(Health.SUSPICIOUS, code, reason, seen.suspicious_since)
    if seen.outcome == "failed" and seen.suspicious_since is not None:
        code = seen.code or "failed"
        reason = seen.detail or "The last observation of its source failed."
        return Verdict(Health.OVERDUE, code, reason, seen.suspicious_since)
    return None


_UNDER_WAY: Final = {
    "approved": "A repair is approved, and waits until the connection is free.",
    "applying": "A repair is being applied.",
    "verifying": "A repair is applied, and being verified by a sync.",
    "rolling_back": "A repair's sync failed, and the previous catalog is being restored.",
}


def _healing(facts: Facts) -> Verdict | None:
    repair = facts.under_way
    if repair is not None:
        reason = _UNDER_WAY.get(repair.state, "A repair is in progress.")
        return Verdict(
            Health.HEALING, repair.state, reason, facts.healing_since, repair_id=repair.id
        )
    if facts.status == "HEALING":
        reason = "A catalog is being applied in Airbyte."
        return Verdict(Health.HEALING, "healing", reason, facts.healing_since)
    if facts.status == "PENDING":
        return Verdict(Health.HEALING, "onboarding", "It is being onboarded.")
    return None


def _syncing(facts: Facts) -> Verdict | None:
    running = next((job for job in facts.jobs if job.ended_at is None), None)
    if running is None:
        return None
    return Verdict(Health.SYNCING, "sync_running", "A sync is running.", running.started_at)
