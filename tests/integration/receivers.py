"""A receiver of webhooks, behind a real socket, that answers as it is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as Verifier

from local.processes import servers
from tests import leaks

KEY = leaks.canary("the key that signs webhooks")


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def status(code: int, **headers: str) -> Answer:
    """Answer with it, and no body."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(
            status=code, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    return answer


class Receiver:
    """Somebody who is told: keeps what came, answers as it is scripted, 204 when it is not."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[Answer] = []
        self.always: Answer = status(204)
        self.over = asyncio.Event()
        self.base = ""

    @property
    def url(self) -> str:
        """Where its messages go; the query is what such URLs carry as a secret."""
        return f"{self.base}/aam?token=AAMCANARY-token"

    @property
    def ids(self) -> list[str]:
        """The ids of the messages that came, in their order."""
        return [headers["webhook-id"] for _, headers, _ in self.got]

    def verified(self, secret: str, which: int = -1) -> Any:
        """What a message says, if it is signed with this secret."""
        _, headers, body = self.got[which]
        return Verifier(secret).verify(body, headers)

    async def hears(self, count: int = 1) -> None:
        """Wait until so many messages came."""
        async with asyncio.timeout(10):
            while len(self.got) < count:  # noqa: ASYNC110 (another process's doing)
                await asyncio.sleep(0.01)

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Say nothing until the test is over."""
        return await self.held(status(204))(request)

    def held(self, answer: Answer) -> Answer:
        """Answer so when it is over."""

        async def hold(request: web.Request) -> web.StreamResponse:
            await self.over.wait()
            return await answer(request)

        return hold

    async def never_end(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 at once, and go on answering."""
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.over.is_set():
            await response.write(b"x" * 65536)
        return response

    async def stall(self, request: web.Request) -> web.StreamResponse:
        """Answer 200 at once, and keep the body."""
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await self.over.wait()
        return response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep it, answer it."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((request.path_qs, headers, await request.read()))
        answer = self.answers.pop(0) if self.answers else self.always
        return await answer(request)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver behind a real socket."""
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
