"""Flower's SuperLink as Calyx runs it: ``python -m calyx.server.deployment.superlink.process DIR``.

TLS, only registered nodes, a database that outlives a crash, and ServerApps only with this folder's
secret; in front of it all is the gate (`calyx.server.deployment.superlink.gate`).
"""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import uvicorn

from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.superlink.gate import Gate

# The head of a call holds signatures of two keys; one connection holds little more than that.
_HEAD_BYTES, _CONNECTIONS = 16 * 2**10, 2000


def arguments(folder: ServerFolder) -> list[str]:
    """The command line of ``flower-superlink``."""
    settings = folder.settings()
    return [
        "flower-superlink",
        *("--host", settings.listen, "--port", str(settings.port)),
        *("--ssl-ca-certfile", str(folder.ca_path)),
        *("--ssl-certfile", str(folder.certificate_path)),
        *("--ssl-keyfile", str(folder.private_key_path)),
        "--enable-supernode-auth",
        *("--database", str(folder.database_path)),
        "--disable-runtime-dependency-installation",
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.secret_path)),
    ]


def is_healthy(folder: ServerFolder) -> bool:
    """Whether the SuperLink of a folder answers, over TLS and with its own certificate."""
    try:
        url = f"https://{folder.local_address}/health"
        # It is on this machine, so never use a proxy that the environment names.
        answer = httpx.get(url, verify=_trusting(folder), timeout=2.0, trust_env=False)
        return answer.status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def wait_until_healthy(
    folder: ServerFolder, is_alive: Callable[[], bool], timeout_s: float
) -> bool:
    """Wait until the SuperLink answers; False if it died or time is up."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and is_alive():
        if is_healthy(folder):
            return True
        time.sleep(0.1)
    return False


def _trusting(folder: ServerFolder) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder.ca_path)
    return context


def main() -> None:
    """Run the SuperLink of the given folder until SIGTERM.

    Like Flower's own command, with the gate around its application. The plain HTTP parser (h11) is
    the one that bounds what it keeps of a request's head.
    """
    from calyx.server.deployment.supervisor import end_with_parent
    from calyx.shared.protocol.flower.compatibility import check_flower
    from calyx.shared.protocol.flower.superlink import superlink_app

    end_with_parent()
    check_flower()
    folder = ServerFolder(Path(sys.argv[1]))
    settings = folder.settings()
    sys.argv = arguments(folder)
    superlink = superlink_app()
    uvicorn.run(
        Gate(superlink.app, superlink.node_of, folder.control_secret()),
        host=settings.listen,
        port=settings.port,
        http="h11",
        ws="none",
        h11_max_incomplete_event_size=_HEAD_BYTES,
        limit_concurrency=_CONNECTIONS,
        ssl_certfile=str(folder.certificate_path),
        ssl_keyfile=str(folder.private_key_path),
        log_config=superlink.log_config,
        server_header=False,
        workers=1,
    )


if __name__ == "__main__":
    main()
