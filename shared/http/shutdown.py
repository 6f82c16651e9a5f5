"""Process shutdown: waiting requests are released first, then the server stops."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI


@contextmanager
def stop_on_signal(*stops: Callable[[], None]) -> Iterator[None]:
    """Call `stops` as soon as the process receives SIGTERM or SIGINT.

    uvicorn shuts down the lifespan only after its requests have ended, and they may wait for what
    `stops` release. Its own signal handler would raise the signal again at the end; setting its
    `should_exit` flag makes the process exit with 0.
    """
    loop = asyncio.get_running_loop()
    before = {
        number: handler
        for number in (signal.SIGTERM, signal.SIGINT)
        if callable(handler := signal.getsignal(number))
    }
    if threading.current_thread() is not threading.main_thread():
        before = {}

    def handle(number: int, frame: FrameType | None) -> None:
        for stop in stops:
            loop.call_soon_threadsafe(stop)
        handler = before[signal.Signals(number)]
        server = getattr(handler, "__self__", None)
        if isinstance(server, uvicorn.Server) and not server.should_exit:
            server.should_exit = True
        else:
            handler(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def for_server(app: FastAPI) -> FastAPI:
    """Prepare a process that only serves this application, and return the application.

    Objects loaded so far are excluded from garbage collection: a full collection of 130,000 objects
    blocked the event loop for 110 ms.
    """
    gc.collect()
    gc.freeze()
    return app
