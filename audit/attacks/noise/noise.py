"""The noise on its own: the code that adds it, on inputs that the auditor chose, or replayed.

Canaries show what is released. Much hides in that: rounding of one client in a sum of many, one
layer among steps that cannot be told apart. So the auditor calls the functions that the clients
call in the run, with the plan and the randomness of the run's own clients:

* *distributed noise*: `calyx.client.sealing.sealing` on a vector whose coordinates are chosen, see
  `calyx.audit.attacks.noise.sealing_probe`;
* *record-level local noise*: one step of `calyx.client.training.dp_sgd` on a few records, see
  `calyx.audit.attacks.noise.gradient_probe`;
* *client-level local noise*: the whole run again, in which the auditor trains as the clients did
  and subtracts the result from what they send, see `calyx.audit.attacks.noise.client_updates`.

That the run was made by this code is what `calyx.audit.attacks.replay` shows.
"""

from __future__ import annotations

from calyx.audit.attacks.noise import client_updates, gradient_probe, sealing_probe
from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.progress import Progress
from calyx.client.node import Node
from calyx.shared.errors import UsageError
from calyx.simulations.run_folder import RunFolder

NAME, SEALING = "noise", "noise-sealing"
# Clients whose code is called, and how often for each.
_CLIENTS, CALLS = 2, 4


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    workers: int | None = None,
) -> None:
    """Put what is left of the noise, and of rounding, into evidence.

    Raises:
        UsageError: no client of this run adds noise.
    """
    audited = AuditedRun(folder.path)
    privacy = audited.config.privacy
    if not privacy.is_noised_by_clients:
        raise UsageError(f"no client adds noise in a run with privacy.noise = {privacy.noise}")
    found: Remainders
    if privacy.noise == "distributed":
        found = sealing_probe.at_the_plan(audited, nodes_of(audited), CALLS)
        store.put_arrays(
            SEALING, sealing_probe.with_little_noise(audited, nodes_of(audited), CALLS)
        )
    elif privacy.unit == "record":
        found = gradient_probe.one_step(audited, nodes_of(audited), CALLS)
    else:
        found = client_updates.replayed(audited, progress, workers)
    store.put_arrays(NAME, found.arrays())


def nodes_of(audited: AuditedRun) -> list[Node]:
    """The first clients of a run, with its seed; they train nothing and charge nothing."""
    return [
        Node.from_settings(
            {
                "partition-id": client,
                "partition-file": str(audited.partition_path),
                "simulation-seed": audited.config.seed,
                "ledger": "none: it is asked for noise, and trains nothing",
            }
        )
        for client in range(min(_CLIENTS, audited.config.federation.clients))
    ]
