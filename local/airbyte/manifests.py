"""Reads the low-code manifests of a user: YAML files that `source-declarative-manifest` runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft7Validator
from jsonschema.exceptions import SchemaError

from local.airbyte.connector import RUNNER, Manifest, title_of
from local.airbyte.connector_store import Store

CHECK = Path(__file__).parent / "manifest_check.py"
CHECK_TIMEOUT_SECONDS = 120
INJECTED = "__injected_declarative_manifest"
"""The member of a configuration in which `source-declarative-manifest` expects its manifest."""


class InvalidManifest(Exception):
    """The file is not a manifest that Airbyte's CDK can run; the message has the reason."""


def load_all(store: Store, paths: list[Path]) -> list[Manifest]:
    """Read manifests; installs the program that runs them. Blocks for a second for each new one.

    Raises:
        InvalidManifest: a file is missing or is no manifest, or two files have one name.
        InstallFailed: the program that runs manifests cannot be installed.
    """
    slugs: set[str] = set()
    for path in paths:
        slug = _slug(path)
        if slug in slugs:
            raise InvalidManifest(f"Two manifests are named {title_of(slug)!r}: rename {path}.")
        slugs.add(slug)
    return [load(store, path) for path in paths]


def load(store: Store, path: Path) -> Manifest:
    """Read one manifest; it is named after its file, or after the folder of a `manifest.yaml`.

    The content of a valid one is stored beside the environments, so that it is checked only once.

    Raises:
        InvalidManifest: it is missing, or Airbyte's CDK refuses it.
        InstallFailed: the program that runs manifests cannot be installed.
    """
    if not path.is_file():
        raise InvalidManifest(f"There is no manifest {path}.")
    digest = hashlib.sha256(b"\n".join([RUNNER.version.encode(), path.read_bytes()])).hexdigest()
    checked = store.directory / "manifests" / f"{digest}.json"
    if not checked.exists():
        manifest = Manifest(slug=_slug(path), document=_checked(store, path))
        _require_specification(path, manifest)
        checked.parent.mkdir(parents=True, exist_ok=True)
        partial = checked.with_suffix(f".{os.getpid()}")
        partial.write_bytes(orjson.dumps(manifest.document))
        partial.replace(checked)
    return Manifest(slug=_slug(path), document=orjson.loads(checked.read_bytes()))


def _checked(store: Store, path: Path) -> dict[str, Any]:
    """Have the CDK check a manifest; this takes a second of CPU."""
    store.install(RUNNER)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        python = store.executable(RUNNER).parent / "python"
        try:
            ran = subprocess.run(  # noqa: S603 - the program is the project's own
                [str(python), "-I", "-W", "ignore", str(CHECK), str(path.resolve()), str(result)],
                capture_output=True,
                check=False,
                timeout=CHECK_TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise InvalidManifest(
                f"{path} could not be checked within {CHECK_TIMEOUT_SECONDS} s."
            ) from None
        if ran.returncode != 0 or not result.exists():
            raise InvalidManifest(f"{path} could not be checked (exit code {ran.returncode}).")
        found: dict[str, Any] = orjson.loads(result.read_bytes())
    if "error" in found:
        raise InvalidManifest(f"{path} is not a manifest that can be run: {found['error']}")
    document: dict[str, Any] = found["manifest"]
    return document


def _require_specification(path: Path, manifest: Manifest) -> None:
    try:
        Draft7Validator.check_schema(manifest.specification["connectionSpecification"])
    except SchemaError as error:
        raise InvalidManifest(
            f"{path}: spec.connection_specification is not a JSON Schema: {error.json_path}: "
            f"{error.message[:200]}"
        ) from None


def _slug(path: Path) -> str:
    whole = path.resolve()
    name = whole.parent.name if whole.stem == "manifest" else whole.stem
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix("source-")
    if not slug:
        raise InvalidManifest(f"{path} must have a name with a letter or a digit.")
    return slug
