"""The schema_observer, with the one constant of its scheduler that depends on how fast time passes.

A slot claims several sources at once only while their discoveries take less than a second in all,
which real ones do not. With compressed discoveries that second is divided, too, so that the claims
are as in production: one source each. Everything else is the service as it is.
"""

from __future__ import annotations

import os

from services.schema_observer import main, scheduler
from shared.config import Settings, load
from shared.http.shutdown import for_server

COMPRESSION = "AAM_SCALE_COMPRESSION"

setattr(scheduler, "_QUICK_S", 1.0 / float(os.environ[COMPRESSION]))  # noqa: B010 - it is Final
app = for_server(main.build(load(Settings)))
