"""What destinations can hold: their names, types and limits, by connector and version.

`identify` finds the rules of a destination; `judge` says what it does with a change of a source,
`judge_stream` with a stream as configured, and `tables` where streams are written to. A `refuse` is
a change that fails the sync or mixes data, an `ask` one that a person should know of, and a missing
fact is never `safe`.
"""

from shared.domain.destination._facts import (
    DEFAULT_SCHEMA,
    DEFINITIONS,
    GROUPS,
    RULES,
    UNKNOWN,
    Rules,
    Since,
)
from shared.domain.destination._judge import (
    ON_PURPOSE,
    REMOVED,
    RETYPED,
    StreamJudge,
    judge,
    judge_stream,
    keeps_columns,
    unfit_fields,
)
from shared.domain.destination._model import (
    Destination,
    Finding,
    Judgement,
    Verdict,
    identify,
)
from shared.domain.destination._names import Column, columns
from shared.domain.destination._tables import (
    Naming,
    Table,
    judge_tables,
    shared_tables,
    tables,
)
from shared.domain.destination._types import column_type, field_type
from shared.domain.destination._views import compatibility_view
