"""The end of a process: who waits is released first, and then the server stops."""

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
    """Call these as soon as the process is told to end.

    The server's own end comes later: it waits for its requests first, and they may wait for what
    these end. Its own handler would, at the end, have the process killed by the signal after all;
    told by its flag, it ends with 0.
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
    """The application of a process that serves it and nothing else.

    What is loaded by now is never looked through for garbage again: of 130,000 objects that took
    110 ms, in which the event loop stood still.
    """
    gc.collect()
    gc.freeze()
    return app
