"""Where credentials live: the environment, a folder of files, a vault. Each is read when asked."""

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
    """Where credentials live. Nothing is kept of what was read: a change counts at once."""

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables by name in small letters; empty when there is no such one.

        Raises:
            Unavailable: the store cannot be read now; the code is `store_unavailable`.
            UpstreamDenied: it refuses to show this credential.
        """

    def name_of(self, credential_id: str, variable: str) -> str:
        """How whoever keeps the store calls one variable of a credential."""

    async def ping(self) -> None:
        """See that it can be read now.

        Raises:
            Unavailable: it cannot.
        """


class EnvironmentStore:
    """Credentials from `CREDENTIAL_<ID>__<VARIABLE>`, for one machine and for trying things out.

    The id `salesforce-prod` reads CREDENTIAL_SALESFORCE_PROD__CLIENT_ID and its siblings.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @classmethod
    def from_process(cls) -> EnvironmentStore:
        """The process's environment, over a `.env` file where there is one."""
        file = Path(".env")
        written = dotenv_values(file) if file.is_file() else {}
        return cls({name: value for name, value in written.items() if value} | dict(os.environ))

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables; one that is set to nothing counts as missing."""
        prefix = variable_prefix(credential_id)
        return {
            name.removeprefix(prefix).lower(): value
            for name, value in self._environment.items()
            # What has two underscores later on belongs to a longer id, such as `a--b` beside `a`.
            if name.startswith(prefix) and "__" not in name[len(prefix) - 1 :] and value
        }

    def name_of(self, credential_id: str, variable: str) -> str:
        """The environment variable."""
        return variable_prefix(credential_id) + variable.upper()

    async def ping(self) -> None:
        """The environment is always there."""


def variable_prefix(credential_id: str) -> str:
    """What the names of a credential's variables start with."""
    return f"CREDENTIAL_{credential_id.upper().replace('-', '_')}__"


class FileStore:
    """Credentials from files, as Docker and Kubernetes mount secrets.

    A credential is a folder, a variable a file in it: `<folder>/salesforce-prod/client_id`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def variables(self, credential_id: str) -> Mapping[str, str]:
        """The credential's variables; a file with nothing in it counts as missing.

        Raises:
            Unavailable: a file cannot be read, is too large, no text, or a link out of the folder.
        """
        return await asyncio.to_thread(self._variables, credential_id)

    def name_of(self, credential_id: str, variable: str) -> str:
        """The file, below the store's folder."""
        return f"{credential_id}/{variable}"

    async def ping(self) -> None:
        """See that the folder is there."""
        if not await asyncio.to_thread(self._folder.is_dir):
            raise _unreadable("The folder of credentials is not there.")

    def _variables(self, credential_id: str) -> Mapping[str, str]:
        # Kubernetes changes a secret by pointing one link elsewhere and deleting what it led to.
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
        """All variables of one moment: the links are followed once, for the whole folder."""
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
    """A file's content without its last line's end, which editors add.

    Raises:
        ValueError: it is not in the root, is no plain file, is too large, or no text.
    """
    real = file.resolve(strict=True)
    if not real.is_relative_to(root):
        raise ValueError("a link leads out of the folder")
    if not real.is_file():
        raise ValueError("something there is no file")
    with real.open("rb") as opened:
        content = opened.read(_LARGEST_FILE_BYTES + 1)
    if len(content) > _LARGEST_FILE_BYTES:
        raise ValueError(f"a file is larger than {_LARGEST_FILE_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError("a file is no UTF-8 text") from None


def _unreadable(detail: str) -> Unavailable:
    return Unavailable(detail, code="store_unavailable")
