"""What a party of ours adds to its calls of Flower's APIs: signatures, and a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supernode.node_auth_http_interceptor import (
    NodeAuthHttpInterceptor as TimeStampInterceptor,
)

from calyx.shared.protocol.signatures.call import call_headers


class NodeAuthHttpInterceptor(TimeStampInterceptor):
    """Signs each call: Flower's signature over the time, and ours over all of it.

    Args:
        private_key: the device's.
        public_key: of it.
    """

    def __init__(
        self, private_key: ec.EllipticCurvePrivateKey, public_key: ec.EllipticCurvePublicKey
    ) -> None:
        super().__init__(private_key, public_key)
        self._key = private_key

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the headers of both."""

        def with_both(stamped: Any) -> httpx.Response:
            request: httpx.Request = stamped.request
            signed_at = request.headers[TIMESTAMP_HEADER]
            path = request.url.path
            request.headers.update(call_headers(self._key, path, signed_at, request.content))
            return call_next(stamped)

        return super().intercept(context, with_both)


class SecretHttpInterceptor:
    """Shows the secret of this server's own processes.

    Args:
        secret: see `calyx.server.deployment.superlink.gate`.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        """Add the header."""
        context.request.headers[SECRET_HEADER] = self._secret
        return call_next(context)


SECRET_HEADER = "calyx-secret"  # noqa: S105 - its name
