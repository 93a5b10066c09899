"""Tries out compiled libraries: ``python -m calyx.cli.doctor.probe``, one JSON object a line.

Run by `calyx.cli.doctor.machine` as a process of its own; a name without a line is a library that
ended it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def _torch() -> Found:
    import torch

    product = torch.ones(8, 8) @ torch.ones(8, 8)
    if float(product.sum()) != 8.0**3:
        raise ArithmeticError("a matrix product came out wrong")
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return {"found": f"{torch.__version__} works, {threads} threads", "gpu": gpu}


def _opacus() -> Found:
    import opacus
    import torch
    from opacus import GradSampleModule

    model = GradSampleModule(torch.nn.Linear(2, 1))
    model(torch.ones(3, 2)).sum().backward()
    weight = next(model.parameters())
    if tuple(weight.grad_sample.shape) != (3, 1, 2):
        raise ArithmeticError("per-sample gradients have the wrong shape")
    return {"found": f"{opacus.__version__} works, gradients of single samples are right"}


def _tenseal() -> Found:
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.BFV, poly_modulus_degree=4096, plain_modulus=1032193
    )
    total = tenseal.bfv_vector(context, [1, 2, 3]) + tenseal.bfv_vector(context, [10, 20, -30])
    if total.decrypt() != [11, 22, -27]:
        raise ArithmeticError("an encrypted sum came out wrong")
    return {"found": f"{tenseal.__version__} works, an encrypted sum is right"}


def _sqlite() -> Found:
    import sqlite3

    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "probe.sqlite")
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("CREATE TABLE probe (value INTEGER)")
            connection.commit()
        finally:
            connection.close()
    return {"found": f"{sqlite3.sqlite_version} works"}


PROBES: dict[str, Callable[[], Found]] = {
    "torch": _torch,
    "Opacus": _opacus,
    "TenSEAL": _tenseal,
    "SQLite": _sqlite,
}


def main() -> None:
    """Try every library and write what came of it to standard output."""
    # Libraries may print; only our lines may reach the reader.
    out = os.dup(1)
    os.dup2(2, 1)
    for name, probe in PROBES.items():
        try:
            answer = {"name": name, **probe()}
        except Exception as error:  # whatever a broken library raises is what is asked for
            reason = (str(error).splitlines() or [""])[0]
            answer = {"name": name, "fault": f"{type(error).__name__}: {reason}"}
        os.write(out, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
