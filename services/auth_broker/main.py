"""HTTP API of the auth_broker. Internal only: its responses contain secrets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.auth_broker.hardening import harden
from services.auth_broker.service import AuthBroker
from services.auth_broker.settings import BrokerSettings, StoreName
from services.auth_broker.stores import CredentialStore, EnvironmentStore, FileStore
from services.auth_broker.vault import LoginRefused, VaultStore
from shared.auth.scopes import Scope, caller_of, may
from shared.config import load
from shared.database import Database
from shared.errors import Unavailable
from shared.http.app import create_app
from shared.http.authentication import access_for
from shared.http.dependencies import from_state
from shared.http.health import Check
from shared.http.openapi import links
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.observability import logs, tracing
from shared.source_types import CREDENTIAL_REFERENCE

log = logs.get(__name__)
router = APIRouter(tags=["credentials"])


Service = Annotated[AuthBroker, from_state("service")]
CredentialId = Annotated[
    str,
    Path(
        pattern=CREDENTIAL_REFERENCE,
        description="A credential id: `salesforce-prod` in the default store, or "
        "`vault:salesforce-prod` in the named store.",
        examples=["salesforce-prod"],
    ),
]


class NamingView(BaseModel):
    """How the store names the values: the prefix, and their names joined by the separator."""

    prefix: str
    separator: str
    is_upper: bool
    """Whether the names are in upper case there."""


class DocumentView(BaseModel):
    """A credential's values, and what its store calls them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "document": {
                        "client_id": "3MVG9.example",
                        "client_secret": "example-secret",
                        "refresh_token": "example-token",
                    },
                    "naming": {
                        "prefix": "CREDENTIAL_SALESFORCE_PROD__",
                        "separator": "__",
                        "is_upper": True,
                    },
                }
            ]
        }
    )

    document: dict[str, Any]
    naming: NamingView


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


class VersionsOrder(BaseModel):
    """The credentials whose versions are requested."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"credential_ids": ["salesforce-prod"], "digest_key": "0f" * 32}]
        },
    )

    credential_ids: list[Annotated[str, Field(pattern=CREDENTIAL_REFERENCE)]] = Field(
        min_length=1, max_length=100
    )
    digest_key: SecretStr = Field(
        min_length=64,
        max_length=64,
        description="The key of the digests that stand for versions where a store has none.",
    )


class VersionView(BaseModel):
    """Whether a credential changed."""

    credential_id: str
    version: str | None
    """Opaque: the same version means the same values. Null if the credential cannot be read."""
    expires_at: datetime | None = None
    """When it expires, where its store or its `expires_at` has that."""
    code: str | None = None
    """Why it has no version."""


class VersionsView(BaseModel):
    """The versions of credentials, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "credentials": [
                        {
                            "credential_id": "salesforce-prod",
                            "version": "5c1f0f4a9d0e",
                            "expires_at": "2027-01-31T00:00:00Z",
                            "code": None,
                        }
                    ]
                }
            ]
        }
    )

    credentials: list[VersionView]


@router.post(
    "/credentials/versions",
    dependencies=[may(Scope.CREDENTIALS_READ)],
    response_model=VersionsView,
    responses=problems(422, 503),
)
async def versions(order: VersionsOrder, request: Request, service: Service) -> Response:
    """Get the versions of credentials, to find those that have changed; never their values.

    A version is the store's own, or a digest of the values under `digest_key`. A credential that
    cannot be read has a `code` instead and does not affect the others. No audit entry is recorded,
    so a token may be used again, and one that names a credential is refused (403
    `wrong_credential`).
    """
    key = order.digest_key.get_secret_value()
    found = await service.versions(caller_of(request), order.credential_ids, key=key)
    return raw_json(msgspec.json.encode({"credentials": found}))


