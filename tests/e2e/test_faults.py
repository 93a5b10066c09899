"""Parties die, hang or lie: the run completes, and no budget is spent twice or for nothing.

All processes are real and are killed with SIGKILL. A round is held open by stopping a device
(SIGSTOP), so each fault comes at a known moment and not after some seconds.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.deployment_harness import Party
from calyx.authority import launch as authority_launch
from calyx.server.deployment.enrolment import revoke
from calyx.server.deployment.launch import status_of
from tests.e2e.network import DEVICES, HELD, TRIO, Network, behind_proxy, until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with behind_proxy(tmp_path_factory.mktemp("faults"), is_open=False) as network:
        yield network


def test_killed_superlink_costs_no_round(network: Network) -> None:
    with network.round_held("superlink"):
        network.kill_server_process("superlink")
    told = network.check("superlink", 3)
    assert told[-1]["ok"] == 3


# The deadlines of these two are short, so they come after a run that has warmed the devices up.
def test_slow_device_is_late_and_asked_again(network: Network) -> None:
    with network.round_held("slow", rounds=5, timeout_s=12) as held:
        network.wait_for_round("slow", held)
    told = network.check("slow", 5)
    assert told[held - 1]["ok"] == 2
    assert told[held - 1]["failed"] == [
        {"client": str(HELD), "reason": "no answer before the deadline"}
    ]
    assert told[-1]["asked"] == 3


def test_device_killed_in_its_training_is_missed_in_that_round_only(network: Network) -> None:
    """Its message is gone with it; what it was about to spend is in its ledger all the same."""
    device, rounds = network.devices[HELD], 8
    network.submit("client", f"training.rounds={rounds}", "federation.round_timeout_s=10", *TRIO)
    killed_in = next(n for n in range(2, rounds) if network.stopped_in_training("client", n))
    device.kill()
    device.output.unlink()
    device.start()
    told = network.check("client", rounds)
    assert told[killed_in - 1]["ok"] == 2 and told[-1]["ok"] == 3
    assert killed_in in network.charges(HELD, "client")


def test_killed_serverapp_repeats_the_round_and_devices_answer_as_before(network: Network) -> None:
    with network.round_held("serverapp") as held:
        network.kill_server_process("serverapp")
        # Those that have already answered repeat their answers while the third is still held.
        until("two answers again", lambda: network.open_round("serverapp") == held)
    network.check("serverapp", 3)
    assert network.releases("serverapp") == [("granted", n) for n in (1, 2, 3)]


def test_killed_server_ends_its_processes_and_goes_on_when_it_is_up_again(
    network: Network,
) -> None:
    with network.round_held("server") as held:
        processes = [network.server_process(name) for name in ("superlink", "serverapp")]
        network.server.kill()
        until("end of its processes", lambda: not any(map(is_alive, processes)))
        network.server.output.unlink()
        network.server.start()
        network.wait_for("the server", network.server, lambda p: "ready on" in p.said)
        until("two answers again", lambda: network.open_round("server") == held)
    network.check("server", 3)
    assert network.releases("server") == [("granted", n) for n in (1, 2, 3)]


def is_alive(pid: int) -> bool:
    """Whether a process still does anything; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_serverapp_killed_between_release_and_checkpoint_uses_the_same_sum(
    network: Network,
) -> None:
    """The authority is asked for exactly the same sum again, and no device for anything."""
    assert network.authority is not None
    with network.round_held("released") as held, stopped(network.authority.pid):
        os.kill(network.devices[HELD].pid, signal.SIGCONT)
        pending = network.folder.run_dir("released") / "pending-release.safetensors"
        until("a sum on the disk", lambda: any_of_round(pending, held))
        server = network.server_process("serverapp")
        os.kill(network.authority.pid, signal.SIGCONT)
        until("a release", lambda: ("granted", held) in network.releases("released"))
        os.kill(server, signal.SIGKILL)
        checkpoints = network.folder.run_dir("released") / "checkpoints"
        assert not list(checkpoints.glob(f"round-{held:06d}.*")), "it was killed too late"
    network.check("released", 3)
    assert Counter(network.releases("released"))["repeated", held] == 1
    assert [n for kind, n in network.releases("released") if kind == "granted"] == [1, 2, 3]


