"""Stores of credentials in the environment and in files; each is read anew for each request.

A credential is a document: its values by name, which may be nested. Names and values are as they
are stored, mostly text; the orchestrator, which has the specification, converts them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
from dotenv import dotenv_values

from shared.credential_documents import EXPIRES_AT, MAX_DEPTH, Document, Naming
from shared.errors import Invalid, Unavailable

_LARGEST_FILE_BYTES = 64 * 1024
_MOST_FILES = 1000
_CONFIG = "config.json"
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,127}}|[0-9]{{1,4}}|{re.escape(_CONFIG)}")
"""The name of a file or folder that is part of a document; a number is a place in an array."""
_SETTINGS = frozenset({"CREDENTIAL_STORE"})
"""Settings whose name is like the variable of a credential."""


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """A credential as its store has it, with what the store itself says about it."""

    document: Document
    """Empty when it does not exist."""
    version: str | None = None
    """The store's own version; None where it has none."""
    ends_at: datetime | None = None
    """When the store deletes this version; None if it does not."""

    @property
    def expires_at(self) -> datetime | None:
        """When the credential expires, by its store or by the `expires_at` beside its values."""
        known = [one for one in (self.ends_at, moment(self.document.get(EXPIRES_AT))) if one]
        return min(known, default=None)


def moment(value: object) -> datetime | None:
    """An ISO 8601 date or time, which is UTC without a zone; None if it is neither."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


class CredentialStore(Protocol):
    """A credential store; values are not cached, so a change takes effect at once."""

    async def stored(self, credential_id: str) -> Stored:
        """The credential with its version and its end, where the store has them.

        Raises:
            Invalid, Unavailable, UpstreamDenied: as `document`.
        """

    async def document(self, credential_id: str) -> Document:
        """The credential's values; empty when it does not exist.

        Raises:
            Invalid: `credential_invalid`: it is not a document; `variable` names where.
            Unavailable: the store cannot be read now; the code is `store_unavailable`.
            UpstreamDenied: it does not allow reading this credential.
        """

    def naming(self, credential_id: str) -> Naming:
        """The store's own names of a credential's values."""

    async def ping(self) -> None:
        """Check that the store can be read now.

        Raises:
            Unavailable: it cannot be read.
        """


class EnvironmentStore:
    """Credentials from the environment, for a single machine and for trials.

    The id `salesforce-prod` reads CREDENTIAL_SALESFORCE_PROD__CLIENT_ID and its siblings, with a
    further `__` for each level of nesting, or one JSON object in CREDENTIAL_SALESFORCE_PROD. An id
    with two consecutive hyphens, or one at its end, is refused: its variables would be another
    credential's nested ones.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    @classmethod
    def from_process(cls) -> EnvironmentStore:
        """The process's environment, which overrides a `.env` file where there is one."""
        file = Path(".env")
        written = dotenv_values(file) if file.is_file() else {}
        return cls({name: value for name, value in written.items() if value} | dict(os.environ))

    async def stored(self, credential_id: str) -> Stored:
        """The credential; the store has no versions.

        Raises:
            Invalid: as `document`.
        """
        return Stored(await self.document(credential_id))

    async def document(self, credential_id: str) -> Document:
        """The credential's values, with names in lower case; an empty one counts as missing.

        Raises:
            Invalid: the id is ambiguous in an environment, or the variables contradict each other.
        """
        if "--" in credential_id or credential_id.endswith("-"):
            raise Invalid(
                "In the store env, a credential id must not end with a hyphen or contain two "
                "consecutive ones: its variables would be read as another credential's.",
                code="invalid_credential_id",
            )
        prefix = variable_prefix(credential_id)
        whole = prefix.removesuffix("__")
        found: dict[str, Any] = {}
        for name in sorted(self._environment):
            value = self._environment[name]
            if not (name.startswith(prefix) and value):
                continue
            steps = name.removeprefix(prefix).lower().split("__")
            # An underscore at the edge belongs to no name: it is not clear where the name begins.
            if all(step and step.strip("_") == step for step in steps):
                _put(found, steps, value, variable=name)
        text = self._environment.get(whole)
        if not text or whole in _SETTINGS:
            return found
        if found:
            raise _invalid(whole, f"{whole} and {prefix}… are both set: use one of them.")
        return _parsed(text.encode(), whole)

    def naming(self, credential_id: str) -> Naming:
        """The names of the environment variables."""
        return Naming(variable_prefix(credential_id), "__", is_upper=True)

    async def ping(self) -> None:
        """The environment is always readable."""


