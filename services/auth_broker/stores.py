"""Credential stores: the environment, a folder of files, a vault; read anew for each request."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dotenv import dotenv_values

from shared.errors import Unavailable

_LARGEST_FILE_BYTES = 64 * 1024
_VARIABLE = re.compile(r"[a-z][a-z0-9_]*")


class CredentialStore(Protocol):
    """A credential store; values are not cached, so a change takes effect at once."""

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables by name in lower case; empty when it does not exist.

        Raises:
            Unavailable: the store cannot be read now; the code is `store_unavailable`.
            UpstreamDenied: it does not allow reading this credential.
        """

    def name_of(self, credential_id: str, variable: str) -> str:
        """The store's own name for one variable of a credential."""

    async def ping(self) -> None:
        """Check that the store can be read now.

        Raises:
            Unavailable: it cannot be read.
        """


class EnvironmentStore:
    """Credentials from `CREDENTIAL_<ID>__<VARIABLE>`, for a single machine and for trials.

    The id `salesforce-prod` reads CREDENTIAL_SALESFORCE_PROD__CLIENT_ID and its siblings.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @classmethod
    def from_process(cls) -> EnvironmentStore:
        """The process's environment, which overrides a `.env` file where there is one."""
        file = Path(".env")
        written = dotenv_values(file) if file.is_file() else {}
        return cls({name: value for name, value in written.items() if value} | dict(os.environ))

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables; an empty one counts as missing."""
        prefix = variable_prefix(credential_id)
        return {
            name.removeprefix(prefix).lower(): value
            for name, value in self._environment.items()
            # Another double underscore belongs to a longer id, such as `a--b` beside `a`.
            if name.startswith(prefix) and "__" not in name[len(prefix) - 1 :] and value
        }

    def name_of(self, credential_id: str, variable: str) -> str:
        """The name of the environment variable."""
        return variable_prefix(credential_id) + variable.upper()

    async def ping(self) -> None:
        """The environment is always readable."""


def variable_prefix(credential_id: str) -> str:
    """The prefix of the names of a credential's variables."""
    return f"CREDENTIAL_{credential_id.upper().replace('-', '_')}__"


class FileStore:
    """Credentials from files, as Docker and Kubernetes mount secrets.

    A credential is a folder, a variable a file in it: `<folder>/salesforce-prod/client_id`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables; an empty file counts as missing.

        Raises:
            Unavailable: a file cannot be read, is too large, not text, or links out of the folder.
        """
        return await asyncio.to_thread(self._variables, credential_id)

    def name_of(self, credential_id: str, variable: str) -> str:
        """The path of the file, relative to the store's folder."""
        return f"{credential_id}/{variable}"

    async def ping(self) -> None:
        """Check that the folder exists."""
        if not await asyncio.to_thread(self._folder.is_dir):
            raise _unreadable("The credentials directory does not exist.")

    def _variables(self, credential_id: str) -> Mapping[str, str]:
        # Kubernetes updates a secret by repointing one link and deleting its old target.
        for _ in range(5):
            try:
                return self._once(credential_id)
            except FileNotFoundError:
                continue
            except OSError:
                break
            except ValueError as error:
                raise _unreadable(f"Credential {credential_id} cannot be read: {error}.") from None
        raise _unreadable(f"The files of credential {credential_id} cannot be read.")

    def _once(self, credential_id: str) -> Mapping[str, str]:
        """A consistent set of variables: links are resolved once, for the whole folder."""
        root = self._folder.resolve(strict=True)
        folder = root / credential_id
        if not folder.is_dir():
            return {}
        current = folder / "..data"
        named = current if current.is_symlink() or current.is_dir() else folder
        real = named.resolve(strict=True)
        found = {
            file.name: _text(file, root)
            for file in sorted(real.iterdir())
            if _VARIABLE.fullmatch(file.name)
        }
        if named.resolve(strict=True) != real:
            raise FileNotFoundError  # it may have been deleted while it was read
        return {name: value for name, value in found.items() if value}


def _text(file: Path, root: Path) -> str:
    """A file's content without a trailing newline, which editors add.

    Raises:
        ValueError: it is outside the root, not a plain file, too large, or not text.
    """
    real = file.resolve(strict=True)
    if not real.is_relative_to(root):
        raise ValueError("a symbolic link leads outside the directory")
    if not real.is_file():
        raise ValueError("it contains something other than files")
    with real.open("rb") as opened:
        content = opened.read(_LARGEST_FILE_BYTES + 1)
    if len(content) > _LARGEST_FILE_BYTES:
        raise ValueError(f"a file is larger than {_LARGEST_FILE_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("a file is not UTF-8 text") from None


def _unreadable(detail: str) -> Unavailable:
    return Unavailable(detail, code="store_unavailable")
