"""Response details: HEAD is GET without a body, and JSON ends in a newline."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Message, Send

_JSON = (b"application/json", b"application/problem+json")

_EMPTY = (204, 304)
"""Statuses of responses without a body."""


def without_body(send: Send) -> Send:
    """Send a response's headers unchanged, and an empty body."""

    async def headed(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return headed


def ended_by_newline(send: Send) -> Send:
    """Send a response; JSON gets a final newline, so a terminal's prompt starts on a new line."""
    is_json = False

    async def ended(message: Message) -> None:
        nonlocal is_json
        if message["type"] == "http.response.start":
            is_json = message["status"] not in _EMPTY and _is_json(message["headers"])
            if is_json:
                message = {**message, "headers": _one_byte_more(message["headers"])}
        elif is_json and message["type"] == "http.response.body" and not message.get("more_body"):
            await send({**message, "more_body": True})
            message = {"type": "http.response.body", "body": b"\n"}
        await send(message)

    return ended


def _is_json(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(_JSON) for name, value in headers)


def _one_byte_more(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [
        (name, b"%d" % (int(value) + 1) if name == b"content-length" else value)
        for name, value in headers
    ]
