"""The auth_broker's HTTP side. Internal only: its answers hold secrets."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response

from services.auth_broker.service import (
    CREDENTIAL_ID,
    AuthBroker,
    CredentialStore,
    EnvironmentStore,
)
from shared import logs, telemetry
from shared.access import Scope, may
from shared.app import create_app, problems
from shared.config import ProcessSettings, load
from shared.gate import access_for

router = APIRouter(tags=["credentials"])


def _service(request: Request) -> AuthBroker:
    broker: AuthBroker = request.app.state.service
    return broker


Service = Annotated[AuthBroker, Depends(_service)]
CredentialId = Annotated[
    str,
    Path(
        pattern=CREDENTIAL_ID,
        description="Which credential; `salesforce-prod` reads CREDENTIAL_SALESFORCE_PROD__…",
        examples=["salesforce-prod"],
    ),
]

_EXAMPLE: dict[str, Any] = {
    "content": {
        "application/json": {
            "example": {
                "client_id": "3MVG9.example",
                "client_secret": "example-secret",
                "refresh_token": "example-token",
                "auth_type": "Client",
                "is_sandbox": False,
            }
        }
    }
}


@router.get(
    "/credentials/{credential_id}/connector-config",
    dependencies=[may(Scope.CREDENTIALS_READ)],
    responses={200: _EXAMPLE, **problems(404, 422)},
)
async def connector_config(
    credential_id: CredentialId,
    service: Service,
    response: Response,
    source_type: Annotated[str, Query(max_length=100, examples=["Salesforce"])] = "Salesforce",
) -> dict[str, Any]:
    """The configuration that the source type's connector asks for, secrets in clear.

    404 `credential_not_found`: no variable of this credential is set. 422 `credential_incomplete`:
    `variable` names the one that is missing.
    """
    response.headers["Cache-Control"] = "no-store"
    return service.connector_config(source_type, credential_id)


def build(settings: ProcessSettings, store: CredentialStore | None = None) -> FastAPI:
    """The application for these settings; credentials come from the environment unless told."""
    logs.set_up("auth_broker", level=settings.log_level)
    telemetry.set_up("auth_broker", settings)
    app = create_app(
        service="auth_broker",
        description="Turns a credential id into a connector's configuration. Internal only.",
        access=access_for("auth_broker", settings),
        body_deadline=settings.body_deadline,
    )
    app.state.service = AuthBroker(store or EnvironmentStore.from_process())
    app.include_router(router)
    return app


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server asks for it: importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    return build(load(ProcessSettings))
