"""Versions of the connectors that sources run: read, upgrade, and manifests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from shared.airbyte_client._calls import Calls, expect_requested
from shared.domain.connector_versions import BreakingChange, ConnectorVersion
from shared.errors import UpstreamForbidden, UpstreamRefused

_MOST_CHANGES: Final = 20
_LONGEST_TAG: Final = 128
_LONGEST_TEXT: Final = 1_000
_LONGEST_URL: Final = 2_048


class _BreakingChange(msgspec.Struct, frozen=True, rename="camel"):
    version: str
    message: str = ""
    migration_documentation_url: str = ""
    upgrade_deadline: str = ""
    deadline_action: str | None = None

    def to_domain(self) -> BreakingChange:
        return BreakingChange(
            self.version[:_LONGEST_TAG],
            _storable(self.message)[:_LONGEST_TEXT],
            _web_address(self.migration_documentation_url),
            _day(self.upgrade_deadline),
            self.deadline_action,
        )


class _BreakingChanges(msgspec.Struct, frozen=True, rename="camel"):
    upcoming_breaking_changes: list[_BreakingChange] = []


class _VersionRead(msgspec.Struct, frozen=True, rename="camel"):
    docker_repository: str
    docker_image_tag: str
    support_state: str = "supported"
    is_version_override_applied: bool = False
    breaking_changes: _BreakingChanges | None = None

    def to_domain(self) -> ConnectorVersion:
        changes = self.breaking_changes or _BreakingChanges()
        upcoming = [one.to_domain() for one in changes.upcoming_breaking_changes[:_MOST_CHANGES]]
        return ConnectorVersion(
            _storable(self.docker_repository),
            _storable(self.docker_image_tag)[:_LONGEST_TAG],
            _storable(self.support_state),
            self.is_version_override_applied,
            tuple(sorted(upcoming, key=lambda one: one.deadline or date.max)),
        )


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    version: int
    is_active: bool


class _Manifests(msgspec.Struct, frozen=True, rename="camel"):
    manifest_versions: list[_Manifest]


class _OfSource(msgspec.Struct, frozen=True, rename="camel"):
    source_id: UUID
    workspace_id: UUID
    source_definition_id: UUID


_VERSION = msgspec.json.Decoder(_VersionRead)
_MANIFESTS = msgspec.json.Decoder(_Manifests)
_OF_SOURCE = msgspec.json.Decoder(_OfSource)
_NOTHING = msgspec.json.Decoder(None)


class Connectors(Calls):
    """Versions of the connectors that sources run."""

    async def connector_version(self, source_id: UUID) -> ConnectorVersion:
        """The version that a source runs, with the breaking changes ahead of it.

        Endpoint: POST actor_definition_versions/get_for_source
        Sends:    {"sourceId": uuid}
        Receives: {"dockerRepository", "dockerImageTag", "supportState",
                   "isVersionOverrideApplied": bool, "breakingChanges"?: {
                   "upcomingBreakingChanges": [{"version", "message", "migrationDocumentationUrl",
                   "upgradeDeadline": day, "deadlineAction"?}], "minUpgradeDeadline": day}}
        Source:   ConfigurationDefinitionVersionOverrideProvider: only a pin of a user counts as an
                  override. SourceRead has the same members, but neither repository nor tag.

        Raises:
            UpstreamMissing: not found; some versions answer 403 (UpstreamForbidden) or 500.
        """
        read = await self._post(
            "actor_definition_versions/get_for_source",
            {"sourceId": source_id},
            _VERSION,
            repeat=True,
        )
        return read.to_domain()

    async def manifest_version(self, source_id: UUID) -> int | None:
        """The active manifest of a source's connector-builder connector; None if it has none.

        Endpoint: POST sources/get, then POST declarative_source_definitions/list_manifests
        Sends:    {"workspaceId": uuid, "sourceDefinitionId": uuid}
        Receives: {"manifestVersions": [{"version": int, "isActive": bool, "description"}]}
        """
        path = "sources/get"
        source = await self._post(path, {"sourceId": source_id}, _OF_SOURCE, repeat=True)
        expect_requested(path, source.source_id, source_id)
        order: Mapping[str, Any] = {
            "workspaceId": source.workspace_id,
            "sourceDefinitionId": source.source_definition_id,
        }
        path = "declarative_source_definitions/list_manifests"
        try:
            read = await self._post(path, order, _MANIFESTS, repeat=True)
        except (UpstreamRefused, UpstreamForbidden):
            return None  # no declarative connector, or an Airbyte without this endpoint
        return next((one.version for one in read.manifest_versions if one.is_active), None)

    async def upgrade_source_version(self, source_id: UUID) -> None:
        """Let a source run its connector's newest version, accepting the breaking changes.

        Endpoint: POST sources/upgrade_version
        Sends:    {"sourceId": uuid}
        Receives: 204, empty; also if there was nothing to upgrade
        Source:   ActorDefinitionVersionUpdater: removes the pin that a breaking change set. Any
                  other pin of the source is an IllegalStateException. There is no way back.

        Raises:
            UpstreamUnknown: it may have been upgraded; `connector_version` shows whether it was.
                Airbyte answers 500 where the source has another pin, and then changes nothing.
        """
        await self._post(
            "sources/upgrade_version", {"sourceId": source_id}, _NOTHING, only_status=204
        )


def _storable(text: str) -> str:
    """Text that Postgres can store."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _web_address(url: str) -> str | None:
    """The URL if a browser may open it; the registry of connectors is not AAM's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
    return url if is_address and len(url) <= _LONGEST_URL else None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
