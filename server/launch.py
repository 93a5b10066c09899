"""Setting a server up and running it: the functions behind ``calyx server``."""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import tomli_w

from server.control import Control
from server.enrolment import approved_nodes, reconcile
from server.folder import DEFAULT_PORT, LOOPBACK, ServerFolder, ServerSettings
from server.proxy_config import nginx_config
from server.submission import submissions
from server.superlink import wait_until_healthy
from server.supervisor import Child, Supervisor, environment, python_module
from shared.certificates import Credentials, expiry, fingerprint, issue, make_root
from shared.errors import EnrolmentError, RunError, UsageError
from shared.private_files import create_private, private_directory, replace_file
from shared.protocol import flower_internals as flower

CA_DAYS, CERTIFICATE_DAYS = 3650, 365
PUBLIC_PORT = 9441
_LOCAL = ("localhost", LOOPBACK, "::1")
_READY_S = 60.0
_AUTHORITY_FILES = ("root.pem", "server.pem", "server-key.pem")


@dataclass(frozen=True)
class ServerFiles:
    """What `init` made.

    Attributes:
        directory: the server's folder.
        for_devices: folder with what a device's owner needs.
        ca_fingerprint: SHA-256 of the CA, hex; for owners to compare.
    """

    directory: Path
    for_devices: Path
    ca_fingerprint: str


def init(
    directory: Path,
    *,
    hosts: Sequence[str] = (),
    listen: str = LOOPBACK,
    port: int = DEFAULT_PORT,
    public_port: int = PUBLIC_PORT,
) -> ServerFiles:
    """Make a server: CA, certificate, secrets, settings, proxy configuration.

    Args:
        directory: made 0700; a server that is there already is not touched.
        hosts: names and addresses under which devices reach it; this machine's own are added.
        listen: address to listen on.
        port: to listen on.
        public_port: of the reverse proxy.

    Raises:
        UsageError: there is a server in this folder.
    """
    folder = ServerFolder(directory)
    if folder.settings_path.exists():
        raise UsageError(f"there is a server in {directory}; start it with calyx server up")
    for private in (
        folder.directory,
        folder.ca_dir,
        folder.tls_dir,
        folder.for_devices,
        folder.flower_home,
        folder.state_dir,
        folder.log_dir,
        folder.runs_dir,
    ):
        private_directory(private)
    # A set-up that was broken off before its settings were written is done over.
    for old in (folder.ca_path, folder.ca_dir / "ca-key.pem", folder.secret_path):
        old.unlink(missing_ok=True)
    root = make_root("Calyx server CA", CA_DAYS)
    create_private(folder.ca_path, root.certificate)
    create_private(folder.ca_dir / "ca-key.pem", root.private_key)
    create_private(folder.secret_path, secrets.token_bytes(32))
    replace_file(folder.for_devices / "ca.pem", root.certificate)
    _issue(folder, root, hosts)
    settings = ServerSettings(listen=listen, port=port)
    replace_file(folder.settings_path, tomli_w.dumps(settings.model_dump()).encode())
    connection = {
        "superlink": {
            "default": "calyx",
            "calyx": {
                "address": folder.local_address,
                "root-certificates": str(folder.ca_path),
            },
        }
    }
    replace_file(folder.flower_home / "config.toml", tomli_w.dumps(connection).encode())
    replace_file(folder.proxy_path, nginx_config(folder, public_port).encode())
    return ServerFiles(folder.directory, folder.for_devices, fingerprint(root.certificate))


def renew(directory: Path, hosts: Sequence[str] = ()) -> datetime:
    """A new server certificate of the same CA: devices need nothing new.

    Args:
        directory: of a server.
        hosts: further names or addresses; those of the certificate so far are kept.

    Returns:
        Until when it is valid.

    Raises:
        UsageError: there is no server.
    """
    folder = ServerFolder(directory)
    folder.settings()
    root = Credentials(folder.ca_path.read_bytes(), (folder.ca_dir / "ca-key.pem").read_bytes())
    _issue(folder, root, [*_hosts_of(folder), *hosts])
    return expiry(folder.certificate_path.read_bytes())


def use_authority(directory: Path, address: str, files: Path) -> None:
    """Name the key authority of this server.

    Args:
        directory: of a server.
        address: host:port of the authority.
        files: its folder for-server, brought from its machine.

    Raises:
        UsageError: no server, or not such a folder.
    """
    folder = ServerFolder(directory)
    settings = folder.settings()
    try:
        contents = {name: (files / name).read_bytes() for name in _AUTHORITY_FILES}
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read; name the folder for-server of the key authority"
        ) from None
    updated = ServerSettings(**{**settings.model_dump(), "authority": address})
    private_directory(folder.authority_dir)
    for name, content in contents.items():
        replace_file(folder.authority_dir / name, content)
    replace_file(folder.settings_path, tomli_w.dumps(updated.model_dump()).encode())


