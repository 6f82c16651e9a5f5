"""A webhook receiver on a real socket with scripted responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from local.processes import servers
from tests import leaks
from tests.waiting import until

KEY = leaks.canary("the key that signs webhooks")


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, **headers: str) -> Answer:
    """Build an answer with this status and no body."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=code, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return answer


class Receiver:
    """Records messages and sends the scripted answers, or 204 by default."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Answer] = []
        self.always: Answer = status(204)
        self.over = asyncio.Event()
        self.base = ""

    @property
    def url(self) -> str:
        """The webhook URL; its query contains a secret, as such URLs often do."""
        return f"{self.base}/aam?token=AAMCANARY-token"

    @property
    def ids(self) -> list[str]:
        """The ids of the received messages, in order of arrival."""
        return [headers["webhook-id"] for _, headers, _ in self.got]

    def verified(self, secret: str, which: int = -1) -> Any:
        """Return a message's content, after verifying its signature with this secret."""
        _, headers, body = self.got[which]
        return Verifier(secret).verify(body, headers)

    async def wait_for(self, count: int = 1) -> None:
        """Wait until this many messages have arrived."""
        await until(lambda: len(self.got) >= count)

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Answer only at the end of the test."""
        return await self.delayed(status(204))(request)

    def delayed(self, answer: Answer) -> Answer:
        """Delay an answer until the end of the test."""

        async def hold(request: web.Request) -> web.StreamResponse:
            await self.over.wait()
            return await answer(request)

        return hold

    async def never_end(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 at once with an endless body."""
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.over.is_set():
            await response.write(b"x" * 65536)
        return response

    async def stall(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 at once, but never finish the body."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await self.over.wait()
        return response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record the message and answer it."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((request.path_qs, headers, await request.read()))
        answer = self.answers.pop(0) if self.answers else self.always
        return await answer(request)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a real socket."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = servers.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    receiver.base = f"http://127.0.0.1:{port}"
    yield receiver
    receiver.over.set()
    await runner.cleanup()
