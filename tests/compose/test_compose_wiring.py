"""docker-compose.yml: start order, networks, ports, volumes, and access to secrets."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from local.processes import servers
from services.auth_broker.settings import BrokerSettings
from services.console.settings import ConsoleSettings
from shared.config import MigrationSettings, RagEngineSettings, Settings
from shared.postgres_address import postgres_address

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {
    "orchestrator": 8001,
    "auth-broker": 8002,
    "drift-repair-agent": 8003,
    "schema-observer": 8004,
    "rag-engine": 8005,
    "console": 8006,
}
RUN_ONCE = {"passwords", "migrate", "keys", "airbyte-setup"}
OURS = {*SERVICES, *RUN_ONCE}
STORES = {"postgres", "redis"}
UNPUBLISHED = {"auth-broker", *STORES, *RUN_ONCE}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<op>:[-+?])(?P<word>[^}]*)\}")


def filled_in(value: Any, **environment: str) -> Any:
    """Interpolate variables as compose does."""
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
    """The text of docker-compose.yml."""
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    """The parsed file with no variable set."""
    composed: dict[str, Any] = filled_in(yaml.safe_load(text))
    return composed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services by name."""
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def _of_airbyte(services: dict[str, dict[str, Any]]) -> set[str]:
    return services.keys() - OURS - STORES


def _started(service: dict[str, Any], profiles: set[str]) -> bool:
    """Whether compose starts a service; without COMPOSE_PROFILES `profiles` is `{""}`."""
    wanted = set(service.get("profiles", []))
    return not wanted or bool(wanted & profiles)


def test_starts_without_any_variable_set(services: dict[str, dict[str, Any]]) -> None:
    """The mesh, its stores and all containers of Airbyte start."""
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
def test_external_airbyte_needs_no_containers_of_airbyte(
    text: str, environment: dict[str, str], profiles: set[str], with_airbyte: bool
) -> None:
    """Airbyte's containers are not started, and none of our services depends on them."""
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
    """Only five of our services and one port of Airbyte, on loopback."""
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
    """Containers with secrets are on internal networks; only one has the engine socket."""
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
    """Airbyte starts them with the network and volumes of its settings."""
    environment = services["airbyte-worker"]["environment"]
    assert environment["DOCKER_NETWORK"] == compose["networks"]["warehouse"]["name"]
    assert environment["WORKSPACE_DOCKER_MOUNT"] == compose["volumes"]["airbyte-workspace"]["name"]
    assert environment["LOCAL_DOCKER_MOUNT"] == compose["volumes"]["airbyte-local"]["name"]
    mounts = services["airbyte-worker"]["volumes"]
    assert f"airbyte-workspace:{environment['WORKSPACE_ROOT']}" in mounts
    assert f"airbyte-local:{environment['LOCAL_ROOT']}" in mounts


def test_health_checks(services: dict[str, dict[str, Any]]) -> None:
    """Services are checked on their own port, stores with their own client."""
    for name, port in SERVICES.items():
        assert f"http://127.0.0.1:{port}/health" in services[name]["healthcheck"]["test"][-1]
        assert f"--port={port}" in services[name]["command"]
        assert f"services.{name.replace('-', '_')}.main:app" in services[name]["command"]
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert "valkey-cli" in services["redis"]["healthcheck"]["test"]


def test_start_order(services: dict[str, dict[str, Any]]) -> None:
    """First passwords, Postgres, migrations and warehouse, then the containers that need them."""
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
    assert after["console"] == {"passwords": done, "keys": done}
    assert after["keys"] == {"migrate": done}
    for name, waits in after.items():
        for other, condition in waits.items():
            assert condition != healthy or "healthcheck" in services[other], (name, other)


def test_state_is_in_named_volumes(
    compose: dict[str, Any], services: dict[str, dict[str, Any]]
) -> None:
    """No bind mount is writable, and no service can read another's database login."""
    for name in OURS | STORES:
        for mount in services[name].get("volumes", []):
            source = mount.partition(":")[0]
            assert source in compose["volumes"] or mount.endswith(":ro"), mount
    assert _mounting(services, "settings") == {
        "passwords",
        "airbyte-setup",
        "keys",
        "orchestrator",
    }
    for name in SERVICES:
        own = "settings" if name == "orchestrator" else f"settings-{name}"
        folder = f"/run/settings/{name.replace('-', '_')}"
        assert f"{own}:/run/aam:ro" in services[name]["volumes"]
        assert f"{own}:{folder}" in services["passwords"]["volumes"]
        assert folder in (ROOT / "Dockerfile").read_text().split()
        if name != "orchestrator":
            assert _mounting(services, own) == {"passwords", name}
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


