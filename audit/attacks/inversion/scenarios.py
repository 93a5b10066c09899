"""The reference ladder: one picture, from no protection to all of it, at 28x28.

Each rung plays a federation (`federation`), takes what its observer got out of the captured
bytes, and runs the attack that suits the network. Two things favour the attacker throughout: he is
told the labels, and each client holds one record only. Where clients are several, all their records
are searched at once and paired with the truth so that he comes off best (`quality.match`). What is
only about who looks, and not how many contribute, is shown for two clients: the fewest that a key
authority ever releases a sum of.
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
    Rung,
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
    """Climb the whole ladder and put its pictures into evidence.

    Raises:
        CalyxError: a federation could not be played.
    """
    data = reference(folder.stored_config())
    rows, arrays = climb(data, ladder(), progress)
    store.put_json(NAME, {"source": data.source, "rungs": rows})
    store.put_arrays(PICTURES, arrays)


def climb(
    data: Reference, rungs: Sequence[Rung], progress: Progress
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Carry out these rungs: what is said of each, and all pictures."""
    federations = Federations(data)
    arrays: dict[str, NDArray[Any]] = {"baseline": data.mean_image}
    rows = []
    for number, rung in enumerate(rungs):

        def tick(share: float, number: int = number) -> None:
            progress(NAME, (number + share) / len(rungs))

        tick(0.0)
        found = rung.climb(federations, rung, tick)
        pictures = found.pictures.double().reshape(-1, SIDE, SIDE).clamp(0, 1).numpy()
        records = np.concatenate([r.features for r in found.played.records])
        truth = records.reshape(-1, SIDE, SIDE)
        arrays[rung.name] = pictures.astype(np.float32)
        arrays[f"{rung.name}-truth"] = truth[match(pictures, truth)].astype(np.float32)
        rows.append(
            {
                "name": rung.name,
                "view": rung.view,
                "network": rung.network,
                "attack": rung.attack,
                "clients": rung.clients,
                "sealed": rung.sealed,
                "noise_multiplier": found.played.plan.noise_multiplier,
                "observed": found.observed,
                "facts": dict(found.facts),
            }
        )
    progress(NAME, 1.0)
    return rows, arrays


def ladder() -> list[Rung]:
    """All rungs, from the bottom."""
    noise, fewest = NOISE_MULTIPLIER, SUMS[0]
    linear = partial(Rung, view="server", network="fully_connected", climb=from_first_layer)
    linear = partial(linear, attack="closed form of the first layer")
    smooth = partial(Rung, view="server", network="smooth", climb=from_update)
    smooth = partial(smooth, attack="FedSGD inversion, L-BFGS")
    cnn = partial(Rung, view="server", network="cnn", climb=from_update)
    cnn = partial(cnn, attack="FedSGD inversion, Adam on the angle")
    summed = partial(cnn, sealed=True, climb=from_released_sum)
    two = partial(cnn, sealed=True, clients=fewest)
    return [
        linear("plain-closed-form"),
        smooth("plain-smooth"),
        smooth("plain-fedavg", attack="FedAvg, unrolled", climb=from_local_training),
        cnn("plain-cnn"),
        *(summed(f"sum-{n}", clients=n) for n in SUMS),
        linear("noise-closed-form", noise=noise),
        smooth("noise-smooth", noise=noise),
        cnn("noise-cnn", noise=noise),
        *(summed(f"noised-sum-{n}", clients=n, noise=noise) for n in SUMS),
        two("sealed-upload", noise=noise, climb=from_ciphertext),
        two("public-key", view="server with the public key", climb=from_public_key),
        two("authority", view="authority", noise=noise, climb=from_released_sum),
        two("colluding-client", view="client 0", noise=noise, climb=from_two_models),
    ]
