"""A connector's specification: which paths are secret, and whether a configuration is valid.

A configuration is merged from two parts: what the caller ordered, which contains no secret, and
the document of a credential. Faults name JSON paths and words of the specification, never values.
"""

from shared.domain.specification._configuration import (
    Complete,
    complete,
    faults_of_order,
    has_member,
    is_restorable,
    is_secret_path,
    references,
)
from shared.domain.specification._leaves import ABSENT, Pointer, leaves, overlaid
from shared.domain.specification._model import (
    Fault,
    InvalidSpecification,
    Json,
    Path,
    Specification,
    json_path,
    parse,
)

__all__ = [
    "ABSENT",
    "Complete",
    "Fault",
    "InvalidSpecification",
    "Json",
    "Path",
    "Pointer",
    "Specification",
    "complete",
    "faults_of_order",
    "has_member",
    "is_restorable",
    "is_secret_path",
    "json_path",
    "leaves",
    "overlaid",
    "parse",
    "references",
]
