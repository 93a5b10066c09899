"""Certificates for the connection between the aggregation server and the key authority.

`make` creates a root for this one purpose, a certificate for the key authority and one for the
server; each end accepts only the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calyx.shared.errors import UsageError
from calyx.shared.host.certificates import Credentials, issue, make_root


@dataclass(frozen=True)
class CertificateSet:
    """Everything for one connection.

    Attributes:
        root: certificate that both ends trust, PEM; its private key is not kept.
        authority: for the key authority.
        server: for the aggregation server.
    """

    root: bytes
    authority: Credentials
    server: Credentials


def make(hosts: Sequence[str], days: int) -> CertificateSet:
    """New certificates.

    Args:
        hosts: names or addresses under which the server reaches the authority.
        days: how long they are valid.

    Raises:
        UsageError: no host, or a validity below one day.
    """
    if not hosts:
        raise UsageError(
            "a certificate needs at least one host name and one day of validity",
            hint="give a name or address with --host",
        )
    root = make_root("Calyx key authority root", days)
    return CertificateSet(
        root.certificate,
        issue(root, "Calyx key authority", "server", hosts, days),
        issue(root, "Calyx aggregation server", "client", (), days),
    )
