"""The connectors this plane supports: their pinned versions and their virtual environments.

Connectors are not part of AAM. Each is installed on first use from a pinned, hashed list into its
own virtual environment (they cannot share one); its licence is printed at that time. A new
connector needs one entry in `CONNECTORS` and one requirement file beside it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from local.processes.exit_with_parent import ChildProcess

REQUIREMENTS = Path(__file__).parent / "connectors"
INSTALL_TIMEOUT_SECONDS = 900


class InstallFailed(Exception):
    """The connector's environment could not be created."""


@dataclass(frozen=True, kw_only=True)
class Connector:
    """One source connector, with its ids from Airbyte's registry."""

    name: str
    title: str
    version: str
    definition_id: UUID
    documentation: str
    support: str
    suggested_streams: tuple[str, ...] = ()
    """Streams selected by default in a discovered catalog."""

    @property
    def repository(self) -> str:
        """The image Airbyte would run; here the same code is installed as a package."""
        return f"airbyte/{self.name}"

    @property
    def package(self) -> str:
        """The name of its Python distribution."""
        return f"airbyte-{self.name}"


CONNECTORS = (
    Connector(
        name="source-salesforce",
        title="Salesforce",
        version="2.10.3",
        definition_id=UUID("b117307c-14b6-41aa-9422-947e34922962"),
        documentation="https://docs.airbyte.com/integrations/sources/salesforce",
        support="certified",
        suggested_streams=(
            "Account",
            "Contact",
            "Lead",
            "Opportunity",
            "OpportunityStage",
            "Stage",
            "Task",
            "User",
        ),
    ),
    Connector(
        name="source-hardcoded-records",
        title="Hardcoded Records",
        version="0.0.48",
        definition_id=UUID("084124ab-22db-4019-b36d-630418541bf7"),
        documentation="https://docs.airbyte.com/integrations/sources/hardcoded-records",
        support="community",
    ),
)

BY_DEFINITION = {connector.definition_id: connector for connector in CONNECTORS}
BY_NAME = {connector.name: connector for connector in CONNECTORS}


@dataclass(frozen=True)
class Store:
    """Connectors installed in one directory, which several planes may share."""

    directory: Path

    def home(self, connector: Connector) -> Path:
        """Return the connector's virtual environment."""
        return self.directory.resolve() / f"{connector.name}-{connector.version}"

    def executable(self, connector: Connector) -> Path:
        """Return the path of the connector's executable."""
        return self.home(connector) / "bin" / connector.name

    def is_installed(self, connector: Connector) -> bool:
        """Whether the environment is complete and matches the current requirement file."""
        marker = self.home(connector) / "complete"
        return marker.exists() and marker.read_bytes() == _requirements(connector).read_bytes()

    def install(self, connector: Connector) -> Path:
        """Install the connector unless it is installed; blocks for seconds up to a minute.

        Two processes may call this at once: one installs, the other waits for it. An interrupted
        installation has no marker and is repeated.

        Raises:
            InstallFailed: pip failed, or took longer than 15 minutes.
        """
        if self.is_installed(connector):
            return self.executable(connector)
        self.directory.mkdir(parents=True, exist_ok=True)
        with _locked(self.home(connector).with_suffix(".lock")):
            if not self.is_installed(connector):
                self._make(connector)
        return self.executable(connector)

    def _make(self, connector: Connector) -> None:
        home = self.home(connector)
        shutil.rmtree(home, ignore_errors=True)
        requirements = _requirements(connector)
        python = home / "bin" / "python"
        uv = shutil.which("uv")
        make = [uv, "venv", "--quiet"] if uv else [sys.executable, "-m", "venv"]
        fill = (
            [uv, "pip", "install", "--quiet", "--python", str(python)]
            if uv
            else [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-compile",
            ]
        )
        _run([*make, *(["--python", sys.executable] if uv else []), str(home)])
        _run([*fill, "--require-hashes", "-r", str(requirements)])
        name, version, licence = self._metadata(connector)
        print(f"Installed {name} {version}, licence {licence}, into {home}", flush=True)  # noqa: T201 - the user must see the licence
        (home / "complete").write_bytes(requirements.read_bytes())

    def _metadata(self, connector: Connector) -> tuple[str, str, str]:
        pattern = f"{connector.package.replace('-', '_')}-*.dist-info/METADATA"
        found = next(self.home(connector).glob(f"lib/python*/site-packages/{pattern}"), None)
        if found is None:
            raise InstallFailed(f"{connector.name} is not in its own environment.")
        head = HeaderParser().parsestr(found.read_text(encoding="utf-8"))
        licence = head.get("License-Expression") or head.get("License") or "not stated"
        return str(head["Name"]), str(head["Version"]), licence

    def stored_spec(self, connector: Connector) -> dict[str, Any] | None:
        """Return the cached `spec` of this version, which never changes, or None."""
        try:
            spec: dict[str, Any] = orjson.loads((self.home(connector) / "spec.json").read_bytes())
        except FileNotFoundError:
            return None
        return spec

    def store_spec(self, connector: Connector, spec: dict[str, Any]) -> None:
        """Cache the output of `spec` beside the environment."""
        target = self.home(connector) / "spec.json"
        partial = target.with_suffix(f".{os.getpid()}")
        partial.write_bytes(orjson.dumps(spec))
        partial.replace(target)


def _requirements(connector: Connector) -> Path:
    return REQUIREMENTS / f"{connector.name}.txt"


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
