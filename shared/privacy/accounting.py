"""From privacy events to epsilon. Events are the truth; epsilon is always derived.

The main accountant is the privacy loss distribution (PLD; Koskela, Jälkö, Honkela 2020;
Doroshenko et al. 2022), the second opinion is Rényi DP (Mironov 2017; Mironov, Talwar, Zhang
2019), both from Google's dp-accounting. Both are upper bounds, so the smaller one may be
used; both are reported. Opacus' GDP accountant can underestimate and is not used.

Whom an event protects (docs/adr/0017). The noise multiplier is about the sensitivity under the
event's own relation: a record replaced by a null record, a client's update replaced by zero, or,
for client-level local noise, a client's data replaced by any others. Two clipped updates are up to
2C apart whatever has changed, be it one record. So a client-level event counts

* for the client with the noise multiplier as it stands;
* for a record, and for a client whose data are replaced, with the noise multiplier divided by
  `replacement_factor`: 2 where the relation is the update replaced by zero, 1 where it is
  replacement already. It is then counted without amplification: the sampled and the unsampled
  case of add-or-remove have the other client's part in common, two replaced ones have not, and what
  holds for every subset of clients holds for a random one (joint quasi-convexity).

A record-level event says nothing about a client.

Skellam events (`calyx.shared.privacy.skellam`) have a Rényi bound only. With one of them among the
events the PLD figure is infinite and the headline is Rényi's, about 10 % above what PLD would
say of continuous Gaussian noise: compare like with like.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.skellam import ORDERS, Floats, amplified
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism, epsilon_with_cuts

# Whom epsilon is told for: beside the two units, a client whose data are replaced by any others.
Whom = Literal["record", "client", "replaced client"]
_RDP_ORDERS = tuple([1 + x / 10 for x in range(1, 100)] + list(range(11, 65)) + [128, 256, 512])
# Width of the privacy loss grid, by the epsilon that comes out. Rounding on it is upwards, so any
# width gives a bound; with these it is within 0.03 % of widths five times smaller.
_INTERVALS = ((1.0, 5e-4), (0.1, 1e-4), (0.0, 2e-5))
_COARSER = 4
# Beyond this, epsilon promises nothing and the loss grid would need too much memory; Rényi's bound
# is then the only figure.
_PLD_MAX_EPSILON = 1000.0
_PLD_MAX_COUNT = 10**7
# A step with less noise than this fits no PLD grid of reasonable size; RDP still bounds it.
_PLD_MIN_NOISE = 0.1


@dataclass(frozen=True)
class Spent:
    """Epsilon at one delta by two accountants; infinite means no guarantee."""

    pld: float
    rdp: float
    delta: float

    @property
    def epsilon(self) -> float:
        """The headline: the smaller of two upper bounds."""
        return min(self.pld, self.rdp)


def spent(
    events: Iterable[PrivacyEvent], delta: float, whom: Whom = "record", *, coarse: bool = False
) -> Spent:
    """Compose all events and return what they cost `whom` at `delta`.

    With `coarse` only the PLD accountant is asked, on a four times coarser grid: an upper bound
    for searches, a few tenths of a percent above the fine one.

    A client-level event also protects each record of the client, up to its `replacement_factor`,
    so record-level cost counts all events. Record-level events say nothing about a whole client:
    with any of them the client-level cost is infinite.
    """
    key = _uses(events, whom)
    if key is None:
        return Spent(math.inf, math.inf, delta)
    if not key:
        return Spent(0.0, 0.0, delta)
    if coarse:
        return Spent(_pld_epsilon(key, delta, _COARSER), math.inf, delta)
    return Spent(_pld_epsilon(key, delta, 1), _rdp_epsilon(key, delta), delta)


def delta_is_small(delta: float, units: int) -> bool:
    """Whether delta, among that many units, leaves no room for giving one of them away whole.

    To publish one of n records picked at random is (0, 1/n)-private, and to publish each with
    chance delta gives away delta n of them, by local noise as by noise on a sum. So n is
    *everything* that a guarantee is told for: all records of all clients, or all clients. That is
    stricter than the count of any one client, and the same for every client of a run.
    """
    return delta * units < 1


def profile(
    noise_multiplier: float, rate: float, count: int, epsilons: Floats, *, interval: float = 1e-3
) -> Floats:
    """delta at each epsilon, of `count` Gaussian steps with Poisson sampling; by PLD.

    Args:
        noise_multiplier: at least 0.1.
        rate: sampling rate, 1 for none.
        count: of steps.
        epsilons: (n,), at least 0.
        interval: width of the privacy loss grid; the error is upwards and below 0.1 % of epsilon.

    Raises:
        PrivacyError: there is too little noise for a grid of losses.
    """
    if noise_multiplier < _PLD_MIN_NOISE:
        raise PrivacyError(f"noise multiplier {noise_multiplier} is below {_PLD_MIN_NOISE}")
    composed = _pld(noise_multiplier, rate, interval).self_compose(count)
    with np.errstate(all="ignore"):
        return np.asarray(composed.get_delta_for_epsilon(epsilons), dtype=np.float64)


def within(events: Iterable[PrivacyEvent], epsilon: float, delta: float, whom: Whom) -> bool:
    """Whether the composed events stay within (epsilon, delta); fast where RDP already shows it."""
    key = _uses(events, whom)
    if key is None:
        return epsilon == math.inf
    if not key or _rdp_epsilon(key, delta) <= epsilon:
        return True
    return min(_pld_epsilon(key, delta, 1), _rdp_epsilon(key, delta)) <= epsilon


@dataclass(frozen=True)
class _Use:
    """An event as it counts for one unit.

    Attributes:
        noise: standard deviation of the noise over the largest change that one unit can make.
        rate: of sampling, 1 without.
        count: how many times.
        skellam: the mechanism of integer noise, None for Gaussians.
        shift: that change in units of what the mechanism is made for.
    """

    noise: float
    rate: float
    count: int
    skellam: SkellamMechanism | None
    shift: int


def _uses(events: Iterable[PrivacyEvent], whom: Whom) -> tuple[_Use, ...] | None:
    """The events as they count for `whom`, None if one of them bounds nothing.

    Counts of equal ones are summed, in a canonical order, so that results can be cached.
    """
    counts: Counter[_Use] = Counter()
    for event in events:
        if not event.count:
            continue
        if event.mechanism == "none" or (whom != "record" and event.unit == "record"):
            return None
        counts[_use(event, whom)] += event.count
    merged = [replace(use, count=n) for use, n in counts.items()]
    return tuple(sorted(merged, key=repr))


def _use(event: PrivacyEvent, whom: Whom) -> _Use:
    """One use of the event; see the module's text."""
    if whom == event.unit:
        return _Use(event.noise_multiplier, event.sampling_rate, 1, event.skellam, 1)
    # An older ledger does not say: Skellam events are sums in any case, of Gaussian ones the
    # larger factor is taken.
    shift = 2 if event.replacement_factor is None else event.replacement_factor
    return _Use(event.noise_multiplier / shift, 1.0, 1, event.skellam, shift)


