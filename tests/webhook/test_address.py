"""A webhook cannot be made to talk to the machines around the program, however their address is written."""

from __future__ import annotations

import pytest

from sinks.webhook.address import refused

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
PRIVATE = [
    "127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "100.127.255.255", "::1", "fd12:3456::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::c0a8:101", "2002:7f00:1::", "2002:c0a8:101::1", "::127.0.0.1", "::10.0.0.1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1", "fd00:ec2::254", "168.63.129.16", "::ffff:168.63.129.16", "100.100.100.200", "192.0.0.192",
    "0.0.0.0", "::", "0.1.2.3", "224.0.0.1", "239.1.2.3", "255.255.255.255", "240.0.0.1", "ff02::1", "fec0::1",
    "192.0.2.1", "198.18.0.1", "203.0.113.9", "2001:db8::1", "100::1", "64:ff9b:1::7f00:1", "4000::1", "::2",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_fine(address: str) -> None:
    assert refused(address, allow_private=False) == ""


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert refused(address, allow_private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_can_be_allowed(address: str) -> None:
    assert refused(address, allow_private=True) == ""


@pytest.mark.parametrize("address", NEVER)
def test_metadata_link_local_and_multicast_are_refused_even_where_private_is_allowed(address: str) -> None:
    assert refused(address, allow_private=True)
