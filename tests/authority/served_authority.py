"""An authority behind gRPC on this machine, and ways to reach it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from calyx.authority.certificates import CertificateSet
from calyx.authority.local import LocalAuthority
from calyx.authority.service import AuthorityServer
from calyx.shared.host.certificates import Credentials
from calyx.shared.protocol.authority.client import RemoteAuthority

HOST = "127.0.0.1"


@dataclass
class ServedAuthority:
    """A server, and how to reach it."""

    authority: LocalAuthority
    server: AuthorityServer
    tls: CertificateSet

    @property
    def target(self) -> str:
        return f"{HOST}:{self.server.port}"

    def connect(
        self,
        root: bytes | None = None,
        own: Credentials | None = None,
        timeout_s: float = 20.0,
    ) -> RemoteAuthority:
        own = own or self.tls.server
        return RemoteAuthority(
            self.target, root or self.tls.root, own.certificate, own.private_key, timeout_s
        )

    def channel(self) -> grpc.Channel:
        own = self.tls.server
        credentials = grpc.ssl_channel_credentials(self.tls.root, own.private_key, own.certificate)
        return grpc.secure_channel(self.target, credentials)
