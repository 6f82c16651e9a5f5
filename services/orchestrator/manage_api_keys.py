"""Manage API keys by hand: `python -m services.orchestrator.manage_api_keys make --owner Ada`.

`make`, `list` and `revoke` are for administrators. `set-up` prepares an installation once: it
creates the services' signing keys and the first API key. Anything that exists is left unchanged.
On Kubernetes, `kubernetes-secrets` prints the Secrets with these and all other keys, without a
registry, and `record-first-key` records the first API key that is in one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession

from services.orchestrator.kubernetes_secrets import secrets_list
from services.orchestrator.labels import LabelName
from shared import registry
from shared.auth.api_keys import NewKey, make_key, parse_key, record_key
from shared.auth.scopes import KEY_SCOPES, SERVICE_CALLS, Scope
from shared.auth.service_tokens import BadKey, make_pair
from shared.config import Settings, load
from shared.database import Database
from shared.errors import AamError
from shared.http.strict_json import Name
from shared.observability import logs

BY_HAND = "manage_api_keys"
_MOST_DAYS = 36_500
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_LIMITED_SCOPES = tuple(scope for scope in KEY_SCOPES if scope is not Scope.ADMIN)

_LISTED = 10_000
"""Maximum number of keys listed at once."""


async def _in_registry(work: Callable[[AsyncSession, Settings], Awaitable[str]]) -> str:
    settings = load(Settings)
    logs.set_up("manage_api_keys", level="ERROR")
    db = Database.at(settings.registry_address, application="manage_api_keys")
    try:
        async with db.transaction() as session:
            return await work(session, settings)
    finally:
        await db.close()


async def _make(given: argparse.Namespace) -> str:
    async def make(session: AsyncSession, settings: Settings) -> str:
        days = given.expires_in_days
        made = await make_key(
            session,
            environment=settings.key_environment,
            owner=given.owner,
            scopes=sorted(set(given.scope or (_LIMITED_SCOPES if given.label else KEY_SCOPES))),
            labels=given.label,
            created_by=BY_HAND,
            expires_at=None if days is None else datetime.now(UTC) + timedelta(days=days),
        )
        return made.key

    return await _in_registry(make)


async def _list(given: argparse.Namespace) -> str:
    async def keys(session: AsyncSession, _settings: Settings) -> str:
        page = await registry.page_of_keys(session, revoked=given.all, after=None, limit=_LISTED)
        return msgspec.json.format(page, indent=2)

    return await _in_registry(keys)


async def _revoke(given: argparse.Namespace) -> str:
    async def revoke(session: AsyncSession, _settings: Settings) -> str:
        await registry.revoke_key(session, given.id)
        return f"{given.id} is revoked; every service rejects it within five seconds."

    return await _in_registry(revoke)


async def _set_up(given: argparse.Namespace) -> str:
    """Create the services' signing keys and the first API key, where they are missing."""
    for service in sorted({caller for caller, _ in SERVICE_CALLS}):
        make_pair(service, given.private / service / f"{service}.pem", given.public)

    async def first(session: AsyncSession, settings: Settings) -> str:
        await registry.lock_key_creation(session)
        if await registry.has_valid_key(session):
            return "A key already exists."
        made = await make_key(
            session,
            environment=settings.key_environment,
            owner="first",
            scopes=KEY_SCOPES,
            created_by=BY_HAND,
        )
        # Before the commit: a committed key whose file is missing would block the next run.
        _leave(given.first_key, f"Authorization: Bearer {made.key}\n")
        return f"The first key is in {given.first_key}."

    return await _in_registry(first)


async def _kubernetes_secrets(given: argparse.Namespace) -> str:
    """Print the Secrets of a new installation; nothing is read or written."""
    made = secrets_list(given.name, environment=given.environment)
    return msgspec.json.format(msgspec.json.encode(made), indent=2).decode()


async def _record_first_key(given: argparse.Namespace) -> str:
    """Record the API key in a file, unless a valid key exists or this one was revoked."""
    key = _header_key(given.first_key)

    async def record(session: AsyncSession, _settings: Settings) -> str:
        await registry.lock_key_creation(session)
        if await registry.has_valid_key(session) or await registry.has_key(session, key.id):
            return "A key already exists."
        await record_key(session, key, owner="first", scopes=KEY_SCOPES, created_by=BY_HAND)
        return f"The key {key.id} is recorded."

    return await _in_registry(record)


