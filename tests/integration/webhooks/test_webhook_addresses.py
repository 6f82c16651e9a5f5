"""Which addresses are called."""

from __future__ import annotations

from ipaddress import ip_address
from uuid import uuid4

import pytest
from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from services.drift_repair_agent.webhooks.addresses import AddressRefused, AllowedAddresses, written
from services.drift_repair_agent.webhooks.sender import Sender
from shared.config import networks
from tests.integration.receivers import Receiver
from tests.integration.webhooks.stage import (
    HERE,
)

REFUSED = [
    "127.0.0.1",
    "10.0.0.7",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fd12:3456::1",
    "ff02::1",
    "::ffff:10.0.0.7",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a00:7",
    "2002:a00:7::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_called(address: str) -> None:
    """Non-public ones, in any form; metadata addresses whatever the setting."""
    with pytest.raises(AddressRefused):
        AllowedAddresses().expect(ip_address(address))
    every = AllowedAddresses(networks("0.0.0.0/0, ::/0"))
    if str(written(address)) in ("169.254.169.254", "fd00:ec2::254"):
        with pytest.raises(AddressRefused):
            every.expect(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_called(address: str) -> None:
    """Public ones, and those of the named networks only."""
    AllowedAddresses().expect(ip_address(address))
    AllowedAddresses(networks("10.0.0.0/8")).expect(ip_address("10.0.0.7"))
    with pytest.raises(AddressRefused):
        AllowedAddresses(networks("10.0.0.0/8")).expect(ip_address("192.168.0.1"))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]"]
)
async def test_local_receiver_must_be_allowed(receiver: Receiver, host: str) -> None:
    """Without WEBHOOK_NETWORKS nothing on this machine is called, by whatever name."""
    sender = Sender(AllowedAddresses())
    url = receiver.url.replace("127.0.0.1", host)

    outcome = await sender.send(url, uuid4(), "{}", [])

    await sender.aclose()
    assert (outcome.status, outcome.code) == (None, "address_refused")
    assert receiver.got == []


async def test_name_is_resolved_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checked address is the one that is called."""
    lookups: list[str] = []

    async def resolve(
        _self: ThreadedResolver, host: str, port: int = 0, family: int = 0
    ) -> list[ResolveResult]:
        lookups.append(host)
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    outcomes = []
    for reach in (AllowedAddresses(), HERE):
        sender = Sender(reach)
        outcomes.append((await sender.send(url, uuid4(), "{}", [])).code)
        await sender.aclose()

    assert outcomes == ["address_refused", None]
    assert lookups == ["hooks.example.com"] * 2
    assert len(receiver.got) == 1
    assert receiver.got[0][1]["host"].startswith("hooks.example.com")
