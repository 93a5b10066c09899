"""What the machine offers: processors, disk, and libraries that really work.

Compiled libraries are tried in a process of their own, because one that was built for another
processor ends the process that loads it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from calyx.cli.doctor.check import Check
from calyx.cli.doctor.probe import PROBES

_TIMEOUT_S = 180
_DISK_FAULT_GB, _DISK_NOTE_GB = 0.5, 5.0
_REPAIR = {
    "torch": "pip install --force-reinstall 'torch>=2.13,<2.14'",
    "Opacus": "pip install --force-reinstall 'opacus>=1.6,<1.7'",
    "TenSEAL": "pip install --force-reinstall 'tenseal>=0.3.18,<0.4'",
    "SQLite": "use a Python that was built with SQLite; the privacy ledger is kept in it",
}


def processor_check() -> Check:
    """How many cores this process may use."""
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    text = f"{usable}" if usable == there else f"{usable} of {there} usable"
    return Check("processor cores", "ok", text)


def disk_check(folder: Path) -> Check:
    """Whether a run folder can be written here."""
    free_gb = shutil.disk_usage(folder).free / 1e9
    found = f"{free_gb:,.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        fix = "go to a folder of your own, or name one with --out"
        return Check("disk", "note", f"{folder} cannot be written to", fix)
    if free_gb < _DISK_FAULT_GB:
        return Check("disk", "fault", found, "free some space, or name another disk with --out")
    if free_gb < _DISK_NOTE_GB:
        return Check("disk", "note", found, "long runs of large models may need more")
    return Check("disk", "ok", found)


def library_checks() -> list[Check]:
    """Whether torch, a GPU, Opacus, TenSEAL and SQLite do what Calyx needs of them."""
    # -P keeps the working folder, where anything may lie, off the path.
    command = [sys.executable, "-P", "-m", "calyx.cli.doctor.probe"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
        ended = _ending(done.returncode)
        output = done.stdout
    except subprocess.TimeoutExpired as error:
        ended, output = f"gave no answer within {_TIMEOUT_S} s", error.stdout or b""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    answers: dict[str, dict[str, Any]] = {line["name"]: line for line in lines}
    checks = []
    for name in PROBES:
        answer = answers.get(name, {"fault": f"the process that tried it {ended}"})
        if fault := answer.get("fault"):
            checks.append(Check(f"try {name}", "fault", fault, _REPAIR[name]))
        else:
            checks.append(Check(f"try {name}", "ok", answer["found"]))
        if "gpu" in answer:
            checks.append(_gpu_check(answer["gpu"]))
    return checks


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _gpu_check(found: str) -> Check:
    if found:
        return Check("GPU", "ok", f"{found}; use it with --set training.device=cuda")
    if Path("/dev/nvidia0").exists():
        fix = "install a torch build for CUDA and a driver that fits it"
        return Check("GPU", "note", "there is one, but this torch cannot use it", fix)
    return Check("GPU", "ok", "none; training uses the processor")
