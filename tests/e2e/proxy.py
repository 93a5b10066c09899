"""A TCP proxy between devices and server: it can cut the network, and look at what passes.

To look, it ends TLS with the server's own certificate and begins it anew towards the server, as
only somebody can who holds the server's private key.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Glass:
    """What it takes to look into TLS: the server's files."""

    ca: Path
    certificate: Path
    private_key: Path

    def towards_devices(self) -> ssl.SSLContext:
        """The server's side of TLS."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.private_key)
        return context

    def towards_server(self) -> ssl.SSLContext:
        """A device's side of TLS."""
        return ssl.create_default_context(cafile=self.ca)


class Proxy:
    """Listens on 127.0.0.1 and passes bytes on to another port there.

    Args:
        port: where to listen.
        upstream: where to pass bytes on to.
        glass: to record what devices say in clear; None passes TLS through.
    """

    def __init__(self, port: int, upstream: int, glass: Glass | None = None) -> None:
        self._upstream, self._glass = upstream, glass
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.1)
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._said = bytearray()
        self._is_cut, self._is_closed = False, threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End all connections and let no new one through."""
        self._is_cut = True
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _end(connection)

    def restore(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def take_said(self) -> bytes:
        """What devices have said since the last call; only with a glass."""
        with self._lock:
            said, self._said = bytes(self._said), bytearray()
        return said

    def close(self) -> None:
        """End everything."""
        self._is_closed.set()
        self.cut()
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        far = None
        try:
            if self._is_cut:
                return
            near.settimeout(None)
            far = socket.create_connection(("127.0.0.1", self._upstream))
            if self._glass is not None:
                near = self._glass.towards_devices().wrap_socket(near, server_side=True)
                far = self._glass.towards_server().wrap_socket(far, server_hostname="127.0.0.1")
            with self._lock:
                self._connections |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
            back.start()
            self._pump(near, far, self._glass is not None)
            back.join()
        except (OSError, ValueError):
            pass  # either side went away: what this proxy is for
        finally:
            for connection in (near, far):
                if connection is not None:
                    with self._lock:
                        self._connections.discard(connection)
                    connection.close()

    def _pump(self, source: socket.socket, sink: socket.socket, is_recorded: bool) -> None:
        # A TLS socket that another thread has shut down raises ValueError.
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                if is_recorded:
                    with self._lock:
                        self._said += data
                sink.sendall(data)
        _end(source)
        _end(sink)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
