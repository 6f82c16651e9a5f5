"""Submitted forms: urlencoded, in UTF-8 and within limits, read before any route sees them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from services.console.problems import PageProblem

BODY_BYTES: Final = 1024 * 1024
FIELDS: Final = 10_000
NAME_CHARS: Final = 1_024
VALUE_CHARS: Final = 20_000
IDEMPOTENCY_FIELD: Final = "idempotency_key"
_TYPE: Final = re.compile(
    rb'application/x-www-form-urlencoded[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE
)
_IDEMPOTENCY_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


class Form:
    """The fields of a form. A field may repeat, as checkboxes of one name do."""

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def text(self, name: str) -> str:
        """A field's text without the white space around it, with plain line breaks; or empty."""
        return self._fields.get(name, [""])[-1].replace("\r\n", "\n").strip()

    def line(self, name: str) -> str:
        """A field's text as one line, for texts in which the API accepts no line breaks."""
        return " ".join(self.text(name).split())

    def exact(self, name: str) -> str:
        """A field's value as it was sent, for names of streams and fields; empty if missing."""
        return self._fields.get(name, [""])[-1]

    def all(self, name: str) -> list[str]:
        """Every value of a repeated field."""
        return list(self._fields.get(name, ()))

    def starting_with(self, prefix: str) -> Mapping[str, str]:
        """The last values of the fields that start with a prefix, by the rest of their names."""
        return {
            name.removeprefix(prefix): values[-1]
            for name, values in self._fields.items()
            if name.startswith(prefix)
        }

    @property
    def idempotency_key(self) -> str:
        """The key that was made with the rendered form: sending it again has no further effect.

        Raises:
            PageProblem: the form has no key, or it is malformed.
        """
        key = self.text(IDEMPOTENCY_FIELD)
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            raise _malformed("The form has no valid Idempotency-Key: open the page again.")
        return key


def submitted(request: Request) -> Form:
    """The submitted form of a request; its token was checked before."""
    form: Form = request.state.form
    return form


SubmittedForm = Annotated[Form, Depends(submitted)]


async def read(
    headers: Sequence[tuple[bytes, bytes]], receive: Receive, *, deadline: timedelta
) -> Form:
    """Read and parse a request's body.

    Raises:
        PageProblem: it is not an urlencoded UTF-8 form, exceeds a limit, or arrives too late.
    """
    types = [value for name, value in headers if name == b"content-type"]
    encodings = [value for name, value in headers if name == b"content-encoding"]
    body = await _body(receive, deadline)
    if not body:
        return Form()
    if encodings or len(types) != 1 or not _TYPE.fullmatch(types[0]):
        raise PageProblem(
            415, "unsupported_media_type", "A form must be sent urlencoded, in UTF-8."
        )
    return parse(body)


def parse(body: bytes) -> Form:
    """Parse an urlencoded body.

    Raises:
        PageProblem: it is malformed, or beyond the limits.
    """
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS,
        )
    except ValueError:
        raise _malformed(f"The form is malformed, or has more than {FIELDS:,} fields.") from None
    for name, value in fields:
        if len(name) > NAME_CHARS or len(value) > VALUE_CHARS:
            raise _malformed(f"A field of the form is longer than {VALUE_CHARS:,} characters.")
        if "\x00" in name or "\x00" in value:
            raise _malformed("A field of the form has characters that cannot be stored.")
    return Form(fields)


async def _body(receive: Receive, deadline: timedelta) -> bytes:
    parts: list[bytes] = []
    size, is_whole = 0, False
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            while not is_whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                if size > BODY_BYTES:
                    limit = f"A form has at most {BODY_BYTES // 1024:,} KiB."
                    raise PageProblem(413, "body_too_large", limit)
                parts.append(part)
                is_whole = not message.get("more_body", False)
    except TimeoutError:
        raise PageProblem(408, "body_timeout", "The form did not arrive in time.") from None
    return b"".join(parts)


def _malformed(sentence: str) -> PageProblem:
    return PageProblem(400, "invalid_form", sentence)
