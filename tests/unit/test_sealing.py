"""Saved states are compressed and encrypted, and only its own row's state opens."""

from __future__ import annotations

from uuid import uuid4

import pytest
from pydantic import SecretStr

from shared.saved_states.sealing import MAX_BYTES, Sealer, StateUnreadable

OLD, NEW = "o" * 40, "n" * 40
STATE = b'{"cursor": "ada@example.com"}' * 100
ROW = {"connection_id": uuid4(), "operation_id": uuid4()}


def sealer(*keys: str) -> Sealer:
    return Sealer(SecretStr(" , ".join(keys)))


def sealed(*keys: str) -> bytes:
    state = sealer(*keys).seal(STATE, **ROW)
    assert state is not None
    return state


def test_sealed_state_is_small_and_opens() -> None:
    """No value is in it, and no two seals are alike."""
    state = sealed(OLD)
    assert b"ada@example.com" not in state
    assert len(state) < len(STATE) / 10
    assert state != sealed(OLD)
    assert sealer(OLD).open(state, **ROW) == STATE


def test_rotated_key_still_opens() -> None:
    """The first key seals, all open; without the old one, its states are lost."""
    before = sealed(OLD)
    assert sealer(NEW, OLD).open(before, **ROW) == STATE
    after = sealed(NEW, OLD)
    assert sealer(NEW).open(after, **ROW) == STATE
    for key, state in ((NEW, before), (OLD, after)):
        with pytest.raises(StateUnreadable):
            sealer(key).open(state, **ROW)


def test_changed_or_moved_state_does_not_open() -> None:
    state = sealed(OLD)
    changed = state[:-1] + bytes([state[-1] ^ 1])
    for wrong in (b"", b"{}", state[:20], changed, b"\x02" + state[1:]):
        with pytest.raises(StateUnreadable):
            sealer(OLD).open(wrong, **ROW)
    for column in ROW:
        with pytest.raises(StateUnreadable):
            sealer(OLD).open(state, **{**ROW, column: uuid4()})


def test_nothing_is_sealed_without_a_key() -> None:
    assert not Sealer(None).is_able
    assert Sealer(None).seal(STATE, **ROW) is None


def test_largest_state_opens() -> None:
    state = sealer(OLD).seal(b"x" * MAX_BYTES, **ROW)
    assert state is not None
    assert len(sealer(OLD).open(state, **ROW)) == MAX_BYTES
