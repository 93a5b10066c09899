"""How large a sum of honest clients can be: the bound that the server checks each released sum by.

In a sealed run no one sees a single update, so one client can put into the sum any values that its
fields hold, hundreds of times what an honest one can. What is released can be examined, at no cost
in privacy. A sum beyond what honest clients can add up to is not used.

**Range.** An honest client sends values of at most B (`SealingParameters.value_bound`), so n of
them add up to at most nB in each coordinate. The authority checks that as well; a server should
not have to believe it.

**Length.** In grid units, in the rotated coordinates in which the sum is released (a rotation
preserves the length), client i sends y_i + e_i + z_i. Here y_i is its clamped signal, no longer
than s_i (clamping shortens); e_i the error of dithered rounding, of mean 0, within (-1, 1), its
two values 1 apart; z_i its share of the noise, of variance v in each coordinate. Coordinates are
independent. With y = Σ y_i, |y| <= S = Σ s_i, w = Σ (e_i + z_i), and u the direction of y,

    |y + w|^2 <= S^2 + 2 S max(0, <u, w>) + |w|^2.

Let V = n (v + 1/4). By Hoeffding's lemma E exp(t e) <= exp(t^2/8), and t^2/2 <= cosh t - 1, so
each w_j has E exp(t w_j) <= exp(V (cosh t - 1)): the tail of Skellam noise of variance V
(`calyx.shared.privacy.skellam.tail_bound`). Each of three events has a probability of at most p:

1. <u, w> is above a = tail_bound(V, p). As (cosh x - 1)/x^2 grows with |x| and |u_j| <= 1,
   Σ (cosh(t u_j) - 1) <= (cosh t - 1) Σ u_j^2 = cosh t - 1, the same tail again.
2. Some |w_j| is above b = tail_bound(V, p/d).
3. Otherwise, with X_j = w_j^2 where |w_j| <= b and 0 elsewhere, |w|^2 = Σ X_j. E X_j <= V, and
   E X_j^2 <= E w_j^4 <= 3 V^2 + V (a Skellam variable's fourth cumulant is its variance, that of a
   rounding error is below 1/12), 0 <= X_j <= b^2. By Bernstein's inequality Σ X_j is above d V + τ
   with probability at most p, where with L = ln(1/p)

       τ = L b^2/3 + sqrt((L b^2/3)^2 + 2 L d (3 V^2 + V)).

So an honest sum is longer than sqrt(S^2 + 2 S a + d V + τ) with probability at most 3p. p is chosen
so that this is `FALSE_ALARMS` over all rounds of a run, to which the cuts of the noise add no more
than 1e-15 (`calyx.shared.privacy.skellam_mechanism`).

**S.** For unit record a client's clipped sum is no longer than C for each record in it: those it
declared, where counts are public. Whether they are or not, its clamp bounds it too: by sqrt(d)
times that. For unit client it is C. Without distributed noise there is no clipping to rely on, but
`federation.max_update_norm` says how long an update may be, as in runs without sealing, and v = 0.

A sum that passes need not be honest: a client can still move the sum by S and the length of the
noise. It can no longer move it by a hundred times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from calyx.shared.config import Config
from calyx.shared.encryption import SealingParameters
from calyx.shared.errors import UnfitSum
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.privacy.skellam import tail_bound
from calyx.shared.protocol.arrays import NDArray
from calyx.shared.protocol.sealed.sum_coding import sum_grid

FALSE_ALARMS = 1e-9
# Squares and sums of doubles are exact to far better than this.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SumBound:
    """What honest clients can add up to in one round, in grid units.

    Attributes:
        largest: most in one coordinate.
        length: largest L2 norm, except with the probability of a false alarm.
    """

    largest: int
    length: float

    @classmethod
    def of(
        cls,
        config: Config,
        plan: PrivacyPlan,
        parameters: SealingParameters,
        contributors: int,
        weight: float,
    ) -> SumBound:
        """The bound of one sum.

        Args:
            config: the run.
            plan: that all clients share, or any of them where noise is not distributed.
            parameters: of the sealing.
            contributors: n, clients in the sum.
            weight: their declared records, in units of the plan's.
        """
        d, mechanism = parameters.length, plan.mechanism
        grid = sum_grid(config, plan, parameters)
        if mechanism is None:
            votes = contributors if plan.is_private else weight
            signal = votes * config.federation.max_update_norm / grid.step
            variance = 0.0
        else:
            each = float(contributors) if plan.unit == "client" else weight * plan.declared_records
            counted = plan.unit == "client" or config.privacy.record_counts == "public"
            signal = each * mechanism.scaled_norm if counted else math.inf
            variance = mechanism.share_variance
        signal = min(signal, contributors * grid.clamp * math.sqrt(d))
        p = FALSE_ALARMS / (3 * plan.rounds)
        length = longest(signal, contributors * (variance + 0.25), d, p)
        return cls(contributors * parameters.value_bound, length * (1 + _ROUNDING))

    def check(self, values: NDArray) -> None:
        """Check that a released sum, int64 (d,), can be one of honest clients.

        Raises:
            UnfitSum: it cannot.
        """
        # Extremes, not abs(): the absolute value of the least int64 is negative.
        low, high = int(values.min()), int(values.max())
        if low < -self.largest or high > self.largest:
            raise UnfitSum(
                f"the released sum holds {low if -low > high else high}; updates of honest clients "
                f"add up to at most {self.largest}; no step was taken"
            )
        length = float(np.linalg.norm(values.astype(np.float64)))
        if not length <= self.length:
            raise UnfitSum(
                f"the released sum is {length:.4g} grid steps long; a sum of honest clients is at "
                f"most {self.length:.4g} long; no step was taken"
            )


@lru_cache(maxsize=64)
def longest(signal: float, variance: float, d: int, p: float) -> float:
    """sqrt(S^2 + 2 S a + d V + τ); see the module's text.

    Args:
        signal: S.
        variance: V.
        d: entries of the vectors.
        p: probability of each of the three events.
    """
    along = tail_bound(variance, p)
    square = float(tail_bound(variance, p / d)) ** 2
    needed = math.log(1 / p)
    third = needed * square / 3
    excess = third + math.sqrt(third**2 + 2 * needed * d * (3 * variance**2 + variance))
    return math.sqrt(signal**2 + 2 * signal * along + d * variance + excess)
