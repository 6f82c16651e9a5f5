"""The Secrets of a new installation on Kubernetes are what the services read as files."""

from __future__ import annotations

import re
from pathlib import Path

from services.orchestrator.kubernetes_secrets import FIRST_KEY, secrets_list
from shared.auth.api_keys import parse_key
from shared.auth.scopes import SERVICE_CALLS
from shared.auth.service_tokens import Signer, Verifier, read_public_keys
from shared.config import SHORTEST_KEY, Settings


def mounted(folder: Path, name: str, texts: dict[str, str]) -> Path:
    """Write a Secret's members as files, readable by their owner alone."""
    target = folder / name
    target.mkdir()
    for member, text in texts.items():
        (target / member).write_text(text)
        (target / member).chmod(0o440)
    return target


def test_services_verify_each_other_by_the_printed_keys(tmp_path: Path) -> None:
    """Every pair of services that call each other, from nothing but the Secrets."""
    of = _by_name(tmp_path)
    public = read_public_keys(of["x-service-public-keys"])
    callers = {caller for caller, _ in SERVICE_CALLS}

    assert {service for service, _ in public.values()} == callers
    for caller, called in SERVICE_CALLS:
        signer = Signer(caller, of["x-service-keys"] / f"{caller}.pem")
        claims = Verifier(called, of["x-service-public-keys"]).claims(signer.token(called, "a b"))
        assert claims.service == caller


def test_other_keys_have_the_names_of_settings(tmp_path: Path) -> None:
    """They are long enough, and the first API key is a header for curl."""
    of = _by_name(tmp_path)
    keys = {file.name: file.read_text() for file in of["x-keys"].iterdir()}

    assert keys.keys() - Settings.model_fields.keys() == {"console_session_keys"}
    assert all(len(key) >= SHORTEST_KEY for key in keys.values())
    assert len(set(keys.values())) == len(keys)
    header = (of["x-first-key"] / FIRST_KEY).read_text()
    assert parse_key(header.strip().removeprefix("Authorization: Bearer ")) is not None


def test_names_are_valid_in_a_secret() -> None:
    """And two runs share no value."""
    first, second = (secrets_list("x", environment="live")["items"] for _ in range(2))

    for one, other in zip(first, second, strict=True):
        assert one["kind"] == "Secret"
        assert all(re.fullmatch(r"[-._A-Za-z0-9]+", member) for member in one["stringData"])
        assert not set(one["stringData"].values()) & set(other["stringData"].values())


def _by_name(folder: Path) -> dict[str, Path]:
    items = secrets_list("x", environment="live")["items"]
    return {
        one["metadata"]["name"]: mounted(folder, one["metadata"]["name"], one["stringData"])
        for one in items
    }