def test_every_setting_is_passed_to_the_services(services: dict[str, dict[str, Any]]) -> None:
    """Every setting of .env is passed on, except test settings and the CA file."""
    not_here = {"SUPABASE_DB_CA_FILE", "AAM_ENV", "AAM_FAILPOINTS", "CONSOLE_SIGN_IN_DIR"}
    read = dict.fromkeys(
        ("orchestrator", "drift-repair-agent", "schema-observer", "airbyte-setup"),
        Settings.model_fields,
    ) | {
        "migrate": MigrationSettings.model_fields,
        "rag-engine": RagEngineSettings.model_fields,
        "auth-broker": BrokerSettings.model_fields,
        "console": ConsoleSettings.model_fields,
    }
    for name, fields in read.items():
        settable = {field.upper() for field in fields} - not_here
        assert settable - services[name]["environment"].keys() == set()
        folder = "/run/migration" if name == "migrate" else "/run/aam"
        assert services[name]["environment"]["AAM_SETTINGS_DIR"] == folder


def test_only_the_auth_broker_gets_credentials(services: dict[str, dict[str, Any]]) -> None:
    """No other container gets credentials, and the auth_broker gets no other secrets."""
    for name, service in services.items():
        holds = [
            one
            for one in service.get("environment", {})
            if one.startswith(("CREDENTIAL_", "CREDENTIALS_", "VAULT_"))
        ]
        assert bool(holds or "env_file" in service) == (name == "auth-broker")
    ours = {field.upper() for field in BrokerSettings.model_fields}
    ours |= {"AAM_SETTINGS_DIR", "FORWARDED_ALLOW_IPS"}
    # A variable under `environment` takes precedence over CREDENTIALS_FILE even without a value.
    assert not services["auth-broker"]["environment"].keys() - ours
    passed_on, given = services["auth-broker"]["env_file"]
    assert (passed_on, given) == ("deploy/credentials.env", "deploy/credentials.env")
    names = [
        line for line in (ROOT / passed_on).read_text().splitlines() if not line.startswith("#")
    ]
    assert names
    assert all(re.fullmatch(r"CREDENTIAL_SALESFORCE_PROD__[A-Z_]+", line) for line in names)


def test_each_service_gets_only_its_own_key(services: dict[str, dict[str, Any]]) -> None:
    """Only the container that creates the keys has all; no service gets the first API key."""
    for name, service in services.items():
        mounted = {mount.split(":")[0]: mount for mount in service.get("volumes", [])}
        keys = {one for one in mounted if one.startswith("key-") or one == "first-key"}
        own = {f"key-{name}"} if f"key-{name}" in mounted else set()
        assert name == "keys" or keys == own
        if own:
            assert mounted[f"key-{name}"] == f"key-{name}:/run/key:ro"


def test_mounted_files_exist(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    """Compose would create an empty folder for a misspelt path."""
    mounts = [mount for of in services.values() for mount in of.get("volumes", [])]
    paths = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    paths += [of["file"] for of in compose["configs"].values()]
    paths += services["auth-broker"]["env_file"]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_image_contains_only_named_files() -> None:
    """The Dockerfile copies exactly what .dockerignore allows, and has the user of compose."""
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


_NAMES = ("orchestrator", "auth_broker", "drift_repair_agent", "schema_observer", "rag_engine")


def _drawing(tmp_path: Path) -> dict[str, str]:
    """Return an environment for deploy/passwords.sh, with folders below `tmp_path`."""
    folders = {
        f"{name.upper()}_DIR": tmp_path / name for name in ("settings", "passwords", "migration")
    }
    for folder in (
        *folders.values(),
        *(tmp_path / "settings" / name for name in (*_NAMES, "console")),
    ):
        folder.mkdir()
    return os.environ | {name: str(folder) for name, folder in folders.items()}


def _drawn(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_passwords_are_generated_once(tmp_path: Path) -> None:
    """The second start reuses those of the first, and each service's URL has its own login."""
    environment = _drawing(tmp_path)
    _draw(environment)
    first = _drawn(tmp_path)
    _draw(environment)
    assert _drawn(tmp_path) == first

    logins = {f"aam_{name}_login" for name in _NAMES}
    keys = (
        "settings/drift_repair_agent/webhook_signing_key",
        "settings/drift_repair_agent/state_encryption_keys",
        "settings/orchestrator/state_encryption_keys",
        "settings/orchestrator/rotation_digest_key",
        "settings/console/console_session_keys",
    )
    urls = {
        "migration/supabase_db_url": ("aam", "aam"),
        "settings/orchestrator/warehouse_db_url": ("warehouse", "warehouse"),
        **{f"settings/{n}/supabase_db_url": (f"aam_{n}_login", "aam") for n in _NAMES},
    }
    passwords = {f"passwords/{name}" for name in ("postgres", "aam", "warehouse", *logins)}
    assert first.keys() == {*keys, *urls, *passwords}
    theirs, ours = keys[1:3]
    assert first[theirs] == first[ours]  # one reads the states that both save
    secrets = [first[name] for name in (*keys, *passwords) if name != ours]
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch(r"[0-9a-f]{48}\n", secret) for secret in secrets)
    for file, (role, database) in urls.items():
        address = postgres_address(first[file])
        assert (address.host, address.user, address.database) == ("postgres", role, database)
        assert f"{address.password}\n" == first[f"passwords/{role}"]
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in (*keys, *urls))

    _draw({**environment, "AIRBYTE_ELSEWHERE": "yes"})
    assert first.keys() - _drawn(tmp_path).keys() == {"settings/orchestrator/warehouse_db_url"}


