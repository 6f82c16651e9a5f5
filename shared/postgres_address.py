"""Reads the URL of a Postgres, as Supabase's dashboard shows it or libpq takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import parse_qsl, unquote

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
_SSL_MODES: tuple[SslMode, ...] = get_args(SslMode)
_TRANSACTION_POOLER_PORT = 6543


@dataclass(frozen=True, slots=True, repr=False)
class PostgresAddress:
    """Where a Postgres is and how to log in, without a driver's dialect.

    `host` may be the folder of a Unix socket. `ssl_mode` has libpq's meanings; `ssl_root_cert` is
    the CA file, None where none was named.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_mode: SslMode
    ssl_root_cert: Path | None = None

    def __repr__(self) -> str:
        """Tell where, never as whom."""
        return f"PostgresAddress({self.host}:{self.port}/{self.database})"


def postgres_address(url: str) -> PostgresAddress:
    """Read a Postgres URL as Supabase's dashboard shows it.

    A password may hold `@`, `/` or `#` as pasted; percent escapes are decoded. A Unix socket is
    named as libpq does: its folder is the host, percent-encoded, or `host` among the parameters.

    Raises:
        ValueError: in one sentence, which never quotes the URL.
    """
    scheme, found, rest = url.strip().partition("://")
    if not found or scheme not in ("postgres", "postgresql"):
        raise ValueError("must start with postgresql://")
    account, _, place = rest.rpartition("@")
    user, _, password = account.partition(":")
    if "[YOUR-PASSWORD]" in password:
        raise ValueError("still holds the dashboard's placeholder instead of the password")
    place, _, query = place.partition("?")
    endpoint, _, database = place.partition("/")
    options = dict(parse_qsl(query))
    host, port = _host_and_port(endpoint, options)
    if port == _TRANSACTION_POOLER_PORT:
        raise ValueError(
            "names Supabase's transaction pooler (port 6543), which does not support sessions; "
            "use the direct connection or the session pooler, both on port 5432"
        )
    remote = host.endswith((".supabase.co", ".supabase.com"))
    ssl_mode = options.get("sslmode", "require" if remote else "prefer")
    root_cert = options.get("sslrootcert")
    return PostgresAddress(
        host=host,
        port=port,
        user=_unescaped(user) or "postgres",
        password=_unescaped(password),
        database=_unescaped(database) or "postgres",
        ssl_mode=_ssl_mode(ssl_mode),
        ssl_root_cert=Path(root_cert) if root_cert else None,
    )


def _unescaped(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        return part  # pasted as it is: what looks like escapes is no text


def _host_and_port(endpoint: str, options: Mapping[str, str]) -> tuple[str, int]:
    host, colon, port = endpoint.rpartition(":")
    if not colon or endpoint.endswith("]"):
        host, port = endpoint, ""
    host = _unescaped(host.strip("[]")) or options.get("host", "")
    if not host:
        raise ValueError("has no host")
    port = port or options.get("port", "")
    if not port:
        return host, 5432
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("has a port that is not a number from 1 to 65535")
    return host, int(port)


def _ssl_mode(value: str) -> SslMode:
    for mode in _SSL_MODES:
        if value == mode:
            return mode
    raise ValueError(f"has an unknown sslmode; it must be one of {', '.join(_SSL_MODES)}")
