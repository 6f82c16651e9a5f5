"""A pytest plugin that scans all output of the run for the run's secrets.

Each secret of the tests is a canary, generated for this run. While the tests run, their outputs are
collected: logs, printed text, responses of services, rows, events, command lines.
They are scanned for every canary in every likely encoding. A match fails the run; the report names
the kind of secret and the test, without the secret.

Two outputs are allowed, and so not collected: requests to the fake Airbyte, and the auth_broker's
response with a connector configuration.

The tests import this before pytest loads it as a plugin, so: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import base64
import bisect
import os
import re
import secrets
import string
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from _pytest.capture import CaptureFixture

from local.processes import servers

_ALPHABET = string.ascii_letters + string.digits
_CHUNK_BYTES = 8 * 1024 * 1024
_LARGEST_BYTES = 64 * 1024 * 1024
_SAMPLED_EVERY_S = 0.2
_GZIP = b"\x1f\x8b\x08"
_ALLOWED = re.compile(r"/credentials/[^/]+/(?:connector-config|document)")
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Find:
    """A secret in an output: its kind, its encoding, the output and the test."""

    secret: str
    form: str
    output: str
    test: str

    def __str__(self) -> str:
        """Format the find for the report, without the secret."""
        return f"{self.secret}, {self.form}, in {self.output}: {self.test}"


def forms(secret: str) -> Iterator[tuple[str, bytes]]:
    """Yield the byte sequences to search for: at least eight bytes each, and distinctive.

    Both ends count as the secret, since truncating it does not protect it.
    """
    # Hexadecimal text is common, so it needs a longer match: about 48 bits in either case.
    length = 12 if _HEX.fullmatch(secret) else 8
    ends = {"its start": secret[:length], "its end": secret[-length:]}
    for name, end in ends.items():
        raw = end.encode()
        yield name, raw
        yield f"{name}, reversed", raw[::-1]
        yield f"{name} in hexadecimal", raw.hex().encode()
        yield f"{name} in hexadecimal", raw.hex().upper().encode()
        yield f"{name}, URL-encoded", "".join(f"%{byte:02X}" for byte in raw).encode()
        yield f"{name}, URL-encoded", "".join(f"%{byte:02x}" for byte in raw).encode()
        yield f"{name}, JSON-escaped", "".join(f"\\u{byte:04x}" for byte in raw).encode()
    inner = secret[:12].encode()
    for before in range(3):
        # Preceding bytes shift the bits; leave out the characters that share bits with other bytes.
        encoded = base64.b64encode(b"\0" * before + inner)
        whole = encoded[-(-before * 8 // 6) : (before + len(inner)) * 8 // 6]
        yield "in base64", whole
        yield "in base64", whole.translate(bytes.maketrans(b"+/", b"-_"))


class Scanner:
    """Finds secrets in bytes, at a few hundred MB a second for any number of secrets.

    Every eight bytes of the text are looked up in a hash table, and matches are compared in full.
    """

    _BITS = 20
    _FACTOR = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self) -> None:
        self._table = np.zeros(1 << self._BITS, dtype=bool)
        self._known: dict[bytes, list[tuple[bytes, str, str]]] = {}

    def know(self, kind: str, secret: str) -> None:
        """Add a secret to search for; `secret` is its random part."""
        for form, wanted in forms(secret):
            entry = (wanted, kind, form)
            self._known.setdefault(wanted[:8], []).append(entry)
            self._table[self._slots(np.frombuffer(wanted[:8], dtype="<u8"))] = True

    def find(self, text: bytes) -> Iterator[tuple[int, str, str]]:
        """Yield position, kind and encoding of each secret, including those in gzip data."""
        for at in self._suspects(text):
            for wanted, kind, form in self._known.get(text[at : at + 8], ()):
                if text.startswith(wanted, at):
                    yield at, kind, form
        at = -1
        while (at := text.find(_GZIP, at + 1)) >= 0:
            with suppress(zlib.error):
                inner = zlib.decompressobj(31).decompress(text[at:], _LARGEST_BYTES)
                for _, kind, form in self.find(inner):
                    yield at, kind, f"{form}, in gzip"

    def _suspects(self, text: bytes) -> Iterator[int]:
        for shift in range(min(8, len(text) - 7)):
            words = np.frombuffer(text, dtype="<u8", offset=shift, count=(len(text) - shift) // 8)
            for index in np.flatnonzero(self._table[self._slots(words)]):
                yield int(index) * 8 + shift

    def _slots(self, words: Any) -> Any:
        return (words * self._FACTOR) >> np.uint64(64 - self._BITS)


class Outputs:
    """The outputs of the run, scanned in chunks and then discarded."""

    def __init__(self) -> None:
        self.finds: dict[Find, None] = {}
        self.test = "before the first test"
        self.scanned_bytes = 0
        self.spent_s = 0.0
        self.secrets: dict[str, str] = {}
        """The kind of each secret."""
        self._scanner = Scanner()
        self._waiting: list[tuple[str, str, bytes]] = []
        self._waiting_bytes = 0
        self._seen: set[int] = set()
        self._lock = threading.RLock()

    def know(self, kind: str, secret: str) -> None:
        """Add a secret to search for; `secret` is its random part."""
        with self._lock:
            if secret not in self.secrets:
                self.secrets[secret] = kind
                self._scanner.know(kind, secret)

    def add(self, output: str, what: str | bytes) -> None:
        """Queue an output for scanning, unless the same output was queued before."""
        began = time.perf_counter()
        text = what.encode(errors="surrogatepass") if isinstance(what, str) else what
        with self._lock:
            if (mark := hash(text)) not in self._seen:
                self._seen.add(mark)
                self._waiting.append((output, self.test, text))
                self._waiting_bytes += len(text)
                if self._waiting_bytes > _CHUNK_BYTES:
                    self.scan()
            self.spent_s += time.perf_counter() - began

    @property
    def count(self) -> int:
        """The number of distinct outputs."""
        return len(self._seen)

    def to_worker_output(self) -> dict[str, Any]:
        """Serialize a pytest-xdist worker's result for the controller."""
        return {
            "finds": [[one.secret, one.form, one.output, one.test] for one in self.finds],
            "scanned_bytes": self.scanned_bytes,
            "spent_s": self.spent_s,
            "secrets": self.secrets,
        }

    def add_worker_output(self, output: dict[str, Any]) -> None:
        """Merge a worker's result into this process's own."""
        self.finds |= dict.fromkeys(Find(*one) for one in output["finds"])
        self.scanned_bytes += output["scanned_bytes"]
        self.spent_s += output["spent_s"]
        for secret, kind in output["secrets"].items():
            self.know(kind, secret)

    def scan(self) -> None:
        """Scan the queued outputs."""
        with self._lock:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            starts, end = [], 0
            for _, _, text in waiting:
                starts.append(end)
                end += len(text) + 1
            self.scanned_bytes += end
            for at, kind, form in self._scanner.find(b"\n".join(text for _, _, text in waiting)):
                output, test, _ = waiting[bisect.bisect_right(starts, at) - 1]
                self.finds[Find(kind, form, output, test)] = None


