"""A configuration as its leaves, to compare and combine single values, however nested."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias

from shared.domain.specification._model import Json

Pointer: TypeAlias = str
"""A JSON pointer without its first slash (RFC 6901): `client_id`, `credentials/client_secret`."""
ABSENT: Final = object()
"""Stands for a value that is not there."""


def leaves(configuration: Mapping[str, Any]) -> dict[Pointer, Any]:
    """Each value that is not a container, and each empty container, by its pointer."""
    return dict(_leaves(configuration, ""))


def _leaves(value: Any, at: Pointer) -> Iterator[tuple[Pointer, Any]]:
    if isinstance(value, Mapping) and (value or not at):
        for name, each in value.items():
            yield from _leaves(each, _joined(at, name))
    elif isinstance(value, list) and value:
        for number, each in enumerate(value):
            yield from _leaves(each, _joined(at, str(number)))
    else:
        yield at, value


def overlaid(
    held: Mapping[str, Any],
    given: Mapping[str, Any],
    choose: Callable[[Pointer, Any, Any], Any],
    *,
    dropped: Collection[Pointer] = (),
) -> Json:
    """The leaves of `given` as `choose` decides, and those that only `held` has.

    `choose` gets a leaf's pointer, the value in `held` (ABSENT where it has none) and the value in
    `given`. Leaves in `dropped` that only `held` has are left out.
    """
    whole: Json = _overlaid(held, given, choose, dropped, "")
    return whole


def _overlaid(
    held: Any,
    given: Any,
    choose: Callable[[Pointer, Any, Any], Any],
    dropped: Collection[Pointer],
    at: Pointer,
) -> Any:
    if isinstance(given, Mapping) and (given or not at):
        known = held if isinstance(held, Mapping) else {}
        whole = {
            name: _overlaid(known.get(name, ABSENT), each, choose, dropped, _joined(at, name))
            for name, each in given.items()
        }
        others = {
            name: _without(each, dropped, _joined(at, name))
            for name, each in known.items()
            if name not in given
        }
        return whole | {name: each for name, each in others.items() if each is not ABSENT}
    if isinstance(given, list) and given:
        listed = held if isinstance(held, list) else []
        more = [
            _without(each, dropped, _joined(at, str(number)))
            for number, each in enumerate(listed[len(given) :], len(given))
        ]
        return [
            *(
                _overlaid(
                    listed[number] if number < len(listed) else ABSENT,
                    each,
                    choose,
                    dropped,
                    _joined(at, str(number)),
                )
                for number, each in enumerate(given)
            ),
            *(each for each in more if each is not ABSENT),
        ]
    return choose(at, held, given)


def _without(value: Any, dropped: Collection[Pointer], at: Pointer) -> Any:
    """A value without the dropped leaves; ABSENT where none is left."""
    if isinstance(value, Mapping) and value:
        found = {name: _without(each, dropped, _joined(at, name)) for name, each in value.items()}
        return {name: each for name, each in found.items() if each is not ABSENT} or ABSENT
    if isinstance(value, list) and value:
        listed = [
            _without(each, dropped, _joined(at, str(number))) for number, each in enumerate(value)
        ]
        return [each for each in listed if each is not ABSENT] or ABSENT
    return ABSENT if at in dropped else value


def steps_of(pointer: Pointer) -> list[str]:
    """The names and numbers of a pointer."""
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")]


def _joined(at: Pointer, name: str) -> Pointer:
    escaped = name.replace("~", "~0").replace("/", "~1")
    return f"{at}/{escaped}" if at else escaped
