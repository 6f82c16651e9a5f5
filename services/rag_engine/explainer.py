"""An optional plug-in that writes explanations of suggestions; it has no effect on them."""

from __future__ import annotations

import asyncio
import copy
import importlib
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from shared.observability import logs

log = logs.get(__name__)

_LONGEST = 4000


class Explainer(Protocol):
    """User-supplied code, such as a language model client; it runs in a thread of its own."""

    def __call__(self, suggestions: Sequence[dict[str, Any]], /) -> Sequence[str]:
        """Return a text for each suggestion, in the same order.

        The suggestions are a copy of the response: names, types and evidence, but no values.
        """


class Explaining:
    """Calls an explainer with a timeout, one call at a time."""

    def __init__(self, explainer: Explainer, *, timeout: timedelta) -> None:
        self._explainer = explainer
        self._timeout_s = timeout.total_seconds()
        self._busy = threading.Lock()

    @classmethod
    def by_name(cls, name: str, *, timeout: timedelta) -> Explaining | None:
        """Import the explainer that `module:callable` names; None for an empty name.

        Raises:
            SystemExit: it cannot be imported, or is not callable.
        """
        if not name:
            return None
        module, _, attribute = name.partition(":")
        try:
            explainer = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise SystemExit("RAG_EXPLAINER cannot be imported") from error
        if not callable(explainer):
            raise SystemExit("RAG_EXPLAINER is not callable")
        return cls(explainer, timeout=timeout)

    async def texts(self, suggestions: Sequence[dict[str, Any]]) -> Sequence[str | None]:
        """A text for each suggestion; None for all of them on a failure or timeout.

        A call that exceeds the timeout keeps its thread; until it returns, no other call is made.
        """
        nothing = [None] * len(suggestions)
        if not suggestions or not self._busy.acquire(blocking=False):
            return nothing
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def deliver(texts: Any) -> None:
            if not answer.done():
                answer.set_result(texts)

        def run(mine: list[dict[str, Any]]) -> None:
            texts = None
            try:
                texts = self._explainer(mine)
            except Exception as error:  # noqa: BLE001 - user code; the response omits its texts
                log.warning("explainer_failed", error=type(error).__name__)
            finally:
                self._busy.release()
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, texts)

        mine = copy.deepcopy(list(suggestions))
        threading.Thread(target=run, args=(mine,), daemon=True, name="explainer").start()
        try:
            async with asyncio.timeout(self._timeout_s):
                texts = await answer
        except TimeoutError:
            log.warning("explainer_timed_out", seconds=self._timeout_s)
            return nothing
        return [text[:_LONGEST] for text in texts] if _fits(texts, suggestions) else nothing


def _fits(texts: Any, suggestions: Sequence[dict[str, Any]]) -> bool:
    return (
        isinstance(texts, list | tuple)
        and len(texts) == len(suggestions)
        and all(isinstance(text, str) for text in texts)
    )
