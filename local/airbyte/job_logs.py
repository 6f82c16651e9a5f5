"""What connectors log while they check, discover and read: a file each, with secrets masked.

A file is its owner's alone and of bounded size, and only the newest are kept. Records, states and
catalogs are data, not logs: they are never written here.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import quote, quote_plus

from local.airbyte.specification import MASK
from local.processes.servers import private_log
from shared.observability import logs

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
        self._wrapped: list[re.Pattern[str]] = []
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
                forms.update(_written(part))
        self._forms = sorted(forms, key=len, reverse=True)
        # A long text may be wrapped in the middle of one.
        wrapped = [form for form in self._forms if len(form) >= _WRAPPED_CHARS]
        self._wrapped = [
            re.compile(r"(?:\r?\n[ \t]*)?".join(map(re.escape, form))) for form in wrapped
        ]

    def clean(self, text: str) -> str:
        """The text with the mask in place of each secret."""
        for form in self._forms:
            text = text.replace(form, MASK)
        if "\n" in text:
            for wrapped in self._wrapped:
                text = wrapped.sub(MASK, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


def _written(secret: str) -> Iterator[str]:
    """A secret as programs write it: as it is, in a URL, in JSON, in HTML, encoded."""
    in_json = json.dumps(secret)[1:-1]
    in_url = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    yield from (secret, repr(secret)[1:-1], html.escape(secret), html.escape(secret, quote=False))
    yield from (in_json, json.dumps(in_json)[1:-1], in_json.replace("/", r"\/"))
    # Gson writes these as the characters' numbers.
    yield re.sub(r"[&=<>']", lambda found: rf"\u{ord(found[0]):04x}", in_json)
    for form in in_url:
        yield from (form, quote(form, safe=""))
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form)
    yield from _encoded(secret.encode())


def _encoded(secret: bytes) -> Iterator[str]:
    """Its Base64 and its hexadecimal form.

    Behind another text, each byte before it moves its Base64 by a part of a letter.
    """
    for before in range(3):
        text = b64encode(bytes(before) + secret).decode()
        own = text[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        for form in (text, own) if before == 0 else (own,):
            if len(own) >= _ENCODED_CHARS:
                yield from (form, form.translate(_URL_SAFE))
    if len(secret) * 2 >= _ENCODED_CHARS:
        yield secret.hex()


_WRAPPED_CHARS = 16
_ENCODED_CHARS = 8
"""Fewer would be found where no secret is."""
_URL_SAFE = str.maketrans("+/", "-_")


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
