"""The services of the simulation: replicas of each as real processes over one registry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Final

from local.processes import servers
from local.processes.fork_server import ForkServer
from local.service_processes import ROOT, Program
from local.supervisor import SHARED_MODULES
from tests.bench.environment import Stage
from tests.scale import rates
from tests.scale.measures import PRELOADED

REPLICAS: Final = 4
REGISTRY_CONNECTIONS: Final = {
    "orchestrator": 6,
    "auth_broker": 2,
    "drift_repair_agent": 6,
    "schema_observer": 10,
    "rag_engine": 2,
}
"""REGISTRY_CONNECTIONS of one process of each service."""
COMPRESSION: Final = "AAM_SCALE_COMPRESSION"
"""The variable that `tests.scale.observer_app` reads."""
POSTGRES: Final = {
    "max_connections": "200",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "session_preload_libraries": PRELOADED,
}
"""Settings of the registry's server, besides those of a server whose data may be lost."""
_OBSERVER: Final = "schema_observer"


def airbyte(workspaces: int, compression: float) -> Callable[[int], Sequence[str]]:
    """The scripted Airbyte of a stage; see `tests.scale.airbyte`."""
    return lambda port: [
        *("tests.scale.airbyte", str(port), str(workspaces), str(round(compression)))
    ]


class Fleet:
    """All replicas of all services."""

    def __init__(
        self, stage: Stage, fork_server: ForkServer, *, compression: float, replicas: int
    ) -> None:
        self._stage = stage
        self._fork_server = fork_server
        self._compression = compression
        self._threads = ThreadPoolExecutor(max_workers=8)
        free = iter(servers.free_ports(2 * replicas * len(servers.SERVICES)))
        self._ports = {name: list(islice(free, replicas)) for name in servers.SERVICES}
        self._metrics = {name: list(islice(free, replicas)) for name in servers.SERVICES}
        self.replicas: dict[str, list[Program]] = {}

    def port_of(self, service: str) -> int:
        """The port of the service's first replica, which the others call."""
        return self._ports[service][0]

    def pids(self) -> dict[str, list[int]]:
        """The processes of each service."""
        return {name: [one.pid for one in programs] for name, programs in self.replicas.items()}

    def start(self, interval: timedelta) -> None:
        """Start all of them; sources are observed every `interval` of wall time."""
        for name in servers.SERVICES:
            self._start(name, interval)

    def observe_every(self, interval: timedelta) -> None:
        """Restart the observers with another interval."""
        self.stop_observers()
        self._start(_OBSERVER, interval)

    def stop_observers(self) -> None:
        """Stop every replica of the schema_observer."""
        self._each(self.replicas.pop(_OBSERVER, []), Program.stop)

    def stop(self) -> None:
        """Stop all of them."""
        for programs in self.replicas.values():
            self._each(programs, Program.stop)
        self.replicas.clear()
        self._threads.shutdown()

    def _start(self, name: str, interval: timedelta) -> None:
        app = "tests.scale.observer_app" if name == _OBSERVER else f"services.{name}.main"
        self.replicas[name] = [
            Program(
                f"{name}-{replica}",
                [
                    *("uvicorn", f"{app}:app", "--host", "127.0.0.1", "--port", str(port)),
                    *("--http", "shared.http.uvicorn_protocol:Http", "--no-access-log"),
                    *("--timeout-graceful-shutdown", "5"),
                ],
                port=port,
                ready="/ready",
                env={**self._environment(name, interval), "METRICS_PORT": str(metrics_port)},
                log=self._stage.folder / f"{name}-{replica}.log",
                fork_server=self._fork_server,
            )
            for replica, (port, metrics_port) in enumerate(
                zip(self._ports[name], self._metrics[name], strict=True), start=1
            )
        ]
        self._each(self.replicas[name], Program.start)

    def _environment(self, name: str, interval: timedelta) -> Mapping[str, str]:
        calls = str(int(rates.THREADS.value))
        return self._stage.environment | {
            "SUPABASE_DB_URL": servers.as_service(self._stage.services_url, name),
            "REGISTRY_CONNECTIONS": str(REGISTRY_CONNECTIONS[name]),
            "OBSERVE_INTERVAL": str(interval.total_seconds()),
            "DISCOVERIES_AT_ONCE": calls,
            "AIRBYTE_SLOW_CALLS": calls,
            "LOG_LEVEL": "WARNING",
            COMPRESSION: str(self._compression),
            **{
                f"{peer.upper()}_URL": f"http://127.0.0.1:{self.port_of(peer)}"
                for peer in servers.SERVICES
            },
        }

    def _each(self, programs: Sequence[Program], work: Callable[[Program], object]) -> None:
        for done in [self._threads.submit(work, one) for one in programs]:
            done.result()


@contextmanager
def fleet(stage: Stage, *, compression: float, replicas: int = REPLICAS) -> Iterator[Fleet]:
    """Prepare the services without starting them; those that run are stopped afterwards."""
    with servers.private_log(stage.folder / "fork_server.log") as log:
        fork_server = ForkServer(SHARED_MODULES, log=log, env=os.environ, cwd=ROOT)
    try:
        services = Fleet(stage, fork_server, compression=compression, replicas=replicas)
        try:
            yield services
        finally:
            services.stop()
    finally:
        fork_server.stop()
