"""The drift_repair_agent with a heartbeat beside it that tells how long its event loop stood still.

`GET /bench/watch` starts the heartbeat, `GET /bench/longest` ends it and answers two times: by the
clock, and of that what the loop's own thread ran, which a busy machine cannot make longer.
`GET /bench/cpu` answers the processor time spent so far, in milliseconds.
"""

from __future__ import annotations

import asyncio
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.drift_repair_agent import main

_BEAT_S = 0.001


class _Watched:
    def __init__(self, service: ASGIApp) -> None:
        self._service = service
        self._heart: asyncio.Task[None] | None = None
        self._longest = self._longest_run = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("path", "").startswith("/bench/"):
            await self._service(scope, receive, send)
            return
        times: tuple[float, ...] = (self._longest, self._longest_run)
        if scope["path"] == "/bench/cpu":
            times = (time.process_time(),)
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
        if scope["path"] == "/bench/watch":
            self._longest = self._longest_run = 0.0
            self._heart = asyncio.create_task(self._beat())
        answer = " ".join(f"{seconds * 1000:.2f}" for seconds in times)
        await Response(answer)(scope, receive, send)

    async def _beat(self) -> None:
        before, before_run = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(_BEAT_S)
            now, now_run = time.perf_counter(), time.thread_time()
            self._longest = max(self._longest, now - before - _BEAT_S)
            self._longest_run = max(self._longest_run, now_run - before_run)
            before, before_run = now, now_run


app = _Watched(main.app)
