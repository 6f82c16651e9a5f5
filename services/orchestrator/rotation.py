"""Rotation: gives a credential that changed in its store to every source that uses it.

It is checked with Airbyte before anything is changed, and sources are updated in place, never
recreated. A token that the connector renewed is preserved, unless the store has a newer one. A
renewal by the check itself is recorded at once, since the store's token is used up by then.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator import credential_queries
from services.orchestrator.credential_queries import CredentialUse
from services.orchestrator.credentials import fetch, merged
from services.orchestrator.schemas import Outcome, RotatedView, RotationView
from services.orchestrator.source_configurations import SourceConfigurations
from shared import batches, outbox, registry
from shared.airbyte_client import UNSUPPORTED, AirbyteClient, ConfiguredSource
from shared.airbyte_reads import reading_back
from shared.batches import code_of
from shared.config import Settings
from shared.credential_digests import Digests
from shared.credential_documents import Credential
from shared.database import Database
from shared.discoveries import OBSERVE_SOURCE
from shared.domain.specification import Specification
from shared.errors import (
    CheckFailed,
    Conflict,
    ConnectorFailed,
    Invalid,
    NotActive,
    NotFound,
    Unavailable,
    Upstream,
    UpstreamDenied,
    UpstreamMismatch,
    UpstreamMissing,
    UpstreamRefused,
    UpstreamUnknown,
)
from shared.job_queue import Jobs
from shared.observability import logs
from shared.operations import HttpResult, Intent, Key, Operation, Operations
from shared.outbox import EventType
from shared.service_clients import AuthBroker

log = logs.get(__name__)

_MAX_CHECKS = 4
"""Maximum concurrent checks of one rotation: each starts a connector."""
_MARKER = re.compile(r" ?\[aam:[0-9a-f-]{36}\]$")


class Rotate(msgspec.Struct, frozen=True):
    """The update of one source; secret values are not included but fetched again."""

    credential_id: str
    source_type: str
    airbyte_source_id: UUID
    digests: dict[str, str]
    """Digests of the values that were checked: only those values are given to Airbyte."""
    changed: list[str]
    """The values that differ from what Airbyte was given last, by their pointers."""
    dropped: list[str]
    """Those that it was given last and that are no longer in the store."""
    connection_ids: list[UUID]
    """Every connection that uses the source."""
    configuration: dict[str, Any] = {}
    """The part of the source's configuration that is not in the credential."""


class _Verdict(msgspec.Struct, frozen=True):
    """The update for one source, or why there is none."""

    uses: Sequence[CredentialUse]
    order: Rotate | None = None
    outcome: Outcome = "unchanged"
    code: str | None = None
    failed: ConnectorFailed | None = None
    """The failure of the check."""
    operation_id: UUID | None = None
    """The rotation that the check itself has completed."""

    def outcomes(self, outcome: Outcome, code: str | None = None, **more: Any) -> list[RotatedView]:
        if self.failed is not None:
            failed = self.failed
            more |= {"cause": failed.cause, "explanation": failed.explanation, "log": failed.log}
        return [
            RotatedView(
                connection_id=use.connection_id,
                name=use.name,
                airbyte_source_id=use.airbyte_source_id,
                outcome=outcome,
                code=code,
                **more,
            )
            for use in self.uses
        ]


@dataclass(frozen=True, slots=True, repr=False)
class _Compared:
    """A source's configuration with the credential as stored now; it holds secrets."""

    source_id: UUID
    specification: Specification
    configuration: Mapping[str, Any]
    digests: dict[str, str]
    changed: list[str]
    dropped: list[str]

    @property
    def is_different(self) -> bool:
        """Whether the source was given another one."""
        return bool(self.changed or self.dropped)


