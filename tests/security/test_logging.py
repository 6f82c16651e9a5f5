"""The log is one JSON object per line with declared fields only, for any input."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.database import Database
from shared.errors import NotFound, Unavailable
from shared.observability import logs
from shared.postgres_address import postgres_address
from tests import processes

ROOT = Path(__file__).resolve().parents[2]
CANARY = "AAMCANARY-log"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
log = logs.get("tests.security")

Line = dict[str, Any]


class Written(io.StringIO):
    """Captured log output."""

    def lines(self) -> list[Line]:
        """Parse each line; none contains any part of the canary."""
        raw = self.getvalue()
        assert CANARY not in raw
        assert raw.isascii()
        return [json.loads(line) for line in raw.splitlines()]

    def line(self) -> Line:
        """Parse the only line."""
        (line,) = self.lines()
        return line


@pytest.fixture
def written() -> Iterator[Written]:
    """The log at level DEBUG; the logging configuration is restored afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level, sys.excepthook
    logs.set_up("test", level="DEBUG")
    (handler,) = root.handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(buffer := Written())
    yield buffer
    root.handlers, root.level, sys.excepthook = before


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call in the shipped code, with its location."""
    for folder in ("shared", "services", "local"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def test_every_logged_event_is_declared() -> None:
    """Event names are constants, and all fields are in `logs.FIELDS`."""
    seen = 0
    for where, call in _calls():
        assert isinstance(call.func, ast.Attribute)
        on = call.func.value
        fields = {keyword.arg for keyword in call.keywords if keyword.arg}
        if call.func.attr in ("bound_contextvars", "bind_contextvars"):
            assert fields <= logs.FIELDS, where
        is_batch = isinstance(on, ast.Name) and (on.id, call.func.attr) == ("batches", "each")
        if is_batch:  # logs the event named by its caller
            (event,) = (one.value for one in call.keywords if one.arg == "log_event")
        elif isinstance(on, ast.Name) and on.id == "log" and call.func.attr in LEVELS:
            (event,) = call.args
        else:
            continue
        seen += 1
        if where.startswith("shared/batches.py:"):
            continue
        assert isinstance(event, ast.Constant), where
        assert re.fullmatch(r"[a-z][a-z0-9_]*", str(event.value)), where
        assert is_batch or fields <= logs.FIELDS | {"exc_info"}, (where, fields - logs.FIELDS)
    assert seen > 50


def test_unlisted_field_is_named_and_left_out(written: Written) -> None:
    """Its name is logged, so that its absence can be explained."""
    log.info("hello", status=200, secret=CANARY, config={"key": CANARY})

    line = written.line()

    assert line.pop("timestamp")
    assert line == {
        "event": "hello",
        "level": "info",
        "logger": "tests.security",
        "service": "test",
        "status": 200,
        "dropped": ["config", "secret"],
    }


def test_values_are_words_and_numbers(written: Written) -> None:
    """Of other values only the class is logged, and long text is truncated."""
    log.info(
        "hello",
        code=ValueError(CANARY),
        detail="x" * 5000,
        id={"key": CANARY},
        kind=[1, "two", object()],
        ms=1.5,
        path=b"AAMCANARY-log",
    )

    line = written.line()

    assert (line["code"], line["id"], line["path"]) == ("<ValueError>", "<dict>", "<bytes>")
    assert (line["kind"], line["ms"]) == ([1, "two", "<object>"], 1.5)
    assert len(line["detail"]) == 501


@pytest.mark.parametrize(
    "event",
    [f"hello {CANARY}", f"{CANARY}", f"x\n{CANARY}", "", "Hello"],
)
def test_interpolated_event_name_is_not_written(written: Written, event: str) -> None:
    log.info(event)
    log.info("a_sum of %s", CANARY)

    assert [line["event"] for line in written.lines()] == ["unnamed_event"] * 2


@pytest.mark.parametrize(
    "injected",
    [
        'x\n{"event": "fake"}',
        "x\r\nINFO fake",
        "\x1b[2Jx",
        "x\u2028y\u2029z\x85\x0b\x0c\x1c",
        "\u202eright to left",
        "\x00",
        "\ud800",
    ],
)
def test_no_value_breaks_the_line(written: Written, injected: str) -> None:
    """Terminal escape sequences are escaped too."""
    with structlog.contextvars.bound_contextvars(caller=injected):
        log.info("hello", path=injected)
        logging.getLogger("some.library").warning("hello %s", injected)

    own, foreign = written.lines()

    assert own["path"] == own["caller"] == foreign["caller"] == injected
    assert not re.search(r"[^\x20-\x7e\n]", written.getvalue())


def test_urls_lose_their_queries_and_logins(written: Written) -> None:
    """At any position in a text."""
    log.info("hello", url=f"https://user:{CANARY}@host:1/path?token={CANARY}#{CANARY}")
    log.info("hello", detail=f"See http://host/a?b={CANARY} and postgres://u:{CANARY}@h/db, too.")

    first, second = written.lines()

    assert first["url"] == "https://host:1/path"
    assert second["detail"] == "See http://host/a and postgres://h/db, too."


class _Order(BaseModel):
    count: int


async def _bad_parameter(url: str) -> None:
    db = Database.at(postgres_address(url), application="test")
    try:
        async with db.transaction() as session:
            await session.execute(text("SELECT CAST(:it AS uuid)"), {"it": CANARY})
    finally:
        await db.close()


async def _bad_text(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.fetch("SELECT CAST($1::text AS uuid)", CANARY)
    finally:
        await connection.close()


def _raised(local: str) -> None:
    try:
        _Order.model_validate({"count": local})
    except ValidationError as error:
        raise NotFound("No connection 3.") from error


async def test_exception_is_classes_and_frames(written: Written, postgres_url: str) -> None:
    """No message, local variable or validated value is logged."""
    for attempt, kind in ((_bad_parameter, DBAPIError), (_bad_text, asyncpg.PostgresError)):
        with pytest.raises(kind) as caught:
            await attempt(postgres_url)
        assert CANARY in str(caught.value) + str(caught.value.__cause__)
        log.error("bug", exc_info=caught.value)
    with pytest.raises(NotFound) as raised:
        _raised(CANARY)
    log.error("bug", exc_info=raised.value)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        httpx.Response(
            500, request=httpx.Request("GET", f"http://h/?key={CANARY}")
        ).raise_for_status()
    log.error("bug", exc_info=refused.value)
    log.error("bug", exc_info=ExceptionGroup(CANARY, [OSError(111, CANARY), KeyError(CANARY)]))

    statement, driver, ours, http, group = (line["exception"] for line in written.lines())

    assert statement[0]["type"].startswith("sqlalchemy.exc.")
    assert any(frame.endswith(" _bad_parameter") for frame in statement[0]["frames"])
    assert driver[0]["type"].startswith("asyncpg.exceptions.")
    assert [one["type"] for one in ours] == [
        "shared.errors.NotFound",
        "pydantic_core._pydantic_core.ValidationError",
    ]
    assert (ours[0]["code"], ours[0]["detail"]) == ("not_found", "No connection 3.")
    assert re.fullmatch(r"tests/security/test_logging\.py:\d+ _raised", ours[0]["frames"][-1])
    assert http[0]["type"] == "httpx.HTTPStatusError"
    assert [one["type"] for one in group] == [
        "builtins.ExceptionGroup",
        "builtins.ConnectionRefusedError",
        "builtins.KeyError",
    ]
    assert group[1]["code"] == "ECONNREFUSED"
    assert all(one.keys() <= {"type", "frames", "code", "detail"} for one in (*ours, *group))


def test_cyclic_and_deep_exceptions_are_cut(written: Written) -> None:
    first, second = ValueError(CANARY), ValueError(CANARY)
    first.__cause__, second.__cause__ = second, first
    log.error("bug", exc_info=first)

    def deep(left: int) -> None:
        if not left:
            raise Unavailable("Away.")
        deep(left - 1)

    with pytest.raises(Unavailable) as caught:
        deep(200)
    log.error("bug", exc_info=caught.value)

    circle, cut = written.lines()
    assert len(circle["exception"]) == 2
    assert len(cut["exception"][0]["frames"]) == 20


@pytest.mark.parametrize(
    "name",
    [
        *("httpx", "httpcore.connection", "sqlalchemy.engine.Engine", "asyncpg", "hvac", "redis"),
        *("opentelemetry.sdk", "urllib3.connectionpool", "requests", "aiohttp.access", "pgqueuer"),
    ],
)
def test_library_logs_only_warnings_by_location(written: Written, name: str) -> None:
    """Even if the library's logger has its own level."""
    library = logging.getLogger(name)
    level = library.level
    library.setLevel(logging.DEBUG)
    for log in (library.debug, library.info, library.warning, library.error):
        log("GET https://host/?token=%s", CANARY)
        log(f"Bearer {CANARY}", extra={"token": CANARY, "status": CANARY})
    library.setLevel(level)

    lines = written.lines()

    assert [line["level"] for line in lines] == ["warning"] * 2 + ["error"] * 2
    assert {line["event"] for line in lines} == {"library"}
    assert {line["logger"] for line in lines} == {name}
    assert all(line["at"].startswith("tests/security/test_logging.py:") for line in lines)


