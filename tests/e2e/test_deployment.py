"""A whole federation of real processes: it works, it refuses, it leaves nothing behind."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.deployment_harness import Deployment, Party, calyx
from calyx.client.deployment.launch import status_of as device_status
from calyx.client.ledger.ledger import Ledger
from calyx.server.deployment.launch import status_of as server_status
from calyx.shared.protocol.enrolment import read_request
from calyx.simulations import run as simulate
from tests.e2e.network import Network

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


def command(*words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(calyx(*words), capture_output=True, text=True, timeout=timeout_s)


def run_command(
    federation: Deployment, name: str, *settings: str
) -> subprocess.CompletedProcess[str]:
    chosen = [f"federation.clients={federation.clients}", *settings]
    flags = [word for setting in chosen for word in ("--set", setting)]
    return command("server", "run", str(federation.server_dir), "--name", name, "--json", *flags)


SEALED = ("secure_aggregation.min_contributors=3", "training.rounds=2")


def test_sealed_run_completes_and_every_device_accounts_for_it(federation: Network) -> None:
    federation.proxy.take_said()
    done = run_command(federation, "first", *SEALED)
    assert done.returncode == 0, done.stderr
    said = federation.proxy.take_said()
    assert said.count(b"chunks") == 6 and b"ArrayRecord" not in said
    assert largest_object(said) > 100_000  # one sealed update
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["state"], result["rounds"], result["clients"]) == ("completed", 2, 3)
    assert 0 < result["epsilon_max"] <= 3
    for number in range(3):
        with Ledger.read_only(federation.device(number).ledger_path) as ledger:
            rounds = [(e.run, e.round) for e in ledger.entries() if e.run == "first"]
        assert rounds == [("first", 1), ("first", 2)]
        assert "round 2: answered" in federation.devices[number].said


def largest_object(said: bytes) -> int:
    """Bytes of the largest thing that a device has handed to the server."""
    pushed = re.findall(rb"/v1/fleet/push-object HTTP(?:.*\r\n)*?Content-Length: (\d+)", said)
    return max(map(int, pushed), default=0)


def test_status_tells_scripts_what_runs(federation: Deployment) -> None:
    server = json.loads(command("server", "status", str(federation.server_dir), "--json").stdout)
    assert server["running"] and set(server["processes"]) == {"superlink", "serverapp"}
    assert {d["name"]: d["status"] for d in server["devices"]} == dict.fromkeys("012", "online")
    device = json.loads(command("client", "status", str(federation.device_dir(0)), "--json").stdout)
    assert device["running"] and device["state"] == "connected"
    assert device["noise"] == "system entropy"


def test_devices_open_no_port_and_servers_only_local_ones(federation: Deployment) -> None:
    listening = listening_addresses()
    for device in federation.devices:
        assert not listening.get(device.pid)
    processes = server_status(federation.server_dir)["processes"].values()
    addresses = [a for pid in processes for a in listening.get(pid, [])]
    assert addresses and all(address.startswith("127.0.0.1:") for address in addresses)


def listening_addresses() -> dict[int, list[str]]:
    """Listening TCP sockets by process, from /proc."""
    inodes = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                address, port = fields[1].split(":")
                octets = ".".join(str(b) for b in reversed(bytes.fromhex(address[:8])))
                host = octets if table == "tcp" else f"v6 {address}"
                inodes[f"socket:[{fields[9]}]"] = f"{host}:{int(port, 16)}"
    found: dict[int, list[str]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        found[int(process.name)] = [inodes[link] for link in links if link in inodes]
    return found


# Settings of the run, a change of the owner's policy, and what both sides must say.
REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, str], str]] = {
    "no privacy": (("privacy.noise=none", *SEALED), ("", ""), "privacy.noise = none was requested"),
    "updates that the server can read": (
        ("secure_aggregation.scheme=none", "privacy.noise=local", "training.rounds=1"),
        ("", ""),
        "secure_aggregation.scheme = none was requested",
    ),
    "more epsilon than is left": (
        SEALED,
        ("max_epsilon = 100.0", "max_epsilon = 0.5"),
        "the policy allows at most 0.5",
    ),
    "sums of too few clients": (
        SEALED,
        ("min_contributors = 2", "min_contributors = 4"),
        "the policy allows at least 4",
    ),
    "another model than agreed": (
        SEALED,
        ("models = []", 'models = ["lstm"]'),
        "model.name = cnn was requested",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_policy_forbids_is_refused_and_both_sides_say_why(
    federation: Network, name: str
) -> None:
    """And nothing leaves the devices: what they said is captured, and holds the refusals alone."""
    settings, change, reason = REFUSED[name]
    policies = [federation.device(number).policy_path for number in range(3)]
    before = policies[0].read_text()
    for policy in policies:
        policy.write_text(before.replace(*change))
    run = f"refused-{list(REFUSED).index(name)}"
    federation.proxy.take_said()
    try:
        done = run_command(federation, run, *settings)
    finally:
        for policy in policies:
            policy.write_text(before)
    assert done.returncode == 1, done.stdout
    assert reason in done.stderr
    said = federation.proxy.take_said()
    assert said.count(reason.encode()) >= 3
    assert b"ArrayRecord" not in said and b"chunks" not in said
    assert largest_object(said) < 1000
    assert all(reason in device.said for device in federation.devices)
    with Ledger.read_only(federation.device(0).ledger_path) as ledger:
        assert not [entry for entry in ledger.entries() if entry.run == run]


def test_stranger_is_told_to_be_approved(federation: Deployment, tmp_path: Path) -> None:
    enrolled = enroll_stranger(federation, tmp_path / "stranger")
    assert enrolled.returncode == 0, enrolled.stderr
    joined = command("client", "join", str(tmp_path / "stranger"))
    assert joined.returncode == 1
    assert "was not approved yet" in joined.stderr and "calyx server approve" in joined.stderr


def enroll_stranger(
    federation: Deployment, directory: Path, name: str = "stranger"
) -> subprocess.CompletedProcess[str]:
    # The records of a device that is there: as another user of this machine, for each stranger.
    data = federation.device_dir(0) / "data"
    return command(
        *("client", "enroll", str(directory), "--name", name, "--data", str(data)),
        *("--server", federation.folder.local_address, "--ca", str(federation.folder.for_devices)),
    )


def test_revoked_device_stops_and_cannot_come_back(federation: Deployment, tmp_path: Path) -> None:
    directory, server = tmp_path / "late", str(federation.server_dir)
    assert enroll_stranger(federation, directory, "late").returncode == 0
    request = str(directory / "request.json")
    unsaid = command("server", "approve", server, request)
    assert unsaid.returncode == 2 and "add --fingerprint" in unsaid.stderr
    said = ("--fingerprint", read_request((directory / "request.json").read_text()).fingerprint)
    assert command("server", "approve", server, request, *said).returncode == 0
    again = command("server", "approve", server, request, *said)
    assert again.returncode == 1 and "was already used" in again.stderr
    device = Party(("client", "join", str(directory)), tmp_path / "late.out")
    device.start()
    try:
        federation.wait_for("the device", device, lambda p: "connected" in p.said)
        assert command("server", "revoke", server, "late").returncode == 0
        assert device.process is not None
        assert device.process.wait(30) == 1
    finally:
        device.stop()
    assert "has revoked it" in device.said
    assert device_status(directory)["state"] == "stopped"
    joined = command("client", "join", str(directory))
    assert joined.returncode == 1 and "was revoked" in joined.stderr


def test_deployment_computes_what_its_simulation_computes(
    make_deployment: Callable[..., Deployment], tmp_path: Path
) -> None:
    """Bit for bit, with the seeded noise that only an option of `calyx client join` turns on."""
    rounds = 3
    with make_deployment(simulated_noise=0) as deployment:
        deployment.submit("same", f"training.rounds={rounds}")
        assert deployment.wait("same").state == "completed"
        deployed = deployment.events("same", "round")
        assert device_status(deployment.device_dir(0))["noise"].startswith("SEEDED")
    simulated: list[dict[str, Any]] = []
    simulate(
        "digits-cnn",
        rounds=rounds,
        clients=3,
        settings=["secure_aggregation.min_contributors=3"],
        out=tmp_path / "same",
        workers=1,
        on_event=lambda event: simulated.append(event) if event["event"] == "round" else None,
    )
    figures = ("accuracy", "loss", "epsilon_max", "ok")
    assert [[e[f] for f in figures] for e in deployed] == [
        [e[f] for f in figures] for e in simulated
    ]
    assert_all_ended(deployment)


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    make_deployment: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        with make_deployment() as deployment:
            devices = server_status(deployment.server_dir)["devices"]
            assert [device["status"] for device in devices] == ["online"] * 3
            deployment.submit("near", "training.rounds=1")
            assert deployment.wait("near").state == "completed"
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):  # no one has connected
            proxy.accept()


def assert_all_ended(deployment: Deployment) -> None:
    """Every party ended when told to, and took its children with it."""
    for party in deployment.parties:
        assert party.process is not None and party.process.returncode == 0, party.said
    root = str(deployment.root).encode()
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert root not in line.read_bytes()
        except OSError:
            continue  # it ended while we looked