class Rotator:
    """Updates sources with credentials that changed in the store."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        configurations: SourceConfigurations,
        operations: Operations,
        jobs: Jobs,
        digests: Digests | None,
    ) -> None:
        self._db = db
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self._configurations = configurations
        self._operations = operations
        self._jobs = jobs
        self._digests = digests
        if digests is not None:
            saga = RotateSaga(settings, db, airbyte, auth_broker, configurations, jobs, digests)
            operations.register("rotate", saga)

    async def rotate(self, reference: str, *, wait: float) -> HttpResult:
        """Check the credential as currently stored, and give it to every source that uses it.

        Raises:
            NotFound: no connection uses it.
            Invalid: the store has no such credential, or it lacks a variable.
            CheckFailed: a source cannot be reached with it; the error's members list each outcome.
            Conflict: a connection was busy, or there is no ROTATION_DIGEST_KEY.
            Upstream: Airbyte refused it for a source.
            Unavailable: Airbyte, the auth_broker or the registry is unavailable.
        """
        digests = self._expect_digests()
        async with self._db.read() as session:
            uses = await credential_queries.credential_uses(session, reference)
        if not uses:
            raise NotFound(f"No connection uses credential {reference}.", code="credential_unused")
        return _answer(await self._rotated(reference, uses, digests, wait=wait))

    async def rotated(
        self, reference: str, uses: Sequence[CredentialUse], *, wait: float
    ) -> RotationView:
        """The same for some of the sources that use it: the outcome for each of their connections.

        Raises:
            Invalid, Upstream, Unavailable: as `rotate`, if nothing could be compared.
        """
        return await self._rotated(reference, uses, self._expect_digests(), wait=wait)

    async def is_settled(self, reference: str) -> bool:
        """Whether the watch has compared what the store has now, and is to repeat that only later.

        Until then, a rotation would check it again with every source that could not be given it.

        Raises:
            Upstream: the auth_broker is unavailable.
        """
        digests = self._expect_digests()
        async with self._db.read() as session:
            version = await credential_queries.version_not_due(session, reference)
        if version is None:
            return False
        (seen,) = await self._auth_broker.versions([reference], digest_key=digests.version_key)
        return seen.version == version

    async def differing(self, reference: str, uses: Sequence[CredentialUse]) -> set[UUID]:
        """Those of the sources that were given another credential than the store has.

        Raises:
            Invalid: the credential does not fit the specification of a source.
            Upstream, Unavailable: it cannot be compared now.
        """
        digests = self._expect_digests()
        found = set()
        credential = await fetch(self._auth_broker, _source_type(reference, uses), reference)
        for source_id, standing in _by_source(uses).items():
            if source_id is not None:
                compared = await self._compared(reference, source_id, standing, credential, digests)
                if compared.is_different:
                    found.add(source_id)
        return found

    async def check_given(
        self, reference: str, source_id: UUID, uses: Sequence[CredentialUse]
    ) -> bool:
        """Check a source with what it has; True if its connector renewed a secret meanwhile.

        Raises:
            CheckFailed: the source cannot be reached with it.
            Invalid, Upstream, Unavailable: it cannot be checked now.
        """
        digests = self._expect_digests()
        credential = await fetch(self._auth_broker, _source_type(reference, uses), reference)
        compared = await self._compared(reference, source_id, uses, credential, digests)
        return await self._check(compared, changed=[], dropped=[])

    def _expect_digests(self) -> Digests:
        if self._digests is None:
            raise Conflict(
                "Rotation is disabled: ROTATION_DIGEST_KEY is not set.", code="no_digest_key"
            )
        return self._digests

    async def _rotated(
        self, reference: str, uses: Sequence[CredentialUse], digests: Digests, *, wait: float
    ) -> RotationView:
        verdicts = await self._verdicts(reference, uses, digests)
        hindered = [one for one in verdicts if one.outcome in ("check_failed", "unchecked")]
        rotated: list[RotatedView] = []
        to_begin: list[tuple[_Verdict, Rotate]] = []
        for verdict in verdicts:
            order = verdict.order
            if order is None:
                rotated += verdict.outcomes(
                    verdict.outcome, verdict.code, operation_id=verdict.operation_id
                )
            elif hindered:
                rotated += verdict.outcomes("skipped")
            else:
                to_begin.append((verdict, order))
        outcomes = await batches.each(
            to_begin,
            lambda one: self._carried_out(*one, wait=wait),
            log_event="not_rotated",
            fields=lambda one: {"source": str(one[1].airbyte_source_id)},
            max_concurrency=max(len(to_begin), 1),
        )
        for outcome in outcomes:
            verdict, _ = outcome.item
            if outcome.error is None:
                rotated += outcome.result or []
            else:
                rotated += verdict.outcomes(_failed(outcome.error), code_of(outcome.error))
        return RotationView(credential_id=reference, connections=rotated)

    async def _carried_out(
        self, verdict: _Verdict, order: Rotate, *, wait: float
    ) -> list[RotatedView]:
        """Update one source; the outcomes for its connections."""
        try:
            begun = await self._operations.begin(*_intent(verdict.uses[0], order))
        except (Conflict, NotFound) as busy:
            return verdict.outcomes("busy", busy.code)
        outcome, code = _outcome(await self._operations.outcome(begun, wait=wait))
        operation_id = begun if isinstance(begun, UUID) else None
        return verdict.outcomes(outcome, code, operation_id=operation_id)

    async def _verdicts(
        self, reference: str, uses: Sequence[CredentialUse], digests: Digests
    ) -> list[_Verdict]:
        """The update for each source; those that change are checked."""
        by_source = _by_source(uses)
        pending = by_source.pop(None, [])
        found = [_Verdict(pending, outcome="busy", code=NotActive.code)] if pending else []
        credential = await fetch(self._auth_broker, _source_type(reference, uses), reference)
        outcomes = await batches.each(
            by_source.values(),
            lambda standing: self._verdict(reference, standing, credential, digests),
            log_event="not_rotated",
            fields=lambda standing: {"source": str(standing[0].airbyte_source_id)},
            max_concurrency=_MAX_CHECKS,
        )
        for outcome in outcomes:
            if outcome.result is not None:
                found.append(outcome.result)
            elif isinstance(outcome.error, Invalid):
                raise outcome.error
            elif outcome.error is not None:
                code = code_of(outcome.error)
                found.append(_Verdict(outcome.item, outcome="unchecked", code=code))
        return found

    async def _verdict(
        self,
        reference: str,
        uses: Sequence[CredentialUse],
        credential: Credential,
        digests: Digests,
    ) -> _Verdict:
        """Compare with what the source was given last, and check what is new.

        Raises:
            Invalid: the credential does not fit the specification of the source.
        """
        first = _first(reference, uses)
        uses = [first, *(use for use in uses if use is not first)]
        if first.airbyte_source_id is None:
            return _Verdict(uses)
        try:
            compared = await self._compared(
                reference, first.airbyte_source_id, uses, credential, digests
            )
            return await self._checked(reference, uses, compared)
        except (Conflict, NotFound) as busy:
            return _Verdict(uses, outcome="busy", code=busy.code)
        except UpstreamMissing as missing:
            return _Verdict(uses, outcome="failed", code=missing.code)
        except UpstreamRefused as refused:
            is_asked = refused.code != UNSUPPORTED
            outcome: Outcome = "check_failed" if is_asked else "unchecked"
            failed = refused if isinstance(refused, ConnectorFailed) else None
            return _Verdict(uses, outcome=outcome, code=refused.code, failed=failed)
        except Upstream as error:
            return _Verdict(uses, outcome="unchecked", code=error.code)

    async def _checked(
        self, reference: str, uses: Sequence[CredentialUse], compared: _Compared
    ) -> _Verdict:
        """Check what is new, unless the source cannot be updated now: a check can use up a token.

        Raises:
            Conflict, NotFound: the first connection is busy, or received another credential.
            UpstreamRefused: the source cannot be reached with the credential.
            Upstream, Unavailable: it cannot be checked now.
        """
        if not compared.is_different:
            return _Verdict(uses)
        first = uses[0]
        order = Rotate(
            credential_id=reference,
            source_type=first.source_type,
            airbyte_source_id=compared.source_id,
            digests=compared.digests,
            changed=compared.changed,
            dropped=compared.dropped,
            connection_ids=[use.connection_id for use in uses],
            configuration=dict(first.configuration),
        )
        await self._operations.rehearse(*_intent(first, order))
        renewed = await self._check(compared, changed=compared.changed, dropped=compared.dropped)
        if not renewed:
            return _Verdict(uses, order)
        operation_id = await self._record_renewal(first, order)
        return _Verdict(uses, outcome="updated", operation_id=operation_id)

    async def _compared(
        self,
        reference: str,
        source_id: UUID,
        uses: Sequence[CredentialUse],
        credential: Credential,
        digests: Digests,
    ) -> _Compared:
        """Compare a credential with what a source was given last.

        Raises:
            Invalid: the credential does not fit the specification of the source.
            Upstream: the specification cannot be read.
        """
        first = _first(reference, uses)
        specification = await self._configurations.definitions.specification_of_source(source_id)
        configuration = await self._configurations.built(
            specification, first.source_type, dict(first.configuration), reference, credential
        )
        now = digests.of(reference, configuration)
        return _Compared(
            source_id,
            specification,
            configuration,
            digests=now,
            changed=sorted(one for one in now if first.digests.get(one) != now[one]),
            dropped=sorted(
                one
                for one in first.digests.keys() - now.keys()
                if not _was_default(specification, digests, reference, one, first.digests[one])
            ),
        )

    async def _check(self, compared: _Compared, **difference: list[str]) -> bool:
        """Check the configuration; True if the connector renewed a secret, which Airbyte stores."""
        source = await self._airbyte.get_configured_source(compared.source_id)
        whole = merged(
            source.connection_configuration,
            compared.configuration,
            specified=compared.specification,
            keep_secrets=False,
            **difference,
        )
        return await self._airbyte.check_source_update(compared.source_id, whole, name=source.name)

    async def _record_renewal(self, use: CredentialUse, order: Rotate) -> UUID:
        """Record a rotation that the connector completed by renewing a secret in its check.

        Airbyte has stored the whole configuration by then, so nothing is left to be sent. Another
        operation may have begun on the connection meanwhile. Returns the operation's id.

        Raises:
            NotActive: the connection received another credential during the check.
            Unavailable, UpstreamUnknown: the registry was unavailable for too long.
        """
        intent, gate = _intent(use, order)
        key = Key("AAM", "rotate", str(intent.id), intent.id.bytes)

        async def record(session: AsyncSession) -> HttpResult:
            await gate(session, intent.id)
            await _record(session, intent.id, order, self._jobs)
            registry.record_discovery(session, order.airbyte_source_id, "check", is_renewed=True)
            return HttpResult(200, "{}")

        await self._operations.at_once(replace(intent, key=key), record, until_committed=True)
        log.info("renewed_by_check", source=str(order.airbyte_source_id), operation=str(intent.id))
        return intent.id


def _intent(
    use: CredentialUse, order: Rotate
) -> tuple[Intent, Callable[[AsyncSession, UUID], Awaitable[None]]]:
    """An order as an operation, and its gate.

    The gate raises NotActive if the source was updated since the comparison.
    """

    async def gate(session: AsyncSession, _operation_id: UUID) -> None:
        row = await registry.lock_connection(session, use.connection_id)
        is_other = row.airbyte_source_id != order.airbyte_source_id
        if is_other or credential_queries.digests_given(row) != use.digests:
            raise NotActive(
                f"Connection {row.id} received another credential in the meantime.",
                code="rotating",
            )

    return Intent("rotate", use.connection_id, order), gate


async def _record(session: AsyncSession, operation_id: UUID, order: Rotate, jobs: Jobs) -> None:
    """Record for each connection of the source what it has been given."""
    was_rejected = False
    for connection_id in sorted(order.connection_ids):
        row = await registry.lock_connection(session, connection_id, even_archived=True)
        if row.credential_id == order.credential_id:
            credential_queries.save_digests(row, order.digests)
        was_rejected |= row.credential_rejected_since is not None
        credential_queries.accept(row)
        outbox.record(session, EventType.CREDENTIAL_ROTATED, row, ref=operation_id)
    await registry.forget_renewals(session, order.airbyte_source_id)
    if was_rejected:
        # Its next observation may be hours away, since the last ones have failed.
        source = str(order.airbyte_source_id)
        await jobs.enqueue(session, OBSERVE_SOURCE, source, after=timedelta(0))


class RotateSaga:
    """Updates one source, once; every step can be resumed."""

    def __init__(
        self,
        settings: Settings,
        db: Database,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        configurations: SourceConfigurations,
        jobs: Jobs,
        digests: Digests,
    ) -> None:
        self._jobs = jobs
        self._call_s = settings.airbyte_timeout.total_seconds()
        self._peer_s = settings.peer_timeout.total_seconds()
        self._db = db
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self._configurations = configurations
        self._digests = digests

    async def run(self, operation: Operation) -> None:
        """Update the source, check that it is updated, and record what it was given.

        Airbyte never returns a secret, so after a lost response the source's name decides: it is
        written together with the configuration, and identifies the operation that wrote it last.
        """
        order = msgspec.json.decode(operation.request, type=Rotate)

        async def update() -> bool:
            credential = await fetch(self._auth_broker, order.source_type, order.credential_id)
            specification = await self._configurations.definitions.specification_of_source(
                order.airbyte_source_id
            )
            configuration = await self._configurations.built(
                specification,
                order.source_type,
                order.configuration,
                order.credential_id,
                credential,
            )
            if self._digests.of(order.credential_id, configuration) != order.digests:
                raise Conflict(
                    f"Credential {order.credential_id} has changed since it was checked.",
                    code="credential_changed",
                )
            source = await self._airbyte.get_configured_source(order.airbyte_source_id)
            await self._airbyte.update_source(
                order.airbyte_source_id,
                _merged(source, configuration, specification, order),
                name=f"{_MARKER.sub('', source.name)} {operation.marker}",
            )
            if not await took_effect():
                raise UpstreamMismatch(
                    "Airbyte accepted the configuration, but has a different one."
                )
            return True

        async def took_effect() -> bool | None:
            with reading_back():
                return await self._has_arrived(operation, order) or None

        await operation.once(
            "update", update, find=took_effect, within=self._peer_s + 6 * self._call_s
        )
        await self._end(operation, order)

    async def _has_arrived(self, operation: Operation, order: Rotate) -> bool:
        held = await self._airbyte.get_source(order.airbyte_source_id)
        return held.name.endswith(operation.marker)

    async def _end(self, operation: Operation, order: Rotate) -> None:
        """Finish the operation, and record what the source was given."""
        async with self._db.transaction() as session:
            await _record(session, operation.id, order, self._jobs)
            await operation.finish(session, status=200, body="{}")

    async def undo(self, operation: Operation) -> None:
        """Finish the operation; record an update whose response was lost, if it has arrived."""
        order = msgspec.json.decode(operation.request, type=Rotate)

        async def arrived() -> bool:
            try:
                return await self._has_arrived(operation, order)
            except (UpstreamRefused, UpstreamDenied):
                return False

        if await operation.once("arrived", arrived, within=2 * self._call_s):
            await self._end(operation, order)
        else:
            await self.abandon(operation)

    async def abandon(self, operation: Operation) -> None:
        """Finish the operation; the next rotation retries what is not known to have arrived."""
        async with self._db.transaction() as session:
            await operation.finish(session)


def _by_source(uses: Sequence[CredentialUse]) -> dict[UUID | None, list[CredentialUse]]:
    found: dict[UUID | None, list[CredentialUse]] = {}
    for use in uses:
        found.setdefault(use.airbyte_source_id, []).append(use)
    return found


def _first(reference: str, uses: Sequence[CredentialUse]) -> CredentialUse:
    """The oldest connection with the credential; others may use its source without having one."""
    return next(use for use in uses if use.credential_id == reference)


def _source_type(reference: str, uses: Sequence[CredentialUse]) -> str:
    return _first(reference, uses).source_type


def _was_default(
    specification: Specification, digests: Digests, reference: str, pointer: str, digest: str
) -> bool:
    """Whether a value that is no longer sent was the connector's default, so that it still counts.

    Earlier versions of AAM sent some defaults that no specification requires.
    """
    member = specification.schema.get("properties", {}).get(pointer)
    if not isinstance(member, dict) or "default" not in member:
        return False
    return digests.digest(reference, pointer, member["default"]) == digest


def _merged(
    source: ConfiguredSource,
    configuration: Mapping[str, Any],
    specification: Specification,
    order: Rotate,
) -> dict[str, Any]:
    return merged(
        source.connection_configuration,
        configuration,
        specified=specification,
        changed=order.changed,
        dropped=order.dropped,
        keep_secrets=False,
    )


def _outcome(answer: HttpResult) -> tuple[Outcome, str | None]:
    """The outcome that an operation's result means for its connections."""
    if answer.status < 300:
        return ("running" if answer.status == 202 else "updated"), None
    code = msgspec.json.decode(answer.body).get("code")
    return ("unknown" if answer.status == 504 else "failed"), code