def test_upgrade_from_a_shared_login_keeps_the_keys(tmp_path: Path) -> None:
    """The folder becomes the orchestrator's; receivers' webhook secrets stay valid."""
    environment = _drawing(tmp_path)
    old = tmp_path / "settings" / "orchestrator"
    (old / "webhook_signing_key").write_text("of before\n")
    (old / "rotation_digest_key").write_text("of before, too\n")
    (old / "supabase_db_url").write_text("postgresql://aam_mesh:x@postgres:5432/aam\n")

    _draw(environment)

    drawn = _drawn(tmp_path / "settings")
    assert drawn["drift_repair_agent/webhook_signing_key"] == "of before\n"
    assert drawn["orchestrator/rotation_digest_key"] == "of before, too\n"
    assert "orchestrator/webhook_signing_key" not in drawn
    assert postgres_address(drawn["orchestrator/supabase_db_url"]).user == "aam_orchestrator_login"


def test_database_script_can_run_again(own_postgres: servers.Postgres, tmp_path: Path) -> None:
    """Each role gets its generated password, on the second run too."""
    environment = _drawing(tmp_path)
    _draw(environment)
    script = (ROOT / "deploy/postgres/databases.sql").read_text()
    named = set(re.findall(r'"\$PASSWORDS_DIR/(\w+)"', script))
    assert named == {path.name for path in (tmp_path / "passwords").iterdir()} - {"postgres"}
    # The embedded server has no psql: its variables and \gexec are replaced here.
    for variable, file in re.findall(r'\\set (\w+) `cat "\$PASSWORDS_DIR/(\w+)"`', script):
        password = (tmp_path / "passwords" / file).read_text().strip()
        script = script.replace(f":'{variable}'", f"'{password}'")
    script = re.sub(r"^\\set.*$|^--.*$", "", script, flags=re.M)
    for _ in range(2):
        asyncio.run(_run_script(own_postgres.url_of("postgres"), script))
    for name in _NAMES:
        address = postgres_address((tmp_path / "settings" / name / "supabase_db_url").read_text())
        url = f"postgresql://{address.user}:{address.password}@127.0.0.1:{own_postgres.port}/"
        assert asyncio.run(_who(f"{url}aam")) == f"aam_{name}_login"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            asyncio.run(_who(f"{url}warehouse"))


async def _run_script(url: str, script: str) -> None:
    """Run statements as psql does, including the results of queries that end with `gexec`."""
    sql = await asyncpg.connect(url)
    try:
        for part in re.split(r"(?<=;)\n|(?<=\\gexec)\n", script):
            if part.strip().endswith("\\gexec"):
                for row in await sql.fetch(part.replace("\\gexec", "")):
                    # The embedded server's superuser is `aam`, which must remain unchanged.
                    await sql.execute(row[0])
            elif part.strip() and "ALTER ROLE aam LOGIN" not in part:
                await sql.execute(part)
    finally:
        await sql.close()


async def _who(url: str) -> str:
    sql = await asyncpg.connect(url)
    try:
        return str(await sql.fetchval("SELECT current_user"))
    finally:
        await sql.close()


def _draw(environment: dict[str, str]) -> None:
    run = subprocess.run(
        ["sh", str(ROOT / "deploy/passwords.sh")],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert run.stdout + run.stderr == b""
