"""A source connector: its package, its version, and its definition in Airbyte.

The connectors in `PINNED` have a requirements file with hashes in `connectors/`, and their
definition ids are those of Airbyte's registry. Any other `airbyte-source-*` package is installed on
request, and gets an id that is derived from its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid5

_IDS = UUID("7c1f0d5e-2a53-4a0e-9b63-5d1c0a9f1e04")
"""Namespace of the definition ids that are derived from a name."""

_WANTED = re.compile(r"(?:airbyte-)?(source-[a-z0-9]+(?:-[a-z0-9]+)*)(?:==([0-9][0-9A-Za-z.]*))?")


class InvalidConnector(ValueError):
    """The text does not name a connector."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A low-code connector: the YAML document, parsed, and the name it got from its file."""

    slug: str
    document: Mapping[str, Any]
    version: int = 1
    """Raised by the plane when the document changes."""

    @property
    def title(self) -> str:
        """The name of its definition."""
        return title_of(self.slug)

    @property
    def specification(self) -> dict[str, Any]:
        """The SPEC message that a connector with this manifest prints."""
        spec = self.document.get("spec") or {}
        schema = spec.get("connection_specification") or {"type": "object", "properties": {}}
        return {
            "connectionSpecification": schema,
            "documentationUrl": spec.get("documentation_url"),
        }


@dataclass(frozen=True, kw_only=True)
class Connector:
    """One version of a source connector."""

    name: str
    title: str
    version: str
    definition_id: UUID
    documentation: str
    support: str = "none"
    requires_python: str = ">=3.11"
    distribution: str | None = None
    """The Python distribution, where it is not `airbyte-<name>`."""
    suggested_streams: tuple[str, ...] = ()
    """Streams selected by default in a discovered catalog."""
    manifest: Manifest | None = None
    """What `source-declarative-manifest` runs; None for a connector with code of its own."""

    @property
    def repository(self) -> str:
        """The image Airbyte would run; here the same code is installed as a package."""
        return f"airbyte/{self.environment.name}"

    @property
    def package(self) -> str:
        """The name of its Python distribution."""
        return self.distribution or f"airbyte-{self.name}"

    @property
    def environment(self) -> Connector:
        """The connector whose virtual environment and program this one runs with."""
        return self if self.manifest is None else RUNNER

    @property
    def release(self) -> str:
        """What a discovered catalog depends on: the version, and that of the manifest."""
        return self.version if self.manifest is None else f"{self.version}+{self.manifest.version}"


RUNNER = Connector(
    name="source-declarative-manifest",
    title="Declarative Manifest",
    version="7.39.1",
    definition_id=UUID("64a2f99c-542f-4af8-9a6f-355f1217b436"),
    documentation="https://docs.airbyte.com/integrations/sources/low-code",
    distribution="airbyte-cdk",
    requires_python=">=3.11,<3.15",
)
"""Runs low-code manifests; it is part of Airbyte's CDK, which is under the MIT licence."""

DEFAULTS = (
    Connector(
        name="source-salesforce",
        title="Salesforce",
        version="2.10.3",
        definition_id=UUID("b117307c-14b6-41aa-9422-947e34922962"),
        documentation="https://docs.airbyte.com/integrations/sources/salesforce",
        support="certified",
        requires_python=">=3.11,<3.14",
        suggested_streams=(
            "Account",
            "Contact",
            "Lead",
            "Opportunity",
            "OpportunityStage",
            "Stage",
            "Task",
            "User",
        ),
    ),
    Connector(
        name="source-hardcoded-records",
        title="Hardcoded Records",
        version="0.0.48",
        definition_id=UUID("084124ab-22db-4019-b36d-630418541bf7"),
        documentation="https://docs.airbyte.com/integrations/sources/hardcoded-records",
        support="community",
        requires_python=">=3.11,<3.14",
    ),
)
"""The connectors that `make up` always installs and offers."""

PINNED = {
    connector.name: connector
    for connector in (
        *DEFAULTS,
        RUNNER,
        Connector(
            name="source-faker",
            title="Sample Data",
            version="7.2.1",
            definition_id=UUID("dfd88b22-b603-4c3d-aad7-3701784586b1"),
            documentation="https://docs.airbyte.com/integrations/sources/faker",
            support="community",
            requires_python=">=3.11,<3.13",
            suggested_streams=("users", "products", "purchases"),
        ),
        Connector(
            name="source-github",
            title="GitHub",
            version="2.7.1",
            definition_id=UUID("ef69ef6e-aa7f-4af1-a01d-ef775033524e"),
            documentation="https://docs.airbyte.com/integrations/sources/github",
            support="certified",
            requires_python=">=3.11,<3.14",
        ),
    )
}
"""The connectors with a requirements file in this repository, by name."""


def parse(text: str) -> tuple[str, str | None]:
    """Split `source-faker==7.2.1` into the name and the version, which may be left out.

    Raises:
        InvalidConnector: it is not the name of an `airbyte-source-*` package.
    """
    found = _WANTED.fullmatch(text)
    if found is None:
        raise InvalidConnector(
            f"{text!r} does not name a connector: expected source-NAME or source-NAME==VERSION."
        )
    return found[1], found[2]


def of_package(name: str, version: str, *, requires_python: str | None = None) -> Connector:
    """Describe a version of a connector; the pinned one is described as in `PINNED`."""
    pinned = PINNED.get(name)
    if pinned is not None and pinned.version == version:
        return pinned
    requires = requires_python or ">=3.11"
    if pinned is not None:
        return replace(pinned, version=version, requires_python=requires)
    short = name.removeprefix("source-")
    return Connector(
        name=name,
        title=title_of(short),
        version=version,
        definition_id=uuid5(_IDS, f"airbyte-{name}"),
        documentation=f"https://docs.airbyte.com/integrations/sources/{short}",
        requires_python=requires,
    )


def of_manifest(manifest: Manifest) -> Connector:
    """Describe the connector that runs a manifest; its version is that of the CDK."""
    specified = manifest.specification.get("documentationUrl")
    return Connector(
        name=manifest.slug,
        title=manifest.title,
        version=RUNNER.version,
        definition_id=uuid5(_IDS, f"manifest:{manifest.slug}"),
        documentation=str(specified or RUNNER.documentation),
        manifest=manifest,
    )


def title_of(slug: str) -> str:
    """Turn `sample-shop` into `Sample Shop`."""
    return " ".join(word.capitalize() for word in re.split(r"[-_ ]+", slug))
