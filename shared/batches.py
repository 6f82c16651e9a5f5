"""Runs one function over many items, so that a bad item never stops its neighbours."""

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
"""Failures of one batch that get a log line of their own; the rest is in the summary line."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: `error` is None where `result` is what `run` returned."""

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
    """Run `run(item)` for every item, log what fails, and go on; the outcomes in the items' order.

    An AamError is logged as `log_event` with its code; any other exception is a bug, and logged
    with its traceback. `fields` gives the log line's other fields, which must be in `logs.FIELDS`.
    Failures are counted as `aam_batch_failures_total`. With a `max_concurrency` of 1 the items run
    one after another in the caller's task. Cancellation passes through, and stops the rest.
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
            metrics.BATCH_FAILURES.add(cause="expected" if is_expected else "bug")
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
    """Whether an error that was caught cancels the running task.

    A CancelledError may also come out of another task, which was awaited: then it is a failure.
    """
    task = asyncio.current_task()
    is_cancelled = isinstance(error, asyncio.CancelledError)
    return is_cancelled and task is not None and task.cancelling() > 0


def code_of(error: Exception) -> str:
    """The code by which a report names why an item failed."""
    return error.code if isinstance(error, AamError) else AamError.code


def raise_away(outcomes: Iterable[Outcome[Item, Result]]) -> None:
    """Raise what says of a batch that is over that the registry, which all items need, is away.

    Raises:
        Unavailable, UpstreamUnknown: an item failed with it.
    """
    for outcome in outcomes:
        if isinstance(outcome.error, Unavailable | UpstreamUnknown):
            raise outcome.error


def _log(log_event: str, error: Exception, fields: Mapping[str, object]) -> None:
    if isinstance(error, AamError):
        log.warning(log_event, code=error.code, **fields)
    else:
        # nosemgrep: logged-exception-text, logged-trace - logs.py writes types and frames alone
        log.error(log_event, code="bug", exc_info=error, **fields)
