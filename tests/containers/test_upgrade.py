"""An installation of the previous release, upgraded in place: its volumes, and a migration."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import processes
from tests.containers.engine import BUILT, IMAGE, MEASURED, ROOT, Engine
from tests.containers.mesh import Mesh
from tests.containers.test_containers import onboarded, synced

pytestmark = pytest.mark.timeout(900)  # with the builds of two images
VERSION = "SELECT version_num FROM alembic_version"


def newest_migration(tree: Path) -> Path:
    """The migration that a tree's registry ends with."""
    return max((tree / "migrations/versions").glob("[0-9]*.py"))


@pytest.fixture
def previous(tmp_path: Path) -> Path:
    """The tree of the last commit before the newest migration."""
    path = str(newest_migration(ROOT).relative_to(ROOT))
    git = ["git", "-C", str(ROOT)]
    added = processes.run([*git, "log", "--diff-filter=A", "--format=%H", "-1", "--", path])
    before = f"{added.stdout.strip()}^"
    if processes.run([*git, "rev-parse", "--verify", "--quiet", before]).returncode:
        # A shallow clone has nothing to upgrade from; the tests of migrations cover the rest.
        pytest.skip("The history here does not go back to the previous migration.")
    archive = subprocess.run([*git, "archive", before], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as content:
        content.extractall(tmp_path / "previous", filter="data")
    return tmp_path / "previous"


@pytest.fixture
def old(engine: Engine, image: str, previous: Path, tmp_path: Path) -> Iterator[Mesh]:
    """An installation of the previous release that is running."""
    engine.build(previous, tag=IMAGE)
    folder = tmp_path / "mesh"
    folder.mkdir()
    mesh = Mesh(engine, folder, previous / "docker-compose.yml")
    # Before CREDENTIALS_FILE could set them.
    for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"):
        secret = mesh.secrets[f"SAMPLE_ORG_{name}"]
        mesh.secrets[f"CREDENTIAL_SALESFORCE_PROD__{name}"] = secret
    try:
        mesh.up()
        yield mesh
    finally:
        engine.run("tag", image, IMAGE)
        mesh.compose("down", "--volumes", "--timeout", "5")


@pytest.mark.deep
def test_upgrade_migrates_and_loses_nothing(old: Mesh, previous: Path) -> None:
    """The new image finds the old one's volumes, migrates the registry, and goes on."""
    connection = onboarded(old)
    synced(old, connection)
    before = old.record()
    assert old.sql("aam", VERSION) == newest_migration(previous).name[:4]

    old.engine.run("tag", BUILT, IMAGE)
    new = replace(old, compose_file=ROOT / "docker-compose.yml")
    MEASURED.append(f"upgrade with a migration: all healthy after {new.up():.1f} s")

    assert new.sql("aam", VERSION) == newest_migration(ROOT).name[:4]
    assert new.record() == before
    synced(new, connection)
