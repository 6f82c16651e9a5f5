"""What AAM is made of: pinned by hashes, under known licences, and listed by `make sbom`."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = "requirements.txt"
NESTED = (SHIPPED, "local/requirements.txt", "requirements-dev.txt")
"""Each holds the ones before it."""
LOCKED = (
    *NESTED,
    "tests/semgrep/requirements.txt",
    *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("local/airbyte/connectors/*.txt")),
)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")

ALLOWED = {
    "0BSD",
    "3-Clause BSD License",
    "Apache Software License",
    "Apache-2.0",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC License",
    "MIT",
    "MIT License",
    "MIT-0",
    "PSF-2.0",
    "Python Software Foundation License",
    "Zlib",
}
"""Permissive: they ask for their text to be handed on, and no more."""
EXCEPTIONS = {
    "certifi": ("Mozilla Public License 2.0", "a list of CAs, handed on as it is"),
    "httpx-aiohttp": ("Redistribution and use in source and binary", "the text of BSD-3-Clause"),
    "orjson": ("MPL-2.0 AND (Apache-2.0 OR MIT)", "its files are handed on as they are"),
}
"""By package: how its licence begins, and why it is accepted all the same."""


def requirements(file: str) -> list[tuple[Requirement, list[str]]]:
    """The requirements of a file, each with its hashes.

    Raises:
        ValueError: a line is not a requirement with its hashes and nothing else.
    """
    joined = (ROOT / file).read_text().replace("\\\n", " ")
    found = []
    for line in joined.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, *options = re.split(r"\s(?=--)", line.strip())
        hashes = [option.strip() for option in options]
        if not hashes or not all(_HASH.fullmatch(one) for one in hashes):
            raise ValueError(f"{file}: {line[:60]} is not pinned by hashes alone")
        requirement = Requirement(words.strip())
        if requirement.url is not None or not re.fullmatch(r"==[^*,]+", str(requirement.specifier)):
            raise ValueError(f"{file}: {words} is no one version")
        found.append((requirement, hashes))
    return found


def pins(file: str) -> set[tuple[str, str, str]]:
    """Name, version and marker of each requirement."""
    return {
        (canonicalize_name(one.name), str(one.specifier)[2:], str(one.marker or ""))
        for one, _ in requirements(file)
    }


def here(file: str) -> dict[str, str]:
    """The versions that a file asks for on this machine."""
    return {
        canonicalize_name(one.name): str(one.specifier)[2:]
        for one, _ in requirements(file)
        if one.marker is None or one.marker.evaluate()
    }


@pytest.mark.parametrize("file", LOCKED)
def test_every_line_is_one_version_with_its_hashes(file: str) -> None:
    """No address of an index, no URL, no git, no range: whatever serves it, it is the same."""
    assert len(requirements(file)) > 5


@pytest.mark.parametrize(
    "line",
    [
        "httpx==0.28.1",
        "httpx>=0.28 --hash=sha256:" + "0" * 64,
        "httpx==0.28.* --hash=sha256:" + "0" * 64,
        "httpx==0.28.1 --hash=md5:" + "0" * 32,
        "httpx @ https://example.com/httpx.whl --hash=sha256:" + "0" * 64,
        "git+https://example.com/httpx --hash=sha256:" + "0" * 64,
        "-e . --hash=sha256:" + "0" * 64,
        "--index-url https://example.com/simple",
        "httpx==0.28.1 --hash=sha256:" + "0" * 64 + " --no-binary=httpx",
    ],
)
def test_a_line_that_is_not_is_found(tmp_path: Path, line: str) -> None:
    """Planted in a file of its own."""
    planted = tmp_path / "requirements.txt"
    planted.write_text(line + "\n")

    with pytest.raises(ValueError, match=r"by hashes alone|no one version|Expected"):
        requirements(str(planted))


def test_the_files_agree() -> None:
    """What is tested is what is shipped, to the hash."""
    for smaller, larger in itertools.pairwise(NESTED):
        assert pins(smaller) <= pins(larger)
        of_larger = {str(one): hashes for one, hashes in requirements(larger)}
        assert all(of_larger[str(one)] == hashes for one, hashes in requirements(smaller))


def test_what_is_asked_for_is_pinned() -> None:
    """Each direct dependency of pyproject.toml, at a version that it allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    for asked, file in zip(
        (project["dependencies"], extra["local"], extra["dev"]), NESTED, strict=True
    ):
        pinned = here(file)
        for one in map(Requirement, asked):
            assert one.specifier.contains(pinned[canonicalize_name(one.name)], prereleases=True)


