"""Running a server: the functions behind ``calyx server up``, ``status`` and ``stop``."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calyx.server.deployment.control import Control
from calyx.server.deployment.enrolment import approved_nodes, reconcile
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.signing import instruction_key
from calyx.server.deployment.submission import submissions
from calyx.server.deployment.superlink.process import wait_until_healthy
from calyx.server.deployment.supervisor import Child, Supervisor, environment, python_module
from calyx.shared.errors import EnrolmentError, RunError
from calyx.shared.host.certificates import expiry, fingerprint
from calyx.shared.host.private_files import replace_file
from calyx.shared.host.proxies import host_of, keep_local_calls_direct
from calyx.shared.host.served_folder import read_status, write_status
from calyx.shared.host.stop_signal import stop_signal
from calyx.shared.protocol.flower.compatibility import check_flower

_READY_S = 60.0


def up(directory: Path, on_event: Callable[[str], None] = lambda _: None) -> None:
    """Run the server until SIGTERM or SIGINT; call it in the main thread.

    Args:
        directory: as made by `calyx.server.deployment.setup.init`.
        on_event: told when it is ready, and when something had to be started again.

    Raises:
        UsageError: no server here, or it is up already, or its instruction key is missing.
        EnrolmentError: its certificate has expired.
        RunError: it does not start, or dies again and again.
    """
    folder = ServerFolder(directory)
    folder.settings()
    check_flower()
    _check_certificate(folder)
    keep_local_calls_direct(host_of(folder.local_address))  # the children inherit it
    instruction_key(folder)
    supervisor = Supervisor(folder.log_dir)
    work_dir = folder.state_dir / "empty"
    work_dir.mkdir(exist_ok=True)
    with stop_signal() as stop, folder.exclusive():
        try:
            # New with each start: the old one is worthless.
            replace_file(folder.control_secret_path, secrets.token_hex(32).encode())
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


def stop_running(directory: Path, timeout_s: float = 30.0) -> bool:
    """Tell a running server to stop and wait until it has; False if it was down.

    Raises:
        RunError: it does not stop.
    """
    folder = ServerFolder(directory)
    folder.settings()
    return folder.stop_running(timeout_s)


def status_of(directory: Path) -> dict[str, Any]:
    """What a server is doing, for people and scripts.

    Raises:
        UsageError: there is no server.
    """
    folder = ServerFolder(directory)
    settings = folder.settings()
    pid = folder.running_pid()
    online: dict[int, str] | None = None
    if pid is not None:
        try:
            with Control(folder) as control:
                online = {node.node_id: node.status for node in control.nodes()}
        except RunError:
            online = None  # it has only just started, or is about to end
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
                else "unknown"
                if online is None
                else online.get(node.node_id, "offline"),
                "node_id": node.node_id,
                "approved_at": node.approved_at,
                "fingerprint": node.fingerprint,
                "max_records": node.max_records or settings.max_records,
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
    supervisor.start(child("superlink", "calyx.server.deployment.superlink.process"))

    def goes_on() -> bool:
        return supervisor.is_alive("superlink") and not stop.is_set()

    if not wait_until_healthy(folder, goes_on, _READY_S):
        if stop.is_set():
            return
        raise RunError(
            f"the SuperLink does not start: {supervisor.fault_of('superlink')}",
            hint=f"see {folder.log_dir / 'superlink.log'}",
        )
    reconcile(folder)
    supervisor.start(child("serverapp", "calyx.server.deployment.executor"))
    deadline = time.monotonic() + _READY_S
    while not pid_path.exists() and not stop.wait(0.05):
        if not supervisor.is_alive("serverapp") or time.monotonic() > deadline:
            raise RunError(
                f"the ServerApp does not start: {supervisor.fault_of('serverapp')}",
                hint=f"see {folder.log_dir / 'serverapp.log'}",
            )


def _tell_pids(folder: ServerFolder, supervisor: Supervisor) -> None:
    write_status(folder.processes_path, supervisor.pids())


def _processes(folder: ServerFolder) -> dict[str, int]:
    return {name: int(pid) for name, pid in read_status(folder.processes_path).items()}


def _check_certificate(folder: ServerFolder) -> None:
    until = expiry(folder.certificate_path.read_bytes())
    if until <= datetime.now(UTC):
        raise EnrolmentError(
            f"the server's certificate expired at {until:%Y-%m-%d %H:%M} UTC",
            hint=f"make a new one with: calyx server renew {folder.directory}",
        )
