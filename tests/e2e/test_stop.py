"""``calyx server stop --run`` ends a run, and resuming it charges no device twice for a round."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from bench.deployment_harness import calyx
from calyx.cli.terminal.deployed_run import submit_run
from calyx.server.deployment.handover import stop_run
from calyx.server.deployment.submission import read_submission, stored_config, wait_for_end
from tests.e2e.network import DEVICES, HELD, Network, behind_proxy, until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

ROUNDS, STOP_S, _SETTLED_S = 6, 60.0, 3.0


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with behind_proxy(tmp_path_factory.mktemp("stop"), is_open=False) as network:
        yield network


def charged(network: Network, run: str) -> list[list[int]]:
    return [network.charges(number, run) for number in range(DEVICES)]


def nothing_happens(network: Network, run: str) -> None:
    """A stopped run stays so: longer than devices and executor take to look for work again."""
    time.sleep(_SETTLED_S)  # a device may be in the middle of its training
    before = charged(network, run), read_submission(network.folder, run)
    time.sleep(_SETTLED_S)
    assert (charged(network, run), read_submission(network.folder, run)) == before


def test_stop_in_a_round_and_resume_and_stop_and_resume(network: Network) -> None:
    folder, run = network.folder, "stopped"
    with network.round_held(run, rounds=ROUNDS) as held:
        answered = charged(network, run)
        command = calyx("server", "stop", str(folder.directory), "--run", run)
        done = subprocess.run(command, capture_output=True, text=True, timeout=STOP_S)
        assert done.returncode == 0 and "was stopped; continue it with" in done.stdout + done.stderr
    ended = wait_for_end(folder, run, STOP_S)
    assert (ended.state, ended.attempts, ended.error) == ("stopped", 1, "")
    nothing_happens(network, run)
    after = charged(network, run)
    # Those that had answered were charged for that round, once; the third one perhaps.
    assert after[:HELD] == answered[:HELD] == [list(range(1, held + 1))] * HELD
    assert after[HELD] in (answered[HELD], [*answered[HELD], held])

    submit_run(network.server_dir, run, stored_config(folder, run), resume=True)
    network.wait_for_round(run, held)
    again = next(e for e in network.events(run, "round") if e["round"] == held)
    assert again["ok"] == DEVICES
    stop_run(folder, run)
    assert wait_for_end(folder, run, STOP_S).state == "stopped"
    nothing_happens(network, run)
    assert max(map(max, charged(network, run))) < ROUNDS, "it was stopped too late to see anything"

    submit_run(network.server_dir, run, stored_config(folder, run), resume=True)
    network.check(run, ROUNDS)
    assert charged(network, run) == [list(range(1, ROUNDS + 1))] * DEVICES
    assert [n for kind, n in network.releases(run) if kind == "granted"] == list(
        range(1, ROUNDS + 1)
    )


def test_server_that_dies_while_it_stops_a_run_does_not_go_on_with_it(network: Network) -> None:
    folder, run = network.folder, "killed"
    with network.round_held(run, rounds=ROUNDS):
        network.server.kill()
        until("the end of the server", lambda: folder.running_pid() is None)
        assert stop_run(folder, run).state == "stopping"
        network.server.output.unlink()
        network.server.start()
        network.wait_for("the server", network.server, lambda p: "ready on" in p.said)
        assert wait_for_end(folder, run, STOP_S).state == "stopped"
    nothing_happens(network, run)