def test_what_is_installed_is_what_is_pinned() -> None:
    """The environment of this run, package by package."""
    installed: dict[str, str] = {
        canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()
    }
    asked = here("requirements-dev.txt")
    assert {name: installed.get(name) for name in asked} == asked


# Licences


def licences() -> dict[str, str]:
    """What pip-licenses says of each installed package that is shipped."""
    run = subprocess.run(
        [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--with-system"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    said: dict[str, str] = {
        canonicalize_name(one["Name"]): one["License"] for one in json.loads(run.stdout)
    }
    return {name: said[name] for name in here(SHIPPED)}


def not_allowed(of: dict[str, str]) -> list[str]:
    """Packages under a licence, or one of several, that is neither allowed nor excepted."""
    wrong = []
    for name, licence in of.items():
        if name in EXCEPTIONS:
            accepted = EXCEPTIONS[name][0] in licence
        else:
            parts = re.split(r"\s+(?:AND|OR|WITH)\s+|;\s*|[()]", licence)
            parts = [re.sub(r" *\([^)]*\)", "", part).strip() for part in parts if part.strip()]
            accepted = bool(parts) and set(parts) - {"ISCL"} <= ALLOWED
        if not accepted:
            wrong.append(f"{name}: {licence[:60]}")
    return wrong


def test_every_licence_is_allowed() -> None:
    """Of all that the image holds; what checks it is not handed on."""
    of = licences()
    assert not_allowed(of) == []
    assert set(EXCEPTIONS) <= of.keys()


@pytest.mark.parametrize(
    "licence",
    ["GPL-3.0-only", "MIT AND AGPL-3.0-or-later", "UNKNOWN", "", "Elastic-2.0", "MPL-2.0"],
)
def test_another_licence_is_found(licence: str) -> None:
    """Alone or beside an allowed one."""
    assert not_allowed({"planted": licence}) == [f"planted: {licence}"]


# The bill of materials


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the recipe of `make sbom` writes."""
    (recipe,) = re.findall(r"^\t@?\$\(BIN\)/(cyclonedx-py .*)$", _makefile(), re.MULTILINE)
    program, *arguments = shlex.split(recipe)
    file = tmp_path_factory.mktemp("sbom") / "sbom.json"
    assert arguments[-2:] == ["-o", "sbom.json"]
    subprocess.run(
        [Path(sys.executable).with_name(program), *arguments[:-1], str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    told: dict[str, Any] = json.loads(file.read_text())
    return told


def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def test_the_bill_lists_what_is_shipped(sbom: dict[str, Any]) -> None:
    """CycloneDX 1.6: every requirement with its version, address and hashes, and nothing else."""
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["name"] == "adaptive-api-mesh"
    listed = [
        (
            canonicalize_name(one["name"]),
            one["version"],
            {
                f"--hash=sha256:{hashed['content']}"
                for reference in one["externalReferences"]
                for hashed in reference["hashes"]
            },
        )
        for one in sbom["components"]
    ]
    wanted = [
        (canonicalize_name(one.name), str(one.specifier)[2:], set(hashes))
        for one, hashes in requirements(SHIPPED)
    ]
    assert sorted(listed, key=lambda one: one[:2]) == sorted(wanted, key=lambda one: one[:2])
    assert all(one["purl"].startswith("pkg:pypi/") for one in sbom["components"])
    assert str(ROOT) not in json.dumps(sbom)


def test_the_bill_is_not_committed() -> None:
    """It is made from what is."""
    assert "sbom.json" in (ROOT / ".gitignore").read_text().splitlines()
