"""One id and one trace through all services; spans that tell no secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.drift_repair_agent import main as drift_repair_agent
from shared.observability import logs, spans, tracing
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import (
    CREDENTIALS,
    Mesh,
    Meshes,
)
from tests.integration.drifting import ACCOUNT, offering, post, repairs_until
from tests.integration.receivers import KEY, Receiver, receiving
from tests.waiting import until

Line = dict[str, Any]
pytestmark = pytest.mark.exact
SECRETS = (*CREDENTIALS.values(), "AAMCANARY")


@pytest.fixture
async def mesh(
    airbyte: AirbyteServer, meshes: Meshes, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Mesh]:
    """The services, with webhooks; a plan is made by its job, and not by a look that is earlier."""
    monkeypatch.setattr(drift_repair_agent, "_PLAN_INTERVAL", timedelta(minutes=5))
    async with meshes.start(airbyte, webhook_signing_key=KEY) as mesh:
        yield mesh


@pytest.fixture
def written(mesh: Mesh) -> Iterator[io.StringIO]:
    """What the services log from here on, at DEBUG."""
    (handler,) = [one for one in logging.getLogger().handlers if _is_ours(one)]
    assert isinstance(handler, logging.StreamHandler)
    before = handler.setStream(buffer := io.StringIO())
    yield buffer
    assert before is not None
    handler.setStream(before)


def _is_ours(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler


def lines(written: io.StringIO) -> list[Line]:
    """The log; each line is an object of known fields."""
    parsed = [json.loads(line) for line in written.getvalue().splitlines()]
    assert all(line.keys() <= logs.FIELDS for line in parsed)
    return parsed


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Whom the webhooks tell."""
    async with receiving() as receiver:
        yield receiver


async def test_request_id_is_passed_to_airbyte(mesh: Mesh, written: io.StringIO) -> None:
    """The orchestrator, the auth_broker, the operation's row and Airbyte have the caller's id."""
    mesh.airbyte.requests.clear()

    answer = await mesh.orchestrator.post(
        "/connections/onboard?wait=50", json=mesh.order, headers={logs.REQUEST_ID_HEADER: "mine-1"}
    )

    assert (answer.status_code, answer.headers[logs.REQUEST_ID_HEADER]) == (201, "mine-1")
    assert await mesh.sql.fetchval("SELECT request_id FROM operations") == "mine-1"
    request_ids = {
        request.path: request.headers.get(logs.REQUEST_ID_HEADER)
        for request in mesh.airbyte.requests
    }
    assert {request_ids[path] for path in ("sources/create", "connections/create")} == {"mine-1"}
    mine = [line for line in lines(written) if line.get("request_id") == "mine-1"]
    logged = {(line["event"], line.get("path"), line.get("caller")) for line in mine}
    key = mine[-1]["caller"]
    assert key.startswith("key:")
    assert ("request", "/connections/onboard", key) in logged
    assert (
        "request",
        "/credentials/salesforce-prod/document",
        "service:orchestrator",
    ) in logged
    assert any(line["event"] == "operation_ended" for line in mine)
    assert not any(secret in written.getvalue() for secret in SECRETS)


async def test_request_id_is_passed_from_observation_to_webhook(
    mesh: Mesh, written: io.StringIO, receiver: Receiver
) -> None:
    """From a request to the observer, by a job, to the repair's operation and its webhook."""
    await post(mesh, "/webhooks", {"url": receiver.url})
    connection = await mesh.onboard()
    mesh.airbyte.offers(offering({**ACCOUNT, "Region": "string"}))

    answer = await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe",
        json={"accept_missing": True},
        headers={logs.REQUEST_ID_HEADER: "mine-2"},
    )
    assert answer.status_code == 200, answer.text
    await repairs_until(mesh, connection, ["applied"])
    await receiver.wait_for(1)
    await until(lambda: "webhook_tried" in written.getvalue())

    begun = await mesh.sql.fetchval("SELECT request_id FROM operations WHERE kind = 'apply'")
    assert begun == "mine-2"
    mine = {line["event"] for line in lines(written) if line.get("request_id") == "mine-2"}
    assert mine >= {"drift_recorded", "operation_ended", "webhook_tried", "request"}


async def test_unrequested_observation_has_its_own_id(mesh: Mesh, written: io.StringIO) -> None:
    """Its log lines and effects are distinguishable from those of the next one."""
    mesh.airbyte.fault("jobs/list", "html_502", times=None)
    await until(lambda: written.getvalue().count("new_jobs_not_listed") >= 2)

    ids = [line["request_id"] for line in lines(written) if line["event"] == "new_jobs_not_listed"]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


# Traces


