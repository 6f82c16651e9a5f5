"""Runs one function over many items, so that a failing item does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.errors import AamError, Unavailable, UpstreamUnknown
from shared.observability import logs, metrics

log = logs.get(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_LOGGED = 20
"""How many failures of a batch are logged individually; a summary line has the total."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """The outcome of one item: `error` is None if `run` returned `result`."""

    item: Item
    result: Result | None = None
    error: Exception | None = None


async def each(
    items: Iterable[Item],
    run: Callable[[Item], Awaitable[Result]],
    *,
    log_event: str,
    fields: Callable[[Item], Mapping[str, object]] = lambda _item: {},
    max_concurrency: int = 1,
) -> list[Outcome[Item, Result]]:
    """Run `run(item)` for every item, log failures, and return the outcomes in order.

    An AamError is logged as `log_event` with its code; any other exception is a bug and logged
    with its traceback. `fields` returns the log line's other fields, which must be in
    `logs.FIELDS`. Failures are counted in `aam_batch_failures_total`. With a `max_concurrency` of
    1, items run sequentially in the caller's task. Cancellation propagates and stops the rest.
    """
    outcomes: dict[int, Outcome[Item, Result]] = {}
    failures = 0

    async def work(queue: Iterator[tuple[int, Item]]) -> None:
        nonlocal failures
        for index, item in queue:
            try:
                outcomes[index] = Outcome(item, result=await run(item))
                continue
            except asyncio.CancelledError as cancelled:
                if is_cancellation(cancelled):
                    raise
                failure: Exception = RuntimeError("What it waited for was cancelled.")
                failure.__cause__ = cancelled
            except Exception as error:  # noqa: BLE001 - isolating items is what this is for
                failure = error
            outcomes[index] = Outcome(item, error=failure)
            failures += 1
            is_expected = isinstance(failure, AamError)
            metrics.BATCH_FAILURES.labels(cause="expected" if is_expected else "bug").inc()
            if failures <= _MAX_LOGGED:
                _log(log_event, failure, fields(item))

    queue = iter(enumerate(items))
    if max_concurrency == 1:
        await work(queue)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(max_concurrency):
                group.create_task(work(queue))
    if failures > _MAX_LOGGED:
        log.warning(log_event, failed=failures, of=len(outcomes))
    return [outcomes[index] for index in sorted(outcomes)]


def is_cancellation(error: BaseException) -> bool:
    """Whether a caught error is the cancellation of the current task.

    A CancelledError may also come from another task that was awaited, which is a failure.
    """
    task = asyncio.current_task()
    is_cancelled = isinstance(error, asyncio.CancelledError)
    return is_cancelled and task is not None and task.cancelling() > 0


def code_of(error: Exception) -> str:
    """The error code of a failed item, for reports."""
    return error.code if isinstance(error, AamError) else AamError.code


def raise_if_unavailable(outcomes: Iterable[Outcome[Item, Result]]) -> None:
    """Raise the first error of a completed batch that means that the registry is unavailable.

    Raises:
        Unavailable, UpstreamUnknown: an item failed with this error.
    """
    for outcome in outcomes:
        if isinstance(outcome.error, Unavailable | UpstreamUnknown):
            raise outcome.error


def _log(log_event: str, error: Exception, fields: Mapping[str, object]) -> None:
    if isinstance(error, AamError):
        log.warning(log_event, code=error.code, **fields)
    else:
        # nosemgrep: logged-exception-text, logged-trace - logs.py logs only types and frames
        log.error(log_event, code="bug", exc_info=error, **fields)
