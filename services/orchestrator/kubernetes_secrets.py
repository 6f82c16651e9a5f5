"""Secrets of a new installation on Kubernetes: every key that AAM generates itself.

They are made offline and printed once, for `kubectl create -f -`. What they hold cannot be made
again: the registry's and Airbyte's logins are not among them, since others issue those.
"""

from __future__ import annotations

import secrets
from typing import Any

from shared.auth.api_keys import new_key
from shared.auth.scopes import SERVICE_CALLS
from shared.auth.service_tokens import new_pair

_KEYS = (
    "console_session_keys",
    "rotation_digest_key",
    "state_encryption_keys",
    "webhook_signing_key",
)
FIRST_KEY = "auth"
"""The member of the Secret that holds the first API key, as an Authorization header for curl."""


def secrets_list(name: str, *, environment: str) -> dict[str, Any]:
    """A Kubernetes List of Secrets with new keys; `name` is the prefix of their names.

    `<name>-service-keys` and `<name>-service-public-keys` hold the key pairs of the services that
    call others, `<name>-keys` the keys of webhooks, states, digests and sessions, and
    `<name>-first-key` the first API key, which `record-first-key` records in the registry.
    """
    pairs = {service: new_pair() for service in sorted({caller for caller, _ in SERVICE_CALLS})}
    header = f"Authorization: Bearer {new_key(environment).key}\n"
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            _secret(f"{name}-keys", {one: secrets.token_hex(32) for one in _KEYS}),
            _secret(
                f"{name}-service-keys",
                {f"{service}.pem": pair.private.decode() for service, pair in pairs.items()},
            ),
            _secret(
                f"{name}-service-public-keys",
                {
                    f"{service}.{pair.kid}.pem": pair.public.decode()
                    for service, pair in pairs.items()
                },
            ),
            _secret(f"{name}-first-key", {FIRST_KEY: header}),
        ],
    }


def _secret(name: str, text: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": text}
