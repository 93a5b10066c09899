"""The reference scenarios: one picture, from no protection to all of it, at 28x28.

Each scenario runs a federation (`reference_federation`), takes what its observer received from the
captured bytes, and runs the attack that suits the network. Two things favour the attacker
throughout: the labels are known, and each client holds one record only. Where there are several
clients, all their records are searched at once and paired with the truth in the attacker's favour
(`quality.match`). Scenarios about who observes, and not how many contribute, have two clients: the
smallest number whose sum a key authority ever releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.audit.attacks.inversion.quality import match
from calyx.audit.attacks.inversion.reference_federation import SIDE, Reference, reference
from calyx.audit.attacks.inversion.scenario import (
    Federations,
    Scenario,
    from_ciphertext,
    from_first_layer,
    from_local_training,
    from_public_key,
    from_released_sum,
    from_two_models,
    from_update,
)
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.simulations.run_folder import RunFolder

NAME, PICTURES = "inversion", "inversion-pictures"
NOISE_MULTIPLIER = 1.0
SUMS = (2, 5, 10)


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Run every scenario and put the pictures into evidence.

    Raises:
        CalyxError: a federation could not be run.
    """
    data = reference(folder.stored_config())
    rows, arrays = run_scenarios(data, reference_scenarios(), progress)
    store.put_json(NAME, {"source": data.source, "rungs": rows})
    store.put_arrays(PICTURES, arrays)


def run_scenarios(
    data: Reference, scenarios: Sequence[Scenario], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Carry out these scenarios: the facts of each, and all pictures."""
    federations = Federations(data)
    arrays: dict[str, NDArray[Any]] = {"baseline": data.mean_image}
    rows = []
    for number, scenario in enumerate(scenarios):

        def tick(share: float, number: int = number) -> None:
            progress(NAME, (number + share) / len(scenarios))

        tick(0.0)
        found = scenario.run(federations, scenario, tick)
        pictures = found.pictures.double().reshape(-1, SIDE, SIDE).clamp(0, 1).numpy()
        records = np.concatenate([r.features for r in found.captured.records])
        truth = records.reshape(-1, SIDE, SIDE)
        arrays[scenario.name] = pictures.astype(np.float32)
        arrays[f"{scenario.name}-truth"] = truth[match(pictures, truth)].astype(np.float32)
        rows.append(
            {
                "name": scenario.name,
                "view": scenario.view,
                "network": scenario.network,
                "attack": scenario.attack,
                "clients": scenario.clients,
                "sealed": scenario.sealed,
                "noise_multiplier": found.captured.plan.noise_multiplier,
                "observed": found.observed,
                "facts": dict(found.facts),
            }
        )
    progress(NAME, 1.0)
    return rows, arrays


def reference_scenarios() -> list[Scenario]:
    """All scenarios, from no protection upwards."""
    noise, fewest = NOISE_MULTIPLIER, SUMS[0]
    linear = partial(Scenario, view="server", network="fully_connected", run=from_first_layer)
    linear = partial(linear, attack="closed form of the first layer")
    smooth = partial(Scenario, view="server", network="smooth", run=from_update)
    smooth = partial(smooth, attack="FedSGD inversion, L-BFGS")
    cnn = partial(Scenario, view="server", network="cnn", run=from_update)
    cnn = partial(cnn, attack="FedSGD inversion, Adam on the angle")
    summed = partial(cnn, sealed=True, run=from_released_sum)
    two = partial(cnn, sealed=True, clients=fewest)
    return [
        linear("plain-closed-form"),
        smooth("plain-smooth"),
        smooth("plain-fedavg", attack="FedAvg, unrolled", run=from_local_training),
        cnn("plain-cnn"),
        *(summed(f"sum-{n}", clients=n) for n in SUMS),
        linear("noise-closed-form", noise=noise),
        smooth("noise-smooth", noise=noise),
        cnn("noise-cnn", noise=noise),
        *(summed(f"noised-sum-{n}", clients=n, noise=noise) for n in SUMS),
        two("sealed-upload", noise=noise, run=from_ciphertext),
        two("public-key", view="server with the public key", run=from_public_key),
        two("authority", view="authority", noise=noise, run=from_released_sum),
        two("colluding-client", view="client 0", noise=noise, run=from_two_models),
    ]
