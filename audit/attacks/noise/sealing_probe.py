"""What a client makes of a vector before it is sealed: rounding, clamp and one share of noise.

In a sum the shares of all clients merge, and rounding is far below the noise. Here the auditor
chooses the vector: each coordinate, after the rotation, is a chosen number of grid steps. The plan
is the run's own, once as it is, and once with so little noise that rounding can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.finished_run import AuditedRun
from calyx.client.node import Node
from calyx.client.sealing.sealing import integers_to_seal
from calyx.shared.errors import UsageError
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism
from calyx.shared.protocol.sealed.sum_coding import SumCoding

Floats = NDArray[np.float64]

# Variance of a share in the probe of rounding, in grid steps: as much as rounding itself adds.
LITTLE = 0.5
# Fractions of a grid step by which the coordinates are off the grid.
FRACTIONS = (0.125, 0.25, 0.5, 0.75, 0.875)
_LARGEST_WHOLE, _KEPT, _BEYOND = 20, 8192, 64


def at_the_plan(audited: AuditedRun, nodes: Sequence[Node], calls: int) -> Remainders:
    """Shares of the noise as planned, of unit variance with what rounding adds."""
    plan, mechanism = _plan(audited)
    # A dithered coordinate at a random place adds a sixth.
    deviation = math.sqrt(mechanism.share_variance + 1 / 6)
    reach = mechanism.clamp / 2
    found = Remainders(len(nodes) * calls)
    for stream, node in enumerate(nodes):
        for call in range(calls):
            generator = np.random.default_rng((stream, call))
            targets = generator.uniform(-reach, reach, mechanism.dimension)
            values = _sealed(targets, audited, plan, node, f"probe {call}")
            kurtosis = 1 / mechanism.share_variance
            found.add(stream, call, (values - targets) / deviation, kurtosis=kurtosis)
    return found


def with_little_noise(
    audited: AuditedRun, nodes: Sequence[Node], calls: int
) -> dict[str, NDArray[np.generic]]:
    """Rounding and clamp: chosen coordinates and what each call made of them.

    Returns:
        ``wholes`` and ``fractions`` of the grid steps asked for, (kept,); ``values`` (calls,
        kept); ``beyond`` (calls, n), the values of coordinates far beyond the clamp, all of one
        sign; ``clamp`` and ``limit``, the bounds of a coordinate before noise and of the noise.
    """
    plan, mechanism = _plan(audited)
    little = math.sqrt(LITTLE * mechanism.shares) / mechanism.scaled_norm
    quiet = replace(mechanism, noise_multiplier=little)
    plan = replace(plan, noise_multiplier=little, mechanism=quiet)
    generator, size = np.random.default_rng(0), mechanism.dimension
    beyond = min(_BEYOND, size // 2)
    largest = min(_LARGEST_WHOLE, mechanism.clamp - 1)
    wholes = generator.integers(-largest, largest, size, endpoint=largest == 0)
    fractions = generator.choice(FRACTIONS, size)
    targets = wholes + fractions
    order = generator.permutation(size)
    far, kept = order[:beyond], np.sort(order[beyond : beyond + _KEPT])
    targets[far] = 3.0 * mechanism.clamp
    values = np.array(
        [
            _sealed(targets, audited, plan, node, f"little {call}")
            for node in nodes
            for call in range(calls)
        ]
    )
    return {
        "wholes": wholes[kept],
        "fractions": fractions[kept],
        "values": values[:, kept],
        "beyond": values[:, far],
        "clamp": np.array(mechanism.clamp),
        "limit": np.array(quiet.noise_limit),
    }


def _plan(audited: AuditedRun) -> tuple[PrivacyPlan, SkellamMechanism]:
    plan = audited.planned_anew[0]
    if plan.mechanism is None:
        raise UsageError("this run adds no integer noise")
    return plan, plan.mechanism


def _sealed(
    targets: Floats, audited: AuditedRun, plan: PrivacyPlan, node: Node, digest: str
) -> NDArray[np.int64]:
    """What a client would seal for a vector that is `targets` once it is rotated and scaled."""
    coding = SumCoding.of(audited.config, plan, len(targets), 1)
    vector = coding.rotation.inverse(targets * coding.grid.step)
    return integers_to_seal(vector, audited.config, plan, 1, node.noise(digest))[0]
