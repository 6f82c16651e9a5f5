"""Operations: multi-step changes that survive crashes, hangs and lost responses.

An operation is recorded before its first external effect. Each step is recorded as it completes, by
an owner whose lease each step renews; when a lease expires, another process takes the operation
over and continues. Every write is fenced by the owner, so a former owner cannot write anything.
"""

from shared.operations._operation import HttpResult, Intent, Key, Operation, Saga, marker
from shared.operations._runner import Operations
