"""Which addresses a webhook may be sent to.

Whoever can write the configuration, or answer for a name in it, must not be able to make this program talk to the
machines around it. So the address itself is judged, at the moment a socket to it is made: a name that resolved to
something else a moment ago, a decimal or IPv6 spelling and a redirect make no difference.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE: Final = tuple(
    map(
        ipaddress.ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7"),
    )
)
"""Loopback, RFC 1918, shared address space (RFC 6598), unique local (RFC 4193): fine where somebody asks for them."""

_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        # AWS over IPv6, Azure, Alibaba, Oracle; the common 169.254.169.254 is link-local and never allowed anyway.
        ("fd00:ec2::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    )
)
"""Services of clouds that hand out credentials to whoever asks from the machine."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")


class RefusedAddressError(OSError):
    """The address is not one a webhook may be sent to. An OSError, so that the next address of a name is tried."""


def refused(text: str, *, allow_private: bool) -> str:
    """Why a webhook may not be sent to an IP address, '' if it may.

    With `allow_private` loopback and private networks are fine; link-local addresses, multicast and the metadata
    services of clouds are refused always.
    """
    address = _meant(ipaddress.ip_address(text.partition("%")[0]))
    if address in _METADATA:
        return "the metadata service of a cloud"
    if any(address in network for network in _PRIVATE):
        return "" if allow_private else "a private or loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast or not address.is_global or (address.version == 6 and address not in _UNICAST):
        return "not a public address"
    return ""


def _meant(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def guarded_socket(*, allow_private: bool) -> Callable[[Any], socket.socket]:
    """A factory of sockets, for a connector, that makes none for a refused address."""

    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, place = info
        why = refused(place[0], allow_private=allow_private)
        if why:
            raise RefusedAddressError(errno.EACCES, why)
        return socket.socket(family=family, type=kind, proto=protocol)

    return make
