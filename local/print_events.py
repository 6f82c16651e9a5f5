"""Prints the lifecycle events of the running mesh, one readable line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.console import Console

STREAM = "aam.events"
LATEST = 20
"""How many earlier events are shown first."""


class Unreachable(Exception):
    """Redis does not respond."""


async def follow(url: str, *, once: bool = False) -> None:
    """Print the latest events, then each new one as it arrives, until interrupted.

    With `once` it ends after the latest events.

    Raises:
        Unreachable: Redis is unavailable, or the connection was lost.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        async with Redis.from_url(url, decode_responses=True, socket_timeout=30) as redis:
            earlier: Any = await redis.xrevrange(STREAM, count=LATEST)
            last = earlier[0][0] if earlier else "0"
            for _id, event in reversed(earlier):
                console.print(line(event), markup=False)
            while not once:
                streams: Any = await redis.xread({STREAM: last}, block=5000)
                for last, event in streams[0][1] if streams else ():  # noqa: B007 (the next read starts there)
                    console.print(line(event), markup=False)
    except RedisError as error:
        raise Unreachable(
            f"Redis does not respond ({type(error).__name__}); is the mesh running?"
        ) from error


def line(event: Mapping[str, str]) -> str:
    """One event as text: time, type, connection, its status and version then, and references."""
    words = [
        event["at"][:23],
        f"{event['type']:<22}",
        f"{event['connection_id']} #{event['seq']}",
        f"{event['status']} v{event['version']}",
    ]
    words += [f"{name}={event[name]}" for name in ("ref", "code") if event.get(name)]
    return "  ".join(words)
