"""What connectors log while they check, discover and read: a file each, with secrets masked.

A file is its owner's alone and of bounded size, and only the newest are kept. Records, states and
catalogs are data, not logs: they are never written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote, quote_plus

from local.airbyte.specification import MASK
from local.servers import private_log
from shared import logs

log = logs.get(__name__)

MOST_FILES = 200
MOST_BYTES = 1024 * 1024
"""Of one file; what is before that is in a second one, and what is before both is gone."""

LONGEST_LINE = 16 * 1024
SHOWN_LINES = 200
_LEVELS = {"FATAL": "error", "ERROR": "error", "WARN": "warn", "INFO": "info", "DEBUG": "debug"}

_TELLING = (
    r"token|secret|passwd|password|passphrase|api[_-]?key|private[_-]?key|authorization"
    r"|client[_-]?id"  # a part of the stored credential, though no secret to its issuer
)
_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic|oauth)(\s+)[\w.~+/=!-]{8,}"), rf"\1\2{MASK}"),
    (
        re.compile(
            rf"(?i)((?:{_TELLING}|session[_-]?id)[\w-]*[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;}}\])]+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\w://)[^/\s@]+@"), rf"\1{MASK}@"),
    (re.compile(r"\b00D[A-Za-z0-9]{12,15}![\w.]{8,}"), MASK),  # a session of Salesforce
    (re.compile(r"\bey[\w-]{8,}\.ey[\w-]{8,}\.[\w-]*"), MASK),  # a JSON Web Token
)
"""What looks like a secret, whoever drew it: connectors get tokens that no configuration holds."""


class Masks:
    """The secrets that a text must not hold, in the forms in which programs write them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: list[str] = []
        self.add(secrets)

    @property
    def longest(self) -> int:
        """The length of the longest."""
        return len(self._forms[0]) if self._forms else 0

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these too."""
        forms = set(self._forms)
        for secret in secrets:
            for part in (secret, *(line for line in secret.splitlines() if len(line) >= 8)):
                escaped = (json.dumps(part)[1:-1], repr(part)[1:-1])
                forms |= {part, quote(part, safe=""), quote(part), quote_plus(part), *escaped}
        self._forms = sorted(forms, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text with the mask in place of each secret."""
        for form in self._forms:
            text = text.replace(form, MASK)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


class JobLog:
    """One job's file, while the job runs; a disk that is full ends the log, not the job."""

    def __init__(self, path: Path, masks: Masks) -> None:
        self.path = path
        self.masks = masks
        self._file: IO[bytes] | None = None
        self._pending = b""
        self._is_cutting = False
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = private_log(path)
        if self._file is None:
            log.warning("job_log_not_written")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_of_errors()
        self._close()

    def hear(self, message: Mapping[str, Any]) -> None:
        """Write a message of the Airbyte Protocol, where it is one that tells of the work."""
        match message.get("type"):
            case "LOG":
                said = message.get("log") or {}
                level = _LEVELS.get(str(said.get("level")), "info")
                self.write("source", _text(said, "message", "stack_trace"), level=level)
            case "TRACE" if (message.get("trace") or {}).get("type") == "ERROR":
                said = message["trace"].get("error") or {}
                told = _text(said, "failure_type", "message", "internal_message", "stack_trace")
                self.write("source", told, level="error")
            case "CONNECTION_STATUS":
                said = message.get("connectionStatus") or {}
                self.write("source", _text(said, "status", "message"))

    def output(self, line: bytes) -> None:
        """Write a line of standard output that is no message of the protocol."""
        most = LONGEST_LINE + self.masks.longest
        text = self.masks.clean(line[:most].decode(errors="replace"))
        if len(line) > most:
            text = text[: -self.masks.longest or None]  # its end may be the start of a secret
        self._put("source", text[:LONGEST_LINE], level="info")

    def errors(self, chunk: bytes) -> None:
        """Write a piece of standard error, as soon as its lines are whole."""
        *lines, rest = (self._pending + chunk).split(b"\n")
        if self._is_cutting and lines:
            del lines[0]
            self._is_cutting = False
        if max(map(len, lines), default=0) > LONGEST_LINE:
            for line in lines:
                self.output(line)
        elif lines:
            text = self.masks.clean(b"\n".join(lines).decode(errors="replace"))
            self._put("source", text, level="info")
        self._pending = b"" if self._is_cutting else rest
        if len(self._pending) > LONGEST_LINE + self.masks.longest:
            self.output(self._pending)
            self._pending, self._is_cutting = b"", True

    def write(self, origin: str, text: str, *, level: str = "info") -> None:
        """Write a text of `origin`, `source` or `platform`, without the secrets in it."""
        self._put(origin, self.masks.clean(text)[:LONGEST_LINE], level=level)

    def _put(self, origin: str, clean: str, *, level: str) -> None:
        if self._file is None or not clean.strip():
            return
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        head = f"{now} {level} {origin} > "
        lines = clean.rstrip().replace("\n", f"\n{head}")
        try:
            if self._file.tell() > MOST_BYTES:
                self._close()
                self.path.replace(older(self.path))
                self._file = private_log(self.path)
            self._file.write(f"{head}{lines}\n".encode(errors="replace"))
            self._file.flush()
        except OSError:
            log.warning("job_log_not_written")
            self._close()

    def _end_of_errors(self) -> None:
        if self._pending:
            self.output(self._pending)
            self._pending = b""

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


class JobLogs:
    """The logs of the newest jobs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    def open(self, name: str, secrets: Iterable[str]) -> JobLog:
        """The log of a job that begins; the oldest ones make room for it."""
        self.prune(MOST_FILES - 1)
        return JobLog(self._path(name), Masks(secrets))

    def lines(self, name: str) -> list[str]:
        """Where a job's log is, and its last lines; nothing where there is none."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - SHOWN_LINES * 256))
                found = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [f"The whole log is in {path}.", *found[-SHOWN_LINES:]]

    def prune(self, most: int = MOST_FILES) -> None:
        """Delete the oldest logs, so that at most this many jobs have one."""
        found = []
        for path in self._directory.glob("*.log"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path))
        for _, path in sorted(found)[: max(0, len(found) - most)]:
            path.unlink(missing_ok=True)
            older(path).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def older(path: Path) -> Path:
    """Where what no longer fits into a log goes."""
    return path.with_name(f"{path.name}.1")


def name_of(job_id: int, attempt: int) -> str:
    """The name of a sync job's log; the first attempt's is the job's id."""
    return f"{job_id}" if attempt == 0 else f"{job_id}.{attempt}"


def _text(said: Mapping[str, Any], *names: str) -> str:
    return "\n".join(str(said[name]) for name in names if said.get(name))
