"""host:port: an IPv6 address stands in brackets, since otherwise its end could be the port."""

from __future__ import annotations

import pytest

from calyx.shared.host.address import bracketed, checked_address, without_brackets
from calyx.shared.host.proxies import host_of


@pytest.mark.parametrize(
    "address",
    ["fl.example.org:9441", "127.0.0.1:1", "[::1]:9441", "[2001:db8::7]:65535", "host_1:80"],
)
def test_addresses_that_say_where_the_port_begins_pass(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("::1:9441", r"write \[::1\]:9441"),
        ("2001:db8::7:9441", r"write \[2001:db8::7\]:9441"),
        ("::1", r"write \[::1\]:PORT"),
        ("[::1]", r"write \[::1\]:PORT"),
        ("[127.0.0.1]:9441", "HOST:PORT"),
        ("[::1]:0", "HOST:PORT"),
        ("host", "HOST:PORT"),
        ("host:", "HOST:PORT"),
        ("host:65536", "HOST:PORT"),
        ("host:9441:", "HOST:PORT"),
        (":9441", "HOST:PORT"),
        ("a b:9441", "HOST:PORT"),
        ("https://host:9441", "HOST:PORT"),
        ("user@host:9441", "HOST:PORT"),
        ("", "HOST:PORT"),
    ],
)
def test_others_are_refused_with_what_to_write(address: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        checked_address(address)


@pytest.mark.parametrize(
    ("host", "before_a_port"),
    [("::1", "[::1]"), ("[::1]", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")],
)
def test_a_host_gets_brackets_only_before_a_port(host: str, before_a_port: str) -> None:
    assert bracketed(host) == before_a_port
    assert without_brackets(before_a_port) == host_of(f"{before_a_port}:1")
