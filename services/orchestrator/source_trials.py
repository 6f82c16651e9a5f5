"""Checks and previews of sources before they are onboarded; they leave nothing in Airbyte.

A check needs no source there. A preview creates a temporary one: it is recorded before, deleted
after, and left to the sweeper if this process dies. Both count towards a daily limit, since the
source's account bears their load.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal
from uuid import UUID, uuid4, uuid5

import msgspec

from services.orchestrator import trial_queries
from services.orchestrator.credentials import OrderNote, expect_unused
from services.orchestrator.sagas.onboard import unreadable
from services.orchestrator.service import Orchestrator
from services.orchestrator.source_schemas import (
    CheckedView,
    FieldView,
    PreviewedView,
    StreamView,
    Trial,
    TrialNote,
)
from shared.airbyte_client import AirbyteClient
from shared.auth import scopes
from shared.config import Settings
from shared.credential_digests import Digests
from shared.database import Database
from shared.discoveries import ON_REQUEST
from shared.domain import catalog as catalogs
from shared.domain.cooperative import run_cooperatively
from shared.errors import AamError, Conflict, TooManyRequests, UpstreamMismatch
from shared.models import SourceTrial
from shared.observability import logs
from shared.operations import marker
from shared.source_types import SourceType, credential_name

log = logs.get(__name__)

_NAMESPACE = UUID("5f2d8f3c-93f4-4a0b-8e55-0d6d7e0f5c11")
_MARGIN = timedelta(minutes=1)
"""Time of a trial beyond that of the connector: to create, to delete, to record."""


class _Typed(msgspec.Struct):
    type: str | list[str] = []


_TYPED = msgspec.json.Decoder(_Typed)
MOST_STREAMS = 1000
MOST_FIELDS = 500
"""The most streams of a preview, and fields of each stream, that are shown."""


class SourceTrials:
    """Tries configurations out, within the limits of the source's account."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        orchestrator: Orchestrator,
        digests: Digests | None,
    ) -> None:
        self._limit = settings.discoveries_per_day or ON_REQUEST
        self._check_within = settings.check_timeout + _MARGIN
        self._preview_within = settings.discover_timeout + 5 * settings.airbyte_timeout + _MARGIN
        self._db = db
        self._airbyte = airbyte
        self._orchestrator = orchestrator
        self._workspaces = orchestrator.workspaces
        self._digests = digests

    async def check(self, order: Trial) -> CheckedView:
        """Have the connector test a configuration, without creating anything.

        Raises:
            Invalid: the order or the credential is invalid.
            CheckFailed: the source cannot be reached with it.
            Conflict: `credential_used_up`, or `trial_running`: another one of this account is.
            TooManyRequests: `discovery_quota`: the daily limit of the account is reached.
            Unavailable: Airbyte, the auth_broker or the registry is unavailable.
        """
        workspace_id = await self._workspaces.requested(order.workspace_id)
        source_type, configuration, notes = await self._prepared(order, workspace_id)
        async with self._recorded(order, source_type, "check", self._check_within, workspace_id):
            is_renewed = await self._airbyte.check_configuration(
                source_type.definition_id, workspace_id, configuration
            )
        return CheckedView(status="succeeded", notes=[*notes, *_renewal(order, is_renewed)])

    async def preview(self, order: Trial) -> PreviewedView:
        """What a source with this configuration offers: streams with keys, cursors and fields.

        Raises:
            Invalid, Conflict, TooManyRequests, Unavailable: as `check`.
            DiscoverFailed: the connector could not list the source's schema.
            Upstream: Airbyte did not create the temporary source.
        """
        workspace_id = await self._workspaces.requested(order.workspace_id)
        source_type, configuration, notes = await self._prepared(order, workspace_id)
        async with self._recorded(
            order, source_type, "preview", self._preview_within, workspace_id
        ) as trial_id:
            source = await self._airbyte.create_source(
                workspace_id,
                configuration,
                name=f"Preview {marker(trial_id)}",
                source_definition_id=source_type.definition_id,
            )
            if source.workspace_id != workspace_id:
                raise UpstreamMismatch("Airbyte created the source in another workspace.")
            try:
                discovered = await self._airbyte.discover_schema(source.source_id)
            finally:
                await self._delete(source.source_id, workspace_id, trial_id)
        try:
            catalog = await run_cooperatively(catalogs.parse.steps(discovered.catalog))
            streams = [_stream(one.stream) for one in islice(catalog.streams, MOST_STREAMS)]
        except catalogs.InvalidCatalog as error:
            raise unreadable(error) from None
        return PreviewedView(
            items=streams,
            streams=len(catalog.streams),
            notes=[*notes, *_renewal(order, discovered.configuration_updated)],
        )

    async def _prepared(
        self, order: Trial, workspace_id: UUID
    ) -> tuple[SourceType, dict[str, Any], list[TrialNote]]:
        """The configuration, which fits the specification, and notes about its credential."""
        source_type, configuration = await self._orchestrator.expected_configuration(
            order, workspace_id
        )
        notes: list[OrderNote] = []
        if source_type.renewed_fields and order.credential_id is not None:
            notes = await expect_unused(
                self._db, self._digests, source_type, order.credential_id, configuration
            )
        return (
            source_type,
            configuration,
            [TrialNote(code=note.code, message=note.message) for note in notes],
        )

    @asynccontextmanager
    async def _recorded(
        self,
        order: Trial,
        source_type: SourceType,
        purpose: Literal["check", "preview"],
        within: timedelta,
        workspace_id: UUID,
    ) -> AsyncIterator[UUID]:
        """Record a trial before and after the block, within the limits of its account."""
        # All references that may lead to one credential share its limit.
        credential = credential_name(order.credential_id or "")
        account = uuid5(_NAMESPACE, f"{source_type.definition_id} {credential}")
        trial_id = await self._begin(account, purpose, within, workspace_id)
        try:
            yield trial_id
        except AamError as error:
            await self._end(trial_id, error.code)
            raise
        except asyncio.CancelledError:
            await self._end(trial_id, "cancelled")
            raise
        await self._end(trial_id, None)

    async def _begin(
        self, account: UUID, purpose: str, within: timedelta, workspace_id: UUID
    ) -> UUID:
        trial_id = uuid4()
        async with self._db.transaction() as session:
            await trial_queries.lock_account(session, account)
            load = await trial_queries.load_of(session, account, allowed=self._limit)
            if load.is_running:
                raise Conflict(
                    "Another check or preview with this source type and credential is running.",
                    code="trial_running",
                )
            if load.used >= self._limit:
                wait_s = max((load.frees_at - datetime.now(UTC)).total_seconds(), 1)
                raise TooManyRequests(
                    f"The limit of checks and previews with this source type and credential in 24 "
                    f"hours is reached, {self._limit}.",
                    code="discovery_quota",
                    limit=self._limit,
                    wait_s=math.ceil(wait_s),
                )
            trial_queries.begin(
                session,
                SourceTrial(
                    id=trial_id,
                    account=account,
                    purpose=purpose,
                    airbyte_workspace_id=workspace_id,
                    requested_by=scopes.requested_by(),
                    expires_at=datetime.now(UTC) + within,
                    is_left=purpose == "preview",
                ),
            )
        return trial_id

    async def _end(self, trial_id: UUID, code: str | None) -> None:
        async with self._db.transaction() as session:
            await trial_queries.end(session, trial_id, code=code)

    async def _delete(self, source_id: UUID, workspace_id: UUID, trial_id: UUID) -> None:
        """Delete the temporary source; if that fails, the sweeper does it later."""
        try:
            await self._airbyte.delete_source(source_id, workspace_id=workspace_id)
        except AamError as error:
            log.warning("preview_left", source=str(source_id), code=error.code)
            return
        async with self._db.transaction() as session:
            await trial_queries.mark_deleted(session, trial_id)


def _renewal(order: Trial, is_renewed: bool) -> list[TrialNote]:
    if not is_renewed:
        return []
    return [
        TrialNote(
            code="credential_renewed",
            message=f"The connector renewed a token, and the one of credential "
            f"{order.credential_id} is no longer valid: authorize again, and store the new one.",
        )
    ]


def _stream(stream: catalogs.Stream) -> StreamView:
    fields = stream.fields() or {}
    return StreamView(
        name=stream.name,
        namespace=stream.namespace,
        sync_modes=list(stream.supported_sync_modes or ()),
        primary_key=[list(path) for path in stream.source_defined_primary_key or ()],
        cursor=list(stream.default_cursor_field or ()),
        is_cursor_fixed=bool(stream.source_defined_cursor),
        fields=[
            FieldView(name=name, types=_types(schema))
            for name, schema in islice(fields.items(), MOST_FIELDS)
        ],
        field_count=len(fields),
    )


def _types(schema: msgspec.Raw) -> list[str]:
    """The JSON types that a field's schema names; empty where it names none."""
    try:
        found = _TYPED.decode(schema).type
    except msgspec.ValidationError:
        return []
    return [found] if isinstance(found, str) else list(found)
