"""Salesforce's configuration from a credential: the case of a specification that AAM knows itself.

Source: airbyte/source-salesforce 2.10.3; other source types are checked by the orchestrator, with
the specification that Airbyte gives.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shared.credential_documents import Credential
from shared.domain import specification
from shared.errors import Invalid

_TEXT = {"type": "string", "minLength": 1}
SPECIFICATION = specification.parse(
    msgspec.json.encode(
        {
            "type": "object",
            "required": ["client_id", "client_secret", "refresh_token", "is_sandbox"],
            "properties": {
                "client_id": _TEXT,
                "client_secret": _TEXT | {"airbyte_secret": True},
                "refresh_token": _TEXT | {"airbyte_secret": True},
                "auth_type": {"type": "string", "const": "Client"},
                "is_sandbox": {"type": "boolean", "default": False},
                "start_date": {
                    "type": "string",
                    "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$",
                },
            },
        }
    )
)
_KNOWN = frozenset(SPECIFICATION.schema["properties"])


def configuration(credential: Credential) -> dict[str, Any]:
    """The Salesforce connector's configuration; members that it does not have are left out.

    Raises:
        Invalid: the credential is incomplete or invalid; `variable` names where, in its store.
    """
    document = {
        name: value for name, value in credential.document.items() if name.lower() in _KNOWN
    }
    made = specification.complete(SPECIFICATION, {}, document)
    if made.faults:
        fault = made.faults[0]
        variable = credential.naming.of(fault.path)
        is_missing = fault.type == "missing"
        raise Invalid(
            f"{variable} is {'missing' if is_missing else 'invalid'}.",
            code="credential_incomplete" if is_missing else "credential_invalid",
            variable=variable,
        )
    return made.configuration
