"""The environment of each process of the local mesh."""

from __future__ import annotations

from pathlib import Path

import pytest
from uvicorn.middleware.proxy_headers import _TrustedHosts

from local.environment import Environments
from local.processes import servers
from local.processes.servers import SERVICES
from local.settings import Settings
from local.supervisor import Stack
from services.auth_broker.settings import BrokerSettings
from services.console.settings import ConsoleSettings
from services.orchestrator.airbyte_setup import SetupSettings
from shared.config import MigrationSettings

GIVEN = "AAMCANARY-webhook-signing-key-0123456789"


def prepared(folder: Path, environment: dict[str, str]) -> Stack:
    """A stack that is not started."""
    settings = Settings().for_another_mesh(folder, range(1, 1 + len(Settings.port_names())))
    stack = Stack(settings, environment=environment)
    stack.postgres = servers.Postgres(folder / "postgres", port=1)
    stack.valkey = servers.Valkey(folder / "valkey", port=2)
    stack.environments = Environments(settings, environment, folder, stack.postgres, stack.valkey)
    return stack


def keys(stack: Stack, key: str) -> dict[str, str]:
    """The variables about a key in each service's environment."""
    return {name: stack.environments.service(name).get(key, "") for name in SERVICES}


@pytest.mark.parametrize(
    "key, services",
    [
        ("WEBHOOK_SIGNING_KEY", {"drift_repair_agent"}),
        ("STATE_ENCRYPTION_KEYS", {"orchestrator", "drift_repair_agent"}),
        ("ROTATION_DIGEST_KEY", {"orchestrator"}),
    ],
)
def test_key_is_generated_once_for_its_users(
    server_dir: Path, key: str, services: set[str]
) -> None:
    """It is stored in a private file; a given key takes precedence."""
    first = keys(prepared(server_dir / "stack", {}), key)
    drawn = first[min(services)]

    assert len(drawn) >= 32
    assert first == dict.fromkeys(first, "") | dict.fromkeys(services, drawn)
    assert (server_dir / "stack" / key.lower()).stat().st_mode & 0o777 == 0o600
    assert keys(prepared(server_dir / "stack", {}), key) == first
    given = keys(prepared(server_dir / "stack", {key: GIVEN}), key)
    assert given == dict.fromkeys(first, "") | dict.fromkeys(services, GIVEN)


def test_given_secret_reaches_only_its_users(server_dir: Path) -> None:
    """Every secret that some process has a setting for; `make up` replaces most of them."""
    named = {
        name.upper()
        for settings in (BrokerSettings, ConsoleSettings, MigrationSettings, SetupSettings)
        for name, field in settings.model_fields.items()
        if "Secret" in str(field.annotation)
    }
    given = {name: f"AAMCANARY-{name}-0123456789-0123456789" for name in named}
    environments = prepared(server_dir / "stack", given).environments
    processes = {
        **{name: environments.service(name) for name in SERVICES},
        "console": environments.console(),
        "airbyte": environments.airbyte(job_logs=server_dir),
        "sample org": environments.sample_org(),
        "sample API": environments.sample_api(),
        "others": environments.inherited(),
    }

    held = {
        name: {process for process, variables in processes.items() if secret in variables.values()}
        for name, secret in given.items()
    }

    assert named >= {"OIDC_CLIENT_SECRET", "WAREHOUSE_DB_URL", "SUPABASE_DB_URL", "REDIS_URL"}
    assert {name: users for name, users in held.items() if users} == {
        "CONSOLE_SESSION_KEYS": {"console"},
        "OIDC_CLIENT_SECRET": {"console"},
        "ROTATION_DIGEST_KEY": {"orchestrator"},
        "STATE_ENCRYPTION_KEYS": {"orchestrator", "drift_repair_agent"},
        "WEBHOOK_SIGNING_KEY": {"drift_repair_agent"},
    }


def test_forwarded_addresses_are_not_trusted(server_dir: Path) -> None:
    """Uvicorn would trust every caller from this machine."""
    for given, expected in (({}, ""), ({"FORWARDED_ALLOW_IPS": "127.0.0.1"}, "127.0.0.1")):
        stack = prepared(server_dir / "stack", given)
        for name in SERVICES:
            assert stack._service(name, 1)._env["FORWARDED_ALLOW_IPS"] == expected
    trusted = _TrustedHosts("")
    assert not any(address in trusted for address in ("127.0.0.1", "::1", ""))
