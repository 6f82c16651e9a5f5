"""Which states may be put back, and which a renamed stream takes along."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from services.drift_repair_agent.states.decision import (
    MOST_JOBS,
    Renamed,
    expect_put_back,
    expect_taken_along,
    is_same_major,
    losing,
    lost_candidates,
)
from shared.airbyte_client import ConnectionState, Job
from shared.domain import catalog as catalogs
from shared.domain.catalog import Catalog, StreamId
from shared.saved_states.store import Saved

ORDERS, SALES = StreamId(None, "orders"), StreamId(None, "sales")
INCREMENTAL, IN_FULL = ("incremental", "append_dedup"), ("full_refresh", "overwrite")


def catalog(
    modes: tuple[str, str] | None = INCREMENTAL, *, name: str = "orders", cursor: str = "at"
) -> Catalog:
    """A catalog with one stream; without modes, none is selected."""
    reads, writes = modes or INCREMENTAL
    stream = {
        "name": name,
        "jsonSchema": {"properties": {one: {"type": "string"} for one in ("id", "at", "made")}},
        "supportedSyncModes": ["full_refresh", "incremental"],
    }
    config = {
        "syncMode": reads,
        "destinationSyncMode": writes,
        "cursorField": [cursor],
        "primaryKey": [["id"]],
        "selected": modes is not None,
    }
    return catalogs.parse(orjson.dumps({"streams": [{"stream": stream, "config": config}]}))


def held(type_: str = "stream", **streams: bytes) -> ConnectionState:
    """A state in Airbyte."""
    return ConnectionState(type_, {StreamId(None, name): at for name, at in streams.items()})


def saved(**changes: Any) -> Saved:
    """A state that was saved at version 1, after job 4."""
    values: dict[str, Any] = {
        "catalog_version": 1,
        "connector_version": "2.10.3",
        "airbyte_job_id": 4,
        "state": held(orders=b'{"at":1}'),
    }
    return Saved(**(values | changes))


def job(id_: int, status: str = "succeeded", *, kind: str = "sync", emitted: int | None = 7) -> Job:
    """A job that has ended."""
    now = datetime.now(UTC)
    counts: dict[str, Any] = {"records": 0, "bytes_": 0, "emitted": emitted}
    return Job(
        id=id_,
        connection_id=None,
        config_type=kind,
        status=status,
        created_at=now,
        started_at=now,
        ended_at=None if status == "running" else now,
        attempts=1,
        failure_type=None,
        failure_origin=None,
        **counts,
    )


DEFAULTS: dict[str, Any] = {
    "held": held("not_set"),
    "jobs": [job(4)],
    "since": [catalog(), catalog(IN_FULL)],
    "connector": "2.11.0",
}


@pytest.mark.parametrize(
    "reason, changes",
    [
        (None, {}),
        (None, {"held": held(sales=b"{}")}),
        (None, {"jobs": []}),
        ("global_state", {"held": held("global")}),
        ("global_state", {"held": held("legacy")}),
        ("connector_changed", {"connector": "3.0.0"}),
        ("connector_changed", {"connector": None}),
        ("synced_since", {"jobs": [job(5)]}),
        ("synced_since", {"jobs": [job(5, "running", emitted=None)]}),
        ("synced_since", {"jobs": [job(5, "failed")]}),
        ("synced_since", {"jobs": [job(5, "failed", emitted=None)]}),
        (None, {"jobs": [job(5, "failed", emitted=0)]}),
        (None, {"jobs": [job(5, "cancelled", emitted=0)]}),
        ("synced_since", {"jobs": [job(6), job(5, "failed", emitted=0)]}),
        ("synced_since", {"jobs": [job(5, "failed", kind="reset_connection", emitted=0)]}),
        ("synced_since", {"jobs": [job(5, kind="refresh")], "since": [catalog(), catalog(None)]}),
        # Its rows were neither replaced nor removed.
        (None, {"jobs": [job(5)], "since": [catalog(), catalog(None)]}),
        (None, {"jobs": [job(5)], "since": [catalog(), catalog(("full_refresh", "append"))]}),
        (
            "synced_since",
            {
                "jobs": [job(5 + n, "failed", emitted=0) for n in range(MOST_JOBS)],
                "since": [catalog()],
            },
        ),
        ("cursor_changed", {"since": [catalog(cursor="made"), catalog(IN_FULL)]}),
        ("not_saved", {"since": [catalog(IN_FULL)]}),
        ("not_saved", {"since": []}),
    ],
)
def test_what_may_be_put_back(reason: str | None, changes: dict[str, Any]) -> None:
    (wanted,) = catalog().streams
    assert expect_put_back(wanted, saved(), **{**DEFAULTS, **changes}) == reason


@pytest.mark.parametrize(
    "reason, of",
    [
        ("not_saved", saved(state=held(sales=b"1"))),
        ("not_saved", saved(state=held(orders=b"null"))),
        ("not_saved", saved(state=held(orders=b"{}"))),
        ("global_state", saved(state=held("global", orders=b"1"))),
        ("connector_changed", saved(connector_version=None)),
        ("synced_since", saved(airbyte_job_id=None)),
    ],
)
def test_what_was_saved_decides(reason: str, of: Saved) -> None:
    (wanted,) = catalog().streams
    assert expect_put_back(wanted, of, **DEFAULTS) == reason


@pytest.mark.parametrize(
    "one, other, is_same",
    [
        ("2.10.3", "2.0.0", True),
        ("2.10.3", "3.10.3", False),
        ("v2.1", "2.0.0-rc.1", True),
        ("dev", "dev", True),
        ("dev", "2.0.0", False),
        ("manifest 4", "manifest 4", True),
        ("manifest 4", "manifest 5", False),
        (None, None, False),
    ],
)
def test_major_versions(one: str | None, other: str | None, is_same: bool) -> None:
    assert is_same_major(one, other) is is_same


def test_streams_that_lose_their_state() -> None:
    """Those whose mode changes; one that is selected again may have lost it before."""
    assert losing(catalog(IN_FULL), catalog()) == [ORDERS]
    assert losing(catalog(None), catalog()) == []
    assert losing(catalog(), catalog(IN_FULL)) == []
    assert lost_candidates(catalog(), catalog(IN_FULL)) == (ORDERS,)
    assert lost_candidates(catalog(), catalog(None)) == (ORDERS,)
    assert lost_candidates(catalog(), catalog(None), only_changed=True) == ()
    assert lost_candidates(catalog(), catalog()) == ()
    assert lost_candidates(catalog(IN_FULL), catalog()) == ()


@pytest.mark.parametrize(
    "reason, state, before, after",
    [
        (None, held(orders=b"1"), catalog(), catalog(name="sales")),
        ("not_saved", held("not_set"), catalog(), catalog(name="sales")),
        ("not_saved", held(orders=b"null"), catalog(), catalog(name="sales")),
        ("not_saved", held(orders=b"1"), catalog(IN_FULL), catalog(name="sales")),
        ("global_state", held("global", orders=b"1"), catalog(), catalog(name="sales")),
        ("not_incremental", held(orders=b"1"), catalog(), catalog(IN_FULL, name="sales")),
        ("cursor_changed", held(orders=b"1"), catalog(), catalog(name="sales", cursor="made")),
        (
            "not_deduplicated",
            held(orders=b"1"),
            catalog(),
            catalog(("incremental", "append"), name="sales"),
        ),
    ],
)
def test_what_a_renamed_stream_takes_along(
    reason: str | None, state: ConnectionState, before: Catalog, after: Catalog
) -> None:
    renamed = Renamed(ORDERS, SALES)
    assert expect_taken_along(renamed, held=state, before=before, after=after) == reason
