"""Classifies why a connector failed, without passing on its message.

A connector's message may quote a secret or a row. Patterns match known causes, and the result is a
fixed sentence plus words from the allowlists in this module.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

_LONGEST: Final = 20_000
"""How many characters of a message are searched; a stack trace can have many more."""


class Cause(StrEnum):
    """The known causes of connector failures, distinguished by how to fix them."""

    AUTHENTICATION_FAILED = "authentication_failed"
    PERMISSION_MISSING = "permission_missing"
    QUOTA_EXCEEDED = "quota_exceeded"
    HOST_UNKNOWN = "host_unknown"
    TLS_FAILED = "tls_failed"
    NETWORK_FAILED = "network_failed"
    CONFIGURATION_INVALID = "configuration_invalid"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    SOURCE_UNAVAILABLE = "source_unavailable"
    UNKNOWN = "unknown"


class Reason(msgspec.Struct, frozen=True):
    """Why a connector failed, in text that is safe to show and to store."""

    cause: Cause
    explanation: str
    """Only shown to callers with connections:write."""
    log: str | None = None
    """The Airbyte job or command that has the connector's log."""


_SENTENCES: Final = {
    Cause.AUTHENTICATION_FAILED: (
        "The source rejected the credential: it is wrong, revoked, expired, or a single-use token "
        "that was already used. Put a valid one into its store, and rotate."
    ),
    Cause.PERMISSION_MISSING: (
        "The source accepted the credential, but its user lacks a permission. Grant it in the "
        "source."
    ),
    Cause.QUOTA_EXCEEDED: (
        "The source's API limit is exhausted. It resets after a while; further calls only prolong "
        "that."
    ),
    Cause.HOST_UNKNOWN: (
        "The host's name cannot be resolved: it is misspelled, or unknown in Airbyte's network."
    ),
    Cause.TLS_FAILED: "No secure connection: the certificate is not valid for the host.",
    Cause.NETWORK_FAILED: (
        "The source cannot be reached over the network: nothing listens there, a firewall blocks "
        "it, or it did not respond in time."
    ),
    Cause.CONFIGURATION_INVALID: "The connector's configuration is incomplete or invalid.",
    Cause.OUT_OF_MEMORY: "The connector ran out of memory or was killed. Give it more memory.",
    Cause.CANCELLED: "It was cancelled.",
    Cause.SOURCE_UNAVAILABLE: "The source answered that it cannot serve requests now.",
    Cause.UNKNOWN: (
        "The connector's message matches no cause that AAM knows; its log has the message."
    ),
}