@lru_cache(maxsize=512)
def _rdp_curve(noise_multiplier: float, rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant

    event = GaussianDpEvent(noise_multiplier)
    # Orders whose series does not converge come back infinite and are simply not used.
    with _Quiet("absl"), np.errstate(all="ignore"):
        accountant = RdpAccountant(orders=_RDP_ORDERS)
        accountant.compose(event if rate == 1 else PoissonSampledDpEvent(rate, event))
        return np.asarray(accountant._rdp, dtype=np.float64)


@lru_cache(maxsize=4096)
def _rdp_epsilon(key: tuple[_Use, ...], delta: float) -> float:
    if any(use.skellam is not None for use in key):
        by_order = np.zeros(len(ORDERS))
        for use in key:
            by_order += use.count * _rdp_at_integer_orders(replace(use, count=1))
        # Each mechanism is made for the releases of one run; a ledger has many.
        runs = sum(use.count / use.skellam.releases for use in key if use.skellam is not None)
        return epsilon_with_cuts(by_order, delta, runs)
    from dp_accounting.rdp import compute_epsilon

    total = np.zeros(len(_RDP_ORDERS))
    for use in key:
        total += use.count * _rdp_curve(use.noise, use.rate)
    with _Quiet("absl"), np.errstate(all="ignore"):
        epsilon, _order = compute_epsilon(_RDP_ORDERS, total, delta)
    return float(epsilon)


@lru_cache(maxsize=512)
def _rdp_at_integer_orders(use: _Use) -> Floats:
    """One use at the orders that Skellam's amplification is known for."""
    if use.skellam is not None:
        return use.skellam.rdp(use.rate, shift=use.shift)
    return amplified(np.asarray(ORDERS / (2 * use.noise**2)), use.rate)


@lru_cache(maxsize=256)
def _pld(noise_multiplier: float, rate: float, interval: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=interval, sampling_prob=rate
    )


@lru_cache(maxsize=4096)
def _pld_epsilon(key: tuple[_Use, ...], delta: float, coarser: int) -> float:
    if any(use.skellam is not None for use in key) or any(
        noise < _PLD_MIN_NOISE or count > _PLD_MAX_COUNT for noise, _, count in _pld_parts(key)
    ):
        return math.inf
    if _rdp_epsilon(key, delta) > _PLD_MAX_EPSILON:
        return math.inf
    epsilon = math.inf
    for enough, interval in _INTERVALS:
        epsilon = _pld_on_grid(key, delta, interval * coarser)
        if epsilon >= enough:
            break
    return epsilon


@lru_cache(maxsize=4)
def _pld_composed(key: tuple[_Use, ...], interval: float) -> Any:
    """Kept, because a report asks for epsilon at many deltas."""
    total = None
    for noise_multiplier, rate, count in _pld_parts(key):
        part = _pld(noise_multiplier, rate, interval).self_compose(count)
        total = part if total is None else total.compose(part)
    return total


def _pld_on_grid(key: tuple[_Use, ...], delta: float, interval: float) -> float:
    total = _pld_composed(key, interval)
    with np.errstate(all="ignore"):  # exponentials of large losses may overflow to infinity
        return float(total.get_epsilon_for_delta(delta)) if total is not None else 0.0


def _pld_parts(key: tuple[_Use, ...]) -> list[tuple[float, float, int]]:
    """Noise, rate and count to compose; unsampled Gaussians are one Gaussian, exactly.

    n releases at noise s each tell as much as one release at s / sqrt(n).
    """
    precision = sum(use.count / use.noise**2 for use in key if use.rate == 1)
    parts = [(use.noise, use.rate, use.count) for use in key if use.rate < 1]
    return [*parts, (1 / math.sqrt(precision), 1.0, 1)] if precision else parts


class _Quiet:
    """Raise one library's log level for a block."""

    def __init__(self, logger: str) -> None:
        self._logger = logging.getLogger(logger)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
