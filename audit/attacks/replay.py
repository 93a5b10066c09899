"""The run repeated exactly: does the folder hold what this configuration gives?

Evidence binds a report to files, and files can be forged. A model of another run, ledgers rewritten
with more noise in them, code that adds none: each makes a folder that agrees with itself. So the
auditor's own code repeats the run, from the configuration alone, and everything that a run leaves
behind is compared with what the repetition left.

The noise of a simulation follows from the seed and from the bytes of the weights before each
round, so on the machine and the versions of the run everything is the same to the last bit. If
another machine rounds one bit differently, all noise from there on differs: then nothing can be
compared, and the finding says so instead of allowing a tolerance that a forgery would fit into
(docs/adr/0024).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.client.ledger.ledger import Entry, Ledger
from calyx.server.state.journal import Event, clients_metrics, metrics_of
from calyx.shared.errors import CalyxError, EvidenceError
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder, environment_of

NAME = "replay"
# Of `environment.json`: what decides whether two machines compute the same bits.
_ENVIRONMENT = ("code_hash", "python", "machine", "packages")
# Of a round's entry in the journal: what does not depend on the clock.
_ROUND = ("round", "asked", "ok", "declined", "rejected", "skipped", "loss")


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    workers: int | None = None,
) -> None:
    """Repeat the run and put both sides into evidence."""
    audited = AuditedRun(folder.path)
    config, total = audited.config, audited.config.training.rounds
    partition = partition_of(config)
    observers = Observers(on_round=lambda number: progress("the run once more", number / total))
    with replayed_run(config, observers, partition=partition, workers=workers) as repeated:
        again = {
            "model": _model_digest(repeated),
            "rounds": _rounds_digest(repeated.told().rounds),
            "partition": _partition_digest(partition),
            "ledgers": [
                _charges(_repeated_entries(repeated, number))
                for number in range(config.federation.clients)
            ],
        }
        distance = _distance(folder, repeated)
    here = environment_of(config)
    store.put_json(
        NAME,
        {
            "run": {
                "model": _model_digest(folder),
                "rounds": _rounds_digest(audited.rounds),
                "partition": _partition_digest(audited.partition),
                "ledgers": [
                    _charges(entry for entry in ledger.entries if entry.run == audited.name)
                    for ledger in audited.ledgers
                ],
            },
            "again": again,
            "distance": distance,
            "environment": {
                "run": {key: audited.environment.get(key) for key in _ENVIRONMENT},
                "here": {key: here[key] for key in _ENVIRONMENT},
            },
        },
    )


def _model(folder: RunFolder) -> dict[str, NDArray[Any]]:
    try:
        return dict(sorted(load(folder.model()).items()))
    except (CalyxError, SafetensorError) as error:
        raise EvidenceError(
            f"the final model in {folder.path} cannot be read: {error}",
            hint="restore it from a copy",
        ) from None


def _model_digest(folder: RunFolder) -> str:
    hasher = hashlib.sha256()
    for name, array in _model(folder).items():
        head = json.dumps([name, str(array.dtype), list(array.shape)]).encode()
        hasher.update(len(head).to_bytes(4, "big") + head + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def _distance(folder: RunFolder, repeated: RunFolder) -> float | None:
    """Norm of the difference of both models over the repetition's own; None if not comparable."""
    one, other = _model(folder), _model(repeated)
    if {n: a.shape for n, a in one.items()} != {n: a.shape for n, a in other.items()}:
        return None
    difference = sum(float(np.square(one[n].astype(float) - other[n]).sum()) for n in one)
    size = sum(float(np.square(array.astype(float)).sum()) for array in other.values())
    found = float(np.sqrt(difference / size)) if size else 0.0
    return found if np.isfinite(found) else None


def _rounds_digest(events: list[Event]) -> str:
    return _digest([_round(event) for event in events])


def _round(event: Event) -> list[Any]:
    # Ray numbers its nodes by chance, and the last bit of a mean depends on their order.
    clients = {name: f"{value:.9g}" for name, value in clients_metrics(event).items()}
    return [*(event.get(key) for key in _ROUND), metrics_of(event), clients]


def _partition_digest(partition: Sequence[NDArray[np.int64]]) -> str:
    return _digest([indices.tolist() for indices in partition])


def _charges(entries: Iterable[Entry]) -> str:
    """Hash of everything that a run charged to one client: rounds, instructions, events."""
    return _digest([[e.round, e.instruction, e.event.as_dict()] for e in entries])


def _repeated_entries(folder: RunFolder, client: int) -> tuple[Entry, ...]:
    with Ledger.read_only(folder.ledger_path(client)) as ledger:
        return ledger.entries()


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
