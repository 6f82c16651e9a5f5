"""Requirement files: pinned versions with hashes, the same in development and in the image.

pip enforces the hashes whenever it installs them; `make check` checks licences with pip-licenses.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.security.pins import LOCKED, NESTED, ROOT, here, requirements


@pytest.mark.parametrize("file", LOCKED)
def test_no_index_and_no_url_is_named(file: str) -> None:
    """Hashes determine the installed packages, independent of the index."""
    assert not re.search(r"://|^-", (ROOT / file).read_text(), re.MULTILINE)
    assert all(
        "--hash=sha256:" in line and str(one.specifier).startswith("==")
        for line, one in requirements(file).items()
    )


def test_requirement_files_agree() -> None:
    """Tests run with exactly the shipped versions and hashes."""
    for smaller, larger in itertools.pairwise(NESTED):
        assert requirements(smaller).keys() <= requirements(larger).keys()


def test_direct_dependencies_are_pinned() -> None:
    """Each dependency of pyproject.toml is pinned at a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    for dependencies, file in zip(
        (project["dependencies"], extra["local"], extra["dev"]), NESTED, strict=True
    ):
        pinned = here(file)
        for one in map(Requirement, dependencies):
            assert one.specifier.contains(pinned[canonicalize_name(one.name)], prereleases=True)


def test_environment_equals_the_pins() -> None:
    """The environment that runs these tests has exactly the pinned packages."""
    installed = {
        canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()
    }
    pinned = here("requirements-dev.txt")
    assert {name: installed.get(name) for name in pinned} == pinned
