"""Which connections the current caller may see: those that have all labels of its API key.

`shared.database` runs every session of a limited caller on the views of
`migrations/limited_views.sql`, which leave out every other connection and what belongs to it. Only
what does not come from the registry is filtered elsewhere: the events of Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import msgspec

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, sorted; empty for no limit."""

_limit: ContextVar[Labels] = ContextVar("label_limit", default=())


def of(labels: Mapping[str, str]) -> Labels:
    """A limit from names and values."""
    return tuple(sorted(labels.items()))


def of_json(labels: str) -> Labels:
    """A limit from a JSON object of texts."""
    return of(msgspec.json.decode(labels, type=dict[str, str]))


def to_json(labels: Labels) -> str:
    """A limit as a JSON object."""
    return msgspec.json.encode(dict(labels)).decode()


def current() -> Labels:
    """The labels that a connection must have for the current caller; empty for no limit."""
    return _limit.get()


@contextmanager
def limited_to(labels: Labels) -> Iterator[None]:
    """Limit the block, and the tasks started in it, to connections with all of these labels."""
    token = _limit.set(labels)
    try:
        yield
    finally:
        _limit.reset(token)


def registry_wide() -> AbstractContextManager[None]:
    """Lift the limit for the block, and the tasks started in it.

    For what AAM must know of all connections to act correctly, such as whether another one uses a
    source. Nothing that is read within the block may be part of a response.
    """
    return limited_to(())
