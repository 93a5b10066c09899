"""A TCP proxy between devices and server: it can cut the network, and look at what passes.

To look, it ends TLS with the server's own certificate and starts it again towards the server, as
only someone with the server's private key can.

One event loop serves all connections: OpenSSL does not allow two threads to read and write at
once on one connection, and such a proxy held connections up for half a minute now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

_T = TypeVar("_T")


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
        self._port, self._upstream = port, upstream
        self._near_tls = glass.towards_devices() if glass else None
        self._far_tls = glass.towards_server() if glass else None
        self._writers: set[asyncio.StreamWriter] = set()
        self._said, self._is_cut = bytearray(), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._run(self._listen())

    def cut(self) -> None:
        """End all connections and let no new one through."""
        self._is_cut = True
        self._run(self._end_all())

    def restore(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    def take_said(self) -> bytes:
        """What devices have said since the last call; only with a glass."""
        return self._run(self._taken())

    def close(self) -> None:
        """End everything."""
        self._server.close()
        self.cut()
        self._run(asyncio.sleep(0.1))  # its connections' tasks see that they are ended
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._near_tls)

    async def _end_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _taken(self) -> bytes:
        said, self._said = bytes(self._said), bytearray()
        return said

    async def _serve(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        writers = {to_near}
        try:
            if self._is_cut:
                return
            name = "127.0.0.1" if self._far_tls else None
            far, to_far = await asyncio.open_connection(
                "127.0.0.1", self._upstream, ssl=self._far_tls, server_hostname=name
            )
            writers.add(to_far)
            self._writers |= writers
            back = asyncio.create_task(self._pump(far, to_near, is_recorded=False))
            await self._pump(near, to_far, is_recorded=self._near_tls is not None)
            await back
        except OSError:
            pass  # either side went away: what this proxy is for
        finally:
            self._writers -= writers
            for writer in writers:
                writer.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_recorded: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if is_recorded:
                    self._said += data
                sink.write(data)
                await sink.drain()
        with contextlib.suppress(OSError):
            sink.close()  # what was written is still sent