def variable_prefix(credential_id: str) -> str:
    """The prefix of the names of a credential's variables."""
    return f"CREDENTIAL_{credential_id.upper().replace('-', '_')}__"


def _put(found: dict[str, Any], steps: list[str], value: str, *, variable: str) -> None:
    """Add a value to a document.

    Raises:
        Invalid: its place has another value, or is nested too deep.
    """
    if len(steps) > MAX_DEPTH:
        raise _invalid(variable, f"{variable} is nested more than {MAX_DEPTH} deep.")
    *outer, last = steps
    for step in outer:
        inner = found.setdefault(step, {})
        if not isinstance(inner, dict):
            raise _invalid(variable, f"{variable} is below a variable that has a value itself.")
        found = inner
    if last in found:
        raise _invalid(variable, f"{variable} has a value, and variables below it, too.")
    found[last] = value


def _parsed(text: bytes, variable: str) -> Document:
    """A document from one JSON text.

    Raises:
        Invalid: it is not a JSON object, or nested too deep.
    """
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid(variable, f"{variable} is not valid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid(variable, f"{variable} is not a JSON object.")
    return document


def _invalid(variable: str, detail: str) -> Invalid:
    return Invalid(detail, code="credential_invalid", variable=variable)


class FileStore:
    """Credentials from files, as Docker and Kubernetes mount secrets.

    A credential is a folder, a value a file in it: `<folder>/salesforce-prod/client_id`. A folder
    in it is one level of nesting. Instead, it may have one file `config.json` with all values.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def stored(self, credential_id: str) -> Stored:
        """The credential; the store has no versions.

        Raises:
            Invalid, Unavailable: as `document`.
        """
        return Stored(await self.document(credential_id))

    async def document(self, credential_id: str) -> Document:
        """The credential's values; an empty file counts as missing.

        Raises:
            Invalid: its `config.json` is not a JSON object, or not its only file.
            Unavailable: a file cannot be read, is too large, not text, or links out of the folder.
        """
        return await asyncio.to_thread(self._document, credential_id)

    def naming(self, credential_id: str) -> Naming:
        """The paths of the files, relative to the store's folder."""
        return Naming(f"{credential_id}/", "/")

    async def ping(self) -> None:
        """Check that the folder exists."""
        if not await asyncio.to_thread(self._folder.is_dir):
            raise _unreadable("The credentials directory does not exist.")

    def _document(self, credential_id: str) -> Document:
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

    def _once(self, credential_id: str) -> Document:
        """A consistent set of values: links are resolved once, for the whole folder."""
        root = self._folder.resolve(strict=True)
        folder = root / credential_id
        if not folder.is_dir():
            return {}
        current = folder / "..data"
        named = current if current.is_symlink() or current.is_dir() else folder
        real = named.resolve(strict=True)
        found: dict[str, Any] = {}
        for steps, text in _files(real, root, (), iter(range(_MOST_FILES))):
            if text:
                _put(found, list(steps), text, variable=f"{credential_id}/{'/'.join(steps)}")
        if named.resolve(strict=True) != real:
            raise FileNotFoundError  # it may have been deleted while it was read
        whole = found.pop(_CONFIG, None)
        if whole is None:
            return found
        variable = f"{credential_id}/{_CONFIG}"
        if found:
            raise _invalid(variable, f"{variable} is not the only file: use it, or the others.")
        return _parsed(whole.encode(), variable)


def _files(
    folder: Path, root: Path, above: tuple[str, ...], budget: Iterator[int]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each file in a folder and the folders in it, by its steps, with its text.

    Raises:
        ValueError: it is outside the root, too deep, or something else than files and folders.
    """
    if not folder.is_relative_to(root):
        raise ValueError("a symbolic link leads outside the directory")
    if len(above) >= MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    for entry in sorted(folder.iterdir()):
        if not _NAME.fullmatch(entry.name):
            continue
        if next(budget, None) is None:
            raise ValueError(f"it has more than {_MOST_FILES} files and folders")
        real = entry.resolve(strict=True)
        if real.is_relative_to(root) and real.is_dir():
            yield from _files(real, root, (*above, entry.name), budget)
        else:
            yield (*above, entry.name), _text(entry, root)


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
