"""Connector logs of checks, discoveries and syncs: one file per job, with secrets masked.

Files are readable by their owner only and limited in size; only the newest are retained. Records,
states and catalogs are data and are never logged.
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
"""Size limit of one file. On overflow it becomes the older file, replacing the previous one."""

LONGEST_LINE = 16 * 1024
SHOWN_LINES = 200
_LEVELS = {"FATAL": "error", "ERROR": "error", "WARN": "warn", "INFO": "info", "DEBUG": "debug"}

_TELLING = (
    r"token|secret|passwd|password|passphrase|api[_-]?key|private[_-]?key|authorization"
    r"|client[_-]?id"  # part of the stored credential, though not secret to its issuer
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
    (re.compile(r"\b00D[A-Za-z0-9]{12,15}![\w.]{8,}"), MASK),  # a Salesforce session id
    (re.compile(r"\bey[\w-]{8,}\.ey[\w-]{8,}\.[\w-]*"), MASK),  # a JSON Web Token
)
"""Patterns of secrets from any issuer: connectors receive tokens that are in no configuration."""


class Masks:
    """The secrets to mask in a text, in every form in which programs write them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: list[str] = []
        self._wrapped: list[re.Pattern[str]] = []
        self.add(secrets)

    @property
    def longest(self) -> int:
        """The length of the longest form."""
        return len(self._forms[0]) if self._forms else 0

    def add(self, secrets: Iterable[str]) -> None:
        """Mask these secrets, too."""
        forms = set(self._forms)
        for secret in secrets:
            for part in (secret, *(line for line in secret.splitlines() if len(line) >= 8)):
                forms.update(_written(part))
        self._forms = sorted(forms, key=len, reverse=True)
        # A long secret may be wrapped in the middle.
        wrapped = [form for form in self._forms if len(form) >= _WRAPPED_CHARS]
        self._wrapped = [
            re.compile(r"(?:\r?\n[ \t]*)?".join(map(re.escape, form))) for form in wrapped
        ]

    def clean(self, text: str) -> str:
        """Replace each secret in the text by the mask."""
        for form in self._forms:
            text = text.replace(form, MASK)
        if "\n" in text:
            for wrapped in self._wrapped:
                text = wrapped.sub(MASK, text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text


def _written(secret: str) -> Iterator[str]:
    """Yield the forms in which programs write a secret: plain, in a URL, JSON or HTML, encoded."""
    in_json = json.dumps(secret)[1:-1]
    in_url = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    yield from (secret, repr(secret)[1:-1], html.escape(secret), html.escape(secret, quote=False))
    yield from (in_json, json.dumps(in_json)[1:-1], in_json.replace("/", r"\/"))
    # Gson escapes these characters as code points.
    yield re.sub(r"[&=<>']", lambda found: rf"\u{ord(found[0]):04x}", in_json)
    for form in in_url:
        yield from (form, quote(form, safe=""))
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form)
    yield from _encoded(secret.encode())


def _encoded(secret: bytes) -> Iterator[str]:
    """Yield the Base64 and hexadecimal forms of a secret.

    The Base64 form depends on the number of bytes before the secret (modulo 3), so there are three.
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
"""Minimum length; shorter encoded forms would match unrelated text."""
_URL_SAFE = str.maketrans("+/", "-_")


class JobLog:
    """One running job's log file; a full disk ends the log, not the job."""

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
        self._flush_errors()
        self._close()

    def log_message(self, message: Mapping[str, Any]) -> None:
        """Log an Airbyte Protocol message if it is a LOG, an error TRACE or a CONNECTION_STATUS."""
        match message.get("type"):
            case "LOG":
                content = message.get("log") or {}
                level = _LEVELS.get(str(content.get("level")), "info")
                self.write("source", _text(content, "message", "stack_trace"), level=level)
            case "TRACE" if (message.get("trace") or {}).get("type") == "ERROR":
                content = message["trace"].get("error") or {}
                text = _text(content, "failure_type", "message", "internal_message", "stack_trace")
                self.write("source", text, level="error")
            case "CONNECTION_STATUS":
                content = message.get("connectionStatus") or {}
                self.write("source", _text(content, "status", "message"))

    def output(self, line: bytes) -> None:
        """Log a line of standard output that is not a protocol message."""
        most = LONGEST_LINE + self.masks.longest
        text = self.masks.clean(line[:most].decode(errors="replace"))
        if len(line) > most:
            text = text[: -self.masks.longest or None]  # the end may be the start of a secret
        self._put("source", text[:LONGEST_LINE], level="info")

    def errors(self, chunk: bytes) -> None:
        """Log a chunk of standard error, as soon as its lines are complete."""
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
        """Log a text of `origin` (`source` or `platform`), with its secrets masked."""
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

    def _flush_errors(self) -> None:
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
        """Open the log of a new job, and delete the oldest logs beyond the limit."""
        self.prune(MOST_FILES - 1)
        return JobLog(self._path(name), Masks(secrets))

    def lines(self, name: str) -> list[str]:
        """Return the path of a job's log and its last lines; empty if it has none."""
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
    """Path of the file that takes a log's older part when it exceeds its size limit."""
    return path.with_name(f"{path.name}.1")


def name_of(job_id: int | str, attempt: int = 0) -> str:
    """Return the log name of a job's attempt; that of the first attempt is the job id."""
    return f"{job_id}" if attempt == 0 else f"{job_id}.{attempt}"


def _text(content: Mapping[str, Any], *names: str) -> str:
    return "\n".join(str(content[name]) for name in names if content.get(name))
