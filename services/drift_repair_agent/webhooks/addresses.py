"""Which addresses a webhook's message may go to, whatever a URL or a name server says."""

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
    """A receiver's address is none that may be called."""


class Reach:
    """The addresses that may be called: public ones, and those of the named networks."""

    def __init__(self, networks: Sequence[Network] = ()) -> None:
        self._networks = networks

    def expect(self, address: Address) -> None:
        """See that an address may be called.

        Raises:
            AddressRefused: it may not.
        """
        meant = _embedded(address)
        if is_never_called(meant) or not (
            meant.is_global or any(meant in network for network in self._networks)
        ):
            raise AddressRefused("The address is none that may be called.")

    def expect_any(self, addresses: Sequence[Address]) -> None:
        """See that one of the addresses of a host may be called.

        Raises:
            AddressRefused: none may.
        """
        for address in addresses[:-1]:
            with suppress(AddressRefused):
                self.expect(address)
                return
        self.expect(addresses[-1])


class ReachableOnly(AbstractResolver):
    """Resolves a name to addresses that are called then as they are, or to none at all."""

    def __init__(self, reach: Reach) -> None:
        """For the running event loop."""
        self._reach = reach
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name.

        Raises:
            AddressRefused: one of them may not be called.
        """
        found = await self._resolver.resolve(host, port, family)
        for one in found:
            self._reach.expect(ipaddress.ip_address(one["host"]))
        return found

    async def close(self) -> None:
        """Close nothing."""
        await self._resolver.close()


def is_never_called(address: Address) -> bool:
    """Whether nothing that is meant can be there: clouds tell secrets at link-local addresses."""
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address == _METADATA
    )


def is_localhost(host: str) -> bool:
    """Whether a name is this machine's, whatever a name server says (RFC 6761)."""
    return host.lower() == "localhost" or host.lower().endswith(".localhost")


def written(host: str) -> Address | None:
    """The address that a host is, in any of the forms that a resolver takes for one."""
    try:
        return _embedded(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # 0xA9FEA9FE, 2852039166 and 169.254.43518 are addresses, too.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _embedded(address: Address) -> Address:
    """The IPv4 address that is reached by an IPv6 one, where that is how it is made."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
