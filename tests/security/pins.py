"""The pinned versions in the requirement files."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = "requirements.txt"
NESTED = (SHIPPED, "local/requirements.txt", "requirements-dev.txt")
"""Each file includes the preceding ones."""
LOCKED = (
    *NESTED,
    "services/console/assets.txt",
    "tests/chart/requirements.txt",
    "tests/tools/requirements.txt",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("local/airbyte/connectors/*.txt")),
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/clients/requirements/*.txt")),
)


def requirements(file: str) -> dict[str, Requirement]:
    """Return a file's requirements, by their text including hashes."""
    joined = (ROOT / file).read_text().replace("\\\n", " ")
    return {
        " ".join(line.split()): Requirement(line.split(" --")[0])
        for line in joined.splitlines()
        if line and not line.startswith("#")
    }


def here(file: str) -> dict[NormalizedName, str]:
    """Return the versions that a file pins for this machine, by package."""
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in requirements(file).values()
        if one.marker is None or one.marker.evaluate()
    }