_PATTERNS: Final = [
    (cause, re.compile(pattern, re.IGNORECASE))
    for cause, pattern in (
        (
            Cause.QUOTA_EXCEEDED,
            r"REQUEST_LIMIT_EXCEEDED|TotalRequests Limit exceeded|rate.?limit|quota.{0,40}exceed"
            r"|exceed.{0,40}quota|too many requests|(?<![\w.])429(?![\w.])"
            r"|daily limit|API limit.{0,20}(?:reached|exceeded)|reached.{0,20}API limit"
            r"|(?:request|call|api|txn).{0,40}limit exceeded|CONCURRENT_REQUESTS|throttl(?:ed|ing)"
            r"|quota.{0,40}(?:exhausted|used up|reached)",
        ),
        (
            Cause.AUTHENTICATION_FAILED,
            r"invalid_grant|invalid_client|unauthorized_client|invalid_token|INVALID_SESSION_ID"
            r"|INVALID_LOGIN|INVALID_AUTH|authentication.{0,40}(?:failed|failure|expired|error)"
            r"|password authentication failed|(?:access|refresh).?token.{0,40}"
            r"(?:expired|invalid|revoked)|(?:expired|invalid|revoked).{0,20}(?:access|refresh).?token"
            r"|(?:invalid|wrong|incorrect|bad).{0,20}(?:credential|password|api.?key|username)"
            r"|access denied for user|login failed|not authenticated|unauthori[sz]ed"
            r"|(?<!\w)(?:token|secret|credential|password|session|api.?key)s? "
            r"(?:has |have |is |are |was )?(?:been )?(?:expired|revoked|invalid|used up|not valid)"
            r"|(?:unable|fail\w*|could not|cannot|error)[^\n]{0,40}refresh\w*[^\n]{0,20}token"
            r"|inactive (?:user|org)|has(?:n.t| not) approved this consumer|not admin approved"
            r"|client identifier invalid|invalid client credentials|invalid_client_id"
            r"|LOGIN_MUST_USE_SECURITY_TOKEN|OAUTH_APP\w+|invalid_app_access|app blocked"
            r"|ip restricted|invalid assertion|no pg_hba.conf entry"
            r"|(?<![\w.])401(?![\w.])",
        ),
        (
            Cause.PERMISSION_MISSING,
            r"INSUFFICIENT_ACCESS|insufficient.{0,20}(?:permission|privilege|scope|access)"
            r"|(?:do|does) not have (?:the )?(?:[\w ]{0,40} )?permission|not authori[sz]ed to"
            r"|CANNOT_ACCESS|sObject type .{0,80} is not supported"
            r"|permission denied|access denied|not (?:been )?granted|API_DISABLED_FOR_ORG"
            r"|API_CURRENTLY_DISABLED|FUNCTIONALITY_NOT_ENABLED|(?:lacks?|missing|required) "
            r"(?:the )?.{0,30}(?:permission|scope)|forbidden|(?<![\w.])403(?![\w.])",
        ),
        (
            Cause.HOST_UNKNOWN,
            r"name or service not known|temporary failure in name resolution|getaddrinfo"
            r"|nodename nor servname|no address associated|UnknownHostException|NXDOMAIN"
            r"|failed to resolve|could not (?:resolve|translate) host|NameResolutionError"
            r"|could not translate host name",
        ),
        (
            Cause.TLS_FAILED,
            r"certificate.{0,20}(?:verify|verification|expired|invalid)|CERTIFICATE_VERIFY_FAILED"
            r"|SSLError|SSLHandshakeException|PKIX path|self.signed certificate|TLS handshake"
            r"|SSL handshake|hostname mismatch|hostname .{0,100} does(?:n.t| not) match"
            r"|WRONG_VERSION_NUMBER|does not support SSL",
        ),
        (
            Cause.NETWORK_FAILED,
            r"connection (?:to [^\s]{1,200} )?(?:refused|reset|timed out|aborted|is not available)"
            r"|ECONNREFUSED|server disconnected|broken pipe|EOF occurred|(?<!\w)timeout(?!\w)"
            r"|ECONNRESET|ETIMEDOUT|no route to host|network is unreachable|connect timeout"
            r"|ConnectTimeout|ReadTimeout|read timed out|timed out|max retries exceeded"
            r"|RemoteDisconnected|Communications link failure|could not connect",
        ),
        (
            Cause.CONFIGURATION_INVALID,
            r"config(?:uration)?.{0,20}(?:validation|invalid|not valid|incorrect|missing)"
            r"|redirect_uri_mismatch|unsupported_grant_type"
            r"|is a required property|required (?:field|property|key|parameter)"
            r"|(?:invalid|missing).{0,20}(?:config|field|parameter|property|start.?date)"
            r"|does not match.{0,20}(?:schema|spec|pattern)|json schema validation",
        ),
        (
            Cause.OUT_OF_MEMORY,
            r"out of memory|OutOfMemory|OOMKilled|MemoryError|exit code 137|SIGKILL|signal 9(?!\d)",
        ),
        (
            Cause.SOURCE_UNAVAILABLE,
            r"service unavailable|SERVER_UNAVAILABLE|bad gateway|internal server error"
            r"|temporarily unavailable|(?:down for|under) maintenance"
            r"|(?<![\w.])50[0234](?![\w.])",
        ),
    )
]
_WORDS: Final = (
    *("invalid_grant", "invalid_client", "unauthorized_client", "invalid_token"),
    *("INVALID_SESSION_ID", "INVALID_LOGIN", "REQUEST_LIMIT_EXCEEDED", "INSUFFICIENT_ACCESS"),
    *("API_DISABLED_FOR_ORG", "API_CURRENTLY_DISABLED", "FUNCTIONALITY_NOT_ENABLED"),
    *("CERTIFICATE_VERIFY_FAILED", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT"),
    *("401", "403", "429", "500", "502", "503", "504"),
)
"""The only words of a message that are quoted, if they occur as whole words."""
_FIELDS: Final = (
    *("api_key", "auth_type", "client_id", "client_secret", "count", "database", "host"),
    *("is_sandbox", "password", "port", "refresh_token", "start_date", "username"),
)
"""The only names of a configuration's members that an explanation may have."""
_FIELD_PATTERNS: Final = [
    (
        name,
        re.compile(rf"['\"`]{name}['\"`]|(?<![\w]){name}(?![\w]) is (?:a )?(?:required|missing)"),
    )
    for name in _FIELDS
]
_BY_TYPE: Final = {"manual_cancellation": Cause.CANCELLED}


def find(
    *messages: Any, failure_type: str | None = None, run: int | str | UUID | None = None
) -> Reason:
    """Classify a connector's messages; `run` is the id of Airbyte's job or command.

    Messages that are not strings and unknown failure types are ignored.
    """
    text = "\n".join(_ends(one) for one in messages if isinstance(one, str))
    cause = _BY_TYPE.get(failure_type or "") or next(
        (cause for cause, pattern in _PATTERNS if pattern.search(text)), Cause.UNKNOWN
    )
    explanation = _SENTENCES[cause]
    if cause is Cause.CONFIGURATION_INVALID:
        named = [name for name, pattern in _FIELD_PATTERNS if pattern.search(text)]
        if named:
            explanation += f" It is about: {', '.join(named)}."
    words = [word for word in _WORDS if _stands_alone(word, text)]
    if words and cause is not Cause.UNKNOWN:
        explanation += f" The message contains: {', '.join(words)}."
    return Reason(cause, explanation, _log(run))


def _ends(message: str) -> str:
    """The start and end of a long message; in a stack trace, the end has the error."""
    if len(message) <= _LONGEST:
        return message
    return f"{message[: _LONGEST // 2]}\n{message[-_LONGEST // 2 :]}"


def _stands_alone(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w.]){word}(?![\w.])", text) is not None


def _log(run: int | str | UUID | None) -> str | None:
    """Where the log is; only a number or UUID from Airbyte is quoted."""
    if isinstance(run, int) and not isinstance(run, bool):
        return f"Airbyte job {run}"
    try:
        return None if run is None else f"Airbyte run {UUID(str(run))}"
    except ValueError:
        return None
