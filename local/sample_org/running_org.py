"""The running org: its current content and behaviour, and the journal that survives a restart.

The journal is one small file. An org is rebuilt from its creation date and the changes since, so
rows are never stored.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from local.sample_org.changes import AnyChange
from local.sample_org.org import Org
from local.sample_org.settings import Settings
from shared.errors import AamError
from shared.observability import logs

log = logs.get(__name__)

Endpoint = Literal["token", "sobjects", "describe", "query", "job", "results"]
"""The parts of Salesforce's API whose calls are counted and can be made to fail."""


class Failure(BaseModel):
    """An endpoint that answers with an error status."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: Endpoint
    status: int = Field(ge=400, le=599)
    times: int | None = Field(default=None, ge=1)
    """How many calls fail; None: all calls, until the failure is removed."""


class Behaviour(BaseModel):
    """How the org responds to its callers; every part can be changed while it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: int = Field(default=0, ge=0, le=60_000)
    """Delay added to every call of Salesforce's API."""

    page_size: int = Field(default=2000, ge=1, le=2000)
    """Rows per page of query and queryAll."""

    bulk_page_size: int = Field(default=50_000, ge=1, le=1_000_000)
    """Rows per page of a bulk job's results, unless the caller specifies a number."""

    bulk_delay_ms: int = Field(default=0, ge=0, le=600_000)
    """How long a bulk job stays in progress."""

    rotate_refresh_token: bool = False
    """Return a new refresh token with every token response, which invalidates the old one."""

    failures: tuple[Failure, ...] = Field(default=(), max_length=20)
    """Failing endpoints; the first match applies."""

    @field_validator("latency_ms", "page_size", "bulk_page_size", "bulk_delay_ms", mode="before")
    @classmethod
    def _numbers_only(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a whole number is expected")  # noqa: TRY004 -- pydantic requires ValueError
        return value


class Entry(BaseModel):
    """One change in the journal."""

    at: datetime
    change: AnyChange


class Journal(BaseModel):
    """The content of `org.json`."""

    born: datetime
    """Midnight of the creation date; every date in the rows is relative to it."""
    refresh_token: str | None = None
    """The newest refresh token issued; None while the configured one is valid."""
    behaviour: Behaviour = Behaviour()
    changes: list[Entry] = Field(default_factory=list)


class JournalUnreadable(Exception):
    """The journal file is damaged; the org does not start with an empty one instead."""


class LiveOrg:
    """The org that the server serves."""

    def __init__(self, settings: Settings) -> None:
        """Load the journal and rebuild the org.

        Raises:
            JournalUnreadable: `org.json` is not a journal.
        """
        self._settings = settings
        self._path = settings.state_dir / "org.json"
        self._journal = _read(self._path) or Journal(born=_today())
        self.calls: Counter[str] = Counter()
        self._sessions: set[str] = set()
        self._org = self._rebuilt()
        self._save()

    @property
    def org(self) -> Org:
        """The current org."""
        return self._org

    @property
    def behaviour(self) -> Behaviour:
        """The current behaviour."""
        return self._journal.behaviour

    @property
    def changes(self) -> list[Entry]:
        """The changes since the org was created, oldest first."""
        return self._journal.changes

    def apply(self, change: AnyChange) -> str:
        """Apply and save a change; returns a sentence that describes the difference.

        Raises:
            AamError: the change is not allowed; nothing was changed.
        """
        at = self._now()
        sentence = change.apply(self._org, at=at)
        self._journal.changes.append(Entry(at=at, change=change))
        self._save()
        log.info("org_changed", verb=change.verb)
        return sentence

    def behave(self, behaviour: Behaviour) -> None:
        """Set and save the behaviour."""
        self._journal = self._journal.model_copy(update={"behaviour": behaviour})
        self._save()

    def reset(self) -> None:
        """Recreate the org, with today as creation date and the configured refresh token."""
        self._journal = Journal(born=_today())
        self._org = self._rebuilt()
        self._sessions.clear()
        self.calls.clear()
        self._save()

    def next_failure(self, endpoint: Endpoint) -> Failure | None:
        """Return the error for this call and decrement its count; None if the call may proceed."""
        for index, failure in enumerate(self.behaviour.failures):
            if failure.endpoint != endpoint:
                continue
            if failure.times is not None:
                rest = list(self.behaviour.failures)
                rest[index] = failure.model_copy(update={"times": failure.times - 1})
                left = tuple(entry for entry in rest if entry.times != 0)
                self.behave(self.behaviour.model_copy(update={"failures": left}))
            return failure
        return None

    def knows_client(self, client_id: str) -> bool:
        """Whether a connected app has this client id."""
        return secrets.compare_digest(client_id.encode(), self._settings.client_id.encode())

    def knows_secret(self, client_secret: str) -> bool:
        """Whether this is the connected app's secret."""
        return _same(client_secret, self._settings.client_secret)

    def knows_refresh_token(self, refresh_token: str) -> bool:
        """Whether this is the newest refresh token."""
        newest = self._journal.refresh_token
        return _same(refresh_token, SecretStr(newest) if newest else self._settings.refresh_token)

    def rotate(self) -> str:
        """Issue a new refresh token, which invalidates the previous one."""
        token = f"sample-{secrets.token_urlsafe(24)}"
        self._journal = self._journal.model_copy(update={"refresh_token": token})
        self._save()
        return token

    def open_session(self) -> str:
        """Create an access token, valid until the process ends or sessions are closed."""
        token = f"00D5f0000000001!{secrets.token_urlsafe(24)}"
        if len(self._sessions) >= 10_000:
            self._sessions.clear()
        self._sessions.add(token)
        return token

    def knows_session(self, token: str) -> bool:
        """Whether this access token is valid."""
        return token in self._sessions

    def close_sessions(self) -> int:
        """Invalidate every access token; return how many there were."""
        count = len(self._sessions)
        self._sessions.clear()
        return count

    def _rebuilt(self) -> Org:
        org = Org(
            born=self._journal.born,
            custom_objects=self._settings.objects,
            fields_per_object=self._settings.fields,
            row_factor=self._settings.row_factor,
        )
        for entry in self._journal.changes:
            try:
                entry.change.apply(org, at=entry.at)
            except AamError:
                # The org may now have fewer generated objects than when this was recorded.
                log.warning("change_skipped", verb=entry.change.verb, at=entry.at.isoformat())
        return org

    def _now(self) -> datetime:
        """Return a time later than every earlier change, so that SystemModstamp increases."""
        now = datetime.now(UTC)
        if self._journal.changes and now <= self._journal.changes[-1].at:
            return self._journal.changes[-1].at + timedelta(milliseconds=1)
        return now

    def _save(self) -> None:
        part = self._path.with_suffix(".part")
        write_private(part, self._journal.model_dump_json(indent=1).encode())
        part.replace(self._path)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


def _read(path: Path) -> Journal | None:
    if not path.exists():
        return None
    try:
        return Journal.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise JournalUnreadable(
            f"{path} cannot be read; without it the org starts anew."
        ) from error


def _today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _same(given: str, expected: SecretStr) -> bool:
    return secrets.compare_digest(given.encode(), expected.get_secret_value().encode())
