"""What sealed sums cost: bytes, seconds and server memory.

``python -m bench.sealed [--json]`` seals a vector of 421,642 values (the 28x28 CNN) with packed
BFV, and beside it, in the same process, with TenSEAL's usual CKKS setting as NVFlare uses it
(N = 8192, moduli 60, 40, 40, scale 2^40, one float a slot, one vector). Then a server process of
its own adds the uploads of 1,000 clients. One thread throughout.

    expansion_14bit     upload over float32, 14-bit values, 32 contributors
    expansion_8bit      the same for 8-bit values
    seal_seconds        pack, encrypt and serialise the 14-bit vector, median
    ckks_expansion      upload over float32, CKKS
    ckks_seal_seconds   encrypt and serialise, CKKS, median
    memory_growth_mb    resident memory of the server, 1,000 clients less 10 clients
    exact               whether every decrypted sum equalled the integer sum
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import tenseal as ts

from calyx.shared.encryption import (
    Aggregator,
    PublicSealer,
    SealedSum,
    SealedVector,
    SealingParameters,
    derive_parameters,
    unpack_sum,
    value_bound_of_bits,
)
from calyx.shared.encryption.wire import export_public_context, read_chunk

LENGTH = 421_642
MEGABYTE = 1_000_000
FEW_CLIENTS = 10


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _key_pair(p: SealingParameters) -> Any:
    return ts.context(
        ts.SCHEME_TYPE.BFV,
        p.poly_modulus_degree,
        plain_modulus=p.plain_modulus,
        coeff_mod_bit_sizes=list(p.coeff_mod_bits),
        n_threads=1,
    )


def _opened(context: Any, p: SealingParameters, total: SealedSum) -> Any:
    slots = [read_chunk(context, chunk, p).decrypt() for chunk in total.chunks]
    return unpack_sum(np.array(slots), p, total.contributors)


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure_bfv(bits: int, contributors: int, repeats: int) -> tuple[float, float, bool]:
    """Expansion, seconds to seal, and whether the sum of all contributors is exact."""
    bound = value_bound_of_bits(bits)
    p = derive_parameters(scheme="bfv", contributors=contributors, value_bound=bound, length=LENGTH)
    context = _key_pair(p)
    public = export_public_context(context)
    sealer, aggregator = PublicSealer(p, public), Aggregator(p, public)
    generator = np.random.default_rng(bits)
    values = generator.integers(-bound, bound + 1, LENGTH)
    seconds = _median_seconds(lambda: sealer.seal(values), repeats)
    size, expected = 0, np.zeros(LENGTH, dtype=np.int64)
    for client in range(contributors):
        # The first two are the extremes, so that the fields are filled to the brim.
        extreme = (-bound, bound)[client] if client < 2 else None
        values = generator.integers(-bound, bound + 1, LENGTH)
        values[: LENGTH // 2] = extreme if extreme is not None else values[: LENGTH // 2]
        sealed = sealer.seal(values)
        size = max(size, sealed.size_bytes)
        aggregator.add(sealed)
        expected += values
    sums = _opened(context, p, aggregator.finish())
    return size / (4 * LENGTH), seconds, bool(np.array_equal(sums, expected))


def measure_ckks(repeats: int) -> tuple[float, float]:
    """Expansion and seconds of TenSEAL's usual CKKS setting."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], n_threads=1)
    context.global_scale = 2.0**40
    public = ts.Context.load(export_public_context(context), n_threads=1)
    values = np.random.default_rng(0).standard_normal(LENGTH).astype(np.float32).tolist()
    sizes = []

    def seal() -> None:
        sizes.append(len(ts.ckks_vector(public, values).serialize()))

    # TenSEAL warns on stdout that the vector needs several ciphertexts.
    with contextlib.redirect_stdout(io.StringIO()):
        seconds = _median_seconds(seal, repeats)
    return sizes[-1] / (4 * LENGTH), seconds


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _serve(pipe: Connection, parameters: str, public: bytes, clients: int) -> None:
    """The server's process: add what arrives, report its memory, hand back the sum."""
    p = SealingParameters.from_json(parameters)
    aggregator = Aggregator(p, public)
    for count in range(1, clients + 1):
        chunks = tuple(pipe.recv_bytes() for _ in range(p.chunks))
        aggregator.add(SealedVector(chunks, pipe.recv(), pipe.recv()))
        del chunks
        if count in (FEW_CLIENTS, clients):
            pipe.send(_resident_bytes())
    pipe.send(aggregator.finish())


def measure_memory(clients: int) -> tuple[float, bool]:
    """Growth of the server's resident memory in megabytes, and whether the sum is exact."""
    bound = value_bound_of_bits(8)
    p = derive_parameters(scheme="bfv", contributors=clients, value_bound=bound, length=LENGTH)
    context = _key_pair(p)
    public = export_public_context(context)
    sealer = PublicSealer(p, public)
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(theirs, p.to_json(), public, clients))
    server.start()
    theirs.close()
    generator = np.random.default_rng(1)
    expected = np.zeros(LENGTH, dtype=np.int64)
    resident = []
    for client in range(1, clients + 1):
        values = generator.integers(-bound, bound + 1, LENGTH)
        expected += values
        sealed = sealer.seal(values)
        for chunk in sealed.chunks:
            ours.send_bytes(chunk)
        ours.send(sealed.parameters)
        ours.send(sealed.context)
        if client in (FEW_CLIENTS, clients):
            resident.append(ours.recv())
        if client % 100 == 0:
            _note(f"  {client} of {clients} clients")
    total = ours.recv()
    server.join()
    exact = bool(np.array_equal(_opened(context, p, total), expected))
    return (resident[-1] - resident[0]) / MEGABYTE, exact


def measure(repeats: int, clients: int) -> dict[str, float | bool]:
    """All figures, by their names in the module's text."""
    _note("sealing 14-bit values of 32 contributors")
    expansion_14, seconds, exact_14 = measure_bfv(14, 32, repeats)
    _note("sealing 8-bit values of 32 contributors")
    expansion_8, _, exact_8 = measure_bfv(8, 32, 1)
    _note("sealing with CKKS, N = 8192")
    ckks_expansion, ckks_seconds = measure_ckks(max(3, repeats // 2))
    _note(f"adding the uploads of {clients} clients")
    growth, exact_many = measure_memory(clients)
    return {
        "expansion_14bit": round(expansion_14, 3),
        "expansion_8bit": round(expansion_8, 3),
        "seal_seconds": round(seconds, 4),
        "ckks_seal_seconds": round(ckks_seconds, 4),
        "ckks_expansion": round(ckks_expansion, 2),
        "memory_growth_mb": round(growth, 2),
        "exact": exact_14 and exact_8 and exact_many,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=9, help="timings a median (default 9)")
    parser.add_argument("--clients", type=int, default=1000, help="uploads added (default 1000)")
    arguments = parser.parse_args()
    if arguments.repeats < 1 or arguments.clients <= FEW_CLIENTS:
        parser.error(f"--repeats from 1, --clients above {FEW_CLIENTS}")
    figures = measure(arguments.repeats, arguments.clients)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
