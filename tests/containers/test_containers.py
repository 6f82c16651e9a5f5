"""docker-compose.yml by a container engine, from its first start to the start after a shutdown.

The tests share one installation, and each goes on where the one before it ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from tests import processes
from tests.containers.engine import LABEL, MEASURED
from tests.containers.mesh import PORTS, RUNNING, STORES, Mesh
from tests.containers.probe import PROBE

pytestmark = pytest.mark.timeout(900)  # with the build of the image
RUN_ONCE = ("passwords", "migrate", "keys", "airbyte-setup")
REACHES = {
    "orchestrator": (
        "auth-broker drift-repair-agent schema-observer rag-engine console airbyte postgres redis"
    ),
    "auth-broker": "orchestrator postgres",
    "drift-repair-agent": "orchestrator schema-observer rag-engine console airbyte postgres redis",
    "schema-observer": "orchestrator drift-repair-agent rag-engine console airbyte postgres redis",
    "rag-engine": "orchestrator drift-repair-agent schema-observer console airbyte postgres redis",
    "console": "orchestrator drift-repair-agent schema-observer rag-engine airbyte",
    "postgres": (
        "orchestrator auth-broker drift-repair-agent schema-observer rag-engine redis airbyte"
    ),
    "redis": "orchestrator drift-repair-agent schema-observer rag-engine postgres",
    "airbyte": "orchestrator drift-repair-agent schema-observer rag-engine console postgres",
}
"""By container, all those that a connection from it reaches, at any of their addresses."""
CALL_AIRBYTE = {"orchestrator", "drift-repair-agent", "schema-observer", "airbyte-setup", "keys"}
HEALTHY_WITHIN_S = 120.0
LARGEST_MB = 215
LARGEST_IDLE_MB = 125
HEALED_WITHIN_S = 60.0


def test_first_start_is_healthy(mesh: Mesh) -> None:
    """Every service is healthy, and what runs once has ended without an error."""
    assert mesh.healthy()
    for name in RUN_ONCE:
        state = mesh.inspect(name)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), name


def test_image_and_services_are_small(mesh: Mesh, image: str) -> None:
    """What AAM adds to its base image, and the memory that each service has when idle."""
    base = mesh.engine.base or "python:3.12.12-slim-bookworm"
    sizes = [
        int(mesh.engine.run("image", "inspect", "--format", "{{.Size}}", name)) / 1e6
        for name in (image, base)
    ]
    MEASURED.append(f"image: {sizes[0]:.0f} MB, of which AAM {sizes[0] - sizes[1]:.0f} MB")
    assert sizes[0] - sizes[1] < LARGEST_MB
    for name in PORTS:
        state, log = mesh.inspect(name)["State"], mesh.logs(name)
        (ready,) = re.findall(r"^(\S+) .*Application startup complete", log, re.M)
        seconds = (moment(ready) - moment(state["StartedAt"])).total_seconds()
        # From outside: the auth_broker's memory is closed to the processes of its user.
        memory = "".join(
            Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in processes.family(state["Pid"])
        )
        idle = sum(map(int, re.findall(r"^Pss_Anon: +(\d+) kB", memory, re.M))) / 1000
        MEASURED.append(f"{name}: {idle:.0f} MB of its own memory, ready in {seconds:.1f} s")
        assert 0 < idle < LARGEST_IDLE_MB, name


def moment(text: str) -> datetime:
    """Read a time of the engine, which has nanoseconds."""
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def test_containers_have_no_privileges(mesh: Mesh) -> None:
    """Not root, no capability, no way to get one, and no file that they can write but /tmp's."""
    status = "grep -E '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs):' /proc/1/status"
    for name in (*PORTS, *STORES):
        shown = mesh.inside(name, "sh", "-c", status)
        found = dict(re.findall(r"^(\w+):\t(\S+)", shown, re.M))
        assert int(found.pop("Uid")) > 0, name
        assert found == {
            **dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), "0" * 16),
            "NoNewPrivs": "1",
        }, name
    for name in PORTS:
        write = (
            "for d in / /app /opt/aam /run/aam /run/keys /usr/bin; do touch $d/new && echo $d; done"
        )
        assert mesh.inside(name, "sh", "-c", f"({write}; touch /tmp/new) 2>/dev/null") == "", name


def test_each_container_reaches_only_what_it_needs(mesh: Mesh) -> None:
    """By connections from inside each container to every address of every other one."""
    addresses: dict[str, list[str]] = {}
    for name in RUNNING:
        networks = mesh.inspect(name)["NetworkSettings"]["Networks"]
        addresses[name] = [one["IPAddress"] for one in networks.values()]
    ports = {**PORTS, **STORES, "airbyte": 8000}

    def reached_from(source: str) -> set[str]:
        container = mesh.inspect(source)["Id"]
        targets = {
            name: [[address, ports[name]] for address in (name, *addresses[name])]
            for name in RUNNING
            if name != source
        }
        # In the container's network, with its address, and with Python where the image has none.
        shown = mesh.engine.run(
            *("run", "--rm", "--label", LABEL, "--network", f"container:{container}"),
            *("adaptive-api-mesh:0.1.0", "python", "-c", PROBE, json.dumps(targets)),
        )
        return set(json.loads(shown))

    with ThreadPoolExecutor(max_workers=3) as threads:
        found = dict(zip(RUNNING, threads.map(reached_from, RUNNING), strict=True))
    assert found == {name: set(reached.split()) for name, reached in REACHES.items()}