class Collector:
    """Gets what a process exports."""

    def __init__(self, *, share: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = tracing.trace_to(self._exporter, "mesh", share=share)

    async def has(self, *names: str) -> Sequence[ReadableSpan]:
        """Every span so far, once there is one of each of these names."""
        async with asyncio.timeout(15):
            while True:
                await asyncio.to_thread(self._provider.force_flush)
                found = self._exporter.get_finished_spans()
                if {span.name for span in found} >= set(names):
                    return found
                await asyncio.sleep(0.1)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector of traces; a test asks for it before the mesh, whose parts look for it."""
    yield Collector()
    tracing.stop_tracing()


def _of(found: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in found if span.name == name]


def _trace(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return int(context.trace_id)


async def test_one_trace_through_http_sql_redis_and_jobs(
    collector: Collector, mesh: Mesh, written: io.StringIO
) -> None:
    """From the caller's traceparent to both services, the registry, Airbyte, the job and Redis."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    mesh.airbyte.requests.clear()
    answer = await mesh.orchestrator.post(
        "/connections/onboard?wait=50",
        json=mesh.order,
        headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"},
    )
    connection = answer.json()
    mesh.airbyte.offers(offering({**ACCOUNT, "Region": "string"}))
    await mesh.schema_observer.post(
        f"/connections/{connection['id']}/observe", json={"accept_missing": True}
    )
    await repairs_until(mesh, connection, ["applied"])

    found = await collector.has(
        "POST /connections/onboard",
        "GET /credentials/{credential_id}/document",
        "operation onboard",
        "airbyte sources/create",
        "POST /connections/{connection_id}/observe",
        "job plan",
        "operation apply",
        "airbyte connections/update",
        "relay events",
    )
    mine = [span for span in found if f"{_trace(span):032x}" == trace_id]
    names = {span.name for span in mine}
    assert names >= {
        "POST /connections/onboard",
        "operation onboard",
        "GET /credentials/{credential_id}/document",
        "airbyte sources/create",
        "airbyte commands/run/discover",
        "GET",  # the call of the auth_broker, as it is seen by who makes it
        "INSERT",
    }
    (observed,) = _of(found, "POST /connections/{connection_id}/observe")
    (planned,) = _of(found, "job plan")
    (applied,) = _of(found, "operation apply")
    assert _trace(observed) == _trace(planned) == _trace(applied) != int(trace_id, 16)
    relayed = {_trace(span) for span in _of(found, "relay events")}
    assert any("XADD" in span.name and _trace(span) in relayed for span in found)
    statements = [
        span for span in found if (span.attributes or {}).get("db.system") == "postgresql"
    ]
    assert all(span.parent is not None for span in statements)
    assert any("$1" in str((span.attributes or {})["db.statement"]) for span in statements)
    assert all("traceparent" not in request.headers for request in mesh.airbyte.requests)
    requests = [line for line in lines(written) if line["event"] == "request"]
    assert trace_id in {line.get("trace_id") for line in requests}


async def test_no_span_has_a_secret_or_a_query(
    collector: Collector, mesh: Mesh, receiver: Receiver
) -> None:
    """Only listed attributes exist; none has a value that was sent or returned."""
    await post(mesh, "/webhooks", {"url": receiver.url})
    connection = await mesh.onboard(connection_name="AAMCANARY-name")
    await mesh.orchestrator.get("/connections?name=AAMCANARY-query")
    await mesh.orchestrator.get("/connections/AAMCANARY-path?x=AAMCANARY-query")
    mesh.airbyte.fail_discovery("config_error", "AAMCANARY-upstream")
    await mesh.orchestrator.post(f"/connections/{connection['id']}/discover?all=true")
    failed = await mesh.orchestrator.post(
        "/connections/onboard",
        json={**mesh.order, "connection_name": "other", "credential_id": "nobody"},
    )
    assert failed.status_code == 422
    found = await collector.has("GET /connections", "GET", "airbyte commands/run/discover")

    for span in found:
        attributes = [dict(span.attributes or {}), *(dict(e.attributes or {}) for e in span.events)]
        exported = json.dumps([span.name, attributes, span.status.description], default=str)
        assert "AAMCANARY" not in exported
        for one in attributes:
            assert one.keys() <= spans.ATTRIBUTES
            for name in one.keys() & {"http.url", "url.full"}:
                assert "?" not in str(one[name])
        assert span.status.description is None
    assert any("/credentials/" in str((span.attributes or {}).get("http.url")) for span in found)
    unknown = [s for s in found if (s.attributes or {}).get("http.response.status_code") == 422]
    assert {span.name for span in unknown} >= {"GET /connections/{connection_id}"}


async def test_sampling_applies_unless_the_caller_has_decided() -> None:
    """What a caller traces is traced whole."""
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    sampled = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    try:
        collector = Collector(share=0)
        with tracing.span("mine"), tracing.span("inner"):
            flags = tracing.traceparent()["traceparent"].rpartition("-")[2]
            assert int(flags, 16) & 1 == 0
        with tracing.span("theirs", kind=SpanKind.SERVER, parent=sampled):
            traceparent = tracing.traceparent()["traceparent"]
        found = await collector.has("theirs")
    finally:
        tracing.stop_tracing()

    assert [span.name for span in found] == ["theirs"]
    assert traceparent.startswith(f"00-{trace_id}-")
    assert tracing.traceparent() == {}


def test_request_id_need_not_be_a_uuid() -> None:
    with logs.caused_by("a-b_c", operation=str(UUID(int=1))):
        assert logs.request_id() == "a-b_c"
    with logs.caused_by(None):
        assert re.fullmatch(r"[0-9a-f]{32}", logs.request_id())
