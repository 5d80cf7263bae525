"""Which addresses webhooks may be sent to: the public internet, and the networks that the operator allows.

A client chooses an endpoint's address, so the server must not lend it the reach that the server has (SSRF). The list
is IANA's registries of special-purpose addresses, written out: what Python's `is_global` says differs by version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from tunewarden.settings import Network, networks
from tunewarden.webhook_settings import ALLOWED, WebhookSettings

Address = IPv4Address | IPv6Address

NOT_PUBLIC_4 = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers (CGNAT)
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays to 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Of IPv6 only this is given to the public. The rest is loopback, private (ULA), link-local, multicast, NAT64.
PUBLIC_6 = IPv6Network("2000::/3")
NOT_PUBLIC_6 = tuple(
    ip_network(one)
    for one in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address is inside
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
NAT64 = IPv6Network("64:ff9b::/96")
# What gives a machine of a cloud its credentials, or is the cloud's own. No setting allows them.
METADATA = frozenset(
    ip_address(one)
    for one in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16",
        "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The networks that are allowed beside the public internet, and whether loopback is, without TLS."""

    networks: Sequence[Network] = ()
    http_to_loopback: bool = False

    @classmethod
    def of(cls, config: WebhookSettings) -> "AddressPolicy":
        """Return the policy that the settings make."""
        allowed = networks(config.webhook_allowed_networks, ALLOWED)
        return cls(tuple(allowed), config.webhook_http_to_loopback)

    def allows(self, address: Address) -> bool:
        """Return whether an event may be sent to an address."""
        meant = _meant(address)
        if not METADATA.isdisjoint((meant, *_embedded(meant))):
            return False
        if self.http_to_loopback and meant.is_loopback:
            return True
        return _is_public(meant) or any(
            meant.version == network.version and meant in network for network in self.networks
        )

    def allows_http(self, address: Address) -> bool:
        """Return whether an event may be sent to an address without TLS."""
        return self.http_to_loopback and _meant(address).is_loopback


def _meant(address: Address) -> Address:
    """Return the address that packets go to: of an IPv4-mapped one, the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _embedded(address: Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that a gateway may take packets to an IPv6 address on to: NAT64, 6to4, Teredo."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.sixtofour, *(address.teredo or ())]
    if address in NAT64:
        found.append(IPv4Address(address.packed[-4:]))
    return [one for one in found if one is not None]


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    is_given = address in PUBLIC_6 and not any(address in network for network in NOT_PUBLIC_6)
    return is_given and address.scope_id is None
