"""Every failure AAM expects. Anything else that escapes is a bug and answers 500.

AamError
├── Unauthenticated          401   nobody knows who asks
├── Forbidden                403   who asks may not; `scope` names what would be needed
├── NotFound                 404
├── TooManyRequests          429   the caller asks more often than it may
├── Invalid                  422   what was sent is not valid; `fields` says where
│   └── TooLarge             413
├── NotJson                  400   the body is no JSON text
├── UnsupportedMedia         415   the body is said to be something else than plain JSON
├── BodyTimeout              408   the body did not arrive in time
├── Conflict                 409
│   ├── NameTaken
│   ├── NotActive                  the connection's state does not allow it now
│   ├── StaleCatalog
│   └── SyncRunning
├── Upstream                       Airbyte, or a peer, did not do what was asked
│   ├── UpstreamRefused      422   a definite no: nothing was done
│   │   ├── UpstreamMissing        the object is not there (any more)
│   │   └── ConnectorFailed        the connector ran and failed; `cause` says why
│   │       ├── CheckFailed        the source cannot be reached with this credential
│   │       └── DiscoverFailed     the connector could not list the source's schema
│   ├── UpstreamDenied       502   our own credentials were refused
│   │   ├── UpstreamForbidden      Airbyte's 403: an unknown object, or not ours to see
│   │   └── UpstreamLoginOff       we log in where there is no login
│   ├── UpstreamConflict     409   Airbyte's 409: something runs already, or a database error
│   ├── UpstreamUnknown      504   it may have happened
│   │   ├── UpstreamTimeout
│   │   └── UpstreamNotAirbyte 502 something that is not Airbyte answered
│   └── UpstreamUnreachable  503   the request was never sent
│       ├── UpstreamNoTls          there is no TLS, or no valid certificate
│       └── UpstreamNoToken        Airbyte's token endpoint fails
├── UpstreamMismatch         502   Airbyte said yes and holds something else
└── Unavailable              503   nothing was recorded: retry freely

A detail names things and numbers. It never quotes what was submitted, nor what an upstream wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self
from uuid import UUID


class AamError(Exception):
    """An expected failure: an HTTP status, a stable code, a sentence, and facts as members."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: bool = False
    code: str = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members: dict[str, Any] = members
        if code is not None:
            self.code = code

    def problem(self) -> dict[str, Any]:
        """The failure as an RFC 9457 problem; `request_id` is added where it is sent."""
        return {
            "type": f"urn:aam:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }

    @classmethod
    def _rebuilt(cls, detail: str, code: str, members: Mapping[str, Any]) -> Self:
        error = cls.__new__(cls)
        AamError.__init__(error, detail, code=code, **members)
        return error


class Unauthenticated(AamError):
    """The credentials are missing, or prove nothing; which of it is not told."""

    status = 401
    title = "Not authenticated"
    code = "unauthenticated"


class Forbidden(AamError):
    """The caller is known, and may not do this."""

    status = 403
    title = "Forbidden"
    code = "forbidden"


class TooManyRequests(AamError):
    """The caller asks more often than it may; nothing was done."""

    status = 429
    title = "Too many requests"
    retryable = True
    code = "too_many_requests"


class NotFound(AamError):
    """There is no such thing, or it is not the caller's."""

    status = 404
    title = "Not found"
    code = "not_found"


class Invalid(AamError):
    """What was sent is invalid; `fields` lists where."""

    status = 422
    title = "Invalid request"
    code = "invalid_request"

    @classmethod
    def of(cls, member: str, detail: str, *, code: str) -> Self:
        """What is wrong with one member of the body."""
        field = {"field": f"body.{member}", "type": code, "message": detail}
        return cls(detail, code=code, fields=[field])


class TooLarge(Invalid):
    """The body is larger than anything this route accepts."""

    status = 413
    title = "Body too large"
    code = "body_too_large"


class NotJson(AamError):
    """The body's bytes are no JSON text: it is not UTF-8, or begins with a byte order mark."""

    status = 400
    title = "Not JSON"
    code = "not_json"


class UnsupportedMedia(AamError):
    """The body is said to be something else than JSON in UTF-8, or to be compressed."""

    status = 415
    title = "Unsupported media type"
    code = "unsupported_media_type"


class BodyTimeout(AamError):
    """The body did not arrive in its time; nothing was done."""

    status = 408
    title = "Body timeout"
    code = "body_timeout"


class KeyReused(Invalid):
    """The Idempotency-Key came with another request before."""

    title = "Idempotency-Key reused"
    code = "idempotency_key_reused"


class BadKey(AamError):
    """The Idempotency-Key is none."""

    status = 400
    title = "Bad Idempotency-Key"
    code = "bad_idempotency_key"


class Conflict(AamError):
    """The thing is in a state that does not allow this now."""

    status = 409
    title = "Conflict"
    code = "conflict"


class NameTaken(Conflict):
    """A live connection has this name already."""

    code = "name_taken"


class NotActive(Conflict):
    """The connection's status does not allow this now."""

    code = "not_active"


class StaleCatalog(Conflict):
    """The catalog changed after the caller read it: read again, decide again."""

    code = "stale_catalog"

    def __init__(self, connection_id: UUID, *, expected: int, current: int) -> None:
        super().__init__(
            f"Connection {connection_id} is at catalog version {current}, not {expected}.",
            expected=expected,
            current=current,
        )


class SyncRunning(Conflict):
    """A sync of this connection runs already; the members name its job where it is known."""

    code = "sync_running"


class OperationRunning(Conflict):
    """The operation begun with this Idempotency-Key has not ended; `operation_id` names it."""

    code = "operation_in_progress"


class DeadlinePassed(AamError):
    """An operation could not be settled in its time, and was given up."""

    status = 504
    title = "Deadline passed"
    code = "deadline_passed"


class Upstream(AamError):
    """Airbyte, or a peer service, did not do what was asked."""

    status = 502
    title = "Upstream failed"
    code = "upstream_failed"
    is_over: bool = False
    """Whether upstream itself has answered: whatever it did, it does nothing more."""
    has_run: bool = False
    """Whether a connector has run, or may have, which cost its source something."""


class UpstreamRefused(Upstream):
    """A definite no, for good: nothing was done."""

    status = 422
    title = "Refused upstream"
    code = "upstream_rejected"


class ConnectorFailed(UpstreamRefused):
    """A connector ran and failed; `cause` says why, of the causes that `shared.causes` knows."""

    cause: str | None = None
    explanation: str | None = None
    """The cause in a fixed sentence, for callers who may change connections."""
    log: str | None = None
    """Which run of Airbyte's has the connector's log; for the same callers."""

    def problem(self) -> dict[str, Any]:
        """The failure with its cause."""
        reason = {"cause": self.cause, "explanation": self.explanation, "log": self.log}
        return super().problem() | {name: one for name, one in reason.items() if one is not None}


class UpstreamMissing(UpstreamRefused):
    """Upstream has no such object (any more)."""

    code = "upstream_missing"


class CheckFailed(ConnectorFailed):
    """The source cannot be reached with this credential."""

    code = "check_failed"


class DiscoverFailed(ConnectorFailed):
    """The connector ran and could not list the source's schema."""

    code = "discovery_failed"


class UpstreamDenied(Upstream):
    """Our own credentials were refused upstream."""

    title = "Upstream denied us"
    code = "upstream_auth"


class UpstreamForbidden(UpstreamDenied):
    """Airbyte's own 403: it has no such object, or AAM's login may not see it."""


class UpstreamLoginOff(UpstreamDenied):
    """A client id and secret are set, and Airbyte's login is switched off."""

    code = "upstream_login_off"


class UpstreamConflict(Upstream):
    """Airbyte's 409: something runs already, or a database error in disguise. Look first."""

    status = 409
    title = "Upstream conflict"
    code = "upstream_conflict"
    retryable = True


class UpstreamUnknown(Upstream):
    """The request was sent and nobody knows whether it took effect."""

    status = 504
    title = "Outcome unknown"
    code = "upstream_unknown"
    retryable = True


class UpstreamTimeout(UpstreamUnknown):
    """No answer within the deadline; the work may still go on upstream."""

    code = "upstream_timeout"


class UpstreamNotAirbyte(UpstreamUnknown):
    """A gateway, a login page or another server answered in Airbyte's place.

    Whether the request reached Airbyte is unknown. It says nothing about Airbyte's objects.
    """

    status = 502
    title = "Not Airbyte's answer"
    code = "upstream_not_airbyte"


class UpstreamUnreachable(Upstream):
    """No connection could be opened: the request was not sent, and nothing happened."""

    status = 503
    title = "Upstream unreachable"
    code = "upstream_unreachable"
    retryable = True


class UpstreamNoTls(UpstreamUnreachable):
    """The address is https, and no TLS connection could be opened there: nothing was sent."""

    title = "No TLS upstream"
    code = "upstream_tls_failed"


class UpstreamNoToken(UpstreamUnreachable):
    """Airbyte gives out no token now, so the call itself was not sent."""

    title = "Upstream gives no token"
    code = "upstream_token_endpoint"


class UpstreamMismatch(AamError):
    """Airbyte said yes, and what it holds now is not what was sent."""

    status = 502
    title = "Upstream mismatch"
    code = "upstream_mismatch"


class Unavailable(AamError):
    """Something AAM stands on is away; nothing was recorded, retry freely."""

    status = 503
    title = "Unavailable"
    code = "unavailable"
    retryable = True


_BY_STATUS: dict[int, type[AamError]] = {
    400: BadKey,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    502: Upstream,
    503: Unavailable,
    504: UpstreamUnknown,
}


def _tree(root: type[AamError]) -> dict[tuple[int, str], type[AamError]]:
    found = {(root.status, root.code): root}
    for child in root.__subclasses__():
        found = _tree(child) | found
    return found


def from_problem(status: int, problem: Mapping[str, Any]) -> AamError:
    """The error class a sibling service raised, rebuilt from its problem+json."""
    code = str(problem.get("code", ""))
    cls = _tree(AamError).get((status, code)) or _BY_STATUS.get(status, Upstream)
    told = {"type", "title", "status", "detail", "code", "request_id"}
    members = {key: value for key, value in problem.items() if key not in told}
    detail = str(problem.get("detail") or f"The peer answered {status}.")
    return cls._rebuilt(detail, code or cls.code, members)
