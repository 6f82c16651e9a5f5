"""The virtual environments of the installed connectors, each with pinned, hashed requirements.

Connectors are not part of AAM. Each is installed on first use into its own virtual environment
(they cannot share one); its licence is printed at that time and recorded. A connector without a
requirements file in this repository is resolved once, and what was resolved is recorded in a
requirements file beside the environments.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import orjson
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from local.airbyte.connector import PINNED, Connector, of_package, parse
from local.processes.exit_with_parent import ChildProcess
from shared.observability import logs

log = logs.get(__name__)

REQUIREMENTS = Path(__file__).parent / "connectors"
INSTALL_TIMEOUT_SECONDS = 900
_PIP = ("-m", "pip", "--disable-pip-version-check")
_REQUIRES_PYTHON = "# Requires-Python: "


class InstallFailed(Exception):
    """The connector's environment could not be created."""


@dataclass(frozen=True)
class Store:
    """Connectors installed in one directory, which several planes may share."""

    directory: Path

    def choose(self, text: str) -> Connector:
        """Find the connector that `source-NAME` or `source-NAME==VERSION` means.

        Without a version it is the pinned one, else the newest that was resolved before. What is
        neither pinned nor resolved yet is resolved now, which takes seconds up to a minute.

        Raises:
            InvalidConnector: the text does not name a connector.
            InstallFailed: there is no such package or version, or no suitable Python.
        """
        name, version = parse(text)
        pinned = PINNED.get(name)
        if pinned is not None and version in (None, pinned.version):
            return pinned
        recorded = [
            found.stem.removeprefix(f"{name}-")
            for found in self.directory.glob(f"{name}-[0-9]*.txt")
        ]
        if version is None and recorded:
            version = max(recorded, key=Version)
        if version is None or version not in recorded:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _locked(self.directory.resolve() / f"{name}.lock"):
                version = self._resolve(name, version)
        return self.described(name, version)

    def described(self, name: str, version: str) -> Connector:
        """Describe a connector, with the Python versions that it was resolved for."""
        requires = None
        record = self.directory / f"{name}-{version}.txt"
        if record.exists():
            first = record.read_text().partition("\n")[0]
            requires = first.removeprefix(_REQUIRES_PYTHON).strip()
        return of_package(name, version, requires_python=requires)

    def home(self, connector: Connector) -> Path:
        """Return the connector's virtual environment."""
        environment = connector.environment
        return self.directory.resolve() / f"{environment.name}-{environment.version}"

    def executable(self, connector: Connector) -> Path:
        """Return the path of the connector's executable."""
        return self.home(connector) / "bin" / connector.environment.name

    def is_installed(self, connector: Connector) -> bool:
        """Whether the environment is complete and matches the current requirement file."""
        marker, wanted = self.home(connector) / "complete", self._requirements(connector)
        return marker.exists() and wanted.exists() and marker.read_bytes() == wanted.read_bytes()

    def install(self, connector: Connector) -> Path:
        """Install the connector unless it is installed; blocks for seconds up to a minute.

        Two processes may call this at once: one installs, the other waits for it. An interrupted
        installation has no marker and is repeated.

        Raises:
            InstallFailed: pip failed, or took longer than 15 minutes, or no suitable Python is
                there.
        """
        if self.is_installed(connector):
            return self.executable(connector)
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.home(connector).with_suffix(".lock")):
            if not self.is_installed(connector):
                self._make(connector.environment)
        return self.executable(connector)

    def _requirements(self, connector: Connector) -> Path:
        environment = connector.environment
        if PINNED.get(environment.name) == environment:
            return REQUIREMENTS / f"{environment.name}.txt"
        return self.directory / f"{environment.name}-{environment.version}.txt"

    def _make(self, connector: Connector) -> None:
        home = self.home(connector)
        shutil.rmtree(home, ignore_errors=True)
        requirements = self._requirements(connector)
        if not requirements.exists():  # deleted, or recorded in the folder of another machine
            self._resolve(connector.name, connector.version)
        interpreter = python_for(connector)
        python = home / "bin" / "python"
        uv = shutil.which("uv")
        make = [uv, "venv", "--quiet"] if uv else [interpreter, "-m", "venv"]
        fill = (
            [uv, "pip", "install", "--quiet", "--python", str(python)]
            if uv
            else [str(python), *_PIP, "install", "--quiet", "--no-compile"]
        )
        _run([*make, *(["--python", interpreter] if uv else []), str(home)])
        _run([*fill, "--require-hashes", "-r", str(requirements)])
        name, version, licence = self._metadata(connector)
        print(f"Installed {name} {version}, licence {licence}, into {home}", flush=True)  # noqa: T201 - the user must see the licence
        record = {"name": name, "version": version, "licence": licence}
        (home / "connector.json").write_bytes(orjson.dumps(record))
        (home / "complete").write_bytes(requirements.read_bytes())

    def _metadata(self, connector: Connector) -> tuple[str, str, str]:
        pattern = f"{connector.package.replace('-', '_')}-*.dist-info/METADATA"
        found = next(self.home(connector).glob(f"lib/python*/site-packages/{pattern}"), None)
        if found is None:
            raise InstallFailed(f"{connector.name} is not in its own environment.")
        head = HeaderParser().parsestr(found.read_text(encoding="utf-8"))
        licence = head.get("License-Expression") or head.get("License") or "not stated"
        return str(head["Name"]), str(head["Version"]), licence

    def _resolve(self, name: str, version: str | None) -> str:
        """Resolve a connector's requirements, record them with hashes, and return its version."""
        exact = f"=={version}" if version else ""
        newest = self._report(
            sys.executable,
            [f"airbyte-{name}{exact}", "--no-deps", "--ignore-requires-python"],
        )
        metadata = newest[0]["metadata"]
        connector = of_package(
            name, metadata["version"], requires_python=metadata.get("requires_python")
        )
        resolved = self._report(
            python_for(connector), [f"{connector.package}=={connector.version}"]
        )
        lines = [f"{_REQUIRES_PYTHON}{connector.requires_python}"]
        for item in sorted(resolved, key=lambda one: str(one["metadata"]["name"]).lower()):
            digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
            pin = f"{item['metadata']['name']}=={item['metadata']['version']}"
            lines += [f"{pin} \\", f"    --hash=sha256:{digest}"]
        record = self.directory / f"{name}-{connector.version}.txt"
        partial = record.with_suffix(f".{os.getpid()}")
        partial.write_text("\n".join([*lines, ""]))
        partial.replace(record)
        return connector.version

    def _report(self, interpreter: str, wanted: Sequence[str]) -> list[dict[str, Any]]:
        """Return what pip would install for an interpreter, without installing it."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            _run(
                [
                    *(sys.executable, *_PIP, "--python", interpreter, "install", "--quiet"),
                    *("--dry-run", "--ignore-installed", "--report", str(report), *wanted),
                ]
            )
            found: list[dict[str, Any]] = orjson.loads(report.read_bytes())["install"]
            return found

    def stored_spec(self, connector: Connector) -> dict[str, Any] | None:
        """Return the cached `spec` of this version, which never changes, or None."""
        if connector.manifest is not None:
            return connector.manifest.specification
        try:
            spec: dict[str, Any] = orjson.loads((self.home(connector) / "spec.json").read_bytes())
        except FileNotFoundError:
            return None
        return spec

    def store_spec(self, connector: Connector, spec: dict[str, Any]) -> None:
        """Cache the output of `spec` beside the environment, which may be read-only."""
        target = self.home(connector) / "spec.json"
        partial = target.with_suffix(f".{os.getpid()}")
        try:
            partial.write_bytes(orjson.dumps(spec))
            partial.replace(target)
        except OSError as error:
            log.warning("spec_not_cached", connector=connector.name, errno=error.errno)


def python_for(connector: Connector) -> str:
    """Return an interpreter that the connector supports: this one, else one of the PATH.

    Raises:
        InstallFailed: none was found; the message has the supported versions.
    """
    supported = SpecifierSet(connector.requires_python)
    if supported.contains(platform.python_version()):
        return sys.executable
    for minor in (13, 12, 11, 10):
        found = shutil.which(f"python3.{minor}")
        if found is not None and supported.contains(_version_of(found)):
            return found
    raise InstallFailed(
        f"{connector.name} {connector.version} needs Python {connector.requires_python}; this is "
        f"{platform.python_version()}, and no other suitable python3.N is on the PATH."
    )


def _version_of(python: str) -> str:
    """Return an interpreter's version; a program that does not report one is version 0."""
    command = [python, "-I", "-c", "import platform; print(platform.python_version())"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - a python3.N of the PATH
    return ran.stdout.strip() if ran.returncode == 0 else "0"


def _run(command: list[str]) -> None:
    with tempfile.TemporaryFile() as output:
        process = ChildProcess(command, log=output.fileno())
        try:
            code = process.wait(INSTALL_TIMEOUT_SECONDS)
        finally:
            process.kill()
        if code is None:
            raise InstallFailed(f"{command[0]} took over {INSTALL_TIMEOUT_SECONDS} s.")
        if code != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace").strip().splitlines()[-3:]
            raise InstallFailed(f"{command[0]} ended with {code}: {' '.join(tail)}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
