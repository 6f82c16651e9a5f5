"""A user's own low-code manifests are checked before they are offered, and versioned."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.airbyte import manifests
from local.airbyte.connector import Manifest, of_manifest
from local.airbyte.connector_process import ConnectorFailed
from local.airbyte.connector_store import Store
from local.airbyte.manifests import InvalidManifest
from local.airbyte.metadata import Metadata
from local.airbyte.source_definitions import SourceDefinitions
from tests.integration.local.airbyte_stage import CONNECTORS

SMALLEST = """
type: DeclarativeSource
version: 7.0.0
check: {type: CheckStream, stream_names: [a]}
streams:
  - type: DeclarativeStream
    name: a
    retriever:
      type: SimpleRetriever
      requester: {type: HttpRequester, url_base: "http://127.0.0.1:9", path: /a}
      record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: []}}
"""

BROKEN = {
    "a: [1\nb: 2": "not readable as YAML",
    "type: Something": "type: DeclarativeSource",
    "type: DeclarativeSource\nversion: 7.0.0\ncheck: {type: CheckStream, stream_names: [a]}\n"
    "streams: [{type: DeclarativeStream, name: a, retriever: {type: SimpleRetriever}}]": (
        r"\$\.streams\[0\]"
    ),
}

# What runs manifests may have to be installed first.
pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]


@pytest.mark.parametrize("content", BROKEN)
def test_broken_manifest_says_where(content: str, tmp_path: Path) -> None:
    """The file, and what is wrong with it."""
    path = tmp_path / "tickets.yaml"
    path.write_text(content)
    with pytest.raises(InvalidManifest, match=BROKEN[content]) as refused:
        manifests.load(Store(CONNECTORS), path)
    assert str(path) in str(refused.value)


def test_manifest_is_named_after_its_file_or_folder(tmp_path: Path) -> None:
    """Like the manifests of Airbyte's repository, which are `source-x/manifest.yaml`."""
    named, foldered = tmp_path / "My Shop.yaml", tmp_path / "source-web-shop" / "manifest.yaml"
    foldered.parent.mkdir()
    for path in (named, foldered):
        path.write_text(SMALLEST)

    found = manifests.load_all(Store(CONNECTORS), [named, foldered])

    assert [(one.slug, one.title) for one in found] == [
        ("my-shop", "My Shop"),
        ("web-shop", "Web Shop"),
    ]
    with pytest.raises(InvalidManifest, match="Two manifests are named 'My Shop'"):
        manifests.load_all(Store(CONNECTORS), [named, named])


def test_valid_manifest_is_checked_once(tmp_path: Path) -> None:
    """Its content is found again, without the program that checked it."""
    path = tmp_path / "tickets.yaml"
    path.write_text(SMALLEST)
    first = manifests.load(Store(CONNECTORS), path)
    other = Store(tmp_path / "connectors")
    other.directory.mkdir()
    (other.directory / "manifests").symlink_to(CONNECTORS / "manifests")

    assert manifests.load(other, path) == first

    assert [entry.name for entry in other.directory.iterdir()] == ["manifests"]


def test_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="There is no manifest"):
        manifests.load(Store(CONNECTORS), tmp_path / "none.yaml")


def test_changed_manifest_is_the_next_version(tmp_path: Path) -> None:
    """Its definition stays, discoveries of the older version are not reused, and it is kept."""
    store = Store(tmp_path)
    first = Manifest(slug="tickets", document={"type": "DeclarativeSource", "streams": []})
    second = Manifest(slug="tickets", document={"type": "DeclarativeSource", "streams": [{}]})
    definition_id = str(of_manifest(first).definition_id)
    metadata = Metadata(tmp_path / "state")
    sources = SourceDefinitions(store, metadata)
    with pytest.raises(ConnectorFailed, match=definition_id):
        sources.connector(definition_id)

    sources.offer([], [first], 1)
    before = sources.connector(definition_id)
    sources.offer([], [first], 2)
    assert sources.connector(definition_id) == before
    sources.offer([], [second], 3)
    after = sources.connector(definition_id)
    metadata.close()

    assert before.release != after.release
    assert after.manifest is not None
    assert (after.manifest.version, after.manifest.document) == (2, second.document)
    metadata = Metadata(tmp_path / "state")
    assert SourceDefinitions(store, metadata).connector(definition_id) == after
    metadata.close()
