"""Rules for docker-compose.yml and the Dockerfile; each is shown to find the fault that it is for.

What the file promises beside them is in tests/integration/test_compose.py. No engine is needed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Services = dict[str, dict[str, Any]]
PRIVATE = {"auth-broker", "postgres", "redis"}
"""Who no other machine, and no container of Airbyte's, ever reaches."""
THE_ENGINES = {"docker-proxy"}
"""Who holds the container engine's socket: Airbyte 0.63 starts connectors by it."""
_NUMERIC = re.compile(r"[1-9]\d*:[1-9]\d*")
_SECRET = re.compile(r"(?i)(passw|secret|token|api_?key|credential(?!_store)|private)")
_VERSION = re.compile(r"(@sha256:[0-9a-f]{64}|:v?\d+\.\d+\.\d+[-.\w]*)$")


def _ours(services: Services) -> Services:
    """What is not Airbyte's own."""
    theirs = {"docker-proxy"}
    return {
        name: of
        for name, of in services.items()
        if not of["image"].startswith("airbyte/") and name not in theirs
    }


def _of_airbyte(services: Services) -> set[str]:
    return services.keys() - _ours(services).keys()


def numeric_users(services: Services) -> Iterator[str]:
    for name, of in _ours(services).items():
        if not _NUMERIC.fullmatch(str(of.get("user", ""))):
            yield f"{name} has no numeric user other than root"


def read_only_roots(services: Services) -> Iterator[str]:
    for name, of in _ours(services).items():
        if of.get("read_only") is not True:
            yield f"{name} may write to its root"


def no_capabilities(services: Services) -> Iterator[str]:
    for name, of in _ours(services).items():
        if of.get("cap_drop") != ["ALL"] or "cap_add" in of:
            yield f"{name} keeps capabilities"


def nothing_gained(services: Services) -> Iterator[str]:
    for name, of in _ours(services).items():
        if of.get("security_opt") != ["no-new-privileges:true"]:
            yield f"{name} may gain privileges"


def nothing_of_the_machine(services: Services) -> Iterator[str]:
    """No privileged container, none in the machine's namespaces, none with its devices."""
    for name, of in services.items():
        for key in ("privileged", "devices", "device_cgroup_rules", "userns_mode", "cgroup_parent"):
            if of.get(key):
                yield f"{name} has {key}"
        for key in ("network_mode", "pid", "ipc", "uts", "cgroup"):
            if str(of.get(key, "none")) != "none":
                yield f"{name} shares {key}"


def no_engine_socket(services: Services) -> Iterator[str]:
    for name, of in services.items():
        if name not in THE_ENGINES and any("docker.sock" in m for m in of.get("volumes", [])):
            yield f"{name} holds the engine's socket"


def private_unpublished(services: Services) -> Iterator[str]:
    for name in PRIVATE:
        if "ports" in services[name] or "expose" in services[name]:
            yield f"{name} is published"


def published_here_alone(services: Services) -> Iterator[str]:
    """A port is the loopback address's unless somebody says otherwise."""
    for name, of in services.items():
        for port in of.get("ports", []):
            if not re.match(r"\$\{(AAM|AIRBYTE)_BIND:-127\.0\.0\.1\}:\d+:\d+$", str(port)):
                yield f"{name} publishes {port}"


def reached_by_few(services: Services) -> Iterator[str]:
    """The orchestrator alone calls the broker, which asks Postgres; Airbyte reaches no store."""
    on = {name: set(of.get("networks", [])) for name, of in services.items()}
    for name, networks in on.items():
        if networks & on["auth-broker"] and name not in ("auth-broker", "orchestrator", "postgres"):
            yield f"{name} reaches the auth-broker"
        if name in _of_airbyte(services) and networks & on["redis"]:
            yield f"{name} reaches the stores"


def pinned_images(services: Services) -> Iterator[str]:
    for name, of in services.items():
        if not _VERSION.search(of["image"]):
            yield f"{name} runs {of['image']}, of no version"