_outputs = Outputs()


@cache
def canary(kind: str) -> str:
    """Return the run's secret of a kind; all output of the run is scanned for it."""
    first, last = ("".join(secrets.choice(_ALPHABET) for _ in range(12)) for _ in range(2))
    _outputs.know(kind, f"{first}-{last}")
    return f"AAMCANARY-{first}-{last}"


def know(kind: str, secret: str) -> None:
    """Add a secret that other code generated; `secret` is its random part."""
    _outputs.know(kind, secret)


def add(output: str, what: str | bytes) -> None:
    """Queue an output for scanning; `output` is its name in the report."""
    _outputs.add(output, what)


def collected() -> int:
    """Return the number of distinct outputs so far."""
    return _outputs.count


def add_files(output: str, files: Iterable[Path]) -> None:
    """Queue the ends of those files that exist."""
    for file in files:
        with suppress(OSError), file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - _LARGEST_BYTES))
            _outputs.add(f"{output} {file.name}", content.read())


def add_mesh(state: Path) -> None:
    """Queue the logs of a local mesh, and add the secrets that it generated."""
    with suppress(OSError):
        know("the first key of a mesh", (state / "auth").read_text().strip()[-43:])
    for name in ("airbyte", "sample_org", "sample_api"):
        with suppress(OSError):
            know(f"the token of {name}", (state / name / "auth").read_text().strip()[-43:])
    with suppress(OSError):
        shared_password = (state / "postgres" / "services_password").read_text()
        for service in servers.SERVICES:
            login = servers.password_of(service, shared_password)
            know(f"the registry's login of {service}", login)
    for file in state.glob("keys/*/*.pem"):
        know("a service's signing key", file.read_text().splitlines()[1][-43:])
    for name in (
        "webhook_signing_key",
        "rotation_digest_key",
        "state_encryption_keys",
        "console_session_keys",
        "postgres/password",
        "postgres/warehouse_password",
        "valkey/password",
    ):
        with suppress(OSError):
            know(f"what {name} holds", (state / name).read_text())
    add_files("the log", (state / "logs").rglob("*.log*"))


async def add_answer(response: httpx.Response) -> None:
    """Queue a response; an event hook for clients that call services over sockets."""
    await response.aread()
    path = response.request.url.path
    if not _ALLOWED.fullmatch(path):
        head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        _outputs.add(f"the response to {response.request.method} {path}", head)
        _outputs.add(f"the response to {response.request.method} {path}", response.content)


