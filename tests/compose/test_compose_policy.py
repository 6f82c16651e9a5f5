"""Each rule of the container policy detects its violation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
POLICY = jsonschema.Draft202012Validator(
    yaml.safe_load((ROOT / "tests/compose/policy.schema.yaml").read_text())
)
PLANTED: list[tuple[str, str, Any]] = [
    ("orchestrator", "user", "0:0"),
    ("keys", "user", "aam"),
    ("redis", "read_only", False),
    ("rag-engine", "cap_add", ["NET_ADMIN"]),
    ("postgres", "cap_drop", []),
    ("migrate", "security_opt", []),
    ("airbyte-worker", "privileged", True),
    ("docker-proxy", "devices", ["/dev/kmsg"]),
    ("orchestrator", "network_mode", "host"),
    ("airbyte-server", "pid", "host"),
    ("airbyte-worker", "volumes", ["/var/run/docker.sock:/var/run/docker.sock"]),
    ("auth-broker", "ports", ["${AAM_BIND:-127.0.0.1}:8002:8002"]),
    ("redis", "expose", ["6379"]),
    ("orchestrator", "ports", ["8001:8001"]),
    ("rag-engine", "networks", ["broker"]),
    ("orchestrator", "networks", ["audit"]),
    ("airbyte-server", "networks", ["airbyte", "data"]),
    ("redis", "image", "valkey/valkey:latest"),
    ("airbyte-cron", "image", "airbyte/cron:1.8.0"),
    ("schema-observer", "healthcheck", {}),
    ("migrate", "build", {"context": ".", "args": {"A": "b"}}),
    ("airbyte-setup", "environment", {"AIRBYTE_PASSWORD": "password"}),
    ("rag-engine", "command", ["uvicorn", "--token=abc"]),
    ("airbyte-server", "environment", {"TRACKING_STRATEGY": "segment"}),
]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The parsed file, without interpolation of variables."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def violations(compose: dict[str, Any]) -> set[str]:
    """Return the names of the services that violate the policy."""
    return {str(error.absolute_path[1]) for error in POLICY.iter_errors(compose)}


def test_compose_file_follows_policy(compose: dict[str, Any]) -> None:
    """`make check` checks the same with check-jsonschema."""
    assert violations(compose) == set()


@pytest.mark.parametrize("service, member, value", PLANTED)
def test_each_violation_is_reported(
    compose: dict[str, Any], service: str, member: str, value: Any
) -> None:
    """A copy of the file with one violation has only that one."""
    broken = copy.deepcopy(compose)
    broken["services"][service][member] = value
    assert violations(broken) == {service}


@pytest.mark.parametrize("member", ["user", "read_only", "cap_drop", "security_opt", "healthcheck"])
def test_new_service_must_follow_policy(compose: dict[str, Any], member: str) -> None:
    broken = copy.deepcopy(compose)
    broken["services"]["console"] = broken["services"]["orchestrator"]
    assert violations(broken) == {"console"}  # only the orchestrator may call the auth_broker
    broken["services"]["console"] = {
        name: value
        for name, value in compose["services"]["schema-observer"].items()
        if name != member
    }
    assert violations(broken) == {"console"}
