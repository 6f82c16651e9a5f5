"""What Prometheus finds at five processes after some traffic, and what is built on it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from local.processes import servers
from local.processes.servers import SERVICES
from services.drift_repair_agent import backlogs as repair_backlogs
from services.drift_repair_agent.repairs import queries
from services.orchestrator import backlogs as orchestrator_backlogs
from services.schema_observer import backlogs as observer_backlogs
from shared.domain.drift import Severity
from shared.errors import Upstream
from shared.http import docs_page
from shared.observability import metrics
from shared.observability.metrics import OTHER, Backlog, Counter, Gauge, Histogram
from shared.outbox import EventType
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.faults.world import World, opened
from tests.integration.conftest import ORDER
from tests.integration.drifting import ACCOUNT, offering
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
SIGNING_KEY = "AAMCANARY-webhook-signing-key-0123456789"
ROUTES_OF_ALL = {"none"} | docs_page.PATHS

pytestmark = [pytest.mark.process, pytest.mark.exact]


@dataclass
class Mesh:
    """Five processes with metrics, and a way to call them."""

    world: World
    clients: dict[str, httpx.AsyncClient]
    ports: dict[str, int]
    counted: list[Sample] = field(default_factory=list)
    """Of all of them after the traffic: what tests ask them later is not in it."""

    def scraped(self, service: str) -> list[Sample]:
        """What Prometheus would keep of it now."""
        url = f"http://127.0.0.1:{self.ports[service]}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        return [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("aam_") and not sample.name.endswith("_created")
        ]

    def everything(self) -> list[Sample]:
        """Of all of them."""
        return [sample for service in SERVICES for sample in self.scraped(service)]

    async def until(self, is_so: Callable[[list[Sample]], bool], *, within: float = 25) -> None:
        """Wait until what is scraped is so."""
        async with asyncio.timeout(within):
            while not is_so(await asyncio.to_thread(self.everything)):  # noqa: ASYNC110 (others')
                await asyncio.sleep(0.2)


@pytest.fixture(scope="module")
async def mesh() -> AsyncIterator[Mesh]:
    """A mesh of processes after some traffic of every kind."""
    folder = servers.temporary_dir()
    try:
        async with opened(folder) as world:
            taken = {world.port_of(service) for service in SERVICES}
            free = [one for one in servers.free_ports(2 * len(SERVICES)) if one not in taken]
            ports = dict(zip(SERVICES, free, strict=False))
            clients = {}
            for service in SERVICES:
                world.settings = {
                    "METRICS_PORT": str(ports[service]),
                    "WEBHOOK_SIGNING_KEY": SIGNING_KEY,
                    "WEBHOOK_NETWORKS": "127.0.0.0/8",
                    "AUTH_BROKER_URL": f"http://127.0.0.1:{world.port_of('auth_broker')}",
                    "DISCOVER_TIMEOUT": "3",
                    "AIRBYTE_TIMEOUT": "1",
                    "OPERATION_DEADLINE": "20",
                }
                process = await world.start(service)
                clients[service] = access.client(f"http://127.0.0.1:{process.port}", timeout=30)
            mesh = Mesh(world, clients, ports)
            await traffic(mesh, world.airbyte)
            mesh.counted = await asyncio.to_thread(mesh.everything)
            yield mesh
            for client in clients.values():
                await client.aclose()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def traffic(mesh: Mesh, airbyte: AirbyteServer) -> None:
    """Something of everything that is counted."""
    orchestrator, agent = mesh.clients["orchestrator"], mesh.clients["drift_repair_agent"]
    observer = mesh.clients["schema_observer"]
    receiver = f"http://127.0.0.1:{servers.free_port()}/aam"
    webhook = (await agent.post("/webhooks", json={"url": receiver})).json()
    assert (await agent.post(f"/webhooks/{webhook['id']}/test")).status_code == 200

    onboarded = await orchestrator.post("/connections/onboard?wait=25", json=ORDER)
    assert onboarded.status_code == 201, onboarded.text
    connection = onboarded.json()["id"]
    for offered in ({**ACCOUNT, "Region": "string"}, {"Id": "string", "Region": "string"}):
        airbyte.offers(offering(offered))
        answer = await observer.post(
            f"/connections/{connection}/observe", json={"accept_missing": True}
        )
        assert answer.status_code == 200, answer.text
        await mesh.until(_has("aam_repairs_total", outcome="applied"))
    await mesh.until(_has("aam_repairs_total", outcome="proposed"))
    airbyte.jobs_end_with("succeeded", polls=1, records=7, bytes=700)
    synced = await orchestrator.post(f"/connections/{connection}/sync?wait=20")
    assert synced.status_code == 202, synced.text
    await mesh.until(_has("aam_syncs_total", outcome="succeeded"))
    for _ in range(3):
        await orchestrator.get(f"/connections/{connection}")
        await orchestrator.get(f"/nowhere/{connection}")
        await orchestrator.request("PROPFIND", "/connections")
    assert (await orchestrator.get("/connections", headers={"Authorization": ""})).is_client_error
    assert (await orchestrator.get("/connections", headers={"Authorization": "x"})).is_client_error
    await mesh.clients["rag_engine"].get("/knowledge?source_type=AAMCANARY-source")
    # The levels are read every 15 seconds; a proposal has been there for one reading.
    await mesh.until(_has("aam_repairs_open", state="proposed"))
    await mesh.until(_has("aam_job_duration_seconds_count", entrypoint="plan"))


def _has(name: str, **labels: str) -> Callable[[list[Sample]], bool]:
    """Whether there is more than 0 of something."""

    def is_so(samples: list[Sample]) -> bool:
        return any(
            sample.name == name and sample.value > 0 and labels.items() <= sample.labels.items()
            for sample in samples
        )

    return is_so


Metric = Counter | Gauge | Histogram


def _declared() -> dict[str, Metric]:
    """Every declared metric by its name in Prometheus."""
    found = [one for one in vars(metrics).values() if isinstance(one, Metric)]
    backlogs = [one for one in metrics.BACKLOGS.values() if isinstance(one, Backlog)]
    found += [gauge for backlog in backlogs for gauge in (backlog.count, backlog.age)]
    return {_exposed(metric): metric for metric in found}


def _exposed(metric: Metric) -> str:
    (family,) = metric.describe()
    return f"{family.name}_total" if isinstance(metric, Counter) else family.name


def _by_sample() -> dict[str, Metric]:
    """Every declared metric by the names of its samples."""
    return {
        name + suffix: metric
        for name, metric in _declared().items()
        for suffix in (("_bucket", "_count", "_sum") if isinstance(metric, Histogram) else ("",))
    }


async def _fixed_by_code(mesh: Mesh) -> dict[str, set[str]]:
    """The values of the labels that are declared as words of the code."""
    client = "".join(path.read_text() for path in (ROOT / "shared/airbyte_client").glob("_*.py"))
    routes = set(ROUTES_OF_ALL)
    for one in mesh.clients.values():
        routes |= (await one.get("/openapi.json")).json()["paths"].keys()
    return {
        "endpoint": set(re.findall(r'"([a-z_]+(?:/[a-z_]+)*)"', client)),
        "route": routes,
    }


async def test_every_declared_metric_is_exposed(mesh: Mesh) -> None:
    """With its declared labels and values, and no others."""
    declared = _by_sample()
    words = await _fixed_by_code(mesh)
    samples = await asyncio.to_thread(mesh.everything)
    assert {sample.name for sample in samples} == declared.keys()
    for sample in samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        assert labels.keys() == declared[sample.name].values.keys(), sample
        for label, value in labels.items():
            known = declared[sample.name].values[label]
            if label == "status":
                assert re.fullmatch(r"[1-5]\d\d", value), sample
            elif label == "method":
                assert value in {*(known or ()), OTHER}
            else:
                assert value in (words[label] if known is None else known), sample
        assert "AAMCANARY" not in str(sample)


async def test_traffic_is_counted(mesh: Mesh) -> None:
    """Once each, however many processes took part."""

    def total(name: str, **labels: str) -> float:
        return sum(
            sample.value
            for sample in mesh.counted
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    assert total("aam_operation_duration_seconds_count", kind="onboard", outcome="done") == 1
    assert total("aam_operation_duration_seconds_count", kind="sync", outcome="done") == 1
    assert total("aam_heals_total", outcome="applied") == 1
    assert total("aam_syncs_total", outcome="succeeded") == 1
    assert total("aam_drifts_total") == 2
    assert total("aam_repairs_total", outcome="applied") == 1
    assert total("aam_repairs_open", state="proposed") == 1
    assert total("aam_webhook_deliveries_total", outcome="unreachable") >= 1
    assert total("aam_auth_refusals_total", reason="not_valid") == 2
    labels = {"method": "GET", "route": "/connections/{connection_id}", "status": "200"}
    assert total("aam_http_request_duration_seconds_count", **labels) == 3
    assert total("aam_http_request_duration_seconds_count", route="none", status="404") == 3
    assert total("aam_http_request_duration_seconds_count", method=OTHER) == 3
    created = {"endpoint": "sources/create", "outcome": "ok"}
    assert total("aam_airbyte_request_duration_seconds_count", **created) == 1
    assert total("aam_events_waiting") == 0


async def test_metrics_have_their_own_loopback_port(mesh: Mesh) -> None:
    """The service's port does not serve them, nor does the OpenAPI document list them."""
    for service, client in mesh.clients.items():
        assert (await client.get("/metrics")).status_code in (401, 404)
        assert "/metrics" not in (await client.get("/openapi.json")).text
        assert mesh.ports[service] != client.base_url.port
    listening = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
    for port in mesh.ports.values():
        assert re.search(rf" 0100007F:{port:04X} ", listening)
        assert not re.search(rf" 00000000:{port:04X} ", listening)


