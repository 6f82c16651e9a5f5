"""The mesh of docker-compose.yml on the tests' engine, with the local Airbyte beside it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from local import airbyte
from local.request_guard import token_of
from local.settings import Settings
from tests import leaks
from tests.containers.engine import PROJECT, ROOT, CommandFailed, Engine

PORTS = {
    "orchestrator": 8001,
    "auth-broker": 8002,
    "drift-repair-agent": 8003,
    "schema-observer": 8004,
    "rag-engine": 8005,
    "console": 8006,
}
STORES = {"postgres": 5432, "redis": 6379}
RUNNING = (*PORTS, *STORES, "airbyte")
ADDRESS = "127.77.0.1"
"""Where the ports are published, so that those of another installation stay free."""
START_S = 300.0
RECORDED = {
    "connections": "id, status, catalog_version, airbyte_connection_id",
    "sync_catalog_versions": "connection_id, version_number, sync_catalog",
    "drifts": "id, connection_id",
    "repairs": "id, state",
    "job_history": "airbyte_job_id, status, records",
    "api_keys": "id",
    "events": "id, type",
}
"""Tables of the registry that must lose nothing, with the columns that no service updates later."""


@dataclass
class Mesh:
    """One installation: its project's containers, networks and volumes."""

    engine: Engine
    folder: Path
    """For the local Airbyte's state and the credentials; deleted by who created it."""
    compose_file: Path = ROOT / "docker-compose.yml"
    secrets: dict[str, str] = field(default_factory=dict)
    """The secrets that an operator would set, by variable."""

    def __post_init__(self) -> None:
        if self.secrets:
            return
        self.folder.chmod(0o700)
        given = ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN")
        org = {name: leaks.canary(f"the sample org's {name.lower()}") for name in given}
        self.secrets |= {f"SAMPLE_ORG_{name}": secret for name, secret in org.items()}
        self.secrets["AIRBYTE_API_KEY"] = token_of(self.folder / "airbyte")
        (self.folder / "credentials.env").write_text(
            "".join(
                f"CREDENTIAL_SALESFORCE_PROD__{name}={secret}\n" for name, secret in org.items()
            )
        )

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """What an operator sets, and what the test's own file needs."""
        services = [name for name in PORTS if name != "console"]
        return {
            **self.secrets,
            "COMPOSE_PROJECT_NAME": PROJECT,
            "AAM_BIND": ADDRESS,
            "AIRBYTE_API_URL": "http://airbyte:8000/api/v1",
            "AIRBYTE_DESTINATION_ID": str(airbyte.DESTINATION_ID),
            "PLAIN_HTTP_HOSTS": ",".join(["airbyte", *services]),
            "CREDENTIALS_FILE": str(self.folder / "credentials.env"),
            "AAM_BASE_IMAGE": self.engine.base,
            "TEST_ROOT": str(ROOT),
            "TEST_PYTHON": sys.executable,
            "TEST_ENVIRONMENT": str(Path(sys.prefix).resolve()),
            "TEST_INTERPRETER": sys.base_prefix,
            "TEST_CONNECTORS": str(Settings().connectors_dir.resolve()),
            "TEST_STATE": str(self.folder),
        }

    def compose(self, *arguments: str, within_s: float = 120) -> str:
        """Run `docker compose` with these arguments, and return what it prints.

        Raises:
            CommandFailed: it failed.
        """
        files = ["--file", str(self.compose_file), "--file", "tests/containers/airbyte.yml"]
        return self.engine.run(
            "compose",
            *("--progress", "quiet", "--project-directory", str(self.compose_file.parent)),
            *(*files, *arguments),
            also=self.variables,
            within_s=within_s,
        )

    def up(self) -> float:
        """Start everything, wait until all is healthy, and return the seconds that it took."""
        began = time.monotonic()
        try:
            self.compose("up", "--detach", "--no-build", "--wait", within_s=START_S)
        except CommandFailed as error:
            logs = self.compose("logs", "--no-color", "--tail", "15")
            raise CommandFailed(f"{error}\n{logs[-6000:]}") from error
        return time.monotonic() - began

    def inside(self, service: str, *command: str, within_s: float = 60) -> str:
        """Run a command in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command, within_s=within_s)

    def inspect(self, service: str) -> Any:
        """What the engine says about a service's container."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(self.engine.run("inspect", container))[0]

    def logs(self, service: str) -> str:
        """What a service has logged, each line with its time."""
        return self.engine.run("logs", "--timestamps", self.inspect(service)["Id"])

    def sql(self, database: str, query: str) -> str:
        """Run a query as Postgres's superuser, and return its rows as text."""
        socket = ["-h", "/tmp"] if self.engine.base else []  # noqa: S108 (the stand-in's)
        psql = ["psql", *socket, "-U", "postgres", "-d", database, "-Atc", query]
        return self.inside("postgres", *psql).strip()

    @cached_property
    def header(self) -> Mapping[str, str]:
        """The first API key, as a header."""
        line = self.compose("run", "--rm", "--no-deps", "keys", "cat", "/run/first-key/auth")
        name, _, value = line.strip().partition(": ")
        leaks.know("the first API key", value.removeprefix("Bearer "))
        return {name: value}

    def call(
        self, service: str, method: str, path: str, body: Any = None, *, expect: int = 200
    ) -> Any:
        """Call a service through its published port."""
        answer = httpx.request(
            method,
            f"http://{ADDRESS}:{PORTS[service]}{path}",
            json=body,
            headers=self.header,
            timeout=150,
        )
        assert answer.status_code == expect, f"{answer.text}\n{self.logs('airbyte')[-6000:]}"
        return answer.json()

    def org(self, *command: str) -> None:
        """Change the sample org, with its command."""
        self.inside("airbyte", sys.executable, "-m", "local.sample_org", *command)

    def healthy(self, services: Sequence[str] = RUNNING) -> bool:
        """Whether all of these services run and are healthy."""
        found = self.compose("ps", "--all", "--format", "json")
        states = {
            one["Service"]: (one["State"], one["Health"])
            for one in map(json.loads, found.splitlines())
        }
        return all(states.get(name) == ("running", "healthy") for name in services)

    def record(self) -> Mapping[str, str]:
        """What must outlive restarts: rows of the registry, of the warehouse, and the events.

        By table, a digest of the rows without what services update on their own.
        """
        digest = "count(*) || ' rows ' || md5(string_agg(r::text, ',' ORDER BY r::text))"
        found = {
            table: self.sql("aam", f"SELECT {digest} FROM (SELECT {columns} FROM {table}) r")  # noqa: S608 (constant names)
            for table, columns in RECORDED.items()
        }
        found["Account"] = self.sql("warehouse", 'SELECT count(*) FROM "Account"')
        stream = ["valkey-cli", "XRANGE", "aam.events", "-", "+"]
        found["aam.events"] = self.inside("redis", *stream)
        return found
