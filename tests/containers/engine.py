"""The container engine of the tests: the machine's own, or a private one that ends with them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import processes, reaper

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT.parent / "shared/tools/container-engine"
IMAGE = "adaptive-api-mesh:0.1.0"
"""The name in docker-compose.yml."""
BUILT = "adaptive-api-mesh:tested"
PROJECT = "aam-test"
LABEL = f"com.docker.compose.project={PROJECT}"
BUILD_S = 1200.0
MEASURED: list[str] = []
"""What the tests have measured; the end of the run prints it."""


class NoEngine(Exception):
    """There is no engine here, and none can be started; the message says what is missing."""


class CommandFailed(Exception):
    """A command of the engine failed; the message has the end of its output."""


@dataclass(frozen=True)
class Engine:
    """Commands of a running engine."""

    environment: Mapping[str, str]
    base: str
    """The base image of the Dockerfile."""

    def run(
        self, *arguments: str, within_s: float = 120, also: Mapping[str, str] | None = None
    ) -> str:
        """Run `docker` with these arguments, and return what it prints.

        Raises:
            CommandFailed: it failed.
        """
        done = processes.run(
            ["docker", *arguments],
            env={**self.environment, **(also or {})},
            cwd=ROOT,
            timeout=within_s,
        )
        if done.returncode:
            raise CommandFailed(f"docker {' '.join(arguments[:6])}: {done.stderr[-2000:]}")
        return done.stdout

    def build(self, context: Path, *, tag: str) -> None:
        """Build the image of a working copy by its Dockerfile."""
        self.run("build", *self.build_options, "--tag", tag, str(context), within_s=BUILD_S)

    @property
    def build_options(self) -> Sequence[str]:
        """The private engine has no network of its own for builds."""
        return ["--network", "host", "--build-arg", f"PYTHON={self.base}"] if self.base else []


@contextmanager
def running() -> Iterator[Engine]:
    """The machine's engine if there is one, otherwise one that is started for these tests.

    Raises:
        NoEngine: there is no engine here, and none can be started.
    """
    has_one = shutil.which("docker") and not processes.run(["docker", "info"]).returncode
    if not has_one and os.geteuid() != 0:
        raise NoEngine("no container engine answers, and starting one needs root")
    if not has_one and not TOOL.exists():
        raise NoEngine(f"no container engine answers, and there is no {TOOL}")
    with subprocess.Popen(
        [Path(__file__).with_name("keeper.sh"), LABEL, *([] if has_one else [str(TOOL)])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Without the mark and folder of the run: the reaper would kill it before it has cleaned up.
        env={
            name: value
            for name, value in os.environ.items()
            if name not in (reaper.VARIABLE, "TMPDIR")
        },
        start_new_session=True,
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        line = keeper.stdout.readline()
        if not line:
            raise NoEngine("the container engine did not start; its message is above")
        host, _, base = line.strip("\n").partition(" ")
        base = base or os.environ.get("AAM_BASE_IMAGE", "")
        given = {"DOCKER_BUILDKIT": "0", **({"DOCKER_HOST": host} if host else {})}
        yield Engine({**os.environ, **given}, base)
        keeper.stdin.close()
