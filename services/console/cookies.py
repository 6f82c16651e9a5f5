"""The console's cookies: the session, in one cookie or split over two, and preferences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from zoneinfo import ZoneInfo

from services.console.text import zone_of

PART_CHARS: Final = 3_800
"""The longest value of one cookie: browsers refuse 4,096 bytes with name and attributes."""
PARTS: Final = 2

SIGN_IN_S: Final = 300
"""How long somebody may take to sign in at the issuer."""

THEMES: Final = ("system", "light", "dark")
TIMES: Final = ("utc", "local", "relative")
ZONE_COOKIE: Final = "aam-zone"
KEYS: Final = ("on", "off")
_PREFERENCES: Final = {"theme": THEMES, "time": TIMES, "keys": KEYS}
Preference = Literal["theme", "time", "keys"]
_YEAR_S: Final = 365 * 24 * 3600


class CookieTooLarge(Exception):
    """A session's credential is too long for the cookies."""


@dataclass(frozen=True, slots=True)
class Cookies:
    """The names and attributes of the cookies of this installation.

    Over https the session has the prefix `__Host-`: no other host and no page over plain http can
    set it.
    """

    is_secure: bool

    @property
    def session_name(self) -> str:
        """The name of the session's first cookie."""
        return "__Host-aam" if self.is_secure else "aam-local"

    def session(self, given: Mapping[str, str]) -> str | None:
        """The sealed session of a request's cookies; None without one."""
        count, _, text = given.get(self.session_name, "").partition(".")
        if not text or count not in ("1", "2"):
            return None
        return text if count == "1" else text + given.get(f"{self.session_name}-2", "")

    def set_session(self, sealed: str) -> list[str]:
        """The `Set-Cookie` values that store a sealed session.

        Raises:
            CookieTooLarge: it needs more than two cookies.
        """
        parts = [sealed[at : at + PART_CHARS] for at in range(0, len(sealed), PART_CHARS)]
        if len(parts) > PARTS:
            raise CookieTooLarge
        second = self._cookie(f"{self.session_name}-2", parts[1] if len(parts) > 1 else None)
        return [self._cookie(self.session_name, f"{len(parts)}.{parts[0]}"), second]

    def delete_session(self) -> list[str]:
        """The `Set-Cookie` values that delete it."""
        return [self._cookie(name, None) for name in self.session_names()]

    def session_names(self) -> Iterator[str]:
        """The names of the session's cookies."""
        yield self.session_name
        yield f"{self.session_name}-2"

    def sign_in(self, given: Mapping[str, str]) -> str | None:
        """The sealed sign-in of a request's cookies that is under way at the issuer."""
        return given.get(f"{self.session_name}-sign-in")

    def set_sign_in(self, sealed: str | None) -> str:
        """The `Set-Cookie` value that stores one for five minutes; None deletes it."""
        return self._cookie(f"{self.session_name}-sign-in", sealed, lifetime_s=SIGN_IN_S)

    def set_preference(self, name: Preference, value: str) -> str:
        """The `Set-Cookie` value that stores a preference."""
        return self._cookie(f"aam-{name}", value, lifetime_s=_YEAR_S)

    def preference(self, given: Mapping[str, str], name: Preference) -> str:
        """A preference of a request's cookies, or its default."""
        known = _PREFERENCES[name]
        value = given.get(f"aam-{name}", "")
        return value if value in known else known[0]

    def set_zone(self, zone: str) -> str:
        """The `Set-Cookie` value that stores the name of a time zone."""
        return self._cookie(ZONE_COOKIE, zone, lifetime_s=_YEAR_S)

    def zone(self, given: Mapping[str, str]) -> ZoneInfo | None:
        """The time zone of a request's cookies; None if times are shown otherwise."""
        is_local = self.preference(given, "time") == "local"
        return zone_of(given.get(ZONE_COOKIE, "")) if is_local else None

    def _cookie(self, name: str, value: str | None, *, lifetime_s: int | None = None) -> str:
        attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self.is_secure else "")
        if value is None:
            return f"{name}={attributes}; Max-Age=0"
        kept = "" if lifetime_s is None else f"; Max-Age={lifetime_s}"
        return f"{name}={value}{attributes}{kept}"
