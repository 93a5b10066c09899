"""Running a device: the functions behind ``calyx client join`` and ``status``."""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calyx.client.agreed_task import AgreedTask, disagreement, load
from calyx.client.deployment.enrolment import stored_records
from calyx.client.deployment.folder import DataPlace, Device
from calyx.client.deployment.supernode import Answered, SuperNode
from calyx.client.ledger.data_registry import DataRegistry
from calyx.client.ledger.ledger import Ledger
from calyx.client.policy import Policy
from calyx.client.records import make_importable
from calyx.shared.config.schema import TaskConfig
from calyx.shared.errors import CalyxError, LedgerError, PolicyViolation, UsageError
from calyx.shared.host.log_file import logging_to
from calyx.shared.host.proxies import host_of, is_loopback, keep_local_calls_direct, proxy_for
from calyx.shared.host.served_folder import read_status, write_status
from calyx.shared.host.stop_signal import stop_signal
from calyx.shared.protocol.flower.http_retry import Stopped

_log = logging.getLogger("calyx.client")
# Maxrss is in kilobytes, on macOS in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class DeviceEvent:
    """Something that the owner may want to see.

    Attributes:
        kind: connected, answered, refused, trouble, recovered or stopped.
        text: one line.
    """

    kind: str
    text: str


def join(
    directory: Path,
    *,
    simulated_noise: int | None = None,
    accept_overlap: bool = False,
    on_event: Callable[[DeviceEvent], None] = lambda _: None,
) -> None:
    """Serve the server of this device until SIGTERM or SIGINT; call it in the main thread.

    Args:
        directory: the device's folder.
        simulated_noise: seed of noise that protects no one; see `Device.node_settings`. It is
            never read from the folder, and log and status report it.
        accept_overlap: see `DataRegistry.claim`.
        on_event: called with what happens.

    Raises:
        UsageError: no device here, or it is already running.
        EnrolmentError: the server does not accept this device, or is not the pinned one.
        ConfigError, LedgerError, DataError: policy, ledger or records cannot be used.
    """
    device = Device(directory)
    settings = device.settings()
    place = settings.data.place
    _check_ready(device, accept_overlap=accept_overlap)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every request
    host = host_of(settings.server)
    keep_local_calls_direct(*([host] if is_loopback(host) else []))
    interruption = _Interruption()
    with device.exclusive(), logging_to(device.log_path), stop_signal(interruption) as stop:
        status = _Status(device, settings.server, simulated_noise)
        tell = _teller(status, on_event)
        if simulated_noise is not None:
            tell("trouble", "the noise is SEEDED: this device protects no one in this session")
        os.chdir(directory)  # a neutral place: nothing in a user's folder is imported by mistake
        _log.info("device %s starts, records: %s", settings.name, place)
        try:
            _serve(device, simulated_noise, status, tell, stop, interruption)
        except Stopped:
            pass
        except BaseException as error:
            if not isinstance(error, SystemExit):
                _log.error(
                    "stopped: %s", error.full_text if isinstance(error, CalyxError) else repr(error)
                )
            raise
        finally:
            status.put(state="stopped")
        tell("stopped", "stopped")


def _serve(
    device: Device,
    simulated_noise: int | None,
    status: _Status,
    tell: Callable[[str, str], None],
    stop: threading.Event,
    interruption: _Interruption,
) -> None:
    import torch

    from calyx.client.app import app
    from calyx.client.deployment.fleet import Fleet

    # Small devices have better use for their cores, and sums do not depend on their number.
    torch.set_num_threads(1)
    settings = device.settings()

    def on_trouble(text: str) -> None:
        proxy = proxy_for(settings.server)
        if text:
            tell("trouble", f"{text} (through the proxy {proxy})" if proxy else text)
        else:
            tell("recovered", f"{settings.server} is there again")

    def on_answer(answered: Answered) -> None:
        status.count(answered)
        where = f"round {answered.round}" if answered.round else answered.what
        if answered.refusal:
            tell("refused", f"{where}: refused: {answered.refusal}")
        else:
            tell("answered", f"{where}: answered in {answered.seconds:.2f} s")

    fleet = Fleet(
        settings.server,
        device.ca_path.read_bytes(),
        device.node_key(),
        settings.max_message_bytes,
        stop,
        on_trouble,
    )
    try:
        status.put(state="connecting")
        node_id = fleet.connect(status.last_node_id)
        status.put(state="connected", node_id=node_id)
        proxy = proxy_for(settings.server)
        way = f", through the proxy {proxy}" if proxy else ""
        tell("connected", f"connected to {settings.server} as {settings.name}{way}")
        node_settings = device.node_settings(simulated_noise)
        with interruption.armed():
            SuperNode(fleet, app, node_settings, node_id, stop, on_answer, on_trouble).serve()
    finally:
        fleet.close()


