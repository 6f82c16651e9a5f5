"""What each process of the local mesh is told, and what it is not."""

from __future__ import annotations

from pathlib import Path

from local import servers
from local.settings import Settings
from local.stack import SERVICES, Stack

GIVEN = "AAMCANARY-webhook-signing-key-0123456789"


def prepared(folder: Path, environment: dict[str, str]) -> Stack:
    """A stack that is not started."""
    settings = Settings().elsewhere(folder, range(1, 1 + len(Settings.port_names())))
    stack = Stack(settings, environment=environment)
    stack.postgres = servers.Postgres(folder / "postgres", port=1)
    stack.valkey = servers.Valkey(folder / "valkey", port=2)
    return stack


def keys(stack: Stack) -> dict[str, str]:
    """The signing key that each service is told."""
    return {
        name: stack._service_environment(name).get("WEBHOOK_SIGNING_KEY", "") for name in SERVICES
    }


def test_the_signing_key_is_drawn_once_for_who_signs(server_dir: Path) -> None:
    """It stays in the state folder, for its owner alone; the one that was given goes before."""
    first = keys(prepared(server_dir / "stack", {}))
    drawn = first.pop("drift_repair_agent")

    assert len(drawn) >= 32
    assert set(first.values()) == {""}
    assert (server_dir / "stack/webhook_signing_key").stat().st_mode & 0o777 == 0o600
    assert keys(prepared(server_dir / "stack", {}))["drift_repair_agent"] == drawn
    given = keys(prepared(server_dir / "stack", {"WEBHOOK_SIGNING_KEY": GIVEN}))
    assert given == dict.fromkeys(first, "") | {"drift_repair_agent": GIVEN}
