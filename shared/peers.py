"""Typed HTTP clients for the sibling services. A sibling's problem+json becomes its error class."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, NotRequired, Self, TypedDict
from urllib.parse import quote
from uuid import UUID

import aiohttp
import httpx
import orjson
import stamina
from httpx_aiohttp import AiohttpTransport

from shared.auth.scopes import Scope
from shared.auth.service_tokens import Signer
from shared.config import Settings
from shared.errors import (
    AamError,
    UpstreamTimeout,
    UpstreamUnknown,
    UpstreamUnreachable,
    from_problem,
)
from shared.observability import logs, tracing
from shared.tls import authorities


class Peer:
    """One sibling service, by a pooled client with a total deadline per call."""

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
        """Ask whether the peer runs.

        Raises:
            UpstreamUnreachable: it does not.
        """
        async with self._in_time():
            await self._once("GET", "/health")

    async def _post(self, path: str, scope: Scope, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send what may be sent twice; repeated like a read.

        Raises:
            AamError: what the peer raised, rebuilt from its answer; or that it cannot be reached.
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
                on=_worth_repeating,
                attempts=4,
                timeout=self._deadline,
                wait_initial=0.05,
                wait_jitter=0.05,
            ):
                with attempt:
                    # Each try has a token of its own: the broker takes none twice.
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
            raise UpstreamUnknown(f"The {self.name} broke off its answer.") from None
        if answer.is_success:
            return self._json(answer)
        raise from_problem(answer.status_code, self._json(answer))

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        with suppress(orjson.JSONDecodeError):
            if isinstance(body := orjson.loads(answer.content), dict):
                return body
        raise UpstreamUnknown(f"The {self.name} answered {answer.status_code} with no JSON object.")


def _worth_repeating(error: Exception) -> bool:
    return isinstance(error, AamError) and error.retryable


class AuthBroker(Peer):
    """The auth_broker: connector configurations for credential ids."""

    name = "auth_broker"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """The broker that the settings name."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.auth_broker_url), signer=signer, deadline=deadline)

    async def connector_config(self, source_type: str, credential_id: str) -> dict[str, Any]:
        """The configuration of a source type's connector. It holds secrets: never log or store it.

        Raises:
            NotFound: the broker has no such credential.
            Invalid: the credential lacks a variable; `variable` names it.
            UpstreamUnreachable: the broker is away.
        """
        part = quote(credential_id, safe="")
        return await self._repeated(
            "GET",
            f"/credentials/{part}/connector-config",
            scope=Scope.CREDENTIALS_READ,
            credential_id=credential_id,
            params={"source_type": source_type},
        )


class Orchestrator(Peer):
    """The orchestrator: has Airbyte sync a connection."""

    name = "orchestrator"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """The orchestrator that the settings name."""
        deadline = settings.peer_timeout.total_seconds()
        return cls(str(settings.orchestrator_url), signer=signer, deadline=deadline)

    async def sync(self, connection_id: UUID, *, key: str) -> UUID:
        """Have Airbyte move the data now, once for each Idempotency-Key; the job's id.

        Raises:
            SyncRunning: one runs already; `job_id` names it where it is known.
            NotActive: the connection's status does not allow it, here or in Airbyte.
            UpstreamUnknown: it is not known yet whether a job was started: ask again.
            UpstreamUnreachable: the orchestrator is away.
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
            raise UpstreamUnknown("The orchestrator does not know yet whether a sync was started.")
        return UUID(answer["job_id"])


class Evidence(TypedDict):
    """One piece of evidence; `score` is from -1, against, to 1, for."""

    kind: str
    score: float
    detail: str


class Alternative(TypedDict):
    """What else it may have become."""

    became: list[str]
    confidence: float


class Rename(TypedDict):
    """What something became, how sure that is, and why; paths as lists of names."""

    removed: list[str]
    became: list[str]
    confidence: float
    more_than_names: bool
    """Whether a declared hint, a person's identical decision or matching values speak for it."""
    types_clash: bool
    rival: float
    """The confidence of the likeliest other pair with either of the two."""
    evidence: list[Evidence]
    alternatives: list[Alternative]


class RenameDecision(TypedDict):
    """What a person decided that something became, or did not."""

    decision_id: str
    """A UUID of the decision's own: told twice, it is learned once."""
    source_type: str
    entity: Literal["field", "stream"]
    stream: Mapping[str, Any] | None
    """Of fields: `{"namespace": ..., "name": ...}`."""
    removed: Sequence[str]
    became: Sequence[str] | None
    """None: nothing."""
    verdict: Literal["accepted", "rejected"]
    decided_by: str
    requested_by: NotRequired[str | None]
    """Whose credentials asked for it."""
    decided_at: NotRequired[str | None]
    """When, in ISO 8601: what is told late is not the newest decision for it."""
    why: NotRequired[str | None]
    connection_id: NotRequired[str | None]
    schemas: NotRequired[Mapping[str, Any] | None]
    """`{"removed": ..., "added": ...}` as they were."""


class RagEngine(Peer):
    """The rag_engine: what became of fields and streams that are gone."""

    name = "rag_engine"

    @classmethod
    def from_settings(cls, settings: Settings, signer: Signer) -> Self:
        """The engine that the settings name."""
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
        samples: Mapping[str, Any] | None = None,
    ) -> list[Rename]:
        """What each removed one became, surest first; none for what it knows nothing of.

        Elements are `{"path": [...], "schema": {...}}`; of fields, `stream` is what they are in,
        `{"namespace": ..., "name": ...}`. What was decided in the connection counts most. `samples`
        are values by dotted path, on each side.

        Raises:
            Invalid: more than 2,000 on a side, or no elements.
            UpstreamUnreachable: the engine is away.
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
                "context": {"unchanged": list(unchanged)},
                "samples": samples,
            },
        )
        renames: list[Rename] = answer["suggestions"]
        return renames

    async def learn(self, decision: RenameDecision) -> bool:
        """Tell what a person decided; False where it is known already.

        Raises:
            Conflict: another decision has this id.
            UpstreamUnreachable: the engine is away.
        """
        answer = await self._post("/learn", Scope.REPAIRS_DECIDE, decision)
        return bool(answer["learned"])