@router.get(
    "/credentials/{credential_id}/document",
    dependencies=[may(Scope.CREDENTIALS_READ)],
    response_model=DocumentView,
    responses={
        200: links(
            "GET /credentials/{credential_id}/connector-config",
            credential_id="$request.path.credential_id",
        ),
        **problems(404, 422, 502, 503, 504),
    },
)
async def document(
    credential_id: CredentialId,
    request: Request,
    service: Service,
    source_type: Annotated[
        str,
        Query(
            min_length=1,
            max_length=100,
            pattern=r"^[^\x00-\x1f\x7f]*$",
            description="The source type that it is for; only recorded",
            examples=["Salesforce"],
        ),
    ],
) -> Response:
    """Get a credential's values as they are stored, with secrets in clear text.

    Values may be nested, and text. `naming` says what the store calls them. The token must name
    this credential (403 `wrong_credential`) and can be used once (401 `token_replayed`). The caller
    is recorded first. 503: the audit table or the store is unavailable. 404
    `credential_not_found`: the store has nothing for this credential. 422 `credential_invalid`:
    what it has is not a document; `variable` names where.
    """
    found = await service.document(caller_of(request), source_type, credential_id)
    answer = raw_json(msgspec.json.encode(found))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.get(
    "/credentials/{credential_id}/connector-config",
    dependencies=[may(Scope.CREDENTIALS_READ)],
    responses={
        200: _EXAMPLE
        | links(
            "GET /credentials/{credential_id}/connector-config",
            credential_id="$request.path.credential_id",
        ),
        **problems(404, 422, 502, 503, 504),
    },
)
async def connector_config(
    credential_id: CredentialId,
    request: Request,
    service: Service,
    response: Response,
    source_type: Annotated[
        Literal["Salesforce"], Query(description="The only source type that the broker checks")
    ] = "Salesforce",
) -> dict[str, Any]:
    """Get the Salesforce connector's configuration for a credential, checked and converted.

    As the credential's document; and 422 `credential_incomplete`: `variable` names the one that is
    missing.
    """
    response.headers["Cache-Control"] = "no-store"
    del source_type  # the value is checked, and there is only one
    return await service.salesforce_config(caller_of(request), credential_id)


def build(settings: BrokerSettings, environment: EnvironmentStore | None = None) -> FastAPI:
    """Create the application for these settings; `environment` replaces the process's own.

    Raises:
        SystemExit: the vault refuses the login permanently.
    """
    logs.set_up("auth_broker", level=settings.log_level)
    tracing.set_up("auth_broker", settings)
    db = Database.at(
        settings.registry_address,
        application="auth_broker",
        connections=settings.registry_connections,
    )
    stores: dict[StoreName, CredentialStore] = {
        "env": environment or EnvironmentStore.from_process()
    }
    if settings.credentials_dir is not None:
        stores["file"] = FileStore(settings.credentials_dir)
    vault = None if settings.vault_addr is None else VaultStore(settings)
    if vault is not None:
        stores["vault"] = vault
        _log_in(vault)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        renewing = None if vault is None else asyncio.create_task(vault.stay_logged_in())
        yield
        if vault is not None and renewing is not None:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            vault.close()
        await db.close()

    checks: dict[str, Check] = {name: store.ping for name, store in stores.items()}
    app = create_app(
        service="auth_broker",
        description="Gives the values of a credential. Internal only.",
        access=access_for("auth_broker", settings),
        body_deadline=settings.body_deadline,
        lifespan=lifespan,
        ready={"registry": db.ping, **checks},
    )
    app.state.db = db
    app.state.service = AuthBroker(stores, settings.credential_store, db)
    app.include_router(router)
    return app


def _log_in(vault: VaultStore) -> None:
    """Log in to the vault now; if it is unavailable, the login is retried when needed.

    Raises:
        SystemExit: the vault is available and refuses.
    """
    try:
        vault.log_in()
    except LoginRefused as error:
        raise SystemExit(error.detail) from None
    except Unavailable as error:
        log.warning("vault_unavailable_at_start", detail=error.detail)


def __getattr__(name: str) -> FastAPI:
    """Build `app` on first access, so that importing this module reads no environment."""
    if name != "app":
        raise AttributeError(name)
    harden()
    return build(load(BrokerSettings))
