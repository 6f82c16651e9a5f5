"""Typed HTTP clients for the other AAM services; problem+json becomes the original error class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, NotRequired, Self, TypedDict
from urllib.parse import quote
from uuid import UUID

import aiohttp
import httpx
import msgspec
import orjson
import stamina
from httpx_aiohttp import AiohttpTransport

from shared.auth.scopes import Scope
from shared.auth.service_tokens import Signer
from shared.config import Settings
from shared.credential_documents import Credential, CredentialVersion
from shared.errors import (
    AamError,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
    from_problem,
)
from shared.observability import logs, tracing
from shared.tls import authorities

_LONGEST_SOURCE_TYPE = 100


class Peer:
    """A pooled client of another AAM service, with a total deadline per call."""

    name: str

    def __init__(self, base_url: str, *, signer: Signer, deadline: float) -> None:
        self._signer = signer
        self._deadline = deadline
        self._client = httpx.AsyncClient(
            base_url=base_url,
            transport=tracing.traced_transport(AiohttpTransport(verify=authorities())),
            timeout=deadline,
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def health(self) -> None:
        """Check that the service is running.

        Raises:
            UpstreamUnreachable: it cannot be reached.
        """
        async with self._in_time():
            await self._once("GET", "/health")

    async def _post(self, path: str, scope: Scope, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an idempotent POST, retried like a read.

        Raises:
            AamError: what the service raised, rebuilt from its response, or an Upstream error.
        """
        return await self._repeated("POST", path, scope=scope, content=orjson.dumps(body))

    async def _repeated(
        self,
        method: str,
        path: str,
        *,
        scope: Scope,
        credential_id: str | None = None,
        **sent: Any,
    ) -> dict[str, Any]:
        async with self._in_time():
            async for attempt in stamina.retry_context(
                on=_is_retryable,
                attempts=4,
                timeout=self._deadline,
                wait_initial=0.05,
                wait_jitter=0.05,
            ):
                with attempt:
                    # Each attempt needs its own token: the auth broker accepts none twice.
                    token = self._signer.token(
                        self.name, scope, request_id=logs.request_id(), credential_id=credential_id
                    )
                    return await self._once(method, path, token=token, **sent)
        raise AssertionError("unreachable")  # pragma: no cover

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline):
                yield
        except TimeoutError:
            raise UpstreamTimeout(f"The {self.name} did not answer in time.") from None

    async def _once(
        self, method: str, path: str, *, token: str | None = None, **sent: Any
    ) -> dict[str, Any]:
        request_id = logs.request_id()
        headers = {logs.REQUEST_ID_HEADER: request_id} if request_id else {}
        headers |= sent.pop("headers", {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if "content" in sent:
            headers["Content-Type"] = "application/json"
        try:
            answer = await self._client.request(method, path, headers=headers, **sent)
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                raise UpstreamUnreachable(f"The {self.name} cannot be reached.") from None
            raise UpstreamUnknown(f"The {self.name} did not complete its response.") from None
        if answer.is_success:
            return self._json(answer)
        raise from_problem(answer.status_code, self._json(answer))

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            if isinstance(body := orjson.loads(answer.content), dict):
                return body
        raise UpstreamUnknown(
            f"The {self.name} answered {answer.status_code} without a JSON object."
        )


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, AamError) and error.retryable


class AuthBroker(Peer):
    """Client of the auth_broker: the values of credentials."""

    name = "auth_broker"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """A client for `auth_broker_url`."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.auth_broker_url), signer=signer, deadline=deadline)

    async def document(self, source_type: str, credential_id: str) -> Credential:
        """A credential's values, for a source type. They are secrets: never log or store them.

        Raises:
            NotFound: the broker has no such credential.
            Invalid: what is stored is not a document; `variable` names where.
            UpstreamUnreachable: the broker cannot be reached.
            UpstreamUnknown: its answer is not a document.
        """
        part = quote(credential_id, safe="")
        answer = await self._repeated(
            "GET",
            f"/credentials/{part}/document",
            scope=Scope.CREDENTIALS_READ,
            credential_id=credential_id,
            params={"source_type": source_type[:_LONGEST_SOURCE_TYPE]},
        )
        try:
            return msgspec.convert(answer, Credential)
        except msgspec.ValidationError:
            raise UpstreamUnknown("The auth_broker's answer is not a credential.") from None

    async def versions(
        self, credential_ids: Sequence[str], *, digest_key: str
    ) -> list[CredentialVersion]:
        """The versions of at most 100 credentials, in order; never their values.

        Raises:
            UpstreamUnreachable: the broker cannot be reached.
            UpstreamUnknown: its answer is malformed.
        """
        answer = await self._post(
            "/credentials/versions",
            Scope.CREDENTIALS_READ,
            {"credential_ids": credential_ids, "digest_key": digest_key},
        )
        try:
            found = msgspec.convert(answer, _Versions, strict=False).credentials
        except msgspec.ValidationError:
            raise UpstreamUnknown("The auth_broker's answer has no versions.") from None
        if [one.credential_id for one in found] != list(credential_ids):
            raise UpstreamUnknown("The auth_broker answered about other credentials.")
        return found


class _Versions(msgspec.Struct, frozen=True):
    credentials: list[CredentialVersion]


class Orchestrator(Peer):
    """Client of the orchestrator: starts syncs."""

    name = "orchestrator"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """A client for `orchestrator_url`."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.orchestrator_url), signer=signer, deadline=deadline)

    async def sync(self, connection_id: UUID, *, key: str) -> UUID:
        """Start a sync, once per Idempotency-Key, and return the job's id.

        Raises:
            SyncRunning: a sync is already running; `job_id` names it if known.
            NotActive: the connection's status does not allow it, here or in Airbyte.
            UpstreamUnknown: whether a job was started is not known yet; retry with the same key.
            UpstreamUnreachable: the orchestrator cannot be reached.
        """
        wait = self._deadline / 2
        answer = await self._repeated(
            "POST",
            f"/connections/{connection_id}/sync",
            scope=Scope.CONNECTIONS_SYNC,
            params={"wait": f"{wait:g}"},
            headers={"Idempotency-Key": key},
        )
        if "job_id" not in answer:
            raise UpstreamUnknown("The orchestrator does not know yet whether it started a sync.")
        return UUID(answer["job_id"])


class SchemaObserver(Peer):
    """Client of the schema_observer: observes sources."""

    name = "schema_observer"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """A client for `schema_observer_url`."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.schema_observer_url), signer=signer, deadline=deadline)

    async def observe(self, connection_id: UUID) -> dict[str, Any]:
        """Observe a connection's source now; retried like a read, since it changes nothing.

        Returns `{"outcome", "code", "drift_id", ...}`, or `{"status": "observing"}` if it takes
        longer.

        Raises:
            NotActive, SyncRunning, TooManyRequests: the source cannot be observed now.
            UpstreamUnreachable: the observer cannot be reached.
        """
        return await self._repeated(
            "POST",
            f"/connections/{connection_id}/observe",
            scope=Scope.CONNECTIONS_WRITE,
            params={"wait": f"{self._deadline / 2:g}"},
        )

    async def observation(self, connection_id: UUID) -> dict[str, Any]:
        """How a connection's source is observed: `{"outcome", "code", "observed_at", ...}`.

        Raises:
            UpstreamUnreachable: the observer cannot be reached.
        """
        return await self._repeated(
            "GET", f"/connections/{connection_id}/observation", scope=Scope.CONNECTIONS_READ
        )


class Evidence(TypedDict):
    """One piece of evidence; `score` ranges from -1 (against the rename) to 1 (for it)."""

    kind: str
    score: float
    detail: str


class Alternative(TypedDict):
    """Another possible new name."""

    became: list[str]
    confidence: float


class Rename(TypedDict):
    """A suggested rename with its confidence and evidence; paths are lists of names."""

    removed: list[str]
    became: list[str]
    confidence: float
    more_than_names: bool
    """Whether a declared hint, an identical earlier decision or matching values support it."""
    types_clash: bool
    rival: float
    """The highest confidence of another pair that contains one of the two."""
    evidence: list[Evidence]
    alternatives: list[Alternative]


class RenameDecision(TypedDict):
    """A person's decision about a suggested rename."""

    decision_id: str
    """The decision's UUID, which makes repeated calls idempotent."""
    source_type: str
    entity: Literal["field", "stream"]
    stream: Mapping[str, Any] | None
    """For a field, its stream: `{"namespace": ..., "name": ...}`."""
    removed: Sequence[str]
    became: Sequence[str] | None
    """None if it was removed without a replacement."""
    verdict: Literal["accepted", "rejected"]
    decided_by: str
    requested_by: NotRequired[str | None]
    """The caller who requested it."""
    decided_at: NotRequired[str | None]
    """When, in ISO 8601, since decisions may arrive late and out of order."""
    reason: NotRequired[str | None]
    connection_id: NotRequired[str | None]
    schemas: NotRequired[Mapping[str, Any] | None]
    """The schemas at the time of the decision: `{"removed": ..., "added": ...}`."""


class RagEngine(Peer):
    """Client of the rag_engine: suggests renames of removed fields and streams."""

    name = "rag_engine"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """A client for `rag_engine_url`."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.rag_engine_url), signer=signer, deadline=deadline)

    async def suggest(
        self,
        *,
        source_type: str,
        entity: Literal["field", "stream"],
        stream: Mapping[str, Any] | None,
        connection_id: UUID | None = None,
        removed: Sequence[Mapping[str, Any]],
        added: Sequence[Mapping[str, Any]],
        unchanged: Iterable[str] = (),
        connector: Mapping[str, Any] | None = None,
    ) -> list[Rename]:
        """Suggest what removed elements were renamed to, highest confidence first.

        Elements are `{"path": [...], "schema": {...}}`; for fields, `stream` is their stream,
        `{"namespace": ..., "name": ...}`. Decisions in the same connection weigh most. An
        element without evidence gets no suggestion. `connector` is the change of the connector's
        version that came with them: `{"versions": ..., "guides": [URL, ...]}`.

        Raises:
            Invalid: more than 2,000 elements on a side, or malformed elements.
            UpstreamUnreachable: the engine cannot be reached.
        """
        answer = await self._post(
            "/suggest",
            Scope.CONNECTIONS_READ,
            {
                "source_type": source_type,
                "entity": entity,
                "stream": stream,
                "connection_id": None if connection_id is None else str(connection_id),
                "removed": removed,
                "added": added,
                "context": {"unchanged": list(unchanged), "connector": connector},
            },
        )
        renames: list[Rename] = answer["suggestions"]
        return renames

    async def learn(self, decision: RenameDecision) -> bool:
        """Send a person's decision; return False if it was already recorded.

        Raises:
            Conflict: another decision has this id.
            UpstreamUnreachable: the engine cannot be reached.
        """
        answer = await self._post("/learn", Scope.REPAIRS_DECIDE, decision)
        return bool(answer["learned"])
