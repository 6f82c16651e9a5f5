"""Structured logging, configured once per process: one JSON object per line.

Only allowlisted fields and allowlisted messages of libraries are logged. Exceptions are logged as
classes and frames, without messages or variables, since a driver's message may quote its input;
an AamError's detail is safe, and is logged.
"""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

import structlog
from structlog.typing import EventDict

from shared.errors import AamError

REQUEST_ID_HEADER = "X-Request-ID"
"""Passes a request's id from service to service."""

FIELDS: Final = frozenset(
    {
        # of every line, or of its context
        "event", "level", "logger", "timestamp", "service", "exception", "at", "dropped",
        "request_id", "trace_id", "caller", "operation", "event_id",
        # subjects: ids and names assigned by AAM
        "connection", "connector", "credential", "decision", "delivery", "destination", "drift",
        "entrypoint", "group", "id", "job", "repair", "source", "webhook", "workspace",
        # properties and results
        "address", "attempt", "attempts", "cancelled", "cause", "changes",
        "code", "compared", "deleted", "detail",
        "entity", "error", "failed", "is_new", "kind", "left", "failures", "task",
        "method", "ms", "of", "path", "reason", "removed", "added", "retry_num", "seconds",
        "rows", "severity", "source_type", "status", "suggestions", "table", "tries", "type",
        "verb", "wait_for",
        "waited_so_far",
        # hints for an operator
        "ca_bundle", "errno", "host", "pid", "proxy", "remedy", "url", "wanted",
    }
)  # fmt: skip
"""Every field that may be logged; others are omitted and listed in `dropped`."""

_QUIET: Final = (
    "aiohttp",
    "alembic",
    "asyncio",
    "asyncpg",
    "httpcore",
    "httpx",
    "hvac",
    "opentelemetry",
    "pgqueuer",
    "redis",
    "requests",
    "sqlalchemy",
    "urllib3",
    "uvicorn.access",
)
"""Libraries that log nothing below WARNING, whatever the level."""

_TEXTS: Final = frozenset(
    {
        "ASGI callable returned without completing response.",
        "ASGI callable returned without starting response.",
        "Application shutdown complete.",
        "Application shutdown failed. Exiting.",
        "Application startup complete.",
        "Application startup failed. Exiting.",
        "Cancel %s running task(s), timeout graceful shutdown exceeded",
        "Exceeded concurrency limit.",
        "Finished server process [%d]",
        "Invalid HTTP request received.",
        "Shutting down",
        "Started server process [%d]",
        "Unsupported upgrade request.",
        "Uvicorn running on %s://%s:%d (Press CTRL+C to quit)",
        "Uvicorn running on %s://[%s]:%d (Press CTRL+C to quit)",
        "Waiting for application shutdown.",
        "Waiting for application startup.",
        "Waiting for background tasks to complete. (CTRL+C to force quit)",
        "Waiting for connections to close. (CTRL+C to force quit)",
    }
)
"""uvicorn's messages that are logged verbatim; their arguments come from the server itself."""

_EVENT: Final = re.compile(r"[a-z][a-z0-9_.]{0,60}")
_URL: Final = re.compile(r"([a-zA-Z][\w+.-]*://)(?:[^\s/?#@]*@)?([^\s?#]*)[?#]?\S*")
_LONGEST: Final = 500
_MOST_FRAMES: Final = 20
_LAST_FRAMES: Final = 5
_LIBRARIES: Final = frozenset(
    {"site-packages", f"python{sys.version_info[0]}.{sys.version_info[1]}"}
)
_MOST_ERRORS: Final = 10


