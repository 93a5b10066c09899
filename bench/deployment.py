"""What a deployment costs beyond its training: ``python -m bench.deployment [--json]``.

Real processes on this machine: SuperLink over TLS, key authority, three devices with parts of the
digits, sealed sums. A no-op round is one whose training is next to nothing: a model of a few
hundred parameters, full batches of few records; what is left is messages, sealing, release,
evaluation and checkpoint.

    noop_round_s     median over the rounds after the first
    digits_round_s   the same for the default preset's model
    client_idle_mb   resident memory of a connected device that was not asked yet
    client_peak_mb   most resident memory over both runs
    start_s          from nothing to three connected devices, certificates and keys included
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.deployment_harness import Deployment

ROUNDS = 10
TINY = ("data.view=sequence", "model.name=lstm", "model.hidden=2")


def resident_mb(pid: int, what: str) -> float:
    """``VmRSS`` or ``VmHWM`` of a process, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    raise RuntimeError(f"no {what} for process {pid}")


def measure() -> dict[str, float]:
    """Set up, run, measure, take down."""
    with tempfile.TemporaryDirectory(prefix="calyx-bench-") as folder:
        began = time.monotonic()
        deployment = Deployment(Path(folder))
        for number in range(deployment.clients):
            policy = deployment.device(number).policy_path
            policy.write_text(policy.read_text().replace("max_epsilon = 4.0", "max_epsilon = 40.0"))
        with deployment:
            started = time.monotonic() - began
            idle = [resident_mb(d.pid, "VmRSS") for d in deployment.devices]
            seconds = {}
            for name, settings in (("noop", TINY), ("digits", ())):
                deployment.submit(name, f"training.rounds={ROUNDS}", *settings)
                end = deployment.wait(name)
                if end.state != "completed":
                    raise RuntimeError(f"run {name} {end.state}: {end.error}")
                rounds = [e["seconds"] for e in deployment.events(name, "round")]
                seconds[name] = statistics.median(rounds[1:])
            peak = [resident_mb(d.pid, "VmHWM") for d in deployment.devices]
    return {
        "noop_round_s": round(seconds["noop"], 3),
        "digits_round_s": round(seconds["digits"], 3),
        "client_idle_mb": max(idle),
        "client_peak_mb": max(peak),
        "start_s": round(started, 1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    as_json = parser.parse_args().json
    found = measure()
    for name, value in found.items():
        print(f"{name:16} {value}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