def _header_key(file: Path) -> NewKey:
    """The key in a file that holds an Authorization header.

    Raises:
        SystemExit: it cannot be read, or holds something else.
    """
    try:
        text = file.read_text()
    except OSError as error:
        raise SystemExit(f"manage_api_keys: {file} cannot be read: {error.strerror}") from None
    key = parse_key(text.strip().removeprefix("Authorization: Bearer "))
    if key is None:
        raise SystemExit(f"manage_api_keys: {file} does not hold an API key.")
    return key


def _leave(file: Path, text: str) -> None:
    """Write a file atomically, readable only by the current user."""
    half_done = file.with_suffix(".new")
    half_done.unlink(missing_ok=True)
    with os.fdopen(os.open(half_done, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    half_done.rename(file)


def _owner(given: str) -> str:
    owner: str = TypeAdapter(Name).validate_python(given)
    return owner


def _label(given: str) -> tuple[str, str]:
    name, is_given, value = given.partition("=")
    if not is_given:
        raise ValueError
    return TypeAdapter(LabelName).validate_python(name), TypeAdapter(Name).validate_python(value)


class _OncePerName(argparse.Action):
    """Collects labels; a key has one value of each."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        name, value = values
        known: dict[str, str] = getattr(namespace, self.dest)
        if name in known:
            raise argparse.ArgumentError(self, f"two values of the label {name!r}")
        setattr(namespace, self.dest, known | {name: value})


def _days(given: str) -> int:
    days = int(given)
    if not 0 < days <= _MOST_DAYS:
        raise ValueError
    return days


def _object_name(given: str) -> str:
    if not _OBJECT_NAME.fullmatch(given):
        raise ValueError
    return given


def _environment(given: str) -> str:
    if not re.fullmatch(r"[a-z0-9]{1,16}", given):
        raise ValueError
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="manage_api_keys", description=__doc__)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="create a key, and print it once")
    make.add_argument("--owner", type=_owner, required=True, help="the owner's name")
    make.add_argument(
        "--scope",
        action="append",
        choices=[*KEY_SCOPES],
        help="default: all, without admin if it is limited by a label",
    )
    make.add_argument(
        "--label",
        action=_OncePerName,
        type=_label,
        default={},
        metavar="NAME=VALUE",
        help="limit it to connections with this label, and with every other one given",
    )
    make.add_argument("--expires-in-days", type=_days, help="default: never")
    make.set_defaults(run=_make)
    listed = commands.add_parser("list", help="list the keys")
    listed.add_argument("--all", action="store_true", help="include revoked keys")
    listed.set_defaults(run=_list)
    revoke = commands.add_parser("revoke", help="revoke a key permanently")
    revoke.add_argument("id", help="the id of the key: its eight characters in the middle")
    revoke.set_defaults(run=_revoke)
    set_up = commands.add_parser("set-up", help="create the keys that an installation is missing")
    set_up.add_argument(
        "--private", type=Path, required=True, help="directory for the services' private keys"
    )
    set_up.add_argument(
        "--public", type=Path, required=True, help="directory for their public keys"
    )
    set_up.add_argument(
        "--first-key",
        type=Path,
        required=True,
        help="file for an Authorization header with the first key",
    )
    set_up.set_defaults(run=_set_up)
    printed = commands.add_parser(
        "kubernetes-secrets",
        help="print Secrets with every key that a new installation on Kubernetes needs",
    )
    printed.add_argument(
        "--name", type=_object_name, default="aam", help="prefix of the Secrets' names (aam)"
    )
    printed.add_argument(
        "--environment",
        type=_environment,
        default="live",
        help="word in the first API key, as KEY_ENVIRONMENT (live)",
    )
    printed.set_defaults(run=_kubernetes_secrets)
    record = commands.add_parser(
        "record-first-key", help="record an API key from a file, if no valid key exists"
    )
    record.add_argument(
        "--first-key", type=Path, required=True, help="file with an Authorization header"
    )
    record.set_defaults(run=_record_first_key)
    return parser


def main() -> None:
    """Run the command; print its one-line result, or exit with a one-line error."""
    given = _parser().parse_args()
    try:
        result = asyncio.run(given.run(given))
    except (AamError, BadKey) as error:
        sys.exit(f"manage_api_keys: {error}")
    except OSError as error:
        sys.exit(f"manage_api_keys: {error.filename} cannot be written: {error.strerror}")
    sys.stdout.write(f"{result}\n")


if __name__ == "__main__":
    main()