def test_drift_is_healed(mesh: Mesh) -> None:
    """Onboard, sync, a new field in the source, and its column in the warehouse."""
    connection = onboarded(mesh)
    synced(mesh, connection)
    rows = int(mesh.sql("warehouse", 'SELECT count(*) FROM "Account"'))
    assert rows > 0

    mesh.org("add-field", "Account", "Region__c", "--value", "North")
    seen = mesh.call("schema-observer", "POST", f"{connection}/observe?wait=120", {})
    assert seen["outcome"] == "changed"

    def is_healed() -> bool:
        return bool(mesh.call("orchestrator", "GET", connection)["catalog_version"] == 2)

    assert processes.becomes_true(is_healed, HEALED_WITHIN_S)
    synced(mesh, connection)
    north = """SELECT count(*) FROM "Account" WHERE "Region__c" = 'North'"""
    assert int(mesh.sql("warehouse", north)) == rows


def onboarded(mesh: Mesh) -> str:
    """Onboard the sample org, and return the path of the connection."""
    order = {
        "source_type": "Salesforce",
        "connection_name": "Salesforce in a container",
        "credential_id": "salesforce-prod",
        "streams": ["Account"],
    }
    made = mesh.call("orchestrator", "POST", "/connections/onboard?wait=120", order, expect=201)
    return f"/connections/{made['id']}"


def synced(mesh: Mesh, connection: str) -> None:
    """Run a sync to its end."""
    started = mesh.call("orchestrator", "POST", f"{connection}/sync", expect=202)

    def ended() -> bool:
        jobs = mesh.call("orchestrator", "GET", f"{connection}/jobs")["items"]
        (job,) = (one for one in jobs if one["job_id"] == started["job_id"])
        assert job["status"] in ("pending", "running", "succeeded"), job
        return bool(job["ended_at"])

    assert processes.becomes_true(ended, 180)


def test_secrets_are_only_where_they_are_read(mesh: Mesh, image: str) -> None:
    """Generated ones are in no description, log, command line or image; set ones are not spread."""
    generated = generated_secrets(mesh)
    assert len(generated) > 15
    described = {name: json.dumps(mesh.inspect(name)) for name in (*RUNNING, *RUN_ONCE)}
    elsewhere = [
        mesh.engine.run("history", "--no-trunc", image),
        mesh.engine.run("image", "inspect", image),
        mesh.compose("logs", "--no-color"),
        *(mesh.engine.run("top", mesh.inspect(name)["Id"], "-eo", "pid,args") for name in RUNNING),
    ]
    for kind in ("network", "volume"):
        names = mesh.engine.run(kind, "ls", "--quiet", "--filter", f"label={LABEL}").split()
        elsewhere.append(mesh.engine.run(kind, "inspect", *names))
    for text in (*described.values(), *elsewhere):
        assert not [kind for kind, secret in generated.items() if secret in text]
    assert not in_layers(mesh, image, [*generated.values(), *mesh.secrets.values()])

    for variable, secret in mesh.secrets.items():
        holders = {name for name, text in described.items() if secret in text} - {"airbyte"}
        is_airbyte = variable == "AIRBYTE_API_KEY"
        wanted = CALL_AIRBYTE if is_airbyte else {"auth-broker"}
        assert holders == wanted, variable
        assert not [text for text in elsewhere if secret in text], variable


def generated_secrets(mesh: Mesh) -> dict[str, str]:
    """What the first start has generated, by file: passwords, keys and the first API key."""
    read = 'for f in $(find /run -type f); do echo "== $f"; cat $f; done'
    found: dict[str, str] = {}
    for service in ("passwords", "keys"):
        shown = mesh.compose("run", "--rm", "--no-deps", service, "sh", "-c", read)
        for part in shown.split("== ")[1:]:
            path, _, content = part.partition("\n")
            if "/public/" in path or path.endswith("airbyte_workspace_id"):
                continue
            lines = [line for line in content.splitlines() if line and "-----" not in line]
            if lines:
                found[path] = re.split(r"[: @/]", lines[0])[-1] if "auth" in path else lines[0]
    return found


def in_layers(mesh: Mesh, image: str, secrets: list[str]) -> str:
    """The count of lines in the image's layers and configuration with one of the secrets."""
    patterns = mesh.folder / "patterns"
    patterns.write_text("\n".join(secrets))
    command = f"docker save {image} | grep --text --fixed-strings --count --file {patterns}"
    done = processes.run(["sh", "-c", command], env=mesh.engine.environment, timeout=120)
    return done.stdout.strip().removeprefix("0")


def test_killed_containers_come_back(mesh: Mesh) -> None:
    """Each main process gets SIGKILL; all are healthy again, and nothing is lost."""
    before = mesh.record()
    for group in (("postgres",), ("redis",), (*PORTS, "airbyte")):
        restarts = {}
        for name in group:
            found = mesh.inspect(name)
            restarts[name] = found["RestartCount"]
            os.kill(found["State"]["Pid"], signal.SIGKILL)

        def have_restarted(restarts: dict[str, int] = restarts) -> bool:
            return all(mesh.inspect(name)["RestartCount"] > n for name, n in restarts.items())

        assert processes.becomes_true(have_restarted, HEALTHY_WITHIN_S), group
        assert processes.becomes_true(mesh.healthy, HEALTHY_WITHIN_S), group
    assert mesh.record() == before


def test_down_and_up_lose_nothing(mesh: Mesh) -> None:
    """The second start finds its volumes: the same passwords, keys, rows and events."""
    before, secrets = mesh.record(), generated_secrets(mesh)
    mesh.compose("down", "--timeout", "15")
    left = mesh.engine.run("ps", "--all", "--quiet", "--filter", f"label={LABEL}")
    assert not left
    MEASURED.append(f"second start: all healthy after {mesh.up():.1f} s")
    assert mesh.record() == before
    assert generated_secrets(mesh) == secrets
    (connection,) = mesh.call("orchestrator", "GET", "/connections")["items"]
    synced(mesh, f"/connections/{connection['id']}")
