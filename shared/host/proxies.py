"""Proxies of the environment: what is on this machine is never asked for through one.

``HTTPS_PROXY`` and its relatives are for the way out. The libraries that we call through send calls
to 127.0.0.1 to the proxy too, which knows nothing of this machine's ports; so loopback is added to
``NO_PROXY``, which all of them read, before the first client is made. Calls to other machines
go as the environment says.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from calyx.shared.errors import UsageError

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAMES = ("NO_PROXY", "no_proxy")


def keep_local_calls_direct(*hosts: str) -> None:
    """Let calls of this process and its children to this machine pass by any proxy.

    Args:
        hosts: further names or addresses of this machine.

    Raises:
        UsageError: the environment's proxy settings are such that no client can be made.
    """
    if not getproxies():
        return
    # Where both are set the libraries differ in which they believe.
    stated = next((os.environ[name] for name in reversed(_NAMES) if os.environ.get(name)), "")
    listed = [entry.strip() for entry in stated.split(",") if entry.strip()]
    if "*" not in listed:
        listed += [host for host in (*_LOOPBACK, *hosts) if host not in listed]
        for name in _NAMES:
            os.environ[name] = ",".join(listed)
    _check(stated)


def proxy_for(address: str) -> str:
    """The proxy that HTTPS calls to host:port go through, without its password; empty for none."""
    host = host_of(address)
    proxy = getproxies().get("https") or getproxies().get("all") or ""
    if not proxy or is_loopback(host) or proxy_bypass(host):
        return ""
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}").netloc.rpartition("@")[2]


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(address: str) -> str:
    """The host of host:port; an IPv6 address without its brackets."""
    return address.rpartition(":")[0].strip("[]")


def _check(no_proxy: str) -> None:
    import httpx

    try:
        httpx.Client(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)).close()
    except (httpx.InvalidURL, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"the proxy settings of the environment cannot be used ({reason})",
            hint=(
                f"correct NO_PROXY = {no_proxy!r} (names and addresses, without brackets or "
                "ports), or the addresses in HTTPS_PROXY, HTTP_PROXY and ALL_PROXY"
            ),
        ) from None