async def add_rows(connection: Any) -> None:
    """Queue every row of a database, as text."""
    tables = await connection.fetch(
        "SELECT format('SELECT %L AS name, t::text FROM %I.%I t', relname, nspname, relname)"
        " FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    if tables:
        rows = await connection.fetch(" UNION ALL ".join(query for (query,) in tables))
        for name, row in rows:
            _outputs.add(f"the rows of {name}", row)


async def add_entries(redis: Any) -> None:
    """Queue all entries of a Redis."""
    async for key in redis.scan_iter():
        if await redis.type(key) in ("stream", b"stream"):
            _outputs.add("the stream of events", repr(await redis.xrange(key)))
        else:
            _outputs.add("a Redis key", repr((key, await redis.dump(key))))


class _CommandLines(threading.Thread):
    """Samples the command lines of all processes of the machine.

    They are scanned at the end, when the secrets of all pytest-xdist workers are known.
    """

    def __init__(self) -> None:
        super().__init__(name="command-lines", daemon=True)
        self._over = threading.Event()
        self._tests: dict[bytes, str] = {}
        """The test that ran when each command line was seen first."""

    def run(self) -> None:
        """Sample until `end`; processes are read three times, as they may exec a program."""
        times: dict[str, int] = {}
        while not self._over.wait(_SAMPLED_EVERY_S):
            there = [name for name in os.listdir("/proc") if name.isdigit()]
            times = {pid: times.get(pid, 0) + 1 for pid in there}
            for pid in (pid for pid in there if times[pid] <= 3):
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    self._tests.setdefault(line, _outputs.test)

    def end(self) -> None:
        """Stop sampling, and queue the command lines for scanning."""
        self._over.set()
        if self.is_alive():
            self.join()
        for line, test in self._tests.items():
            _outputs.test = test
            _outputs.add("a command line", line)


_command_lines = _CommandLines()
_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure(config: pytest.Config) -> None:
    """Start collecting; intercepts servers that tests start, for their passwords and logs."""
    if not hasattr(config, "workerinput"):
        _command_lines.start()
    draw, end, kill = servers.generate_once, servers.Server.stop, servers.Server.kill
    readouterr = CaptureFixture.readouterr

    def generate_once(path: Path) -> str:
        drawn = draw(path)
        _outputs.know(f"what {path.name} holds", drawn)
        return drawn

    def stop(self: servers.Server) -> None:
        end(self)
        add_files("the log", [self.log])
        if self.log.parent.name == "logs":
            add_mesh(self.log.parent.parent)

    def killed(self: servers.Server) -> None:
        kill(self)
        add_files("the log", [self.log])

    def read(self: CaptureFixture[Any]) -> Any:
        captured = readouterr(self)
        for output in captured:
            _outputs.add("captured output", output)
        return captured

    servers.generate_once = generate_once
    servers.Server.stop, servers.Server.kill = stop, killed  # type: ignore[method-assign]
    CaptureFixture.readouterr = read  # type: ignore[method-assign]


def pytest_collection_finish() -> None:
    """Collect the responses of services in this process, if any test imports them."""
    requests = sys.modules.get("shared.http.request_log")
    if requests is None:
        return
    answer = requests.RequestLog.__call__

    async def heard(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or _ALLOWED.fullmatch(scope["path"]):
            await answer(self, scope, receive, send)
            return
        parts: list[bytes] = []

        async def take(message: Any) -> None:
            parts.extend(b": ".join(header) for header in message.get("headers", ()))
            parts.append(message.get("body", b""))
            await send(message)

        try:
            await answer(self, scope, receive, take)
        finally:
            _outputs.add(f"the response to {scope['method']} {scope['path']}", b"\n".join(parts))

    requests.RequestLog.__call__ = heard


def pytest_runtest_logstart(nodeid: str) -> None:
    """Attribute outputs from here on to this test."""
    _outputs.test = nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the test logged and printed, in all phases.

    A pytest-xdist worker does not send it to the controller, which shows it of failed tests alone.
    """
    if report.when == "teardown":
        for name, text in report.sections:
            _outputs.add(name, text)
    if _IS_WORKER and report.passed:
        report.sections = [one for one in report.sections if one[0].endswith("teardown")]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if any output contains a secret."""
    _command_lines.end()
    if (prometheus := sys.modules.get("prometheus_client")) is not None:
        _outputs.add("the metrics", prometheus.generate_latest())
    began = time.perf_counter()
    _outputs.scan()
    _outputs.spent_s += time.perf_counter() - began
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["leaks"] = _outputs.to_worker_output()
    if _outputs.finds and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Merge the result of a pytest-xdist worker; a crashed worker already fails the run."""
    if (output := getattr(node, "workeroutput", {}).get("leaks")) is not None:
        _outputs.add_worker_output(output)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the finds and the amount of output scanned."""
    for find in _outputs.finds:
        terminalreporter.write_line(f"LEAKED {find}", red=True)
    secret_count = len(_outputs.secrets)
    terminalreporter.write_line(
        f"leaks: {len(_outputs.finds)} in {_outputs.scanned_bytes / 1e6:.1f} MB of outputs, of"
        f" {secret_count} secrets; it took {_outputs.spent_s:.1f} s"
    )
