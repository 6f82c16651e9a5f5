"""The running org: what is served now, how it behaves, and the journal that survives a restart.

The journal is one small file. An org is rebuilt from its day of birth and the changes since, so
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
"""The parts of Salesforce's API that can be made to fail and are counted."""


class Failure(BaseModel):
    """An endpoint that answers an error status."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: Endpoint
    status: int = Field(ge=400, le=599)
    times: int | None = Field(default=None, ge=1)
    """How many calls fail; None until it is switched off."""


class Behaviour(BaseModel):
    """How the org behaves towards its callers; all of it can be changed while it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: int = Field(default=0, ge=0, le=60_000)
    """Added to every call of Salesforce's API."""

    page_size: int = Field(default=2000, ge=1, le=2000)
    """Rows a page of query and queryAll."""

    bulk_page_size: int = Field(default=50_000, ge=1, le=1_000_000)
    """Rows a page of a bulk job's results, where the caller names no number."""

    bulk_delay_ms: int = Field(default=0, ge=0, le=600_000)
    """How long a bulk job stays in progress."""

    rotate_refresh_token: bool = False
    """Answer every token call with a new refresh token, after which the old one is worthless."""

    failures: tuple[Failure, ...] = Field(default=(), max_length=20)
    """Endpoints that answer an error; the first that fits is taken."""

    @field_validator("latency_ms", "page_size", "bulk_page_size", "bulk_delay_ms", mode="before")
    @classmethod
    def _numbers_only(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a whole number is expected")  # noqa: TRY004 -- pydantic wants it so
        return value


class Entry(BaseModel):
    """One change in the journal."""

    at: datetime
    change: AnyChange


class Journal(BaseModel):
    """Everything that `org.json` holds."""

    born: datetime
    """Midnight of the day of birth; every date in the rows counts back from it."""
    refresh_token: str | None = None
    """The newest one the org has handed out; None while the configured one is good."""
    behaviour: Behaviour = Behaviour()
    changes: list[Entry] = Field(default_factory=list)


class JournalUnreadable(Exception):
    """The file of the org's changes is damaged; the org does not start over it."""


class LiveOrg:
    """The org that the server serves."""

    def __init__(self, settings: Settings) -> None:
        """Take the org up where it was left.

        Raises:
            JournalUnreadable: `org.json` is not what the org wrote.
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
        """The org as it is now."""
        return self._org

    @property
    def behaviour(self) -> Behaviour:
        """How the org behaves now."""
        return self._journal.behaviour

    @property
    def changes(self) -> list[Entry]:
        """What was changed since the org was born, oldest first."""
        return self._journal.changes

    def apply(self, change: AnyChange) -> str:
        """Make a change and keep it; answers what is now different.

        Raises:
            AamError: the change is against the rules; nothing was changed.
        """
        at = self._now()
        sentence = change.apply(self._org, at=at)
        self._journal.changes.append(Entry(at=at, change=change))
        self._save()
        log.info("org_changed", verb=change.verb)
        return sentence

    def behave(self, behaviour: Behaviour) -> None:
        """Behave like this from now on, also after a restart."""
        self._journal = self._journal.model_copy(update={"behaviour": behaviour})
        self._save()

    def reset(self) -> None:
        """Be born again, today: no changes, no latency, the configured refresh token."""
        self._journal = Journal(born=_today())
        self._org = self._rebuilt()
        self._sessions.clear()
        self.calls.clear()
        self._save()

    def next_failure(self, endpoint: Endpoint) -> Failure | None:
        """The error that this call has to answer, counted down; None when it may go on."""
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
        """Whether a connected app of this id exists."""
        return secrets.compare_digest(client_id.encode(), self._settings.client_id.encode())

    def knows_secret(self, client_secret: str) -> bool:
        """Whether this is the connected app's secret."""
        return _same(client_secret, self._settings.client_secret)

    def knows_refresh_token(self, refresh_token: str) -> bool:
        """Whether this is the newest refresh token."""
        newest = self._journal.refresh_token
        return _same(refresh_token, SecretStr(newest) if newest else self._settings.refresh_token)

    def rotate(self) -> str:
        """Hand out a new refresh token; the one before is worthless from here on."""
        token = f"sample-{secrets.token_urlsafe(24)}"
        self._journal = self._journal.model_copy(update={"refresh_token": token})
        self._save()
        return token

    def open_session(self) -> str:
        """A new access token. It is good until the process ends or the sessions are closed."""
        token = f"00D5f0000000001!{secrets.token_urlsafe(24)}"
        if len(self._sessions) >= 10_000:
            self._sessions.clear()
        self._sessions.add(token)
        return token

    def knows_session(self, token: str) -> bool:
        """Whether this access token is good."""
        return token in self._sessions

    def close_sessions(self) -> int:
        """Make every access token worthless; answers how many there were."""
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
                # An org started with fewer generated objects cannot repeat changes to the others.
                log.warning("change_left_out", verb=entry.change.verb, at=entry.at.isoformat())
        return org

    def _now(self) -> datetime:
        """A time later than every change before, so that SystemModstamp never stands still."""
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
