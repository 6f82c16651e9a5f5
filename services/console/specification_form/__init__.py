"""A form made from a connector's specification: its fields, and the configuration they make.

Pure: a schema and values in, values out. A secret is never a field: it comes from a credential.
"""

from services.console.specification_form._controls import Control, controls, json_path
from services.console.specification_form._fields import to_fields
from services.console.specification_form._model import Node, Unreadable, node_of
from services.console.specification_form._reading import (
    Fault,
    Read,
    configuration_of,
    with_row,
    without_row,
)

__all__ = [
    "Control",
    "Fault",
    "Node",
    "Read",
    "Unreadable",
    "configuration_of",
    "controls",
    "json_path",
    "node_of",
    "to_fields",
    "with_row",
    "without_row",
]
