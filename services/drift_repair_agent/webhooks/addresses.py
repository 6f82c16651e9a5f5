"""Restrict the IP addresses that webhook messages may be sent to (SSRF protection)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_METADATA = ipaddress.ip_address("fd00:ec2::254")
LOOPBACK = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """A receiver's address may not be called."""


class AllowedAddresses:
    """The addresses that may be called: public ones, and those of the named networks."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks

    def expect(self, address: Address) -> None:
        """Check that an address may be called.

        Raises:
            AddressRefused: it may not.
        """
        meant = _embedded(address)
        if is_never_called(meant) or not (
            meant.is_global or any(meant in network for network in self._networks)
        ):
            raise AddressRefused("This address must not be called.")

    def expect_any(self, addresses: Sequence[Address]) -> None:
        """Check that at least one of a host's addresses may be called.

        Raises:
            AddressRefused: none may.
        """
        for address in addresses[:-1]:
            with suppress(AddressRefused):
                self.expect(address)
                return
        self.expect(addresses[-1])


class ReachableOnly(AbstractResolver):
    """Resolves names, and raises if an address may not be called.

    The connection uses the checked addresses, so that a second lookup cannot change them.
    """

    def __init__(self, reach: AllowedAddresses) -> None:
        """Must be created within a running event loop."""
        self._reach = reach
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name to its addresses.

        Raises:
            AddressRefused: one of them may not be called.
        """
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            self._reach.expect(ipaddress.ip_address(one["host"]))
        return found

    async def close(self) -> None:
        """Close the underlying resolver."""
        await self._resolver.close()


def is_never_called(address: Address) -> bool:
    """Whether no receiver can be there; clouds serve credentials at link-local addresses."""
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _METADATA
    )


def is_localhost(host: str) -> bool:
    """Whether a name always means this machine, whatever DNS says (RFC 6761)."""
    return host.lower() == "localhost" or host.lower().endswith(".localhost")


def written(host: str) -> Address | None:
    """Parse a host as an IP address, in any form that resolvers accept; None if it is a name."""
    try:
        return _embedded(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # Also accepts forms such as 0xA9FEA9FE, 2852039166 and 169.254.43518.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _embedded(address: Address) -> Address:
    """The IPv4 address that is embedded in an IPv6 one (NAT64, mapped or 6to4), else `address`."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