def test_uvicorns_own_lines_are_logged(written: Written) -> None:
    """Only its known messages; any other message of its logger is not written."""
    server = logging.getLogger("uvicorn.error")
    server.info("Started server process [%d]", 7, extra={"color_message": CANARY})
    server.info("Uvicorn running on %s://%s:%d (Press CTRL+C to quit)", "http", "127.0.0.1", 8001)
    server.error(OSError(98, CANARY))
    server.error(f"Traceback (most recent call last): {CANARY}")
    logging.getLogger("uvicorn.access").info('"GET /?%s"', CANARY)

    started, running, taken, traced = written.lines()

    assert started["event"] == "Started server process [7]"
    assert running["event"] == "Uvicorn running on http://127.0.0.1:8001 (Press CTRL+C to quit)"
    assert (taken["event"], taken["exception"][0]["code"]) == ("library", "EADDRINUSE")
    assert traced["event"] == "library"


def test_unformattable_message_is_not_printed(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    """By default Python prints it with its arguments to standard error."""
    logging.getLogger("some.library").warning("%d", CANARY)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", CANARY)

    assert CANARY not in "".join(capfd.readouterr())
    assert [line["event"] for line in written.lines()] == ["library"]


def test_crash_is_one_line(tmp_path: Path) -> None:
    """Without Python's traceback, which contains the exception message."""
    program = tmp_path / "crash.py"
    program.write_text(
        "from shared.observability import logs\n"
        "logs.set_up('test')\n"
        f"def fall(secret):\n    raise RuntimeError(secret)\nfall('{CANARY}')\n"
    )

    ended = processes.run(
        [sys.executable, str(program)],
        env={"PYTHONPATH": str(ROOT)},
        timeout=120,
    )

    assert (ended.returncode, ended.stderr) == (1, "")
    line = json.loads(ended.stdout)
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert line["exception"][0]["type"] == "builtins.RuntimeError"
    assert CANARY not in ended.stdout