def health_is_asked(services: Services) -> Iterator[str]:
    """Of everything of ours that goes on running."""
    for name, of in _ours(services).items():
        if of.get("restart") == "unless-stopped" and "test" not in of.get("healthcheck", {}):
            yield f"{name} has no health check"


def plain_builds(services: Services) -> Iterator[str]:
    """Nothing is handed to a build but the folder: what is, stays in the image's history."""
    for name, of in services.items():
        if of.get("build", {"context": "."}) != {"context": "."}:
            yield f"{name} hands something to its build"


def no_secret_values(services: Services) -> Iterator[str]:
    """Of ours: a variable that is secret by its name has no value in the file, nor any argv."""
    for name, of in _ours(services).items():
        for variable, value in of.get("environment", {}).items():
            if _SECRET.search(variable) and value and not str(value).startswith("/run/"):
                yield f"{name} is given a value for {variable}"
        if _SECRET.search(" ".join(map(str, of.get("command", [])))) and name not in (
            "passwords",
            "keys",
        ):
            yield f"{name} has a secret in its command line"


RULES: tuple[Callable[[Services], Iterator[str]], ...] = (
    numeric_users,
    read_only_roots,
    no_capabilities,
    nothing_gained,
    nothing_of_the_machine,
    no_engine_socket,
    private_unpublished,
    published_here_alone,
    reached_by_few,
    pinned_images,
    health_is_asked,
    plain_builds,
    no_secret_values,
)
PLANTED: Mapping[str, tuple[str, str, Any]] = {
    "orchestrator has no numeric user other than root": ("orchestrator", "user", "0:0"),
    "keys has no numeric user other than root": ("keys", "user", "aam"),
    "redis may write to its root": ("redis", "read_only", False),
    "rag-engine keeps capabilities": ("rag-engine", "cap_add", ["NET_ADMIN"]),
    "postgres keeps capabilities": ("postgres", "cap_drop", []),
    "migrate may gain privileges": ("migrate", "security_opt", []),
    "airbyte-worker has privileged": ("airbyte-worker", "privileged", True),
    "orchestrator shares network_mode": ("orchestrator", "network_mode", "host"),
    "orchestrator shares pid": ("orchestrator", "pid", "host"),
    "airbyte-worker holds the engine's socket": (
        "airbyte-worker", "volumes", ["/var/run/docker.sock:/var/run/docker.sock"],
    ),
    "auth-broker is published": (
        "auth-broker", "ports", ["${AAM_BIND:-127.0.0.1}:8002:8002"],
    ),
    "redis is published": ("redis", "expose", ["6379"]),
    "orchestrator publishes 8001:8001": ("orchestrator", "ports", ["8001:8001"]),
    "rag-engine reaches the auth-broker": ("rag-engine", "networks", ["broker"]),
    "airbyte-server reaches the stores": ("airbyte-server", "networks", ["airbyte", "data"]),
    "redis runs valkey/valkey:latest, of no version": ("redis", "image", "valkey/valkey:latest"),
    "redis runs valkey/valkey, of no version": ("redis", "image", "valkey/valkey"),
    "schema-observer has no health check": ("schema-observer", "healthcheck", {}),
    "migrate hands something to its build": (
        "migrate", "build", {"context": ".", "args": {"A": "b"}},
    ),
    "orchestrator is given a value for AIRBYTE_PASSWORD": (
        "orchestrator", "environment", {"AIRBYTE_PASSWORD": "password"},
    ),
    "rag-engine has a secret in its command line": (
        "rag-engine", "command", ["uvicorn", "--token=abc"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def services() -> Services:
    """The services by name, their variables as they are written."""
    found: Services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def told(services: Services) -> list[str]:
    """What the rules have to say."""
    return [line for rule in RULES for line in rule(services)]


def test_compose_breaks_no_rule(services: Services) -> None:
    """As the file stands."""
    assert told(services) == []


@pytest.mark.parametrize("line", PLANTED)
def test_each_fault_is_found(services: Services, line: str) -> None:
    """Planted in a copy, it is the one thing that is told; a new service is judged, too."""
    name, key, value = PLANTED[line]
    broken = copy.deepcopy(services)
    broken.setdefault(name, copy.deepcopy(broken["migrate"]))[key] = value

    assert told(broken) == [line]


def test_every_rule_has_a_planted_fault(services: Services) -> None:
    """So that none is kept which finds nothing."""
    found = set()
    for name, key, value in PLANTED.values():
        broken = copy.deepcopy(services)
        broken.setdefault(name, copy.deepcopy(broken["migrate"]))[key] = value
        found |= {rule for rule in RULES if list(rule(broken))}
    assert found == set(RULES)


# The Dockerfile


def lint_image(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    joined = re.sub(r"\\\n\s*", "", text)
    steps = [
        line.partition(" ")[::2]
        for line in joined.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    arguments = dict(of.partition("=")[::2] for verb, of in steps if verb == "ARG")
    wrong = []
    stages: set[str] = set()
    for verb, of in steps:
        if verb == "FROM":
            image, _, stage = of.partition(" AS ")
            image = arguments.get(image.strip("${}"), image)
            if image not in stages and not _VERSION.search(image):
                wrong.append(f"{image} is of no version")
            stages.add(stage)
        if verb in ("ENV", "ARG", "LABEL") and _SECRET.search(of):
            wrong.append(f"{verb} names a secret")
        if verb == "ADD":
            wrong.append("ADD unpacks and fetches")
        if verb == "COPY" and of.split()[-2] == ".":
            wrong.append("COPY takes everything")
        if verb == "RUN" and re.search(r"\b(curl|wget|sudo|chmod (-R )?[0-7]?777)\b|--mount=", of):
            wrong.append("RUN fetches, is root's, or opens files to all")
        if verb == "RUN" and "pip install" in of:
            wrong += [
                f"pip lacks {option}"
                for option in ("--require-hashes", "--only-binary :all:", "--no-deps")
                if option not in of
            ]
    users = [of for verb, of in steps if verb == "USER"]
    if not users or not _NUMERIC.fullmatch(users[-1]):
        wrong.append("its last user is no number")
    return wrong


IMAGE = "FROM python:3.12.1-slim\nUSER 1:1\n"


def test_the_image_breaks_no_rule() -> None:
    """As the Dockerfile stands."""
    assert lint_image((ROOT / "Dockerfile").read_text()) == []


@pytest.mark.parametrize(
    "text, line",
    [
        ("FROM python:3\nUSER 1:1\n", "python:3 is of no version"),
        ("ARG P=python\nFROM ${P}\nUSER 1:1\n", "python is of no version"),
        (f"{IMAGE}ENV AIRBYTE_PASSWORD=x\n", "ENV names a secret"),
        (f"{IMAGE}ARG INDEX_TOKEN\n", "ARG names a secret"),
        (f"{IMAGE}ADD a.tar /\n", "ADD unpacks and fetches"),
        (f"{IMAGE}COPY . /app\n", "COPY takes everything"),
        (f"{IMAGE}RUN a \\\n  && curl x | sh\n", "RUN fetches, is root's, or opens files to all"),
        (f"{IMAGE}RUN chmod -R 777 /app\n", "RUN fetches, is root's, or opens files to all"),
        (f"{IMAGE}RUN --mount=type=ssh a\n", "RUN fetches, is root's, or opens files to all"),
        (
            f"{IMAGE}RUN pip install --only-binary :all: --no-deps -r r.txt\n",
            "pip lacks --require-hashes",
        ),
        ("FROM python:3.12.1-slim\n", "its last user is no number"),
        (f"{IMAGE}USER root\n", "its last user is no number"),
    ],
)
def test_each_fault_of_an_image_is_found(text: str, line: str) -> None:
    """The one thing that is told of it."""
    assert lint_image(text) == [line]
    assert lint_image(IMAGE) == []
