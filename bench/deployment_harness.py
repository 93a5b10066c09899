"""A whole deployment on this machine, with real processes: for benchmarks and end-to-end tests.

::

    with Deployment(Path("somewhere"), clients=3) as deployment:
        deployment.submit("first", "training.rounds=2")
        assert deployment.wait("first").state == "completed"

Everything listens on this machine only and lies under one folder. Processes are those of ``calyx
authority serve``, ``calyx server up`` and ``calyx client join``; leaving the block ends them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from calyx.authority import launch as authority_launch
from calyx.cli.terminal.deployed_run import submit_run
from calyx.client.deployment.enrolment import enroll, keep_records
from calyx.client.deployment.folder import DataPlace, Device
from calyx.client.ledger.data_registry import DataRegistry
from calyx.server.deployment import launch as server_launch
from calyx.server.deployment import setup as server_setup
from calyx.server.deployment.enrolment import approve
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.submission import Submission, read_submission
from calyx.server.state.journal import Event, RunEvents
from calyx.shared.data.demo_share import share_of_digits
from calyx.shared.host.address import bracketed
from calyx.simulations.presets import resolve

_START_S, _STOP_S, _PAUSE_S = 90.0, 30.0, 0.1


def free_port() -> int:
    """A port that no process listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def calyx(*words: str) -> list[str]:
    """The command line of ``calyx WORDS``, from wherever this Python is."""
    return [sys.executable, "-P", "-m", "calyx.cli.main", *words]


@dataclass
class Party:
    """One party's process.

    Attributes:
        words: of its ``calyx`` command.
        output: file with what it wrote to its terminal.
        process: None while it is not started.
    """

    words: Sequence[str]
    output: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """What is started."""
        return calyx(*self.words)

    def start(self) -> None:
        """Start it, or start it again."""
        with self.output.open("ab") as file:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    @property
    def said(self) -> str:
        """Everything it has written so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def kill(self) -> None:
        """As kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As SIGTERM; returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)


