"""The connectors' versions in the fake Airbyte, and how a test publishes a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from local.airbyte.api.backend import ActorVersion, Definition, Kind, PinnedBy
from tests.fakes.airbyte_server._definitions import SALESFORCE
from tests.fakes.airbyte_server._offers import Offers

Json = dict[str, Any]


class Versions(Offers):
    """The versions that sources run: that of the definition, unless a pin keeps them at another."""

    sources: dict[str, Json]

    def __init__(self) -> None:
        super().__init__()
        self.pins: dict[str, Json] = {}
        """By source: the `tag` and the origin, `by`."""
        self._published_tags: dict[str, str] = {}
        self._breaking: dict[str, list[Json]] = {}
        self._offers_by_version: dict[tuple[str, str], Json] = {}
        self._manifests: dict[str, list[Json]] = {}
        self._repositories: dict[str, str] = {}

    # Scripting

    def publish_version(
        self,
        tag: str,
        *,
        offers: Json | None = None,
        breaking: bool = False,
        days: int = 30,
        definition: str = SALESFORCE,
    ) -> Json:
        """Publish a connector version, and return its breaking change, `{}` without one.

        A breaking one pins the definition's sources to the version that they run, until they are
        upgraded or `days` are over; others change at once. `offers` is what sources offer with it.
        """
        change: Json = {}
        if breaking:
            change = {
                "version": tag,
                "message": f"Version {tag} renames fields.",
                "upgradeDeadline": (datetime.now(UTC).date() + timedelta(days=days)).isoformat(),
                "migrationDocumentationUrl": f"https://docs.example.org/migrations#{tag}",
                "deadlineAction": "disable",
            }
            self._breaking.setdefault(definition, []).append(change)
            for source_id, source in self.sources.items():
                if source["sourceDefinitionId"] == definition and source_id not in self.pins:
                    running = self.actor_version("source", source).tag
                    self.pins[source_id] = {"tag": running, "by": "breaking_change"}
        if offers is not None:
            self._offers_by_version[definition, tag] = offers
        self._published_tags[definition] = tag
        return change

    def pin(self, source_id: str | UUID, tag: str, *, by: PinnedBy = "user") -> None:
        """Pin a source to a version, as a user or a rollout would."""
        self.pins[str(source_id)] = {"tag": tag, "by": by}

    def publish_manifest(self, version: int, *, definition: str = SALESFORCE) -> None:
        """Make a manifest the active one of a connector, which becomes a declarative one."""
        self._repositories[definition] = "airbyte/source-declarative-manifest"
        earlier = [{**one, "isActive": False} for one in self._manifests.get(definition, ())]
        manifest = {"version": version, "isActive": True, "description": f"Version {version}"}
        self._manifests[definition] = [manifest, *earlier]

    # The back end

    def published(self, definition: Definition) -> Definition:
        """Return a definition with its newest version."""
        tag = self._published_tags.get(definition.id, definition.tag)
        repository = self._repositories.get(definition.id, definition.repository)
        is_custom = definition.custom or definition.id in self._manifests
        return replace(definition, tag=tag, repository=repository, custom=is_custom)

    def actor_version(self, kind: Kind, actor: Json) -> ActorVersion:
        """Return the version that a source or destination runs."""
        definition_id = actor[f"{kind}DefinitionId"]
        (newest,) = [one.tag for one in self.definitions(kind) if one.id == definition_id]
        pin = self.pins.get(actor[f"{kind}Id"], {"tag": newest, "by": None})
        upcoming = [
            change
            for change in self._breaking.get(definition_id, ())
            if _number(pin["tag"]) < _number(change["version"])
        ]
        return ActorVersion(tag=pin["tag"], pinned_by=pin["by"], upcoming=upcoming)

    def definitions(self, kind: Kind) -> list[Definition]:
        """Return the connectors; ScriptedBackend, which inherits from this class, has them."""
        raise NotImplementedError  # abstract

    def unpin_source(self, source: Json) -> None:
        """Remove a source's pin."""
        self.pins.pop(source["sourceId"], None)

    def manifests(self, definition: Definition) -> Sequence[Json] | None:
        """Return the manifests of a declarative connector."""
        return self._manifests.get(definition.id)

    def _offer_of_version(self, source: Json) -> Json | None:
        """Return what a source offers with the version that it runs, if the test has set that."""
        version = self.actor_version("source", source)
        return self._offers_by_version.get((source["sourceDefinitionId"], version.tag))


def _number(tag: str) -> tuple[int, ...]:
    return tuple(int(part) for part in tag.split("."))
