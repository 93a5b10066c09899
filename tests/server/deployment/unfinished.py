"""Calls with long bodies that are begun and never ended."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LENGTH = 15_000_000


def resident(pid: int) -> int:
    """Memory of a process, bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no memory of process {pid}")


def begin(address: str, ca: Path, path: str, headers: dict[str, str]) -> ssl.SSLSocket:
    """Connect, and say that a body of `LENGTH` bytes follows."""
    host, _, port = address.partition(":")
    trusted = ssl.create_default_context(cafile=ca)
    line = trusted.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host)
    said = {
        "host": address,
        "content-type": "application/protobuf",
        "content-length": str(LENGTH),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    line.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
    return line


@contextmanager
def unfinished(
    address: str, ca: Path, path: str, headers: list[dict[str, str]], seconds: float
) -> Iterator[list[int]]:
    """Hold calls open, one for each of `headers`, all but the last byte of their bodies sent.

    Gives how many bytes each could send, once none can send more or `seconds` have passed.
    """
    lines, sent = list[ssl.SSLSocket](), [0] * len(headers)

    def pour(number: int, line: ssl.SSLSocket) -> None:
        part = bytes(100_000)
        line.settimeout(seconds)
        try:
            while sent[number] + len(part) < LENGTH:
                line.sendall(part)
                sent[number] += len(part)
        except OSError:
            pass  # it was refused, or is no longer read

    for one in headers:
        lines.append(begin(address, ca, path, one))
    pouring = [threading.Thread(target=pour, args=item, daemon=True) for item in enumerate(lines)]
    for thread in pouring:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in pouring:
        thread.join(max(0.0, deadline - time.monotonic()))
    try:
        yield sent
    finally:
        for line in lines:
            line.close()
