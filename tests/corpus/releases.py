"""Published connectors, fetched by exact name and version when the corpus runs; never committed."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

CACHE = Path(".aam/corpus")
PACKAGES: dict[str, str] = {
    "airbyte-source-stripe": (
        "3.17.1 5.2.1 5.3.0 5.4.0 5.5.0 5.6.0 5.7.0 5.8.0 5.9.0 5.11.0 5.13.0 5.14.1"
    ),
    "airbyte-source-zendesk-support": (
        "0.10.4 2.2.6 2.3.0 2.4.0 2.6.0 2.7.0 3.0.0 4.0.0 4.2.0 4.4.0 4.6.0 4.9.1"
    ),
    "airbyte-source-facebook-marketing": (
        "3.3.20 3.3.35 3.4.0 3.5.0 4.0.0 4.1.0 4.2.0 5.0.0 5.1.0 5.2.14 6.0.0 6.1.9"
    ),
    "airbyte-source-github": (
        "1.8.26 1.8.42 1.9.0 2.0.0 2.1.0 2.1.10 2.1.42 2.2.0 2.3.0 2.5.0 2.6.0 2.6.1"
    ),
    "airbyte-source-jira": (
        "1.0.1 1.1.0 1.2.0 2.0.0 2.0.3 3.0.0 3.0.14 3.1.0 3.2.0 3.3.1 3.5.0 4.0.0"
    ),
    "airbyte-source-hubspot": (
        "1.4.1 2.0.2 3.0.0 3.3.0 4.0.0 4.1.0 4.2.0 4.2.26 4.4.0 4.5.0 4.9.0 5.7.0"
    ),
    "airbyte-source-harvest": "0.1.21 0.1.24 0.2.0 1.0.0 1.0.5 1.0.10 1.0.19",
}


def versions(package: str) -> list[str]:
    """The releases that are compared, in their order."""
    return PACKAGES[package].split()


def schemas(package: str, version: str) -> dict[str, dict[str, Any]]:
    """The schemas that this release ships as files, each by its place in the folder of schemas.

    A `$ref` to another file stays what it is: that file is one of the schemas. Streams that a
    connector only makes while it runs are not in it; one that moved into its manifest is gone.

    Raises:
        CalledProcessError: the release cannot be had.
    """
    found: dict[str, dict[str, Any]] = {}
    with zipfile.ZipFile(_wheel(package, version)) as wheel:
        for name in sorted(wheel.namelist()):
            _, folder, place = name.rpartition("/schemas/")
            if folder and place.endswith(".json"):
                schema = json.loads(wheel.read(name))
                if isinstance(schema, dict):
                    found[place.removesuffix(".json")] = schema
    return found


def _wheel(package: str, version: str) -> Path:
    pattern = f"{package.replace('-', '_')}-{version}-*.whl"
    if not list(CACHE.glob(pattern)):
        CACHE.mkdir(parents=True, exist_ok=True)
        order = [f"{package}=={version}", "--no-deps", "--only-binary", ":all:"]
        order += ["--ignore-requires-python", "--dest", str(CACHE)]
        subprocess.run([sys.executable, "-m", "pip", "download", "-qq", *order], check=True)
    [wheel] = CACHE.glob(pattern)
    return wheel
