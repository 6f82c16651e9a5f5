"""Compute a connection's new catalog when its source has changed, or check an older one.

`plan_changes` lists the changes to decide, `heal` builds the catalog that results from the
decisions, and `incompatibilities` lists why the source cannot serve a catalog. All are pure
functions.
"""

from services.drift_repair_agent.healing._continuity import (
    end_renamings,
    is_key_or_cursor,
    kept_message,
    protects,
    renamings,
    why_not_kept,
    with_own_name,
)
from services.drift_repair_agent.healing._heal import heal
from services.drift_repair_agent.healing._model import (
    Action,
    Continuity,
    Effect,
    Healed,
    HealImpossible,
    Instruction,
)
from services.drift_repair_agent.healing._plan import incompatibilities, plan_changes
