"""Operations: what a request began is brought to an end, whoever dies, hangs or loses an answer.

An operation is a row before the first outside effect. Its steps are written down as they are done,
by an owner whose lease is renewed with each; when the lease ends, another process takes it over and
goes on. Every write is fenced by the owner, so that one who comes back late writes nothing.
"""

from shared.operations._operation import HttpResult, Intent, Key, Operation, Saga, marker
from shared.operations._runner import Operations

__all__ = ["HttpResult", "Intent", "Key", "Operation", "Operations", "Saga", "marker"]
