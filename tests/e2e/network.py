"""A deployment behind a proxy: rounds held open, and what must hold no matter what happens."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from bench.deployment_harness import Deployment, free_port
from calyx.authority.log.events import Granted, Repeated
from calyx.authority.log.log import verify
from calyx.client.ledger.ledger import Ledger
from tests.e2e.proxy import Glass, Proxy

DEVICES = 3
HELD = 2  # the device that is stopped to hold a round open
TRIO = ("secure_aggregation.min_contributors=2", "federation.min_replies=2")
# A device's first policy lets one run of the default preset pass; tests have many. And sums of
# two, for rounds that continue without the third.
GENEROUS = (
    ("max_epsilon = 4.0", "max_epsilon = 100.0"),
    ("min_contributors = 3", "min_contributors = 2"),
)


class Network(Deployment):
    """A deployment whose devices reach their server through a proxy."""

    proxy: Proxy

    def check(self, run: str, rounds: int) -> list[dict[str, Any]]:
        """What holds after any fault; returns the rounds as the journal has them."""
        submission = self.wait(run)
        assert submission.state == "completed", submission.error
        told = self.events(run, "round")
        assert [e["round"] for e in told] == list(range(1, rounds + 1))
        assert not [e["reason"] for e in told if e["skipped"]], "a round was lost"
        model = load_file(self.folder.run_dir(run) / "model.safetensors")
        assert all(np.isfinite(array).all() for array in model.values())
        for number in range(DEVICES):
            charges = Counter(self.charges(number, run))
            assert max(charges.values(), default=0) == 1, f"device {number}: {charges}"
            answered = {e["round"] for e in told if e["ok"] == DEVICES}
            assert answered <= charges.keys(), "an update that no ledger accounts for"
        return told

    def charges(self, number: int, run: str) -> list[int]:
        """Rounds that a device's ledger was charged for, each as often as it was."""
        if not self.device(number).ledger_path.exists():
            return []
        with Ledger.read_only(self.device(number).ledger_path) as ledger:
            return [entry.round for entry in ledger.entries() if entry.run == run]

    def releases(self, run: str) -> list[tuple[str, int]]:
        """What the authority decided for a run: granted or repeated, and the round."""
        entries = verify(self.authority_dir / "releases.jsonl").entries
        found = [e.event for e in entries if isinstance(e.event, Granted | Repeated)]
        return [(type(e).__name__.lower(), e.round) for e in found if e.run == run]

    @contextmanager
    def round_held(self, run: str, rounds: int = 3, timeout_s: float = 60.0) -> Iterator[int]:
        """A block within a round that all devices but one have answered; gives its number."""
        timeout = f"federation.round_timeout_s={timeout_s:g}"
        self.submit(run, f"training.rounds={rounds}", timeout, *TRIO)
        self.wait_for_round(run, 1)
        device = self.devices[HELD]
        os.kill(device.pid, signal.SIGSTOP)
        try:
            until("two answers", lambda: self.open_round(run) is not None)
            number = self.open_round(run)
            assert number is not None
            yield number
        finally:
            os.kill(device.pid, signal.SIGCONT)

    def open_round(self, run: str) -> int | None:
        last = (self.events(run) or [{}])[-1]
        numbers = (last.get("arrived"), last.get("asked"))
        is_waiting = last.get("event") == "reply" and numbers == (DEVICES - 1, DEVICES)
        return int(last["round"]) if is_waiting else None

    def stopped_in_training(self, run: str, number: int) -> bool:
        """Stop a device between its charge for a round and its answer; False if it was faster."""
        device = self.devices[HELD]
        until("a charge", lambda: number in self.charges(HELD, run))
        os.kill(device.pid, signal.SIGSTOP)

        def is_over() -> bool:
            return len(self.events(run, "round")) >= number

        until("answers", lambda: is_over() or self.open_round(run) == number)
        if is_over():
            os.kill(device.pid, signal.SIGCONT)
        return not is_over()

    def kill_server_process(self, name: str) -> None:
        """Kill one of the server's processes and wait until its supervisor has another."""
        before = self.server_process(name)
        os.kill(before, signal.SIGKILL)
        until(f"a new {name}", lambda: self.server_process(name) != before)


def allow_many_runs(policy: Path) -> None:
    """Change a device's first policy; see `GENEROUS`."""
    text = policy.read_text()
    for before, after in GENEROUS:
        assert before in text
        text = text.replace(before, after)
    policy.write_text(text)


def until(what: str, condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} after {timeout_s:g} s"
        time.sleep(0.005)


@contextmanager
def behind_proxy(root: Path, *, is_open: bool) -> Iterator[Network]:
    """A running deployment, sealed, whose owners allow many runs.

    Args:
        root: an empty folder.
        is_open: the proxy ends TLS and sees what devices say.
    """
    server, near = free_port(), free_port()
    network = Network(
        root,
        DEVICES,
        server_port=server,
        device_server=f"127.0.0.1:{near}",
        min_contributors=2,
    )
    folder = network.folder
    glass = Glass(folder.ca_path, folder.certificate_path, folder.private_key_path)
    for number in range(DEVICES):
        allow_many_runs(network.device(number).policy_path)
    with Proxy(near, server, glass if is_open else None) as network.proxy, network:
        yield network
