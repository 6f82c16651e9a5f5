"""What differs between two looks at a source, and what that means for a connection.

`diff` tells the facts, `severity` judges one of them by what a connection uses, `relation` says
whether a type grew, shrank or became another one.
"""

from shared.domain.drift._diff import (
    ITEM,
    VALUE,
    Change,
    ConfigChange,
    ConfigKind,
    Kind,
    Streams,
    diff,
    diff_config,
)
from shared.domain.drift._paths import names_at, schema_at
from shared.domain.drift._severity import Severity, Verdict, severity, worst, written
from shared.domain.drift._types import Relation, relation

__all__ = [
    "ITEM",
    "VALUE",
    "Change",
    "ConfigChange",
    "ConfigKind",
    "Kind",
    "Relation",
    "Severity",
    "Streams",
    "Verdict",
    "diff",
    "diff_config",
    "names_at",
    "relation",
    "schema_at",
    "severity",
    "worst",
    "written",
]