class Deployment:
    """One authority, one server, some devices with parts of the digits.

    Args:
        root: an empty folder.
        clients: number of devices; they are called 0, 1, 2 as in a simulation.
        is_sealed: with a key authority.
        simulated_noise: see ``calyx client join``; for comparing with a simulation only.
        device_server: address the devices are told, if not the server's own (a proxy's).
        public_port: of the reverse proxy that the server has written a configuration for.
        min_contributors: what the authority's owner asks of every run; None for the default.
        host: address of this machine that server and authority listen on.
        records: of each device, by its number; None for parts of the digits.
        environment: of all processes, beside what this one has.
    """

    def __init__(
        self,
        root: Path,
        clients: int = 3,
        *,
        is_sealed: bool = True,
        simulated_noise: int | None = None,
        device_server: str | None = None,
        server_port: int | None = None,
        public_port: int = server_setup.PUBLIC_PORT,
        min_contributors: int | None = None,
        host: str = "127.0.0.1",
        records: Callable[[int], DataPlace] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.clients = root, clients
        port, authority_port = server_port or free_port(), free_port()
        self.server_dir, self.authority_dir = root / "server", root / "authority"
        server_setup.init(self.server_dir, listen=host, port=port, public_port=public_port)
        self.folder = ServerFolder(self.server_dir)
        key = ""
        self.authority: Party | None = None
        if is_sealed:
            made = authority_launch.init(
                self.authority_dir,
                hosts=["localhost", host],
                port=authority_port,
                min_contributors=min_contributors,
            )
            address = f"{bracketed(host)}:{authority_port}"
            server_setup.use_authority(self.server_dir, address, made.for_server)
            key = made.verify_key
            words = ("authority", "serve", str(self.authority_dir), "--host", host)
            self.authority = Party(words, root / "authority.out")
        more = dict(environment or {})
        up = ("server", "up", str(self.server_dir))
        self.server = Party(up, root / "server.out", environment=more)
        # Its devices hold the same digits as those of any other deployment.
        state = {**more, "XDG_STATE_HOME": str(root / "state")}
        registry = DataRegistry(root / "state" / "calyx")
        self.devices: list[Party] = []
        noise = () if simulated_noise is None else ("--simulated-noise", str(simulated_noise))
        for number in range(clients):
            directory = self.device_dir(number)
            if records is None:
                data = keep_records(directory, share_of_digits(number, clients, 0))
            else:
                data = records(number)
            enrolled = enroll(
                directory,
                name=str(number),
                server=device_server or f"{bracketed(host)}:{port}",
                ca=self.server_dir / "for-devices" / "ca.pem",
                authority_key=key,
                data=data,
                registry=registry,
            )
            request = enrolled.device.request_path.read_text()
            fingerprint = enrolled.request.fingerprint
            approve(self.folder, request, fingerprint=fingerprint)
            if is_sealed:
                authority_launch.approve(self.authority_dir, request, fingerprint=fingerprint)
            words = ("client", "join", str(directory), *noise)
            self.devices.append(Party(words, root / f"device-{number}.out", environment=state))

    def device_dir(self, number: int) -> Path:
        """Folder of a device."""
        return self.root / f"device-{number}"

    def device(self, number: int) -> Device:
        """A device's folder as an object."""
        return Device(self.device_dir(number))

    @property
    def parties(self) -> list[Party]:
        """All of them, in the order of their start."""
        return [p for p in (self.authority, self.server, *self.devices) if p is not None]

    def start(self) -> None:
        """Start everything and wait until all devices are connected."""
        if self.authority is not None:
            self.authority.start()
        self.server.start()
        if self.authority is not None:
            self.wait_for("the authority", self.authority, lambda p: "ready" in p.said)
        self.wait_for("the server", self.server, lambda p: "ready on" in p.said)
        for device in self.devices:
            device.start()
        for device in self.devices:
            self.wait_for("a device", device, lambda p: "connected to" in p.said)

    def wait_for(self, what: str, party: Party, condition: Callable[[Party], bool]) -> None:
        """Wait for something a party does.

        Raises:
            RuntimeError: it ended, or took too long; with its last words.
        """
        deadline = time.monotonic() + _START_S
        while not condition(party):
            assert party.process is not None
            if party.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{what} is not ready: {party.said[-500:]!r}")
            time.sleep(_PAUSE_S)

    def submit(self, run: str, *settings: str, preset: str = "digits-cnn") -> None:
        """Submit a run of as many clients as there are devices."""
        always = [f"federation.clients={self.clients}"]
        if self.authority is None:
            always += ["secure_aggregation.scheme=none", "privacy.noise=local"]
        else:
            always += [f"secure_aggregation.min_contributors={self.clients}"]
        config = resolve(preset, [*always, *settings])
        submit_run(self.server_dir, run, config, resume=False)

    def wait(self, run: str, timeout_s: float = 120.0) -> Submission:
        """Wait for the end of a run.

        Raises:
            RuntimeError: it took too long.
        """
        deadline = time.monotonic() + timeout_s
        while (submission := read_submission(self.folder, run)).is_open:
            if time.monotonic() > deadline:
                raise RuntimeError(f"run {run} is {submission.state} after {timeout_s:g} s")
            time.sleep(_PAUSE_S)
        return submission

    def events(self, run: str, kind: str | None = None) -> list[Event]:
        """The journal of a run so far, or its events of one kind."""
        told = RunEvents.read(self.folder.run_dir(run))
        return list(told.all) if kind is None else told.of(kind)

    def wait_for_round(self, run: str, number: int, timeout_s: float = 60.0) -> None:
        """Wait until a round is in the journal.

        Raises:
            RuntimeError: it took too long, or the run ended before.
        """
        deadline = time.monotonic() + timeout_s
        while not any(e["round"] >= number for e in self.events(run, "round")):
            state = read_submission(self.folder, run)
            if time.monotonic() > deadline or not state.is_open:
                raise RuntimeError(f"round {number} of run {run} did not come: {state}")
            time.sleep(_PAUSE_S / 2)

    def server_process(self, name: str) -> int:
        """Process id of the server's ``superlink`` or ``serverapp``."""
        return int(server_launch.status_of(self.server_dir)["processes"][name])

    def stop(self) -> None:
        """End every process, the devices first."""
        for party in reversed(self.parties):
            party.stop()

    def __enter__(self) -> Deployment:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
