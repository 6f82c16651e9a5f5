"""API keys, and the audit log of credential reads."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Identity,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.models.base import Base, RawJson


class ApiKey(Base):
    """An API key and its scopes; the key itself is not stored. Written by the orchestrator."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """The public part of the key: eight letters and digits."""
    digest: Mapped[bytes]
    """SHA-256 of the whole key."""
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    labels: Mapped[str] = mapped_column(RawJson(), default="{}", server_default=text("'{}'"))
    """The labels that connections must have for it, a JSON object of texts; empty: it sees all."""
    owner: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """To the minute."""
    revoked_at: Mapped[datetime | None]


class CredentialRead(Base):
    """An audit entry of a credential read, without the secret. Append-only, by the auth_broker.

    A row is committed before the secret is returned; its unique `jti` rejects a replayed token.
    """

    __tablename__ = "credential_audit"
    __table_args__ = (
        UniqueConstraint("jti"),
        Index("ix_credential_audit_credential_id_at", "credential_id", "at"),
        Index("ix_credential_audit_at", "at"),
        Index("ix_credential_audit_caller_at", "caller", "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    caller: Mapped[str]
    """The calling service, and the caller on whose behalf it asked if given."""
    jti: Mapped[str]
    """The id of the service token."""
    credential_id: Mapped[str]
    source_type: Mapped[str]
    result: Mapped[str]
    """`granted`, or the error code."""
    request_id: Mapped[str]


class Refusal(Base):
    """How often the gate refused the same within one minute.

    Written by every service but the auth_broker. A service writes a limited number of rows an hour;
    what exceeds it is counted in rows of the caller `others`, one an hour for each status and code.
    """

    __tablename__ = "refusals"
    __table_args__ = (
        UniqueConstraint("minute", "service", "caller", "method", "route", "status", "code"),
        Index("ix_refusals_minute_id", "minute", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    minute: Mapped[datetime]
    service: Mapped[str]
    caller: Mapped[str]
    """The caller's id (`key:ab12cd34`) if it is known, else its address; never a credential."""
    method: Mapped[str]
    route: Mapped[str]
    """The route's path with the names of its parameters; `-` if no route has the path."""
    status: Mapped[int]
    code: Mapped[str]
    count: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
