"""Every failure that AAM expects. Any other exception is a bug, and returns 500.

AamError
├── Unauthenticated          401   the caller is unknown
├── Forbidden                403   the caller lacks a permission; `scope` names a missing scope
├── NotFound                 404
├── TooManyRequests          429   the caller exceeded a rate limit
├── Invalid                  422   the request is invalid; `fields` says where
│   ├── TooLarge             413
│   └── KeyReused                  the Idempotency-Key was used with a different request
├── BadKey                   400   the Idempotency-Key is malformed
├── NotJson                  400   the body is not UTF-8
├── UnsupportedMedia         415   the body is not declared as plain JSON
├── BodyTimeout              408   the body did not arrive in time
├── Conflict                 409
│   ├── NameTaken
│   ├── NotActive                  the connection's status does not allow it now
│   ├── StaleCatalog
│   ├── ImportRunning              the workspace is being imported
│   ├── SyncRunning
│   └── OperationRunning
├── DeadlinePassed           504   an operation was given up at its deadline
├── Upstream                 502   Airbyte or another AAM service did not do what was asked
│   ├── UpstreamRefused      422   refused for good: nothing was done
│   │   ├── UpstreamMissing        the object is not there (any more)
│   │   ├── MapperRefused          a mapper of the catalog does not fit; `mappers` says which
│   │   └── ConnectorFailed        the connector ran and failed; `cause` says why
│   │       ├── CheckFailed        the source cannot be reached with this credential
│   │       └── DiscoverFailed     the connector could not list the source's schema
│   ├── UpstreamDenied       502   our own credentials were refused
│   │   ├── UpstreamForbidden      Airbyte's 403: an unknown object, or no access to it
│   │   └── UpstreamLoginOff       credentials are set, but authentication is disabled there
│   ├── UpstreamConflict     409   Airbyte's 409: something already runs, or a database error
│   ├── UpstreamUnknown      504   it may have happened
│   │   ├── UpstreamTimeout
│   │   ├── UpstreamRateLimited 503 Airbyte, or a proxy before it, limits AAM's requests
│   │   └── UpstreamNotAirbyte 502 something other than Airbyte answered
│   └── UpstreamUnreachable  503   the request was never sent
│       ├── UpstreamNoTls          no TLS there, or no valid certificate
│       └── UpstreamNoToken        Airbyte's token endpoint fails
├── UpstreamMismatch         502   Airbyte accepted the request but has something else
└── Unavailable              503   nothing was recorded: safe to retry

A detail names things and numbers. It never quotes what was submitted or what an upstream wrote.
docs/errors.md lists every code; `make docs` writes it from these classes.
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
        """The failure as an RFC 9457 problem, without the `request_id` that the response adds."""
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
    """The credentials are missing or invalid; the response does not say which."""

    status = 401
    title = "Authentication required"
    code = "unauthenticated"


class Forbidden(AamError):
    """The caller is authenticated, but not allowed to do this."""

    status = 403
    title = "Forbidden"
    code = "forbidden"


class TooManyRequests(AamError):
    """The caller sends more requests than its rate limit allows; nothing was done."""

    status = 429
    title = "Too many requests"
    retryable = True
    code = "too_many_requests"


class NotFound(AamError):
    """The resource does not exist."""

    status = 404
    title = "Not found"
    code = "not_found"


class Invalid(AamError):
    """The request is invalid; `fields`, where present, says where."""

    status = 422
    title = "Invalid request"
    code = "invalid_request"

    @classmethod
    def of(cls, member: str, detail: str, *, code: str) -> Self:
        """An error about one member of the body."""
        field = {"field": f"body.{member}", "type": code, "message": detail}
        return cls(detail, code=code, fields=[field])


class TooLarge(Invalid):
    """The body is larger than this service accepts."""

    status = 413
    title = "Body too large"
    code = "body_too_large"


class NotJson(AamError):
    """The body is not UTF-8 text, or starts with a byte order mark."""

    status = 400
    title = "Not JSON"
    code = "not_json"


class UnsupportedMedia(AamError):
    """The request does not declare its body as uncompressed JSON in UTF-8."""

    status = 415
    title = "Unsupported media type"
    code = "unsupported_media_type"


class BodyTimeout(AamError):
    """The body did not arrive within BODY_DEADLINE; nothing was done."""

    status = 408
    title = "Body timeout"
    code = "body_timeout"


class KeyReused(Invalid):
    """The Idempotency-Key was used before, with a different request."""

    title = "Idempotency-Key reused"
    code = "idempotency_key_reused"


class BadKey(AamError):
    """The Idempotency-Key is malformed."""

    status = 400
    title = "Malformed Idempotency-Key"
    code = "invalid_idempotency_key"


class Conflict(AamError):
    """The resource is in a state that does not allow this now."""

    status = 409
    title = "Conflict"
    code = "conflict"


class NameTaken(Conflict):
    """A connection that is not archived already has this name."""

    code = "name_taken"


class NotActive(Conflict):
    """The connection's status does not allow this now."""

    code = "not_active"


class ImportRunning(Conflict):
    """The workspace is being imported already; `operation_id` identifies that import."""

    code = "import_running"


class StaleCatalog(Conflict):
    """The catalog changed after the caller read it: read it again before deciding."""

    code = "stale_catalog"

    def __init__(self, connection_id: UUID, *, expected: int, current: int) -> None:
        super().__init__(
            f"Connection {connection_id} is at catalog version {current}, not {expected}.",
            expected=expected,
            current=current,
        )


