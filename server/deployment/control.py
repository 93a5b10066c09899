"""The operator's side of a running server: Flower's Control API, reached on this machine."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from calyx.server.deployment.folder import ServerFolder
from calyx.shared.errors import UsageError
from calyx.shared.host.closable import Closable
from calyx.shared.host.proxies import host_of, keep_local_calls_direct
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.flower.bundle import bundle_hash
from calyx.shared.protocol.flower.http_retry import Rejected, RetryingClient
from calyx.shared.protocol.flower.interceptors import SecretHttpInterceptor

_PATIENCE_S = 20.0
Scalar = str | int | float | bool


@dataclass(frozen=True)
class FlowerNode:
    """A node as Flower sees it.

    Attributes:
        node_id: Flower's number.
        public_key: as registered, bytes.
        status: registered, online, offline or unregistered.
    """

    node_id: int
    public_key: bytes
    status: str


class Control(Closable):
    """Calls to the server of a folder.

    Raises:
        UsageError: the server is not up.
    """

    def __init__(self, folder: ServerFolder) -> None:
        if folder.running_pid() is None:
            raise UsageError(
                f"the server in {folder.directory} is not up",
                hint=f"start it with: calyx server up {folder.directory}",
            )
        address = folder.local_address
        keep_local_calls_direct(host_of(address))
        self._client = flower.ControlHttpClient.from_server_address(
            address,
            False,
            folder.ca_path.read_bytes(),
            interceptors=[
                flower.RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
                SecretHttpInterceptor(folder.control_secret()),
            ],
        )
        self._retrying = RetryingClient(address, threading.Event(), _PATIENCE_S)

    def register(self, key: ec.EllipticCurvePublicKey) -> int:
        """Let a device in; returns its node id."""
        request = flower.RegisterNodeRequest(public_key=flower.public_key_to_bytes(key))
        return int(self._retrying.call(self._client.RegisterNode, request).node_id)

    def unregister(self, node_id: int) -> None:
        """Stop letting a device in."""
        try:
            request = flower.UnregisterNodeRequest(node_id=node_id)
            self._retrying.call(self._client.UnregisterNode, request)
        except Rejected:
            if any(node.node_id == node_id for node in self.nodes()):
                raise

    def nodes(self) -> list[FlowerNode]:
        """All nodes that are registered."""
        answer = self._retrying.call(self._client.ListNodes, flower.ListNodesRequest())
        return [
            FlowerNode(int(node.node_id), bytes(node.public_key), str(node.status))
            for node in answer.nodes_info
            if node.status != "unregistered"
        ]

    def start_run(self, bundle: bytes, run_config: Mapping[str, Scalar]) -> int:
        """Start a run; returns Flower's number for it."""
        fab = flower.Fab(bundle_hash(bundle), bundle, {})
        request = flower.StartRunRequest(
            fab=flower.fab_to_proto(fab),
            override_config=flower.user_config_to_proto(dict(run_config)),
        )
        return int(self._retrying.call(self._client.StartRun, request).run_id)

    def stop_run(self, run_id: int) -> None:
        """End a run."""
        self._retrying.call(self._client.StopRun, flower.StopRunRequest(run_id=run_id))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
