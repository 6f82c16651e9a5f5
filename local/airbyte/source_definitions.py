"""The source definitions of a plane: the default connectors, requested ones, and manifests.

What was requested once is stored, since sources may use it, and is offered at every later start.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from local.airbyte.api.backend import Definition
from local.airbyte.connector import DEFAULTS, Connector, Manifest, of_manifest, parse
from local.airbyte.connector_process import ConnectorFailed
from local.airbyte.connector_store import Store
from local.airbyte.metadata import Metadata, dump


class SourceDefinitions:
    """The connectors that a plane can run, by their definition ids."""

    def __init__(self, store: Store, metadata: Metadata) -> None:
        self._store = store
        self._metadata = metadata
        self._by_id: dict[str, Connector] | None = None
        self._documentation: dict[str, str] = {}

    def offer(self, packages: Sequence[str], manifests: Sequence[Manifest], now: int) -> None:
        """Store requested connectors, `source-NAME==VERSION`, and manifests.

        A manifest that differs from the stored one of its name becomes its next version.

        Raises:
            InvalidConnector: a text does not name a connector.
            InstallFailed: there is no such package or version.
        """
        for text in packages:
            name, version = parse(text)
            if version is None:
                version = self._store.choose(text).version
            self._metadata.write("INSERT OR REPLACE INTO packages VALUES (?, ?)", name, version)
        for manifest in manifests:
            held = self._manifests().get(manifest.slug)
            if held is None or _canonical(held) != _canonical(manifest):
                self._metadata.write(
                    "INSERT INTO manifests VALUES (?, ?, ?, ?)",
                    manifest.slug,
                    1 if held is None else held.version + 1,
                    dump(manifest.document),
                    now,
                )
        self._by_id = None

    def _connectors(self) -> dict[str, Connector]:
        """Return the connectors that this plane offers; only `offer` changes them."""
        if self._by_id is None:
            found = self._read()
            self._by_id = {str(connector.definition_id): connector for connector in found}
        return self._by_id

    def _read(self) -> list[Connector]:
        chosen = {connector.name: connector for connector in DEFAULTS}
        for row in self._metadata.all("SELECT * FROM packages ORDER BY name"):
            chosen[row["name"]] = self._store.described(row["name"], row["version"])
        return [*chosen.values(), *map(of_manifest, self._manifests().values())]

    def _manifests(self) -> dict[str, Manifest]:
        """Return the newest version of each manifest, by its slug."""
        rows = self._metadata.all("SELECT * FROM manifests ORDER BY slug, version")
        return {
            row["slug"]: Manifest(
                slug=row["slug"], document=row["document"], version=row["version"]
            )
            for row in rows
        }

    def connector(self, definition_id: str) -> Connector:
        """Return the connector of a definition.

        Raises:
            ConnectorFailed: this plane does not have it.
        """
        found = self._connectors().get(definition_id)
        if found is None:
            raise ConnectorFailed(f"There is no connector for the definition {definition_id}.")
        return found

    def definitions(self) -> list[Definition]:
        """Return the definitions as Airbyte's API represents them."""
        return [self.definition(connector) for connector in self._connectors().values()]

    def definition(self, connector: Connector) -> Definition:
        """Return the definition of a connector."""
        definition_id = str(connector.definition_id)
        if definition_id not in self._documentation:
            spec = self._store.stored_spec(connector)
            if spec is not None and spec.get("documentationUrl"):
                self._documentation[definition_id] = spec["documentationUrl"]
        return Definition(
            kind="source",
            id=definition_id,
            name=connector.title,
            repository=connector.repository,
            tag=connector.version,
            documentation=self._documentation.get(definition_id, connector.documentation),
            support_level=connector.support,
            custom=connector.manifest is not None,
        )


def _canonical(manifest: Manifest) -> bytes:
    return orjson.dumps(manifest.document, option=orjson.OPT_SORT_KEYS)
