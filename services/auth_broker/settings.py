"""Settings of the auth_broker: its credential stores and their logins."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, HttpUrl, model_validator

from shared.config import Optional, RegistrySettings, is_loopback

StoreName = Literal["env", "file", "vault"]
_PATH = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"


class BrokerSettings(RegistrySettings):
    """Settings of the auth_broker; no other process loads a credential."""

    credential_store: StoreName = "env"
    """Default store, for credential ids without a store's prefix, as in `vault:salesforce-prod`."""

    credentials_dir: Optional[Path] = None
    """Folder of the store `file`: a folder for each credential, with a file for each value."""

    vault_addr: Optional[HttpUrl] = None
    """URL of HashiCorp Vault or OpenBao, for the store `vault`; https, except on this machine.

    Set together with VAULT_ROLE, VAULT_ROLE_ID and VAULT_SECRET_ID_FILE.
    """

    vault_ca_file: Optional[Path] = None
    """CA certificate to verify Vault's server with. Not set: the CAs that this machine trusts."""

    vault_namespace: Optional[str] = None
    """Vault namespace, if Vault uses namespaces."""

    vault_mount: str = Field(default="secret", pattern=_PATH)
    """Mount path of the KV version 2 secrets engine."""

    vault_path: str = Field(default="aam", pattern=_PATH)
    """Path in that engine below which the credentials are: `aam/salesforce-prod`."""

    vault_approle: str = Field(default="approle", pattern=_PATH)
    """Mount path of the AppRole auth method."""

    vault_role: Optional[str] = Field(default=None, pattern=_PATH)
    """Name of the AppRole role to log in with."""

    vault_role_id: Optional[str] = None
    """Id of that role; not a secret by itself."""

    vault_secret_id_file: Optional[Path] = None
    """File with the wrapping token of a single-use secret id of that role."""

    @model_validator(mode="after")
    def _stores_are_complete(self) -> Self:
        if self.credentials_dir is not None and not self.credentials_dir.is_dir():
            raise ValueError("CREDENTIALS_DIR is not a directory")
        vault = (self.vault_addr, self.vault_role, self.vault_role_id, self.vault_secret_id_file)
        if any(vault) and not all(vault):
            raise ValueError(
                "VAULT_ADDR, VAULT_ROLE, VAULT_ROLE_ID and VAULT_SECRET_ID_FILE go together: set "
                "all of them or none"
            )
        if self.credential_store == "file" and self.credentials_dir is None:
            raise ValueError("CREDENTIAL_STORE=file requires CREDENTIALS_DIR")
        if self.credential_store == "vault" and self.vault_addr is None:
            raise ValueError("CREDENTIAL_STORE=vault requires VAULT_ADDR")
        return self

    @model_validator(mode="after")
    def _vault_url_is_https(self) -> Self:
        if self.vault_ca_file is not None and not self.vault_ca_file.is_file():
            raise ValueError("VAULT_CA_FILE is not a file")
        address = self.vault_addr
        if address is not None and address.scheme != "https" and not is_loopback(_host(address)):
            raise ValueError("VAULT_ADDR must be https, unless it is on this machine")
        return self


def _host(address: HttpUrl) -> str:
    return (address.host or "").strip("[]")
