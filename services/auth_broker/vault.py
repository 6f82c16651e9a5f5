"""Credentials from HashiCorp Vault or OpenBao: KV version 2, with an AppRole login.

The login's secret id is single-use and comes wrapped: if it is intercepted and unwrapped, the
broker's own login fails, which reveals the theft. The login's token lives for minutes and is
renewed while the process runs; secrets are never stored.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hvac
import requests
from hvac import exceptions

from services.auth_broker.settings import BrokerSettings
from services.auth_broker.stores import Stored, moment
from shared.credential_documents import Document, Naming
from shared.errors import AamError, Unavailable, UpstreamDenied
from shared.observability import logs

log = logs.get(__name__)

_TIMEOUT_S = 5.0
"""Timeout of one request to Vault."""
_SHORTEST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_AGAIN_AFTER_S = 5.0
"""How often a failed login is retried; a request for a credential retries it at once."""


class LoginRefused(AamError):
    """Vault refuses the login permanently: an operator must provide a new secret id."""

    status = 503
    title = "Unavailable"
    code = "store_unavailable"


class VaultStore:
    """Credentials from a vault; they are never cached."""

    def __init__(self, settings: BrokerSettings) -> None:
        """Create the store; nothing is sent before `log_in`."""
        self._mount = settings.vault_mount
        self._path = settings.vault_path
        self._approle = settings.vault_approle
        self._role_id = settings.vault_role_id
        self._secret_id_file = settings.vault_secret_id_file
        self._creation_path = f"auth/{self._approle}/role/{settings.vault_role}/secret-id"
        session = requests.Session()
        session.trust_env = False
        self._vault = hvac.Client(
            url=str(settings.vault_addr).rstrip("/"),
            token="",  # None would look for one in the environment and in the home folder
            verify=str(settings.vault_ca_file) if settings.vault_ca_file else True,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
            session=session,
            namespace=settings.vault_namespace,
        )
        self._logging_in = threading.Lock()
        self._is_logged_in = False
        self._lease_s = 0.0
        self._used_token = ""
        """The wrapping token that was tried last; it cannot be used again."""

    async def document(self, credential_id: str) -> Document:
        """The credential's values, as they are in the vault now; an empty one counts as missing.

        Raises:
            Unavailable: the vault is unavailable or sealed, or its token has expired.
            UpstreamDenied: the role's policy does not allow reading this credential.
        """
        return (await self.stored(credential_id)).document

    async def stored(self, credential_id: str) -> Stored:
        """The credential with its version, and the time at which the vault deletes that version.

        Raises:
            Unavailable, UpstreamDenied: as `document`.
        """
        return await asyncio.to_thread(self._read, credential_id)

    def naming(self, credential_id: str) -> Naming:
        """How the vault names the credential's values: the path below the mount, and the key."""
        return Naming(f"{self._path}/{credential_id}#", ".")

    async def ping(self) -> None:
        """Check that the vault answers, is not sealed, and accepts our token.

        Raises:
            LoginRefused, Unavailable: it does not.
        """
        await asyncio.to_thread(self._ping)

    def close(self) -> None:
        """Close the connections to the vault; the next call opens a new one."""
        self._vault.adapter.close()

    async def stay_logged_in(self) -> None:
        """Renew the token while the process runs; log in again with a new wrapped secret id."""
        while True:
            lease_s = min(max(self._lease_s / 2, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
            await asyncio.sleep(lease_s if self._is_logged_in else _AGAIN_AFTER_S)
            try:
                await asyncio.to_thread(self._renew)
            except AamError as error:
                log.warning("vault_token_not_renewed", code=error.code, detail=error.detail)

    def log_in(self) -> None:
        """Unwrap the secret id, after checking its origin, and log in with it.

        Raises:
            LoginRefused: there is no wrapping token, or it is used up or of another origin.
            Unavailable: the vault is unavailable or sealed; the wrapping token is still unused.
        """
        with self._logging_in:
            if self._is_logged_in:
                return
            token = self._wrapping_token()
            with _translated_errors():
                self._expect_made_by_our_role(token)
                self._used_token = self._vault.token = token
                try:
                    secret_id = self._vault.sys.unwrap()["data"]["secret_id"]
                    login = self._vault.auth.approle.login(
                        self._role_id, secret_id, mount_point=self._approle
                    )
                except (exceptions.InvalidRequest, exceptions.Forbidden, KeyError):
                    raise LoginRefused("Vault rejected the AppRole login.") from None
            self._lease_s = float(login["auth"]["lease_duration"])
            self._is_logged_in = True
            log.info("vault_logged_in", seconds=self._lease_s)

    def _wrapping_token(self) -> str:
        try:
            token = self._secret_id_file.read_text().strip() if self._secret_id_file else ""
        except (OSError, UnicodeDecodeError):
            token = ""
        if not token:
            raise LoginRefused("VAULT_SECRET_ID_FILE cannot be read or is empty.")
        if token == self._used_token:
            raise LoginRefused(
                "VAULT_SECRET_ID_FILE still contains the wrapping token that was already used."
            )
        return token

    def _expect_made_by_our_role(self, token: str) -> None:
        """Check the origin of the wrapping token before it is used up."""
        try:
            found = self._vault.adapter.post("/v1/sys/wrapping/lookup", json={"token": token})
            made_by = found["data"]["creation_path"]
        except (exceptions.InvalidRequest, exceptions.Forbidden, KeyError):
            raise LoginRefused(
                "Vault does not know the wrapping token in VAULT_SECRET_ID_FILE: it has expired, "
                "or was already unwrapped, here or by an unauthorized party."
            ) from None
        if made_by != self._creation_path:
            raise LoginRefused(
                "The wrapping token in VAULT_SECRET_ID_FILE was not created by "
                f"{self._creation_path}: it may have been replaced."
            )

    def _read(self, credential_id: str) -> Stored:
        with _translated_errors():
            self.log_in()
            try:
                found = self._vault.secrets.kv.v2.read_secret_version(
                    f"{self._path}/{credential_id}",
                    mount_point=self._mount,
                    raise_on_deleted_version=True,
                )
            except exceptions.InvalidPath:
                return Stored({})
            except exceptions.Forbidden:
                self._expect_live_token()
                raise UpstreamDenied(
                    f"Vault does not allow the auth_broker to read credential {credential_id}.",
                    code="store_denied",
                ) from None
        data: Mapping[str, Any] = found["data"]["data"]
        metadata: Mapping[str, Any] = found["data"].get("metadata") or {}
        return Stored(
            {name: value for name, value in data.items() if value not in ("", None)},
            version=_version(metadata),
            ends_at=moment(metadata.get("deletion_time")),
        )

    def _ping(self) -> None:
        with _translated_errors():
            self.log_in()
            self._expect_live_token()

    def _expect_live_token(self) -> None:
        """Check that our token is valid, after a request with it was refused.

        Raises:
            Unavailable: it has expired; the next request logs in again.
        """
        try:
            self._vault.auth.token.lookup_self()
        except exceptions.Forbidden:
            self._is_logged_in = False
            raise Unavailable("The Vault token has expired.", code="store_unavailable") from None

    def _renew(self) -> None:
        with _translated_errors():
            if not self._is_logged_in:
                self.log_in()
                return
            try:
                renewed = self._vault.auth.token.renew_self()
            except (exceptions.Forbidden, exceptions.InvalidRequest):
                self._expect_live_token()
                return
        self._lease_s = float(renewed["auth"]["lease_duration"])


def _version(metadata: Mapping[str, Any]) -> str | None:
    """A version that is not used again at this path, even if the credential was deleted."""
    number, created = metadata.get("version"), metadata.get("created_time")
    return f"{number} of {created}" if number and created else None


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Translate Vault and network errors into Unavailable; their messages are not passed on."""
    try:
        yield
    except exceptions.VaultDown:
        raise Unavailable("Vault is sealed.", code="store_unavailable") from None
    except (exceptions.VaultError, requests.RequestException) as error:
        log.warning("vault_unavailable", cause=type(error).__name__)
        raise Unavailable("Vault cannot be read at the moment.", code="store_unavailable") from None
