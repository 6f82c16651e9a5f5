"""What the local Airbyte keeps of ended work is bounded, and what answers need of it stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from local.airbyte import metadata as kept
from local.airbyte.metadata import Metadata, dump

NOW = 1_800_000_000
DAY = 86_400


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    """With a source and a connection, and small bounds."""
    monkeypatch.setattr(kept, "MOST_JOBS", 3)
    monkeypatch.setattr(kept, "MOST_DISCOVERIES", 2)
    one = Metadata(tmp_path)
    for kind in ("source", "destination"):
        one.write("INSERT INTO actors VALUES (?, ?, 'd', 'n', '{}', 0)", kind, kind)
    one.write("INSERT INTO connections VALUES ('c', 'source', 'destination', '{}', X'', 0)")
    yield one
    one.close()


def job(metadata: Metadata, status: str, *, connection: str = "c", at: int = NOW) -> int:
    """A job of one attempt."""
    job_id = metadata.begin_job(connection, [], at)
    metadata.set_job(job_id, status, at)
    return job_id


def jobs(metadata: Metadata) -> list[int]:
    """The ids of the jobs there are."""
    return [row["id"] for row in metadata.all("SELECT id FROM jobs ORDER BY id")]


def test_newest_jobs_and_the_last_success_are_kept(metadata: Metadata) -> None:
    """With their attempts; so are open jobs, and those of other connections."""
    good = [job(metadata, "succeeded") for _ in range(2)]
    bad = [job(metadata, "failed") for _ in range(5)]
    running = job(metadata, "running")
    of_gone = job(metadata, "failed", connection="gone", at=NOW - 2 * DAY)
    just_gone = job(metadata, "failed", connection="gone too", at=NOW)

    metadata.prune(NOW)

    assert jobs(metadata) == [good[1], *bad[-2:], running, just_gone]
    assert of_gone not in jobs(metadata)
    attempts = metadata.all("SELECT job_id FROM attempts ORDER BY job_id")
    assert [row["job_id"] for row in attempts] == jobs(metadata)


def discovered(metadata: Metadata, config: str, content: bytes, at: int) -> str:
    """The id of a catalog that the source offered with a configuration."""
    catalog_id = uuid4()
    metadata.store_discovery("source", "1", config, catalog_id, content, at)
    return str(catalog_id)


def command(metadata: Metadata, name: str, *, status: str, catalog: str | None, at: int) -> None:
    """A command, with the catalog that it found."""
    output = {} if catalog is None else {"catalogId": catalog}
    values = (name, "discover", status, dump(output), at)
    metadata.write("INSERT INTO commands VALUES (?, ?, ?, ?, ?)", *values)


def test_referenced_catalogs_are_kept(metadata: Metadata) -> None:
    """By one of the newest discoveries, or by a command of the last day."""
    catalogs = [discovered(metadata, f"h{n}", b"x%d" % n, NOW + n) for n in range(5)]
    command(metadata, "old", status="completed", catalog=catalogs[0], at=NOW - 2 * DAY)
    command(metadata, "new", status="completed", catalog=catalogs[1], at=NOW - DAY // 2)
    command(metadata, "long", status="running", catalog=None, at=NOW - 2 * DAY)

    metadata.prune(NOW)

    left = {row["id"] for row in metadata.all("SELECT id FROM catalogs")}
    assert left == {catalogs[1], *catalogs[3:]}
    assert metadata.catalog(catalogs[1]) == b"x1"
    commands = metadata.all("SELECT id FROM commands ORDER BY id")
    assert [row["id"] for row in commands] == ["long", "new"]
    metadata.prune(NOW)
    assert {row["id"] for row in metadata.all("SELECT id FROM catalogs")} == left


def test_rediscovered_catalog_is_stored_again(metadata: Metadata) -> None:
    """Its bytes are stored again after they were pruned."""
    catalog_id = uuid4()
    for n in range(3):
        metadata.store_discovery("source", "1", f"h{n}", uuid4(), b"x", NOW + n)
    metadata.store_discovery("source", "1", "h9", catalog_id, b"found", NOW - 9)
    metadata.prune(NOW)
    metadata.store_discovery("source", "1", "h9", catalog_id, b"found", NOW + 9)
    metadata.prune(NOW)
    assert metadata.catalog(str(catalog_id)) == b"found"
