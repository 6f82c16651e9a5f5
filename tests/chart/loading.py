"""Loads each service's settings and keys as its pod would: `python -m tests.chart.loading`.

Runs in AAM's own environment, which has the services' packages. Standard input is a JSON list of
containers, and the output a list of what each one read, or of the line with which it would exit.
The Secrets with AAM's own keys are those that `manage_api_keys kubernetes-secrets` prints.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import trustme
from pydantic_settings import BaseSettings

from services.orchestrator.kubernetes_secrets import secrets_list
from shared.auth.service_tokens import BadKey, Signer, read_public_keys
from shared.config import MigrationSettings, load
from tests.docs.chart import SETTINGS

_CLASSES: dict[str, type[BaseSettings]] = {**SETTINGS, "migrate": MigrationSettings}


@dataclass
class Secrets:
    """The contents of Secrets: those that AAM prints, and those that an administrator makes."""

    printed: dict[str, dict[str, str]]
    certificate: str

    def files(self, file: str, secret: str, key: str) -> dict[str, str]:
        """Return the files of one item by name; all members if the whole Secret is mounted."""
        if file.endswith(".pem"):
            return {file: self.printed["aam-service-keys"][file]}
        if secret in self.printed:
            members = self.printed[secret]
            return members if file == "*" else {file: members[key]}
        text = {
            "supabase_db_url": f"postgresql://{key}:password@registry/aam?sslmode=require",
            "redis_url": "redis://redis:6379/0",
        }
        return {file: self.certificate if file.endswith(".crt") else text.get(file, "k" * 64)}


def mount(folder: Path, files: dict[str, str]) -> None:
    """Write files as Kubernetes does: links to a hidden folder, readable by a group alone."""
    hidden = folder / "..2026_11_30"
    hidden.mkdir(parents=True)
    (folder / "..data").symlink_to(hidden.name)
    for name, text in files.items():
        (hidden / name).write_text(text)
        (hidden / name).chmod(0o440)
        (folder / name).symlink_to(f"..data/{name}")


def read(container: dict[str, Any], secrets: Secrets, root: Path) -> dict[str, Any]:
    """Return what a container reads, or its `error`."""
    for folder, items in container["folders"].items():
        files: dict[str, str] = {}
        for file, secret, key in items:
            files |= secrets.files(file, secret, key)
        mount(root / folder.lstrip("/"), files)
    os.environ.clear()
    os.environ.update(
        {
            name: f"{root}{value}" if value.startswith("/run/") else value
            for name, value in container["environment"].items()
        }
    )
    service = container["service"]
    try:
        settings = load(_CLASSES[service])
        own, public = root / "run/key", root / "run/keys/public"
        if own.exists():
            Signer(service, own / f"{service}.pem")
    except (SystemExit, BadKey) as error:
        return {"error": str(error)}
    return {
        "set": sorted(name.upper() for name in settings.model_fields_set),
        "login": settings.registry_address.user if hasattr(settings, "registry_address") else "",
        "callers": sorted({name for name, _ in read_public_keys(public).values()}),
    }


def main() -> None:
    """Read the containers, and print what each one found."""
    items = secrets_list("aam", environment="live")["items"]
    secrets = Secrets(
        printed={one["metadata"]["name"]: one["stringData"] for one in items},
        certificate=trustme.CA().cert_pem.bytes().decode(),
    )
    found = []
    for container in json.load(sys.stdin):
        with TemporaryDirectory() as root:
            found.append(read(container, secrets, Path(root)))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
