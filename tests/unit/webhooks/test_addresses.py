"""Where webhooks may go: every form of an address that is not public is refused, whatever spells it."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.webhooks.addresses import METADATA, NAT64, AddressPolicy

PUBLIC_ONLY = AddressPolicy()
EVERYTHING = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")), http_to_loopback=True)
PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
PRIVATE_6 = (
    "::1/128", "::/128", "fc00::/7", "fe80::/10", "ff00::/8", "2001:db8::/32", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16",
    "2001::/32", "100::/64", "::/96", "fec0::/10", "5f00::/16",
)  # fmt: skip


def inside(networks: tuple[str, ...]) -> st.SearchStrategy[ipaddress._BaseAddress]:
    return st.sampled_from(networks).flatmap(lambda one: st.ip_addresses(network=one))


@given(inside(PRIVATE))
def test_an_ipv4_address_that_is_not_public_is_refused_in_every_form(address: IPv4Address) -> None:
    number = int(address)
    forms = (
        address,
        IPv6Address(f"::ffff:{address}"),
        IPv6Address(number),  # IPv4-compatible
        IPv6Address(int(NAT64.network_address) | number),
        IPv6Address((0x2002 << 112) | (number << 80) | 1),  # 6to4
        IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),  # Teredo, its client inverted
    )
    assert [one for one in forms if PUBLIC_ONLY.allows(one)] == []


@given(inside(PRIVATE_6))
def test_an_ipv6_address_that_is_not_public_is_refused(address: IPv6Address) -> None:
    assert not PUBLIC_ONLY.allows(address)


@given(st.ip_addresses())
def test_what_is_allowed_is_global_by_python_too(
    address: IPv4Address | IPv6Address,
) -> None:
    if PUBLIC_ONLY.allows(address):
        meant = getattr(address, "ipv4_mapped", None) or address
        assert meant.is_global
        assert not meant.is_multicast
        assert not meant.is_private


@given(st.ip_addresses())
def test_no_setting_allows_what_serves_credentials(address: IPv4Address | IPv6Address) -> None:
    assert EVERYTHING.allows(address) is (address not in METADATA)
    for one in METADATA:
        forms = [one]
        if isinstance(one, IPv4Address):
            forms += [
                IPv6Address(f"::ffff:{one}"),
                IPv6Address(int(NAT64.network_address) | int(one)),
                IPv6Address((0x2002 << 112) | (int(one) << 80)),
            ]
        assert [form for form in forms if EVERYTHING.allows(form)] == []


@pytest.mark.parametrize(
    "text", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "1.1.1.1", "2a00::1"]
)
def test_control_public_addresses_are_allowed(text: str) -> None:
    assert PUBLIC_ONLY.allows(ip_address(text))
    assert not AddressPolicy(http_to_loopback=True).allows_http(ip_address(text))


def test_a_network_of_the_operator_is_allowed_and_nothing_beside_it() -> None:
    policy = AddressPolicy((ip_network("10.1.2.0/24"), ip_network("fd00:1::/64")))
    for text, expected in {
        "10.1.2.3": True,
        "::ffff:10.1.2.3": True,
        "10.1.3.3": False,
        "fd00:1::5": True,
        "fd00:2::5": False,
        "127.0.0.1": False,
    }.items():
        assert policy.allows(ip_address(text)) is expected, text
        assert not policy.allows_http(ip_address(text))


@given(inside(("127.0.0.0/8", "::1/128")))
def test_loopback_needs_its_setting(address: IPv4Address | IPv6Address) -> None:
    assert not PUBLIC_ONLY.allows(address)
    assert AddressPolicy(http_to_loopback=True).allows_http(address)


def test_an_address_with_a_zone_is_no_public_one() -> None:
    assert not PUBLIC_ONLY.allows(IPv6Address("2606:4700::1111%eth0"))


@pytest.mark.parametrize("text", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1"])
def test_control_the_system_reads_odd_forms_of_an_address(text: str) -> None:
    """They never reach the resolver (`urls`), and would be refused by what they mean."""
    meant = socket.getaddrinfo(text, 443, type=socket.SOCK_STREAM)[0][4][0]
    assert not PUBLIC_ONLY.allows(ip_address(meant))
