"""The drift_repair_agent with a heartbeat task that measures how long its event loop was blocked.

`GET /bench/watch` starts the heartbeat. `GET /bench/longest` stops it and returns the longest stall
in wall-clock time and in CPU time of the loop's thread, which a busy machine does not distort.
`GET /bench/cpu` returns the CPU time of the process so far. All times are in milliseconds.
"""

from __future__ import annotations

import asyncio
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.drift_repair_agent import main

_BEAT_S = 0.001


class _WithHeartbeat:
    def __init__(self, service: ASGIApp) -> None:
        self._service = service
        self._heartbeat: asyncio.Task[None] | None = None
        self._longest = self._longest_run = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("path", "").startswith("/bench/"):
            await self._service(scope, receive, send)
            return
        times: tuple[float, ...] = (self._longest, self._longest_run)
        if scope["path"] == "/bench/cpu":
            times = (time.process_time(),)
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if scope["path"] == "/bench/watch":
            self._longest = self._longest_run = 0.0
            self._heartbeat = asyncio.create_task(self._beat())
        content = " ".join(f"{seconds * 1000:.2f}" for seconds in times)
        await Response(content)(scope, receive, send)

    async def _beat(self) -> None:
        before, before_run = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_BEAT_S)
            now, now_run = time.perf_counter(), time.thread_time()
            self._longest = max(self._longest, now - before - _BEAT_S)
            self._longest_run = max(self._longest_run, now_run - before_run)
            before, before_run = now, now_run


app = _WithHeartbeat(main.app)
