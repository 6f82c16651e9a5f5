"""Fixtures of the tests that need a container engine; only `make test-containers` runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.containers.engine import BUILT, IMAGE, MEASURED, ROOT, Engine, NoEngine, running
from tests.containers.mesh import Mesh

collect_ignore_glob = [] if os.environ.get("AAM_CONTAINERS") else ["test_*.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have measured."""
    for line in MEASURED:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A running engine; without one the tests are skipped."""
    began = time.monotonic()
    try:
        with running() as engine:
            MEASURED.append(f"engine ready after {time.monotonic() - began:.1f} s")
            yield engine
            MEASURED.append(f"ended after {time.monotonic() - began:.1f} s")
    except NoEngine as error:
        # Working on AAM needs neither root nor Docker, an engine needs one (decision 0136).
        pytest.skip(f"No container is tested: {error}.")


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The image of this working copy, built by its Dockerfile; compose finds it as IMAGE."""
    began = time.monotonic()
    engine.build(ROOT, tag=BUILT)
    engine.run("tag", BUILT, IMAGE)
    MEASURED.append(f"image built after {time.monotonic() - began:.1f} s")
    return BUILT


@pytest.fixture(scope="module")
def mesh(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """An installation that is running, started from nothing."""
    mesh = Mesh(engine, tmp_path_factory.mktemp("mesh"))
    try:
        MEASURED.append(f"first start: all healthy after {mesh.up():.1f} s")
        yield mesh
    finally:
        mesh.compose("down", "--volumes", "--timeout", "5")
