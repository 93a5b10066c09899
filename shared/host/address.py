"""host:port as people write it; an IPv6 address has brackets, or its end could be the port."""

from __future__ import annotations

import ipaddress
import re

ADDRESS = re.compile(r"(\[[^\[\]\s]+\]|[^\[\]\s:/@]+):(\d{1,5})")


def checked_address(text: str) -> str:
    """The same text, if it is host:port.

    Raises:
        ValueError: it is something else; what to write stands after a semicolon.
    """
    found = ADDRESS.fullmatch(text)
    if found is not None and 0 < int(found[2]) < 1 << 16 and _is_host(found[1]):
        return text
    host, _, port = text.rpartition(":")
    if text.count(":") > 1 and port.isdecimal() and _is_ipv6(host):
        raise ValueError(
            f"must be HOST:PORT, and an IPv6 address needs brackets; write [{host}]:{port}"
        )
    if _is_ipv6(text.strip("[]")):
        raise ValueError(f"must be HOST:PORT; write [{text.strip('[]')}]:PORT")
    raise ValueError("must be HOST:PORT; write it as fl.example.org:9441 or [2001:db8::7]:9441")


def bracketed(host: str) -> str:
    """A host as it stands before a port: an IPv6 address in brackets."""
    bare = without_brackets(host)
    return f"[{bare}]" if _is_ipv6(bare) else host


def without_brackets(host: str) -> str:
    """A host as it stands by itself."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _is_host(host: str) -> bool:
    return _is_ipv6(host[1:-1]) if host.startswith("[") else True


def _is_ipv6(host: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(host), ipaddress.IPv6Address)
    except ValueError:
        return False
