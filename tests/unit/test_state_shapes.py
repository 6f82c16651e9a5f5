"""The shape of a state has the types and names of its parts, and none of its values."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.drift_repair_agent.states.shapes import shape_of

SECRET = "ada@example.com"


@pytest.mark.parametrize(
    "state, shape",
    [
        ({"LastModifiedDate": "2026-01-01"}, {"LastModifiedDate": "string"}),
        ({"lsn": 7, "share": 0.5, "done": True, "to": None},
         {"lsn": "integer", "share": "number", "done": "boolean", "to": "null"}),
        ({"states": [{"cursor": {"at": 1}}, {"cursor": {"at": 2}}, {"cursor": "x"}]},
         {"states": [{"cursor": {"at": "integer"}}, {"cursor": "string"}]}),
        ({"act_123": {"at": 1}, SECRET: {"at": 2}, "cursor": 1},
         {"cursor": "integer", "*": [{"at": "integer"}]}),
        ({"f_1__c": 1, "x9": 2}, {"f_1__c": "integer", "*": ["integer"]}),
        ([], []),
        (None, "null"),
    ],
)  # fmt: skip
def test_shapes(state: Any, shape: Any) -> None:
    assert shape_of(orjson.dumps(state), fields={"f_1__c"}) == shape


def test_keys_of_a_map_are_values() -> None:
    """With many keys, a name is that of a partition."""
    names = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefgh"]
    assert shape_of(orjson.dumps(dict.fromkeys(names, 1))) == {"*": ["integer"]}


def test_broken_and_deep_states() -> None:
    assert shape_of(b"{") == "unreadable"
    assert shape_of(b"[" * 40 + b"]" * 40) == [[[[[[[[[[[[[]]]]]]]]]]]]]
    assert shape_of(b"[" * 100_000) == "unreadable"


_VALUES = st.recursive(
    st.integers(10**6, 10**9).map(str) | st.integers(10**6, 10**9),
    lambda parts: st.lists(parts) | st.dictionaries(st.integers(10**6, 10**9).map(str), parts),
)


@given(_VALUES)
def test_no_value_is_in_a_shape(state: Any) -> None:
    """Neither as a value nor as a key."""
    assert not any(digit in orjson.dumps(shape_of(orjson.dumps(state))).decode() for digit in "123")