def _failed(error: Exception) -> Outcome:
    """The outcome for a source whose operation could not be started or awaited."""
    return "unknown" if isinstance(error, UpstreamUnknown) else "failed"


def _answer(rotation: RotationView) -> HttpResult:
    """All outcomes as one result: 2xx only if every source is updated or still running.

    Raises:
        CheckFailed, Upstream, UpstreamUnknown, Unavailable, Conflict: with each outcome.
    """
    outcomes = {one.outcome for one in rotation.connections}
    members = rotation.model_dump(mode="json", exclude_defaults=True)
    reference = rotation.credential_id
    if "check_failed" in outcomes:
        raise CheckFailed(f"A source cannot be reached with credential {reference}.", **members)
    if "failed" in outcomes:
        detail = f"Not every source received credential {reference}."
        raise Upstream(detail, code="rotation_incomplete", **members)
    if "unknown" in outcomes:
        detail = f"It is unknown whether every source received credential {reference}."
        raise UpstreamUnknown(detail, code="rotation_unknown", **members)
    if "unchecked" in outcomes:
        detail = f"Credential {reference} cannot be checked at the moment; nothing was changed."
        raise Unavailable(detail, code="rotation_unchecked", **members)
    if "busy" in outcomes:
        detail = f"Some connections with credential {reference} were busy: try again."
        raise Conflict(detail, code="rotation_incomplete", **members)
    answer = rotation.model_dump_json(exclude_defaults=True)
    return HttpResult(202 if "running" in outcomes else 200, answer)
