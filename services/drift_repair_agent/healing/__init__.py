"""What a connection's catalog becomes when its source changed, and whether an older one fits again.

`plan_changes` says what there is to decide, `heal` makes the catalog that the decisions lead to,
`misfits` says why the source cannot serve a catalog. They change nothing but what they return.
"""

from services.drift_repair_agent.healing._heal import heal
from services.drift_repair_agent.healing._model import (
    Action,
    Effect,
    Healed,
    HealImpossible,
    Instruction,
)
from services.drift_repair_agent.healing._plan import misfits, plan_changes

__all__ = [
    "Action",
    "Effect",
    "HealImpossible",
    "Healed",
    "Instruction",
    "heal",
    "misfits",
    "plan_changes",
]
