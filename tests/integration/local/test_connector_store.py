"""Connectors are installed on demand: resolved once, recorded, and offered with their own spec.

The package index is a folder with a connector made here, so that nothing is downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import orjson
import pytest

from local.airbyte import WORKSPACE_ID
from local.airbyte.connector import PINNED, InvalidConnector, of_package, parse
from local.airbyte.connector_store import InstallFailed, Store, python_for
from local.airbyte.settings import Settings
from tests.integration.local.airbyte_stage import Api, serving

pytestmark = pytest.mark.process

PROGRAM = """
import json, sys
def main():
    if sys.argv[1] == "spec":
        spec = {"documentationUrl": "https://docs.example.com/tiny", "connectionSpecification": {
            "type": "object", "required": ["token"], "properties": {
                "token": {"type": "string", "airbyte_secret": True}}}}
        print(json.dumps({"type": "SPEC", "spec": spec}))
"""

Index = Callable[..., None]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Puts a release of `airbyte-source-tiny` into the only index that pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "PATH": "/usr/bin:/bin",
    }.items():
        monkeypatch.setenv(name, value)

    def add(version: str, *, requires: str = ">=3.11") -> None:
        stem = f"airbyte_source_tiny-{version}"
        head = f"Metadata-Version: 2.1\nName: airbyte-source-tiny\nVersion: {version}\n"
        files = {
            "source_tiny.py": PROGRAM,
            f"{stem}.dist-info/METADATA": f"{head}License: MIT\nRequires-Python: {requires}\n",
            f"{stem}.dist-info/WHEEL": (
                "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            ),
            f"{stem}.dist-info/entry_points.txt": (
                "[console_scripts]\nsource-tiny = source_tiny:main\n"
            ),
        }
        record = "".join(f"{name},{_digest(text)},{len(text)}\n" for name, text in files.items())
        files[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)

    return add


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


@pytest.mark.deep
async def test_package_that_is_not_pinned_is_resolved_recorded_and_offered(
    publish: Index, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its version and hashes are recorded, its licence is printed, and its spec is its own."""
    publish("1.0.0")
    publish("1.2.0")
    store = Store(tmp_path / "connectors")

    chosen = store.choose("source-tiny")

    assert (chosen.version, chosen.title) == ("1.2.0", "Tiny")
    record = (store.directory / "source-tiny-1.2.0.txt").read_text()
    assert record.startswith("# Requires-Python: >=3.11\nairbyte-source-tiny==1.2.0 \\\n")
    assert "--hash=sha256:" in record
    publish("1.3.0")
    assert store.choose("airbyte-source-tiny") == chosen, "it was resolved again"

    store.install(chosen)

    assert "Installed airbyte-source-tiny 1.2.0, licence MIT" in capfd.readouterr().out
    installed = orjson.loads((store.home(chosen) / "connector.json").read_bytes())
    assert installed == {"name": "airbyte-source-tiny", "version": "1.2.0", "licence": "MIT"}
    settings = Settings(
        state_dir=tmp_path / "state",
        connectors_dir=store.directory,
        connectors=["source-tiny"],
    )
    async with serving(settings) as api:
        assert await _offered(api) == ("1.2.0", chosen.definition_id)
        found = await api.ask(
            "source_definition_specifications/get",
            sourceDefinitionId=str(chosen.definition_id),
            workspaceId=str(WORKSPACE_ID),
        )
        assert found["documentationUrl"] == "https://docs.example.com/tiny"
        assert found["connectionSpecification"]["required"] == ["token"]
    async with serving(settings.model_copy(update={"connectors": []})) as api:
        assert await _offered(api) == ("1.2.0", chosen.definition_id), "it is not offered any more"
    update = {"connectors": ["source-tiny==1.3.0"]}
    async with serving(settings.model_copy(update=update)) as api:
        assert await _offered(api) == ("1.3.0", chosen.definition_id)


async def _offered(api: Api) -> tuple[str, UUID]:
    """The version of the tiny connector in the list of definitions, and its expected id."""
    found = await api.ask("source_definitions/list")
    (tiny,) = [one for one in found["sourceDefinitions"] if one["name"] == "Tiny"]
    assert tiny["dockerRepository"] == "airbyte/source-tiny"
    return tiny["dockerImageTag"], of_package("source-tiny", "1.0.0").definition_id


def test_package_for_other_versions_of_python_says_so(publish: Index, tmp_path: Path) -> None:
    """Instead of an older release that happens to fit, or of pip's words."""
    publish("1.0.0")
    publish("2.0.0", requires=">=3.7,<3.9")

    with pytest.raises(InstallFailed, match=r"source-tiny 2\.0\.0 needs Python >=3\.7,<3\.9;"):
        Store(tmp_path / "connectors").choose("source-tiny")

    assert not list((tmp_path / "connectors").glob("*.txt"))


def test_package_that_does_not_exist_is_reported(publish: Index, tmp_path: Path) -> None:
    """With what pip reports."""
    with pytest.raises(InstallFailed, match="No matching distribution found"):
        Store(tmp_path / "connectors").choose("source-tiny==9.9.9")


def test_another_python_on_the_path_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector that this interpreter cannot run gets one that can."""
    other = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
    program = tmp_path / f"python{other}"
    program.write_text(f"#!/bin/sh\necho {other}.4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    connector = of_package("source-tiny", "1.0.0", requires_python=f"=={other}.*")

    assert python_for(connector) == str(program)
    assert python_for(PINNED["source-salesforce"]) == sys.executable


@pytest.mark.parametrize(
    "text", ["faker", "source-", "destination-postgres", "source-faker>=1", "source-x==", "../x"]
)
def test_what_is_not_a_connector_is_refused(text: str) -> None:
    with pytest.raises(InvalidConnector, match="does not name a connector"):
        parse(text)


def test_pinned_connectors_need_no_resolution(tmp_path: Path) -> None:
    """Also when their version is given; another version of them has the same definition id."""
    faker = PINNED["source-faker"]
    store = Store(tmp_path)
    assert store.choose("source-faker") == store.choose("airbyte-source-faker==7.2.1") == faker
    older = of_package("source-faker", "6.2.22")
    assert (older.definition_id, older.title) == (faker.definition_id, faker.title)