class SyncRunning(Conflict):
    """A sync of this connection is already running; `job_id` names its job if known."""

    code = "sync_running"


class OperationRunning(Conflict):
    """The operation started with this Idempotency-Key is still running; see `operation_id`."""

    code = "operation_in_progress"


class DeadlinePassed(AamError):
    """The operation did not finish before its deadline and was given up."""

    status = 504
    title = "Deadline passed"
    code = "deadline_passed"


class Upstream(AamError):
    """Airbyte, or another AAM service, did not do what was asked."""

    status = 502
    title = "Upstream failed"
    code = "upstream_failed"
    is_over: bool = False
    """Whether upstream itself answered, and so does no further work on the request."""
    has_run: bool = False
    """Whether a connector ran, or may have run, and so put load on its source."""


class UpstreamRefused(Upstream):
    """Airbyte refused the request for good; nothing was done."""

    status = 422
    title = "Refused upstream"
    code = "upstream_rejected"


class ConnectorFailed(UpstreamRefused):
    """A connector ran and failed; `cause` is one of `shared.failure_causes`, or None."""

    cause: str | None = None
    explanation: str | None = None
    """The cause as a fixed sentence, only for callers with connections:write."""
    log: str | None = None
    """Where Airbyte has the connector's log of this run; only for the same callers."""

    def problem(self) -> dict[str, Any]:
        """The failure with its cause."""
        reason = {"cause": self.cause, "explanation": self.explanation, "log": self.log}
        return super().problem() | {name: one for name, one in reason.items() if one is not None}


class UpstreamMissing(UpstreamRefused):
    """Airbyte does not have this object, or no longer has it."""

    code = "upstream_missing"


class MapperRefused(UpstreamRefused):
    """Airbyte refused a catalog because of a mapper; `mappers` has its stream, field and reason."""

    code = "mapper_refused"


class CheckFailed(ConnectorFailed):
    """The connection check failed: the source cannot be reached with this credential."""

    code = "check_failed"


class DiscoverFailed(ConnectorFailed):
    """The connector ran but could not list the source's schema."""

    code = "discovery_failed"


class UpstreamDenied(Upstream):
    """Upstream refused AAM's own credentials."""

    title = "Upstream denied access"
    code = "upstream_auth"


class UpstreamForbidden(UpstreamDenied):
    """Airbyte answered 403: the object does not exist, or AAM's login has no access to it."""


class UpstreamLoginOff(UpstreamDenied):
    """AIRBYTE_CLIENT_ID is set, but authentication is disabled in this Airbyte."""

    code = "upstream_login_off"


class UpstreamConflict(Upstream):
    """Airbyte answered 409: something is already running, or its database failed.

    Read the state in Airbyte before trying again.
    """

    status = 409
    title = "Upstream conflict"
    code = "upstream_conflict"
    retryable = True


class UpstreamUnknown(Upstream):
    """The request was sent, and whether it took effect is unknown."""

    status = 504
    title = "Outcome unknown"
    code = "upstream_unknown"
    retryable = True


class UpstreamTimeout(UpstreamUnknown):
    """No response arrived within the timeout; the work may still be in progress upstream."""

    code = "upstream_timeout"


class UpstreamRateLimited(UpstreamUnknown):
    """Airbyte, or a proxy in front of it, limits the rate of AAM's requests and answered 429.

    `wait_s` is how many seconds to wait, where the response has a `Retry-After`.
    """

    status = 503
    title = "Upstream rate limit"
    code = "upstream_rate_limited"


class UpstreamNotAirbyte(UpstreamUnknown):
    """A gateway, a login page or another server answered instead of Airbyte.

    Whether the request reached Airbyte is unknown; the response says nothing about its objects.
    """

    status = 502
    title = "Not an Airbyte response"
    code = "upstream_not_airbyte"


class UpstreamUnreachable(Upstream):
    """No connection could be opened: the request was not sent, and nothing happened."""

    status = 503
    title = "Upstream unreachable"
    code = "upstream_unreachable"
    retryable = True


class UpstreamNoTls(UpstreamUnreachable):
    """The address is https, but no TLS connection could be opened: nothing was sent."""

    title = "Upstream TLS failed"
    code = "upstream_tls_failed"


class UpstreamNoToken(UpstreamUnreachable):
    """Airbyte's token endpoint is failing, so the call itself was not sent."""

    title = "Upstream token unavailable"
    code = "upstream_token_endpoint"


class UpstreamMismatch(AamError):
    """Airbyte accepted the request, but now has something other than what was sent."""

    status = 502
    title = "Upstream mismatch"
    code = "upstream_mismatch"


class Unavailable(AamError):
    """A dependency is unavailable; nothing was recorded, so it is safe to retry."""

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
    """Rebuild the error that another AAM service raised from its problem+json."""
    code = str(problem.get("code", ""))
    cls = _tree(AamError).get((status, code)) or _BY_STATUS.get(status, Upstream)
    standard = {"type", "title", "status", "detail", "code", "request_id"}
    members = {key: value for key, value in problem.items() if key not in standard}
    detail = str(problem.get("detail") or f"The peer answered {status}.")
    return cls._rebuilt(detail, code or cls.code, members)