def any_of_round(pending: Path, number: int) -> bool:
    from calyx.shared.protocol.sealed import ciphertext_file

    try:
        return int(ciphertext_file.read(pending)[1]["record"]["round"]) == number
    except FileNotFoundError:
        return False


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_authority_releases_each_sum_once(network: Network, moment: str) -> None:
    authority, run = network.authority, f"authority-{moment}"
    assert authority is not None
    with network.round_held(run) as held:
        pending = network.folder.run_dir(run) / "pending-release.safetensors"
        if moment == "before":
            authority.kill()
        elif moment == "during":
            os.kill(authority.pid, signal.SIGSTOP)
        os.kill(network.devices[HELD].pid, signal.SIGCONT)
        if moment == "after":
            until("a release", lambda: ("granted", held) in network.releases(run))
            authority.kill()
        else:
            until("a sum on the disk", lambda: any_of_round(pending, held))
            authority.kill()
    authority.start()
    network.check(run, 3)
    assert [n for kind, n in network.releases(run) if kind == "granted"] == [1, 2, 3]
    assert len(network.releases(run)) <= 4


def test_network_that_was_cut_is_used_again(network: Network) -> None:
    with network.round_held("cut", timeout_s=30) as held:
        network.proxy.cut()
    # The held device finds no server for its answer until the network is back.
    until("trouble", lambda: "cannot be reached" in network.devices[HELD].said)
    network.proxy.restore()
    told = network.check("cut", 3)
    assert told[held - 1]["ok"] == 3 and told[-1]["ok"] == 3


class Liar(Party):
    """A device that does what `liar.LIES` says."""

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("liar.py")), *self.words]


UNSEALED = (
    "secure_aggregation.scheme=none",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "federation.min_replies=2",
)
REJECTED = {
    # Its receipt is for what it sealed, and so gives it away before anything is added.
    "garbage ciphertext": (TRIO, "the receipt is not for this client's upload"),
    "nothing": (TRIO, "sealed"),
    "NaN": (UNSEALED, "NaN or infinity"),
    "wrong shape": (UNSEALED, "shape"),
}


@pytest.fixture(scope="module")
def lie(network: Network) -> Iterator[Callable[[str], None]]:
    """Device 2 is replaced by a liar, and owners allow updates in clear."""
    network.devices[HELD].stop()
    policies = {}
    for number in range(DEVICES):
        path = network.device(number).policy_path
        policies[path] = path.read_text()
        path.write_text(policies[path].replace("required = true", "required = false"))
    chosen, output = network.root / "lie", network.root / "liar.out"
    liar = Liar((str(network.device_dir(HELD)), str(chosen)), output)
    chosen.write_text("the truth")
    network.devices[HELD] = liar
    liar.start()
    try:
        network.wait_for("the liar", liar, lambda p: "connected to" in p.said)
        yield lambda kind: chosen.write_text(kind) and None
    finally:
        liar.stop()
        for path, text in policies.items():
            path.write_text(text)


@pytest.mark.parametrize("kind", REJECTED)
def test_liar_is_put_aside_and_the_others_go_on(
    network: Network, lie: Callable[[str], None], kind: str
) -> None:
    settings, reason = REJECTED[kind]
    lie(kind)
    run = f"lie-{list(REJECTED).index(kind)}"
    network.submit(run, "training.rounds=2", *settings)
    first, second = network.check(run, 2)
    ((note),) = first["rejected"]
    assert note["client"] == str(HELD)
    assert re.search(reason, note["reason"])
    assert (first["ok"], second["asked"], second["ok"]) == (2, 2, 2)


def test_run_goes_on_without_a_device_that_the_authority_has_revoked(
    network: Network, lie: Callable[[str], None]
) -> None:
    """The authority names it, and the others' sum of the same round is requested without it."""
    lie("the truth")
    name = str(HELD)
    with network.round_held("revoked") as held:
        authority_launch.revoke(network.authority_dir, name)
    told = network.check("revoked", 3)
    assert [e["ok"] for e in told] == [3] * (held - 1) + [2] * (4 - held)
    notes = [note for kind in ("declined", "failed", "rejected") for note in told[held - 1][kind]]
    assert [(n["client"], "was revoked" in n["reason"]) for n in notes] == [(name, True)]
    assert network.releases("revoked") == [("granted", n) for n in (1, 2, 3)]
    revoke(network.folder, name)


def test_nothing_of_all_this_has_stopped_the_server(network: Network) -> None:
    status = status_of(network.server_dir)
    assert status["running"] and set(status["processes"]) == {"superlink", "serverapp"}
