"""Schema changes between two discoveries of a source, and their severity for a connection.

`diff` lists the changes, `severity` rates a change by what a connection uses, and `relation` says
whether a type was widened, narrowed or replaced.
"""

from shared.domain.drift._conflicts import MAPPING_CONFLICT, with_conflicts
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
    type_of,
)
from shared.domain.drift._lapses import MAPPER_LAPSED, has_mappers, lapses
from shared.domain.drift._paths import names_at, schema_at
from shared.domain.drift._severity import Severity, Verdict, severity, worst, written
from shared.domain.drift._types import Relation, relation
