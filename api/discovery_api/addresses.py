"""Which addresses count as one: what a single host or household can choose freely among."""

from __future__ import annotations

import ipaddress

# the smallest network of IPv6 that is given to anybody: one host may have all of its addresses
_IPV6_BITS = 64
_LONGEST = 64


def counted_as(host: str) -> str:
    """What an address is counted under: IPv6 by /64, an IPv4 address inside IPv6 as what it is.

    What is no address, such as a proxy's word for one, is kept as far as an address is long.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:_LONGEST]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), _IPV6_BITS), strict=False))