_METRIC = re.compile(r"\baam_[a-z_]+\b")


def _queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard and of the alerts, with where it is."""
    board: dict[str, Any] = json.loads((ROOT / "deploy/grafana/aam.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


async def test_dashboard_and_alerts_use_existing_metrics(mesh: Mesh) -> None:
    """Each name is exposed by a process, each label value is possible."""
    samples = await asyncio.to_thread(mesh.everything)
    names = {sample.name for sample in samples}
    declared = _by_sample()
    queried = set()
    for where, query in _queries():
        used = set(_METRIC.findall(query))
        assert used, where
        assert used <= names, (where, used - names)
        queried |= {declared[name] for name in used}
        selectors = re.findall(r"(aam_[a-z_]+)\{([^}]*)\}", query)
        for name, selector in selectors:
            for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
                known = declared[name].values[label]
                if known is not None and operator in ("=", "!="):
                    assert value in known, (where, label, value)
    assert queried == set(_declared().values()), set(_declared().values()) - queried


def _values(metric: Metric, label: str) -> frozenset[str]:
    known = metric.values[label]
    assert known is not None
    return frozenset(known)


def test_declared_label_values_match_the_code() -> None:
    """So that `other` is for unexpected values."""
    services = "\n".join(file.read_text() for file in sorted((ROOT / "services").rglob("*.py")))
    codes = {error.code for error in _tree(Upstream)} - {"check_failed", "discovery_failed"}
    more = {"ok", "cancelled", "catalog_too_large", "upstream_unsupported"}
    assert _values(metrics.AIRBYTE, "outcome") == codes | more
    assert _values(metrics.OPERATIONS, "kind") >= set(re.findall(r'\.tell\("(\w+)"', services))
    event_types = {event.value for event in EventType if event.value.startswith("repair.")}
    assert {f"repair.{one}" for one in _values(metrics.REPAIRS, "outcome")} == event_types
    assert _values(metrics.DRIFTS, "severity") == {one.value for one in Severity}
    state = _declared()["aam_repairs_open"]
    assert _values(state, "state") == {one.value for one in queries.OPEN_STATES}
    sending = (ROOT / "services/drift_repair_agent/webhooks/sender.py").read_text()
    given = set(re.findall(r'(?:code = |return |_ADDRESS = |else )"([a-z_]+)"', sending))
    assert _values(metrics.DELIVERIES, "outcome") >= given - {"whsec_"}
    assert all(
        f'"{one}"' in sending for one in _values(metrics.DELIVERIES, "outcome") - {"delivered"}
    )
    owners = (orchestrator_backlogs, repair_backlogs, observer_backlogs)
    assert metrics.BACKLOGS.keys() == set().union(*(one.BACKLOGS for one in owners))


def _tree(error: type[Upstream]) -> Iterator[type[Upstream]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)


def test_alerts_have_severity_duration_and_runbook() -> None:
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert re.fullmatch(r"\d+[smh]", rule["for"])
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert len(rule["annotations"]["runbook"]) > 40


def test_dashboard_is_valid_for_grafana() -> None:
    """Ids are unique, panels do not overlap, and its data source is chosen where it is loaded."""
    board = json.loads((ROOT / "deploy/grafana/aam.json").read_text())
    assert board["schemaVersion"] >= 39
    assert (board["title"], board["uid"]) == ("Adaptive API Mesh", "aam")
    assert board["templating"]["list"][0]["type"] == "datasource"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_docs_page_lists_every_metric() -> None:
    """With its labels, and no other."""
    rows = re.findall(
        r"^\| `(aam_\w+)` \| ([^|]*) \|", (ROOT / "docs/metrics.md").read_text(), re.M
    )
    documented = {name: set(re.findall(r"`(\w+)`:", labels)) for name, labels in rows}
    assert documented == {name: set(metric.values) for name, metric in _declared().items()}


def test_occupied_port_is_reported_in_one_line() -> None:
    port = servers.free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(SystemExit, match=rf"METRICS_PORT.*{port}"),
    ):
        metrics.serve("127.0.0.1", port)


async def test_unreachable_collector_delays_nothing(mesh: Mesh, tmp_path: Path) -> None:
    """Requests are answered, the process ends in time, and its log names the failure."""
    port = servers.free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SUPABASE_DB_URL": f"{mesh.world.postgres.url}?sslmode=disable",
        "REDIS_URL": mesh.world.valkey.url,
        "AIRBYTE_API_URL": mesh.world.airbyte.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{servers.free_port()}",
        **access.environment(),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "services.orchestrator.main:app"),
            *("--port", str(port), "--no-access-log"),
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    async with access.client(f"http://127.0.0.1:{port}", timeout=10) as client:
        await until(lambda: _answers(client))
        answer = await client.get("/connections")
    assert answer.status_code == 200
    process.send_signal(signal.SIGTERM)

    async with asyncio.timeout(8):
        assert await process.wait() == 0

    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    (request,) = [line for line in lines if line["event"] == "request"]
    assert re.fullmatch(r"[0-9a-f]{32}", request["trace_id"])
    assert any(line["logger"].startswith("opentelemetry") for line in lines)
    assert "AAMCANARY" not in log.read_text()


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health")).is_success
    except httpx.TransportError:
        return False
