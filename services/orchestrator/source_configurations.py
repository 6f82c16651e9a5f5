"""Builds a source's configuration: an order without secrets, and a credential, by specification.

No value of a configuration is in an error, and none with a secret is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.orchestrator.credentials import fetch
from services.orchestrator.source_definitions import SourceDefinitions
from shared.airbyte_client import AirbyteClient
from shared.config import Settings
from shared.credential_documents import EXPIRES_AT, Credential
from shared.domain import specification as specifications
from shared.domain.specification import Fault, Json, Path, Specification, json_path
from shared.errors import Invalid, UpstreamUnreachable
from shared.service_clients import AuthBroker
from shared.source_types import SourceType


class SourceConfigurations:
    """Builds and validates the configurations of sources, before anything is created."""

    def __init__(
        self,
        settings: Settings,
        airbyte: AirbyteClient,
        auth_broker: AuthBroker,
        definitions: SourceDefinitions,
    ) -> None:
        self._may_refer = settings.airbyte_secret_references
        self._airbyte = airbyte
        self._auth_broker = auth_broker
        self.definitions = definitions

    async def expect_valid_order(
        self,
        source_type: SourceType,
        configuration: Json,
        credential_id: str | None,
        workspace_id: UUID,
    ) -> None:
        """Check an order as far as that is possible without its credential.

        Raises:
            Invalid: it has a secret (`secret_in_order`), a reserved or unknown name, or needs a
                credential or must not have one.
            Upstream: Airbyte's specification cannot be read.
        """
        specification = await self.definitions.specification(source_type, workspace_id)
        faults = specifications.faults_of_order(specification, configuration)
        if faults:
            raise _refused(
                faults, source_type.name, credential_id, None, order=configuration, document={}
            )
        _expect_no_reference(configuration)
        if credential_id is None and specification.needs_secret:
            raise _credential_required(source_type.name)
        if credential_id is not None and not specification.secrets:
            raise Invalid.of(
                "credential_id",
                f"{source_type.name} does not take a `credential_id`: its specification marks no "
                "member as secret.",
                code="credential_not_used",
            )
        if credential_id is None:
            await self.built(specification, source_type.name, configuration, None, None)

    async def fetched(
        self,
        source_type: SourceType,
        configuration: Json,
        credential_id: str | None,
        workspace_id: UUID,
    ) -> Json:
        """The whole configuration, with the credential as currently stored; it holds secrets.

        Raises:
            Invalid: it does not fit the specification, or there is no such credential.
            UpstreamDenied: the auth_broker rejects our token.
            UpstreamUnreachable: the auth_broker is unavailable.
            Upstream: Airbyte's specification cannot be read.
        """
        specification = await self.definitions.specification(source_type, workspace_id)
        credential = None
        if credential_id is not None:
            credential = await fetch(self._auth_broker, source_type.name, credential_id)
        return await self.built(
            specification, source_type.name, configuration, credential_id, credential
        )

    async def expect_valid(
        self,
        source_type: SourceType,
        configuration: Json,
        credential_id: str | None,
        workspace_id: UUID,
    ) -> Json | None:
        """The whole configuration, as `fetched`; None while the auth_broker is unavailable.

        Raises:
            Invalid, UpstreamDenied, Upstream: as `fetched`.
        """
        try:
            return await self.fetched(source_type, configuration, credential_id, workspace_id)
        except UpstreamUnreachable as error:
            if error.code != "auth_broker_unavailable":
                raise
            return None

    async def built(
        self,
        specification: Specification,
        source_type_name: str,
        configuration: Json,
        credential_id: str | None,
        credential: Credential | None,
    ) -> Json:
        """An order and a credential as one configuration, which fits the specification.

        Raises:
            Invalid: it does not; `fields` says where. Or it refers to secrets in Airbyte's own
                store, and may not.
        """
        document = {} if credential is None else credential.document
        if EXPIRES_AT in document and not specifications.has_member(specification, EXPIRES_AT):
            document = {name: one for name, one in document.items() if name != EXPIRES_AT}
        made = specifications.complete(specification, configuration, document)
        if made.faults:
            raise _refused(
                made.faults,
                source_type_name,
                credential_id,
                credential,
                order=configuration,
                document=made.document,
            )
        await self._expect_permitted_references(specification, made.configuration)
        return made.configuration

    async def _expect_permitted_references(
        self, specification: Specification, configuration: Json
    ) -> None:
        found = specifications.references(configuration)
        if not found:
            return
        shown = ", ".join(json_path(path) for path in found[:10])
        if not all(specifications.is_secret_path(specification, path) for path in found):
            raise Invalid(
                f"A reference to a secret is only possible where the specification has a secret; "
                f"there are references at {shown}.",
                code="secret_reference_misplaced",
            )
        if not self._may_refer:
            raise Invalid(
                f"The credential has references to Airbyte's secret store at {shown}: set "
                "AIRBYTE_SECRET_REFERENCES=true if this Airbyte has one.",
                code="secret_references_disabled",
            )
        if not await self._airbyte.is_since_1_7():
            raise Invalid(
                f"The credential has references to Airbyte's secret store at {shown}, which this "
                "Airbyte would store as the secrets themselves: that needs 1.7 or newer.",
                code="secret_references_unsupported",
            )


def _expect_no_reference(configuration: Json) -> None:
    found = specifications.references(configuration)
    if found:
        shown = json_path(found[0])
        raise Invalid(
            f"{shown} is a reference to a secret: references belong into the credential.",
            code="secret_in_order",
            fields=[_field(Fault(found[0], "secret_in_order", "is a reference to a secret."))],
        )


def _credential_required(source_type_name: str) -> Invalid:
    return Invalid.of(
        "credential_id", f"{source_type_name} needs a `credential_id`.", code="credential_required"
    )


def _refused(
    faults: Sequence[Fault],
    source_type_name: str,
    credential_id: str | None,
    credential: Credential | None,
    *,
    order: Json,
    document: Json,
) -> Invalid:
    """The error for a configuration with faults; `fields` has each with its path."""
    secret = [fault for fault in faults if fault.type == "secret_in_order"]
    if secret:
        return Invalid(_sentences(secret), code="secret_in_order", fields=_fields(secret))
    reserved = [fault for fault in faults if fault.type == "reserved_key"]
    if reserved:
        return Invalid(_sentences(reserved), code="reserved_key", fields=_fields(reserved))
    blamed = []
    if credential is not None:
        blamed = [fault for fault in faults if _is_of_credential(fault, order, document)]
    elif any(fault.type == "missing" and fault.is_secret for fault in faults):
        return _credential_required(source_type_name)
    fields = [_field(one, credential if one in blamed else None) for one in faults]
    fault = faults[0]
    if credential is None or fault not in blamed:
        return Invalid(_sentences(faults), code="configuration_invalid", fields=fields)
    variable = credential.naming.of(fault.path)
    is_missing = fault.type == "missing"
    if is_missing:
        otherwise = "" if fault.is_secret else ", and so is it in `configuration`"
        detail = f"Credential {credential_id}: {variable} is missing{otherwise}."
    else:
        detail = f"Credential {credential_id}: {fault.sentence}"
    return Invalid(
        detail,
        code="credential_incomplete" if is_missing else "credential_invalid",
        variable=variable,
        fields=fields,
    )


def _is_of_credential(fault: Fault, order: Json, document: Json) -> bool:
    """Whether a credential has, or lacks, what is wrong; what an order has too is the order's."""
    if _has(order, fault.path):
        return False
    return fault.type in ("missing", "variant") or _has(document, fault.path)


def _has(value: Any, path: Path) -> bool:
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return False
    return True


def _sentences(faults: Sequence[Fault]) -> str:
    return " ".join(fault.sentence for fault in faults[:5])


def _fields(faults: Sequence[Fault]) -> list[dict[str, str]]:
    return [_field(fault) for fault in faults]


def _field(fault: Fault, credential: Credential | None = None) -> dict[str, str]:
    path = json_path(fault.path)
    place = "credential" if credential is not None else f"body.configuration{path[1:]}"
    found = {"field": place, "path": path, "type": fault.type, "message": fault.message}
    if credential is not None:
        found["variable"] = credential.naming.of(fault.path)
    return found
