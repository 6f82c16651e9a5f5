"""Airbyte's syncCatalog: parse, validate, compare, choose streams and merge.

Documents are `{"streams": [{"stream": {…}, "config": {…}}]}` and may be 42 MB, so they stay bytes:
a stream is a slice of the document, its jsonSchema a slice of that, and only the needed parts are
decoded. Functions marked `Stepwise` run to completion when called, or in short steps through
`.steps(…)`; `steps.run_cooperatively` runs the steps without blocking an event loop.
"""

from shared.domain.catalog._canonical import (
    canonical_hash,
    document_fingerprint,
    fingerprint,
    fingerprint_of,
)
from shared.domain.catalog._exclusions import CODE as NEVER_SELECTED
from shared.domain.catalog._exclusions import NEVER_SELECT, Exclusions, without_fields
from shared.domain.catalog._mappers import (
    MAPPER_FIELD_EXISTS,
    MAPPER_WITHOUT_FIELD,
    effective_mappers,
    may_have_mappers,
)
from shared.domain.catalog._merge import Merged, merge
from shared.domain.catalog._model import (
    Catalog,
    Config,
    ConfiguredStream,
    InvalidCatalog,
    Note,
    Problem,
    SelectedField,
    Stream,
    StreamId,
    distinct,
    dump,
    identify,
    join,
    parse,
    raw_hash,
    read_stream,
    scan,
)
from shared.domain.catalog._selection import Chosen, choose, choose_with_notes
from shared.domain.catalog._validation import (
    COMPOUND,
    DESTINATION_SYNC_MODES,
    FORWARD,
    MAX_BYTES,
    MAX_FIELDS,
    MAX_NAME,
    MAX_STREAMS,
    ToleratedSettings,
    validate,
)
