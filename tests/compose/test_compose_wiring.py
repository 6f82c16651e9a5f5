"""How docker-compose.yml wires the mesh: who waits for whom, and who reads what."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.auth_broker.settings import BrokerSettings
from shared.config import MigrationSettings, RagEngineSettings, Settings, postgres_address

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {
    "orchestrator": 8001,
    "auth-broker": 8002,
    "drift-repair-agent": 8003,
    "schema-observer": 8004,
    "rag-engine": 8005,
}
RUN_ONCE = {"passwords", "migrate", "keys", "airbyte-setup"}
OURS = {*SERVICES, *RUN_ONCE}
STORES = {"postgres", "redis"}
UNPUBLISHED = {"auth-broker", *STORES, *RUN_ONCE}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<op>:[-+?])(?P<word>[^}]*)\}")


def filled_in(value: Any, **environment: str) -> Any:
    """The value with its variables replaced as compose does it."""
    if isinstance(value, dict):
        return {name: filled_in(of, **environment) for name, of in value.items()}
    if isinstance(value, list):
        return [filled_in(of, **environment) for of in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        given = environment.get(found["name"], "")
        if found["op"] == ":+":
            return found["word"] if given else ""
        return given or found["word"]

    return _VARIABLE.sub(replace, value)


@pytest.fixture(scope="module")
def text() -> str:
    """The file as it stands."""
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    """The file with nothing set."""
    composed: dict[str, Any] = filled_in(yaml.safe_load(text))
    return composed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its services by name."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def _of_airbyte(services: dict[str, dict[str, Any]]) -> set[str]:
    return services.keys() - OURS - STORES


def _started(service: dict[str, Any], profiles: set[str]) -> bool:
    """Compose's rule; without COMPOSE_PROFILES the one active profile is the empty one."""
    wanted = set(service.get("profiles", []))
    return not wanted or bool(wanted & profiles)


def test_everything_starts_with_nothing_set(services: dict[str, dict[str, Any]]) -> None:
    """The mesh, its stores and the whole of Airbyte."""
    assert services.keys() >= OURS | STORES
    assert {name for name, of in services.items() if not _started(of, {""})} == set()


@pytest.mark.parametrize(
    "environment, profiles, with_airbyte",
    [
        ({"AIRBYTE_API_URL": "http://elsewhere/api/v1"}, {""}, False),
        ({"AIRBYTE_API_URL": "http://elsewhere/api/v1"}, {"airbyte"}, True),
        ({}, {"none"}, False),
        ({}, {"airbyte"}, True),
    ],
)
def test_airbyte_can_run_elsewhere(
    text: str, environment: dict[str, str], profiles: set[str], with_airbyte: bool
) -> None:
    """Its containers are left out, and nothing of ours waits for one of them."""
    services = filled_in(yaml.safe_load(text), **environment)["services"]
    started = {name for name, of in services.items() if _started(of, profiles)}
    assert started == {*OURS, *STORES, *(_of_airbyte(services) if with_airbyte else ())}
    for name in started - _of_airbyte(services):
        assert set(services[name].get("depends_on", {})) <= OURS | STORES
    for name in ("orchestrator", "drift-repair-agent", "airbyte-setup"):
        elsewhere = services["passwords"]["environment"]["AIRBYTE_ELSEWHERE"]
        assert bool(elsewhere) == ("AIRBYTE_API_URL" in environment)
        url = services[name]["environment"]["AIRBYTE_API_URL"]
        assert url == environment.get("AIRBYTE_API_URL", "http://airbyte-proxy:8000/api/v1")


def test_published_ports(services: dict[str, dict[str, Any]]) -> None:
    """Four services of ours and one door of Airbyte's, to this machine only."""
    published = {name: of["ports"] for name, of in services.items() if "ports" in of}
    assert published == {
        "airbyte-proxy": ["127.0.0.1:8000:8000"],
        **{
            name: [f"127.0.0.1:{port}:{port}"]
            for name, port in SERVICES.items()
            if name not in UNPUBLISHED
        },
    }