def up(directory: Path, on_event: Callable[[str], None] = lambda _: None) -> None:
    """Run the server until SIGTERM or SIGINT; call it in the main thread.

    Args:
        directory: as made by `init`.
        on_event: told when it is ready, and when something had to be started again.

    Raises:
        UsageError: no server here, or it is up already.
        EnrolmentError: its certificate has expired.
        RunError: it does not start, or dies again and again.
    """
    folder = ServerFolder(directory)
    folder.settings()
    flower.check()
    _check_certificate(folder)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    previous = {s: signal.signal(s, on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    supervisor = Supervisor(folder.log_dir)
    work_dir = folder.state_dir / "empty"
    work_dir.mkdir(exist_ok=True)
    try:
        with folder.exclusive():
            try:
                _start(folder, supervisor, work_dir, stop)
                _tell_pids(folder, supervisor)
                if not stop.is_set():
                    on_event(f"ready on {folder.local_address}")
                while not stop.wait(0.2):
                    for name in supervisor.watch():
                        _tell_pids(folder, supervisor)
                        on_event(f"{name} had died and was started again")
            finally:
                supervisor.stop()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stop_running(directory: Path, timeout_s: float = 30.0) -> bool:
    """Tell a running server to stop and wait until it has; False if it was down.

    Raises:
        RunError: it does not stop.
    """
    folder = ServerFolder(directory)
    folder.settings()
    pid = folder.running_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while folder.running_pid() is not None:
        if time.monotonic() > deadline:
            raise RunError(f"process {pid} does not stop; look at {folder.log_dir}")
        time.sleep(0.05)
    return True


def status_of(directory: Path) -> dict[str, Any]:
    """What a server is doing, for people and scripts.

    Raises:
        UsageError: there is no server.
    """
    folder = ServerFolder(directory)
    settings = folder.settings()
    pid = folder.running_pid()
    online: dict[int, str] = {}
    if pid is not None:
        try:
            with Control(folder) as control:
                online = {node.node_id: node.status for node in control.nodes()}
        except RunError:
            online = {}  # it is only just starting, or about to end
    certificate = folder.certificate_path.read_bytes()
    return {
        "running": pid is not None,
        "pid": pid,
        "processes": _processes(folder) if pid is not None else {},
        "address": folder.local_address,
        "authority": settings.authority or None,
        "certificate_valid_until": expiry(certificate).isoformat(timespec="seconds"),
        "ca_fingerprint": fingerprint(folder.ca_path.read_bytes()),
        "devices": [
            {
                "name": node.name,
                "status": "revoked"
                if node.is_revoked
                else online.get(node.node_id, "unknown" if pid is None else "offline"),
                "node_id": node.node_id,
                "approved_at": node.approved_at,
                "fingerprint": node.fingerprint,
            }
            for node in approved_nodes(folder).values()
        ],
        "runs": [
            {
                "run": s.run,
                "state": s.state,
                "error": s.error,
                "attempts": s.attempts,
                "submitted_at": s.submitted_at,
                "finished_at": s.finished_at,
            }
            for s in submissions(folder)
        ],
    }


def _start(
    folder: ServerFolder, supervisor: Supervisor, work_dir: Path, stop: threading.Event
) -> None:
    variables, directory = environment(folder.flower_home), str(folder.directory)

    def child(name: str, module: str) -> Child:
        return Child(name, python_module(module, directory), variables, work_dir)

    pid_path = folder.state_dir / "executor.pid"
    pid_path.unlink(missing_ok=True)
    supervisor.start(child("superlink", "server.superlink"))

    def goes_on() -> bool:
        return supervisor.is_alive("superlink") and not stop.is_set()

    if not wait_until_healthy(folder, goes_on, _READY_S):
        if stop.is_set():
            return
        raise RunError(
            f"the SuperLink does not start: {supervisor.last_words('superlink')}; see "
            f"{folder.log_dir / 'superlink.log'}"
        )
    reconcile(folder)
    supervisor.start(child("serverapp", "server.executor"))
    deadline = time.monotonic() + _READY_S
    while not pid_path.exists() and not stop.wait(0.05):
        if not supervisor.is_alive("serverapp") or time.monotonic() > deadline:
            raise RunError(
                f"the ServerApp does not start: {supervisor.last_words('serverapp')}; see "
                f"{folder.log_dir / 'serverapp.log'}"
            )


def _tell_pids(folder: ServerFolder, supervisor: Supervisor) -> None:
    text = json.dumps(supervisor.pids())
    replace_file(folder.state_dir / "processes.json", text.encode())


def _processes(folder: ServerFolder) -> dict[str, int]:
    try:
        found = json.loads((folder.state_dir / "processes.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): int(pid) for name, pid in found.items()}


def _issue(folder: ServerFolder, root: Credentials, hosts: Sequence[str]) -> None:
    names = list(dict.fromkeys([*hosts, *_LOCAL]))
    made = issue(root, "Calyx server", "server", names, CERTIFICATE_DAYS)
    replace_file(folder.private_key_path, made.private_key)
    replace_file(folder.certificate_path, made.certificate)


def _hosts_of(folder: ServerFolder) -> list[str]:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(folder.certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _check_certificate(folder: ServerFolder) -> None:
    until = expiry(folder.certificate_path.read_bytes())
    if until <= datetime.now(UTC):
        raise EnrolmentError(
            f"the server's certificate has expired at {until:%Y-%m-%d %H:%M} UTC; make a new one "
            f"with: calyx server renew {folder.directory}"
        )
