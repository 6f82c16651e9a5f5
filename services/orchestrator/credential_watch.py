"""Watches credentials in their stores: gives changed ones to sources, and announces expiries.

Only versions are compared, a hundred per request; a credential is read when its version differs.
A row has the version at the last comparison, so that a restart repeats at most a comparison.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from services.orchestrator import credential_queries
from services.orchestrator.credential_queries import CredentialUse, Watched
from services.orchestrator.rotation import Rotator
from shared import batches, outbox, registry
from shared.config import Settings
from shared.credential_digests import Digests
from shared.credential_documents import CredentialVersion
from shared.database import Database
from shared.errors import Invalid
from shared.observability import logs
from shared.outbox import EventType
from shared.periodic import PeriodicTask
from shared.service_clients import AuthBroker

log = logs.get(__name__)

_BATCH: Final = 100
"""How many versions one request to the auth_broker is for."""
_AT_ONCE: Final = 2
"""How many credentials are compared, and perhaps checked, at once."""
_AGAIN_AFTER: Final = timedelta(hours=1)
"""When a credential that not every source got is compared again although it did not change."""


class CredentialWatch:
    """Compares stored credentials with those that sources have, by policy."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        auth_broker: AuthBroker,
        rotator: Rotator,
        digests: Digests | None,
    ) -> None:
        self._interval = settings.rotation_interval
        self._notice = settings.expiry_notice
        self._wait_s = settings.request_wait.total_seconds()
        self._db = db
        self._auth_broker = auth_broker
        self._rotator = rotator
        self._digests = digests

    @property
    def periodic_task(self) -> PeriodicTask:
        """The task, run by one replica for all."""
        return PeriodicTask(self.run, self._interval, singleton_name="credentials")

    async def run(self) -> None:
        """Compare all credentials once; one that fails is compared again in the next run.

        Raises:
            Unavailable: the registry is unavailable.
            Upstream: the auth_broker is unavailable.
        """
        async with self._db.transaction() as session:
            await credential_queries.forget_unused(session)
            ended = await credential_queries.end_rejections(session)
        for connection_id in ended:
            log.info("credential_accepted", connection=str(connection_id))
        if self._digests is None:
            return
        last = ""
        while True:
            async with self._db.read() as session:
                watched = await credential_queries.watched_credentials(
                    session, after=last, limit=_BATCH
                )
            if not watched:
                return
            last = watched[-1].credential_id
            await self._compare(watched, self._digests)

    async def _compare(self, watched: Sequence[Watched], digests: Digests) -> None:
        versions = await self._auth_broker.versions(
            [one.credential_id for one in watched], digest_key=digests.version_key
        )
        pairs = list(zip(watched, versions, strict=True))
        for _, seen in pairs:
            if seen.version is None:
                log.warning("credential_unread", credential=seen.credential_id, code=seen.code)
        await batches.each(
            [
                seen
                for known, seen in pairs
                if seen.version is not None and (known.version != seen.version or known.is_due)
            ],
            self._follow,
            log_event="credential_not_followed",
            fields=lambda seen: {"credential": seen.credential_id},
            max_concurrency=_AT_ONCE,
        )
        by = datetime.now(UTC) + self._notice
        await batches.each(
            [
                seen
                for known, seen in pairs
                if seen.expires_at is not None
                and seen.expires_at <= by
                and seen.expires_at != known.announced_expiry
            ],
            self._announce,
            log_event="expiry_not_announced",
            fields=lambda seen: {"credential": seen.credential_id},
        )

    async def _follow(self, seen: CredentialVersion) -> None:
        """Compare the sources of a credential whose version changed, and do as policies say."""
        reference = seen.credential_id
        async with self._db.read() as session:
            uses = await credential_queries.credential_uses(session, reference)
            reactions = await credential_queries.reactions(session, uses)

        def of(reaction: str) -> list[CredentialUse]:
            return [
                use
                for use in uses
                if use.airbyte_source_id and reactions.get(use.airbyte_source_id) == reaction
            ]

        applied, proposed = of("apply"), of("propose")
        if not (applied or proposed):
            return
        is_complete = True
        if proposed:
            differing = await self._rotator.differing(reference, proposed)
            is_complete = not differing
            await self._flag(reference, proposed, differing, code="proposed")
        if applied:
            missing = await self._apply(reference, applied)
            if missing is None:
                return
            is_complete = is_complete and not missing
        again_at = None if is_complete else datetime.now(UTC) + _AGAIN_AFTER
        async with self._db.transaction() as session:
            await credential_queries.save_version(session, seen, compare_again_at=again_at)

    async def _apply(self, reference: str, uses: Sequence[CredentialUse]) -> set[UUID] | None:
        """Rotate; the sources whose check refused the credential, or None to try again soon."""
        try:
            rotation = await self._rotator.rotated(reference, uses, wait=self._wait_s)
        except Invalid as error:
            sources = {use.airbyte_source_id for use in uses if use.airbyte_source_id}
            await self._flag(reference, uses, sources, code=error.code)
            return sources
        outcomes = {one.outcome for one in rotation.connections}
        refused = {
            one.airbyte_source_id
            for one in rotation.connections
            if one.airbyte_source_id and one.outcome in ("check_failed", "skipped")
        }
        log.info("credential_followed", credential=reference, code=",".join(sorted(outcomes)))
        if not outcomes <= {"updated", "unchanged", "check_failed", "skipped"}:
            return None
        await self._flag(reference, uses, refused, code="check_failed")
        return refused

    async def _flag(
        self,
        reference: str,
        uses: Sequence[CredentialUse],
        differing: Collection[UUID],
        *,
        code: str,
    ) -> None:
        """Record for each connection whether the store has another credential; an event each."""
        ours = sorted(use.connection_id for use in uses if use.credential_id == reference)
        async with self._db.transaction() as session:
            for connection_id in ours:
                row = await registry.lock_connection(session, connection_id)
                if row.airbyte_source_id not in differing:
                    row.credential_changed_at = None
                elif row.credential_changed_at is None:
                    row.credential_changed_at = await registry.now(session)
                    outbox.record(session, EventType.CREDENTIAL_CHANGED, row, code=code)

    async def _announce(self, seen: CredentialVersion) -> None:
        """Announce an expiry to each connection that uses the credential, once."""
        if seen.expires_at is None:
            return
        expires_at = seen.expires_at.astimezone(UTC).isoformat(timespec="seconds")
        async with self._db.transaction() as session:
            if not await credential_queries.save_announced(session, seen):
                return
            uses = await credential_queries.credential_uses(session, seen.credential_id)
            for connection_id in sorted(
                use.connection_id for use in uses if use.credential_id == seen.credential_id
            ):
                row = await registry.lock_connection(session, connection_id)
                code = expires_at.replace("+00:00", "Z")
                outbox.record(session, EventType.CREDENTIAL_EXPIRING, row, code=code)
