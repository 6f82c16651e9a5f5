"""Sources: create, check, update, read, list, delete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from shared.airbyte_client import _schemas as shapes
from shared.airbyte_client._calls import Calls, expect_requested, explain, run_id
from shared.airbyte_client._schemas import ConfiguredSource, Source
from shared.errors import (
    CheckFailed,
)

_SOURCE = msgspec.json.Decoder(Source)
_CONFIGURED_SOURCE = msgspec.json.Decoder(ConfiguredSource)
_SOURCES = msgspec.json.Decoder(shapes.SourcePage)
_CHECK = msgspec.json.Decoder(shapes.CheckRead)


class Sources(Calls):
    """Sources: create, check, update, read, list, delete."""

    async def create_source(
        self,
        workspace_id: UUID,
        connection_configuration: Mapping[str, Any],
        *,
        name: str,
        source_definition_id: UUID,
    ) -> Source:
        """Create a source; Airbyte validates its configuration but does not connect to it.

        Endpoint: POST sources/create
        Sends:    {"workspaceId", "sourceDefinitionId", "name", "connectionConfiguration": {...}}
        Receives: {"sourceId": uuid, ...}, secrets masked

        Raises:
            UpstreamRefused: the configuration does not fit the connector's specification.
            UpstreamUnknown: it may exist, and names are not unique: check before trying again.
        """
        async with self._turn("sources/create"):
            return await self._post(
                "sources/create",
                {
                    "workspaceId": workspace_id,
                    "sourceDefinitionId": source_definition_id,
                    "name": name,
                    "connectionConfiguration": connection_configuration,
                },
                _SOURCE,
            )

    async def check_source_update(
        self, source_id: UUID, connection_configuration: Mapping[str, Any], *, name: str
    ) -> bool:
        """Have the connector test a new configuration of a source before it is saved.

        Endpoint: POST sources/check_connection_for_update
        Sends:    {"sourceId", "name", "connectionConfiguration": {...}}, unchanged secrets masked
        Receives: {"status"?: "succeeded" | "failed", "jobInfo": {"succeeded", "failureReason"?}}
        Time:     seconds to minutes, since a connector starts; `check_timeout` at most.

        Returns whether the connector changed the configuration during the check (a rotated token);
        if so, Airbyte has already saved all of it for the source.

        Raises:
            CheckFailed: status 200, but the connector or its job failed.
            UpstreamRefused: the configuration does not fit the connector's specification.
        """
        path = "sources/check_connection_for_update"
        order = _source_update(source_id, connection_configuration, name)
        async with self._turn(path):
            check = await self._post(path, order, _CHECK, timeout=self._check_timeout)
        detail = f"Source {source_id} cannot be reached with its configuration."
        return _changed_by_check(check, detail)

    async def check_configuration(
        self, definition_id: UUID, workspace_id: UUID, configuration: Mapping[str, Any]
    ) -> bool:
        """Have the connector test a configuration that is not saved; nothing is created.

        Endpoint: POST scheduler/sources/check_connection
        Sends:    {"sourceDefinitionId", "workspaceId", "connectionConfiguration": {...}}
        Receives: as `check_source_update`
        Time:     seconds to minutes, since a connector starts; `check_timeout` at most.
        Retries:  none: it sends secrets, and the first attempt uses up a single-use token.
        Source:   airbyte-platform 310e6cb6ac, SchedulerHandler, SourceCoreConfig

        Returns whether the connector changed the configuration in the check; the change is lost.

        Raises:
            CheckFailed: status 200, but the connector or its job failed.
            UpstreamRefused: the configuration does not fit the connector's specification.
            UpstreamMissing: Airbyte has no such definition.
        """
        path = "scheduler/sources/check_connection"
        order = {
            "sourceDefinitionId": definition_id,
            "workspaceId": workspace_id,
            "connectionConfiguration": configuration,
        }
        async with self._turn(path):
            check = await self._post(path, order, _CHECK, timeout=self._check_timeout)
        return _changed_by_check(check, "The source cannot be reached with this configuration.")

    async def update_source(
        self, source_id: UUID, connection_configuration: Mapping[str, Any], *, name: str
    ) -> None:
        """Change a source's configuration and name atomically; its id does not change.

        Endpoint: POST sources/update
        Sends:    {"sourceId", "name", "connectionConfiguration": {...}}, unchanged secrets masked
        Receives: as `get_source`

        Raises:
            UpstreamRefused: the configuration does not fit the connector's specification.
            UpstreamUnknown: it may have been changed; the source's name shows whether it was.
        """
        await self._post(
            "sources/update",
            _source_update(source_id, connection_configuration, name),
            _SOURCE,
        )

    async def get_source(self, source_id: UUID) -> Source:
        """One source.

        Endpoint: POST sources/get
        Sends:    {"sourceId": uuid}

        Raises:
            UpstreamMissing: not found; some versions answer 403 (UpstreamForbidden) or 500.
        """
        read = await self._post("sources/get", {"sourceId": source_id}, _SOURCE, repeat=True)
        expect_requested("sources/get", read.source_id, source_id)
        return read

    async def get_configured_source(self, source_id: UUID) -> ConfiguredSource:
        """One source with its configuration, secrets masked.

        Endpoint: POST sources/get
        Sends:    {"sourceId": uuid}

        Raises:
            UpstreamMissing: as `get_source`.
        """
        read = await self._post(
            "sources/get", {"sourceId": source_id}, _CONFIGURED_SOURCE, repeat=True
        )
        expect_requested("sources/get", read.source_id, source_id)
        return read

    async def list_sources(self, workspace_id: UUID) -> list[Source]:
        """All sources of a workspace.

        Endpoint: POST sources/list
        Sends:    {"workspaceId": uuid, "pageSize": int, "cursor"?: id of the last one seen}
        Receives: {"sources": [...]}: one page since 1.8, before that all of them
        """
        found = await self._all_pages(
            "sources/list", workspace_id, _SOURCES, lambda page: page.sources, _source_id
        )
        return [one for one in found if one.workspace_id == workspace_id]

    async def delete_source(self, source_id: UUID, *, workspace_id: UUID | None = None) -> None:
        """Delete a source together with all its connections; idempotent.

        Endpoint: POST sources/delete
        Sends:    {"sourceId": uuid}
        Receives: 204, empty

        `workspace_id` is the source's workspace, if known: see `_delete`.
        """

        async def listed(workspace_id: UUID) -> bool:
            return any(
                found.source_id == source_id for found in await self.list_sources(workspace_id)
            )

        await self._delete("sources/delete", {"sourceId": source_id}, listed, workspace_id)


def _changed_by_check(check: shapes.CheckRead, detail: str) -> bool:
    """Whether a successful check changed the configuration.

    Raises:
        CheckFailed: the check failed; `detail` says what was checked.
    """
    if check.status == "succeeded":
        return bool(check.job_info.connector_configuration_updated)
    reason = check.job_info.failure_reason or shapes.FailureReason()
    failed = CheckFailed(detail, failure_type=reason.type, retryable=reason.is_transient)
    failed.retryable = reason.is_transient
    explain(failed, reason.reason(check.message, run=run_id(check.job_info.id)))
    raise failed


def _source_id(source: Source) -> UUID:
    return source.source_id


def _source_update(
    source_id: UUID, configuration: Mapping[str, Any], name: str
) -> dict[str, object]:
    return {"sourceId": source_id, "name": name, "connectionConfiguration": configuration}