def status_of(directory: Path) -> dict[str, Any]:
    """What a device is doing and what was spent on its records, for people and scripts.

    Raises:
        UsageError: there is no device.
    """
    device = Device(directory)
    settings = device.settings()
    pid = device.running_pid()
    stored = read_status(device.status_path)
    stored["state"] = stored.get("state", "never ran") if pid else "stopped"
    return {
        "running": pid is not None,
        "pid": pid,
        "name": settings.name,
        "server": settings.server,
        "records": f"{settings.data.source}: {settings.data.place}",
        "can_seal": bool(settings.authority_key),
        **{k: v for k, v in stored.items() if k != "pid"},
    }


def stop_running(directory: Path, timeout_s: float = 20.0) -> bool:
    """Tell a running device to stop and wait until it has; False if none was running.

    Raises:
        UsageError: there is no device.
        RunError: it does not stop.
    """
    device = Device(directory)
    device.settings()
    return device.stop_running(timeout_s)


def _check_ready(device: Device, *, accept_overlap: bool) -> None:
    """Fail before the server is contacted, with everything that only the owner can mend."""
    policy, data = Policy.load(device.policy_path), device.settings().data
    device.node_key()
    if device.ledger_path.exists():
        with Ledger.read_only(device.ledger_path) as ledger:
            ledger.entries()
    # Not "messages", since a refusal needs no ledger.
    elif read_status(device.status_path).get("trained"):
        raise LedgerError(
            f"the ledger {device.ledger_path} is gone, so it is unknown what was spent on these "
            "records",
            hint="restore it from a copy, or enrol a new device with new records",
        )
    if not device.sequence_path.exists():
        raise UsageError(
            f"{device.sequence_path} is gone, so it is unknown which messages of the server were "
            "obeyed already",
            hint="restore it from a copy, or enrol the device again in another folder",
        )
    _load_own_task(policy, data)
    records = stored_records(data)
    DataRegistry.of_user().claim(
        records, device.ledger_path, files=data.records.files, accept_overlap=accept_overlap
    )


def _load_own_task(policy: Policy, data: DataPlace) -> None:
    """Load the owner's own task, or tell him how to agree to what it has become."""
    if not TaskConfig(kind=data.task).is_own:
        return
    make_importable(data.python_path)
    present = AgreedTask.present(data.task)
    agreed = policy.training.agreed_tasks or ()
    if reason := disagreement(data.task, agreed):
        raise PolicyViolation(
            reason,
            hint=f'if you want its code as it is now to run, write tasks = ["{present}"] under '
            "[training] in policy.toml",
        )
    load(data.task, agreed)


class _Status:
    """`status.json`: written on every change, whole."""

    def __init__(self, device: Device, server: str, simulated_noise: int | None) -> None:
        self._path = device.status_path
        before = read_status(device.status_path)
        self.last_node_id: int | None = before.get("node_id")
        self._fields: dict[str, Any] = {
            "pid": os.getpid(),
            "since": _now(),
            "node_id": self.last_node_id,
            "noise": "system entropy" if simulated_noise is None else "SEEDED, protects no one",
            "messages": before.get("messages", 0),
            "trained": before.get("trained", 0),
            "refusals": before.get("refusals", 0),
            "last_refusal": before.get("last_refusal", ""),
            "last_message": before.get("last_message", ""),
        }

    def count(self, answered: Answered) -> None:
        fields = self._fields
        fields["messages"] += 1
        fields["last_message"] = _now()
        if answered.what == "train" and not answered.refusal:
            fields["trained"] += 1
        if answered.refusal:
            fields["refusals"] += 1
            fields["last_refusal"] = answered.refusal
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
        self.put(peak_memory_bytes=peak)

    def put(self, **fields: Any) -> None:  # fields of the file, not arguments passed on
        self._fields |= fields
        write_status(self._path, self._fields)


class _Interruption:
    """Whether a signal ends not only the loop, but also what is being computed, as `Stopped`."""

    def __init__(self) -> None:
        self._is_armed = False

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Within the block the next signal interrupts."""
        self._is_armed = True
        try:
            yield
        finally:
            self._is_armed = False

    def __call__(self) -> None:
        if self._is_armed:
            self._is_armed = False
            raise Stopped


def _teller(status: _Status, on_event: Callable[[DeviceEvent], None]) -> Callable[[str, str], None]:
    def tell(kind: str, text: str) -> None:
        _log.log(logging.WARNING if kind in ("refused", "trouble") else logging.INFO, text)
        on_event(DeviceEvent(kind, text))

    return tell


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