def test_networks(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    """Who holds secrets is on internal networks; the engine's socket is shared with nobody else."""
    internal = {name for name, of in compose["networks"].items() if of.get("internal")}
    on = {
        network: {name for name, of in services.items() if network in of.get("networks", [])}
        for network in compose["networks"]
    }
    assert internal == {"data", "broker", "docker"}
    assert set(services["auth-broker"]["networks"]) == {"broker", "audit"}
    assert on["audit"] == {"auth-broker", "postgres"}
    assert on["broker"] == {"auth-broker", "orchestrator"}
    assert on["docker"] == {"docker-proxy", "airbyte-worker"}
    assert set(services["redis"]["networks"]) == {"data"}
    assert on["warehouse"] == {"postgres"}
    assert services["passwords"]["network_mode"] == "none"
    assert not (on["airbyte"] & OURS)


def test_connectors_reach_the_warehouse(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    """Airbyte starts them in the network, and on the volumes, that it is told by name."""
    told = services["airbyte-worker"]["environment"]
    assert told["DOCKER_NETWORK"] == compose["networks"]["warehouse"]["name"]
    assert told["WORKSPACE_DOCKER_MOUNT"] == compose["volumes"]["airbyte-workspace"]["name"]
    assert told["LOCAL_DOCKER_MOUNT"] == compose["volumes"]["airbyte-local"]["name"]
    mounts = services["airbyte-worker"]["volumes"]
    assert f"airbyte-workspace:{told['WORKSPACE_ROOT']}" in mounts
    assert f"airbyte-local:{told['LOCAL_ROOT']}" in mounts


def test_health_checks(services: dict[str, dict[str, Any]]) -> None:
    """Each service is asked on its own port, and each store by its own client."""
    for name, port in SERVICES.items():
        assert f"http://127.0.0.1:{port}/health" in services[name]["healthcheck"]["test"][-1]
        assert f"--port={port}" in services[name]["command"]
        assert f"services.{name.replace('-', '_')}.main:app" in services[name]["command"]
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert "valkey-cli" in services["redis"]["healthcheck"]["test"]


def test_start_order(services: dict[str, dict[str, Any]]) -> None:
    """Passwords, Postgres, the tables and the warehouse, then who needs them."""
    done, healthy = "service_completed_successfully", "service_healthy"
    after = {
        name: {one: how["condition"] for one, how in of.get("depends_on", {}).items()}
        for name, of in services.items()
    }
    assert after["postgres"] == {"passwords": done}
    assert after["migrate"] == {"postgres": healthy}
    assert after["airbyte-setup"] == {"postgres": healthy}
    assert after["orchestrator"] == {
        "keys": done,
        "airbyte-setup": done,
        "auth-broker": healthy,
        "redis": healthy,
    }
    assert after["drift-repair-agent"] == {"keys": done, "redis": healthy}
    assert after["schema-observer"] == {"keys": done, "redis": healthy}
    assert after["rag-engine"] == {"keys": done}
    assert after["keys"] == {"migrate": done}
    for name, waits in after.items():
        for other, condition in waits.items():
            assert condition != healthy or "healthcheck" in services[other], (name, other)


def test_state_is_in_named_volumes(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    """Nothing of ours writes to the machine's own folders; settings are written by two alone."""
    for name in OURS | STORES:
        for mount in services[name].get("volumes", []):
            source = mount.partition(":")[0]
            assert source in compose["volumes"] or mount.endswith(":ro"), mount
    writers = {
        name for name in services if "settings:/run/aam" in services[name].get("volumes", [])
    }
    assert writers == {"passwords", "airbyte-setup"}
    assert _mounting(services, "migration") == {"passwords", "migrate"}
    assert _mounting(services, "passwords") == {"passwords", "postgres"}
    assert services["postgres"]["volumes"][0] == "postgres:/var/lib/postgresql/data"
    assert services["redis"]["volumes"] == ["redis:/data"]


def _mounting(services: dict[str, dict[str, Any]], volume: str) -> set[str]:
    return {
        name
        for name, of in services.items()
        if volume in {mount.partition(":")[0] for mount in of.get("volumes", [])}
    }


def test_every_setting_can_be_set(services: dict[str, dict[str, Any]]) -> None:
    """A variable in .env reaches the services, but for tests' own and the CA file's."""
    not_here = {"SUPABASE_DB_CA_FILE", "AAM_ENV", "AAM_FAILPOINTS"}
    read = dict.fromkeys(
        ("orchestrator", "drift-repair-agent", "schema-observer", "airbyte-setup"),
        Settings.model_fields,
    ) | {
        "migrate": MigrationSettings.model_fields,
        "rag-engine": RagEngineSettings.model_fields,
        "auth-broker": BrokerSettings.model_fields,
    }
    for name, fields in read.items():
        settable = {field.upper() for field in fields} - not_here
        assert settable - services[name]["environment"].keys() == set()
        folder = "/run/migration" if name == "migrate" else "/run/aam"
        assert services[name]["environment"]["AAM_SETTINGS_DIR"] == folder


def test_credentials_reach_the_auth_broker_alone(services: dict[str, dict[str, Any]]) -> None:
    """No other container has a variable or a file of them, and it has no other secret."""
    for name, service in services.items():
        holds = [
            one
            for one in service.get("environment", {})
            if one.startswith(("CREDENTIAL_", "CREDENTIALS_", "VAULT_"))
        ]
        assert bool(holds or "env_file" in service) == (name == "auth-broker")
    ours = {field.upper() for field in BrokerSettings.model_fields} | {"AAM_SETTINGS_DIR"}
    others = services["auth-broker"]["environment"].keys() - ours
    assert all(one.startswith("CREDENTIAL_SALESFORCE_PROD__") for one in others)


def test_each_service_has_its_own_key_alone(services: dict[str, dict[str, Any]]) -> None:
    """Only the one that makes them sees all; the first caller's key reaches no service."""
    for name, service in services.items():
        mounted = {mount.split(":")[0]: mount for mount in service.get("volumes", [])}
        keys = {one for one in mounted if one.startswith("key-") or one == "first-key"}
        own = {f"key-{name}"} if f"key-{name}" in mounted else set()
        assert name == "keys" or keys == own
        if own:
            assert mounted[f"key-{name}"] == f"key-{name}:/run/key:ro"


def test_mounted_files_exist(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    """Compose would make an empty folder of a path that is mistyped."""
    mounts = [mount for of in services.values() for mount in of.get("volumes", [])]
    paths = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    paths += [of["file"] for of in compose["configs"].values()]
    paths += services["auth-broker"]["env_file"]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_image_holds_what_is_named_alone() -> None:
    """What is copied is what .dockerignore lets through, and its user is compose's."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    copied = {
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in allowed)


def test_passwords_are_drawn_once(tmp_path: Path) -> None:
    """The second start finds those of the first, and the URLs hold them."""
    folders = [tmp_path / name for name in ("settings", "passwords", "migration")]
    settings, passwords, migration = folders
    for folder in folders:
        folder.mkdir()
    environment = os.environ | {
        "AAM_SETTINGS_DIR": str(settings),
        "PASSWORDS_DIR": str(passwords),
        "MIGRATION_DIR": str(migration),
    }
    drawn = []
    for _ in range(2):
        _draw(environment)
        drawn.append({path.name: path.read_text() for path in passwords.iterdir()})
        for key in ("webhook_signing_key", "rotation_digest_key"):
            drawn[-1][key] = (settings / key).read_text()
    assert drawn[0] == drawn[1]
    drawn_keys = {"webhook_signing_key", "rotation_digest_key"}
    assert drawn[0].keys() == {"postgres", "aam", "aam_mesh", "warehouse"} | drawn_keys
    assert len(set(drawn[0].values())) == 6
    assert all(re.fullmatch(r"[0-9a-f]{48}\n", password) for password in drawn[0].values())
    _draw({**environment, "AIRBYTE_ELSEWHERE": "yes"})
    assert {path.name for path in settings.iterdir()} == {"supabase_db_url"} | drawn_keys
    _draw(environment)
    for role, database, file in (
        ("aam", "aam", migration / "supabase_db_url"),
        ("aam_mesh", "aam", settings / "supabase_db_url"),
        ("warehouse", "warehouse", settings / "warehouse_db_url"),
    ):
        address = postgres_address(file.read_text())
        assert (address.host, address.user, address.database) == ("postgres", role, database)
        assert f"{address.password}\n" == drawn[0][role]
        assert file.stat().st_mode & 0o077 == 0
    assert all((settings / key).stat().st_mode & 0o077 == 0 for key in drawn_keys)


def _draw(environment: dict[str, str]) -> None:
    run = subprocess.run(
        ["sh", str(ROOT / "deploy/passwords.sh")],
        env=environment,
        check=True,
        capture_output=True,
        timeout=20,
    )
    assert run.stdout + run.stderr == b""
