"""The services accept what their pods get: every set of values, with the real settings classes."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.chart.rendering import (
    ROOT,
    SERVICES,
    SETS,
    Object,
    component,
    containers,
    of_kind,
    of_set,
    pods,
)

_MODULES = {one["component"]: one["module"] for one in SERVICES.values()} | {
    "migrate": "migrate",
    "first-key": "orchestrator",
}


def described(given: list[Object], pod: Object, container: Object) -> dict[str, Any]:
    """Return a container's environment, and its files with the Secret that each comes from."""
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(given, "ConfigMap")}
    environment = {one["name"]: one["value"] for one in container.get("env", [])}
    for one in container.get("envFrom", []):
        environment |= maps[one["configMapRef"]["name"]]
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    folders: dict[str, list[tuple[str, str, str]]] = {}
    for one in container["volumeMounts"]:
        volume = volumes[one["name"]]
        sources = [source["secret"] for source in volume.get("projected", {}).get("sources", [])]
        if "secret" in volume:
            sources = [{"name": volume["secret"]["secretName"]}]
        for source in sources:
            for item in source.get("items", [{"path": "*", "key": "*"}]):
                file = "client_id" if "secret" in volume else item["path"]
                folders.setdefault(one["mountPath"], []).append((file, source["name"], item["key"]))
    return {
        "service": _MODULES[container["name"]],
        "environment": environment,
        "folders": folders,
    }


@cache
def loaded(name: str) -> dict[str, dict[str, Any]]:
    """Return what each container of a set of values reads, by its name."""
    given = of_set(name)
    every = [
        (container["name"], described(given, pod, container))
        for pod in pods(given).values()
        for container in containers(pod)
    ]
    done = subprocess.run(
        [ROOT / ".venv/bin/python", "-m", "tests.chart.loading"],
        input=json.dumps([one for _, one in every]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip((of for of, _ in every), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", SETS)
def test_services_accept_their_settings(name: str) -> None:
    """No container would exit, and each reads the registry's URL that is its own."""
    found = loaded(name)

    assert {of: one["error"] for of, one in found.items() if "error" in one} == {}
    for of, one in found.items():
        assert ("SUPABASE_DB_URL" in one["set"]) == (of != "console")
        assert ("REDIS_URL" in one["set"]) == (of == "orchestrator")
    given = {component(one) for one in of_kind(of_set(name), "Deployment")}
    assert given <= found.keys()


def test_logins_and_keys_are_those_of_the_secrets() -> None:
    """By the values of the guide's first installation."""
    found = loaded("minimal")

    assert {of: one["login"] for of, one in found.items()} == {
        "orchestrator": "orchestrator",
        "auth-broker": "auth_broker",
        "drift-repair-agent": "drift_repair_agent",
        "schema-observer": "schema_observer",
        "rag-engine": "rag_engine",
        "console": "",
        "migrate": "migration",
        "first-key": "orchestrator",
    }
    callers = ["console", "drift_repair_agent", "orchestrator"]
    for of, one in found.items():
        assert one["callers"] == ([] if of in ("console", "migrate", "first-key") else callers)
