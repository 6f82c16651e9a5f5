"""What can go wrong while a page is made, each with a sentence, a code and a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PageProblem(Exception):
    """The console itself refuses a request, or cannot answer it."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.sentence = sentence

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (408, 429, 502, 503, 504)

    @property
    def wait_s(self) -> float | None:
        """How many seconds to wait before the next try; None if the service does not say."""
        return None

    @property
    def request_id(self) -> str | None:
        """The id under which another service logged it; None for the console's own."""
        return None


class ApiProblem(PageProblem):
    """What one of the services answered instead of a result: its problem+json.

    `sentence` is its `detail`, which is made for people and quotes no input; `members` are the
    problem's own, such as `fields`, `expected` or `superseded_by`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        sentence: str,
        *,
        service: str,
        request_id: str | None = None,
        members: Mapping[str, Any] | None = None,
        wait_s: float | None = None,
    ) -> None:
        super().__init__(status, code, sentence)
        self.service = service
        self.members: Mapping[str, Any] = members or {}
        self._request_id = request_id
        self._wait_s = wait_s

    @property
    def request_id(self) -> str | None:
        """The id of the request in that service's log."""
        return self._request_id

    @property
    def wait_s(self) -> float | None:
        """The answer's `Retry-After`, in seconds."""
        return self._wait_s


class SignedOut(Exception):
    """There is no session, or its credential is no longer accepted."""
