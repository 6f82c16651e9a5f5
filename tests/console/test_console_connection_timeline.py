"""The timeline of a connection: what it shows of syncs, versions, checks and decisions."""

from __future__ import annotations

from typing import Any

from services.console.pages.connection import chart
from tests.console import connection_samples as samples
from tests.console.browser import Browser
from tests.console.connection_samples import BASE, CONNECTION, JOB, REPAIR, entry
from tests.console.double import Double, page


async def test_timeline(signed_in: Browser, mesh: Double) -> None:
    """Days with sentences, syncs in a row folded, quiet days in one line."""
    shown = await signed_in.get(f"{BASE}/timeline")

    assert "Repair proposed: 3 changes" in shown.text
    assert "3 syncs succeeded" in shown.text
    assert "The last one: 1,204,881 records, 612 MB in 8 min." in shown.text
    assert "Opportunity history belongs to the forecasting team." in shown.text
    assert "Sync failed" in shown.text
    assert "Quota exceeded." in shown.text
    assert "3 quiet days 3 syncs succeeded." in shown.text
    assert "23\u201325 Nov" in shown.text
    assert "schedule: nothing → every 3 hours" in shown.text
    assert f'href="{BASE}/versions/13..14"' in shown.html
    assert "before=older-1" in shown.html
    assert "Records of the last 23 syncs" in shown.html


async def test_times_of_folded_syncs(signed_in: Browser, mesh: Double) -> None:
    """Both are shown in the chosen zone, and the days of every page in UTC."""
    mesh.answers[f"GET {BASE}/timeline"] = page(*samples.TIMELINE)

    shown = await signed_in.get(f"{BASE}/timeline")

    since = '<time datetime="2026-11-28T01:00:00Z" title="28 Nov 2026, 01:00 UTC">01:00</time>'
    assert f'{since}\u2013<time datetime="2026-11-28T07:00:00Z"' in shown.html
    assert "Days are in UTC." in shown.text


async def test_versions_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """Older ones are no longer active."""
    applied = entry("repair_ended", "2026-11-26T10:00:00Z", "applied", version=13)
    mesh.answers[f"GET {BASE}/timeline"] = page(
        *(entry("version", f"2026-11-{n}T10:00:00Z", "repair", version=n) for n in (14, 13)),
        applied,
    )

    shown = await signed_in.get(f"{BASE}/timeline")

    assert "Version 14 became active" in shown.text
    assert "Version 13 became active" in shown.text
    assert "Version 13 was applied, and read back from Airbyte." in shown.text


def test_chart_with_empty_syncs() -> None:
    """A sync without new records counts; one whose records are unknown does not."""
    records = (0, 0, 900, None)
    jobs = [samples.job("2026-11-28T10:00:00Z", records=count) for count in records]

    found = chart.chart_of(jobs)

    assert found is not None
    assert "median 0 records" in found.summary


async def test_rollback_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """It names the version, and what has ended does not wait for a review."""
    of_repair = {"severity": "needs_review", "repair_id": REPAIR, "reason": None, "code": None}
    rollback = {"kind": "rollback", "target_version": 3, "decisions": []}
    mesh.answers[f"GET {BASE}/timeline"] = page(
        _entry("4", "repair_ended", "applied", version=5, details=rollback, **of_repair),
        _entry("3", "repair_decided", "rolled_back", details=rollback, **of_repair),
        _entry("2", "repair_ended", "superseded", details={"kind": "heal"}, **of_repair),
        _entry("1", "repair_decided", "approved", details={"kind": "heal"}, **of_repair),
    )

    shown = await signed_in.get(f"{BASE}/timeline?kind=repairs")

    assert "Rolled back to version 3" in shown.text
    assert "Rollback to version 3 requested" in shown.text
    assert "Repair replaced by a newer one" in shown.text
    assert "Needs review" not in shown.text


async def test_schema_checks_in_the_timeline(signed_in: Browser, mesh: Double) -> None:
    """The empty list says which checks it has."""
    mesh.answers[f"GET {BASE}/timeline"] = page()

    shown = await signed_in.get(f"{BASE}/timeline?kind=checks")

    assert "Nothing of this kind Only checks that failed or were suspicious" in shown.text


def _entry(id: str, kind: str, outcome: str, **more: Any) -> dict[str, Any]:
    entry = {"id": id, "at": "2026-11-28T09:16:00Z", "actor": "ada", "requested_by": "ada"}
    return entry | {"kind": kind, "outcome": outcome} | more


async def test_timeline_of_one_kind(signed_in: Browser, mesh: Double) -> None:
    """Asked for by its kinds, from the page's position on, and not folded."""
    mesh.answers[f"GET {BASE}/timeline"] = page(
        samples.sync("2026-11-28T07:00:00Z"), samples.sync("2026-11-25T07:00:00Z")
    )

    shown = await signed_in.get(f"{BASE}/timeline?kind=syncs&before=older-1")

    (asked,) = mesh.of("GET", f"{BASE}/timeline")
    assert asked.query == "kinds=sync&kinds=volume&before=older-1&limit=100"
    assert shown.text.count("Sync succeeded") == 2
    assert "quiet days" not in shown.text


async def test_copies_of_decisions_are_not_counted(signed_in: Browser, mesh: Double) -> None:
    """A decision that moved on with a part of the repair is not one about what is left."""
    own = {"verdict": "approved", "change_count": 3, "is_copy": False}
    copied = {"verdict": "carried_over", "change_count": 9, "is_copy": True}
    mesh.answers[f"GET {BASE}/timeline"] = page(
        entry(
            *("repair_decided", "2026-11-28T09:00:00Z", "approved"),
            details={"decisions": [own, copied]},
        )
    )

    shown = await signed_in.get(f"{BASE}/timeline")

    assert "3 changes." in shown.text
    assert "decisions in total" not in shown.text


async def test_every_kind_of_entry(signed_in: Browser, mesh: Double) -> None:
    """An entry without details, or of a kind that is newer than the console, is shown, too."""
    kinds = ("repair_ended", "connector", "observation", "upstream", "volume", "operation")
    entries = [
        entry(kind, f"2026-11-28T09:00:{n:02}Z", "failed", operation_id=JOB, job_id=JOB)
        for n, kind in enumerate((*kinds, "archived", "credential", "unheard_of"))
    ]
    mesh.answers[f"GET {BASE}/timeline"] = page(*entries)

    shown = await signed_in.get(f"{BASE}/timeline")

    assert shown.status == 200
    assert shown.html.count('<li class="event') == len(entries)
    assert "Unheard of: failed" in shown.text


async def test_empty_connection(signed_in: Browser, mesh: Double) -> None:
    """Each tab says what would be there."""
    mesh.answers[f"GET {BASE}"] = {**CONNECTION, "catalog_version": 0, "paused_by": None}
    for route in ("timeline", "jobs", "catalog-versions", "snapshots"):
        mesh.answers[f"GET {BASE}/{route}"] = page()
    mesh.answers["GET /drifts"] = page()
    sentences = {
        "timeline": "Nothing has happened yet",
        "catalog": "No catalog yet",
        "versions": "No version yet",
        "schema": "No drift so far",
        "syncs": "No syncs yet",
    }
    for tab, sentence in sentences.items():
        assert sentence in (await signed_in.get(f"{BASE}/{tab}")).text