def set_up(service: str, *, level: str = "INFO") -> None:
    """Log one JSON object per line to standard output, for AAM's events and for libraries."""

    def name_service(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allowed,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(_is_loud_enough)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            use_get_message=False,
            pass_foreign_args=True,
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _foreign,
                _allowed,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                name_service,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Otherwise logging prints a message that it cannot format together with its arguments.
    logging.raiseExceptions = False
    sys.excepthook = _crashed


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def request_id() -> str:
    """The id of the current request or other cause; empty if there is none."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


@contextmanager
def caused_by(request_id: str | None, **bound: str) -> Iterator[None]:
    """Set the request id of logs, calls and operations in the block; None generates a new one."""
    with structlog.contextvars.bound_contextvars(request_id=request_id or uuid4().hex, **bound):
        yield


def _is_loud_enough(record: logging.LogRecord) -> bool:
    """Whether to log a record; needed because a child of a quiet logger may set its own level."""
    return record.levelno >= logging.WARNING or not any(
        record.name == name or record.name.startswith(f"{name}.") for name in _QUIET
    )


def _crashed(
    _type: type[BaseException], error: BaseException, _traceback: TracebackType | None
) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    get(__name__).critical("crashed", exc_info=error)


def _foreign(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Convert a library's record: the code location, and the message if it is allowlisted."""
    record: logging.LogRecord = event["_record"]
    arguments = event.pop("positional_args")
    if record.name == "uvicorn.error" and record.msg in _TEXTS:
        event["event"] = record.msg % arguments
        return event
    event["event"] = "library"
    event["at"] = _frame(record.pathname, record.lineno, record.funcName)
    if isinstance(record.msg, BaseException):
        event.setdefault("exc_info", record.msg)
    return event


def _allowed(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Drop the fields of an event that are not allowlisted."""
    allowed: EventDict = {}
    dropped: list[str] = []
    error = event.pop("exc_info", None)
    is_ours = event.get("_from_structlog", True)
    for name, value in event.items():
        if name in FIELDS:
            allowed[name] = _plain(value)
        elif name.startswith("_"):
            allowed[name] = value  # structlog's own; its formatter removes them
        else:
            dropped.append(name if _EVENT.fullmatch(name) else "?")
    if is_ours and not _EVENT.fullmatch(str(allowed.get("event"))):
        allowed["event"] = "unnamed_event"
    if dropped:
        allowed["dropped"] = sorted(dropped)[:_LONGEST]
    if chain := _chain_of(error):
        allowed["exception"] = chain
    return allowed


def _plain(value: object) -> object:
    """A value for the log: numbers, strings and lists of them; for anything else its class."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        cut = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
        return _URL.sub(r"\1\2", cut) if "://" in cut else cut
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in list(value)[:_MOST_FRAMES]]
    return f"<{type(value).__name__}>"


def _chain_of(given: object) -> list[dict[str, object]]:
    """An exception and its causes, newest first: classes and frames, no messages."""
    if given is True:
        given = sys.exc_info()[1]
    if isinstance(given, tuple):
        given = given[1]
    if not isinstance(given, BaseException):
        return []
    return [_one(error) for error, _ in zip(_chain(given), range(_MOST_ERRORS), strict=False)]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _chain(inner)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _one(error: BaseException) -> dict[str, object]:
    described: dict[str, object] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "frames": _frames(error.__traceback__),
    }
    if isinstance(error, AamError):
        described |= {"code": error.code, "detail": error.detail}
    elif isinstance(error, OSError) and error.errno is not None:
        described["code"] = errno.errorcode.get(error.errno, str(error.errno))
    return described


def _frames(traceback: TracebackType | None) -> list[str]:
    """The frames of a traceback: all of AAM's, and the last few of libraries."""
    frames: list[tuple[bool, str]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        path = Path(code.co_filename)
        is_ours = path.is_absolute() and _LIBRARIES.isdisjoint(path.parts)
        frames.append((is_ours, _frame(code.co_filename, traceback.tb_lineno, code.co_name)))
        traceback = traceback.tb_next
    last = len(frames) - _LAST_FRAMES
    shown = [frame for at, (is_ours, frame) in enumerate(frames) if is_ours or at >= last]
    return shown[-_MOST_FRAMES:]


def _frame(file: str, line: int, function: str | None) -> str:
    parts = Path(file).parts
    start = parts.index("site-packages") + 1 if "site-packages" in parts else len(parts) - 3
    return f"{'/'.join(parts[max(start, 0) :])}:{line} {function}"
