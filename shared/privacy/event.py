"""Privacy events: what a ledger holds and an accountant composes.

What an event says:

* a *Poisson* event is amplified by its sampling rate. That is only right when every record
  entered each batch by an independent coin with that probability;
* a *full* event takes every record each time and needs no assumption on sampling.

Whom an event protects is in `calyx.shared.privacy.accounting`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.skellam_mechanism import SkellamMechanism

Unit = Literal["record", "client"]
_LARGEST_COUNT = 10**18


@dataclass(frozen=True)
class PrivacyEvent:
    """`count` uses of one mechanism on one data set.

    Attributes:
        mechanism: ``gaussian``, ``skellam``, or ``none`` for an access without noise (epsilon is
            infinite).
        unit: whom the event protects.
        noise_multiplier: noise standard deviation divided by the sensitivity. The sensitivity
            is the largest change of the released value under the neighbouring relation.
        sampling: how units entered: independent coins (``poisson``) or all (``full``).
        sampling_rate: probability of each coin, 1 for ``full``.
        count: how many times.
        skellam: grid, shares and noise of a ``skellam`` event, None for the others.
        replacement_factor: of a client-level event, how many of its sensitivities the released
            value moves at most if records of that client are replaced: 1 or 2. None for all other
            events, and for client-level events of ledgers from before it was recorded; those
            count as 2, the larger.
    """

    mechanism: Literal["gaussian", "skellam", "none"]
    unit: Unit
    noise_multiplier: float
    sampling: Literal["poisson", "full"]
    sampling_rate: float
    count: int
    skellam: SkellamMechanism | None = None
    replacement_factor: int | None = None

    def __post_init__(self) -> None:
        if not (_is_sane(self) and _noise_is_sane(self)):
            shown = repr(self)[:300]
            raise PrivacyError(
                f"this is not a valid privacy event and cannot be accounted for: {shown}"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form; inverse of `from_dict`."""
        # What an event does not say is not written: entries of older ledgers keep their hash.
        optional = ("skellam", "replacement_factor")
        return {k: v for k, v in asdict(self).items() if v is not None or k not in optional}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> PrivacyEvent:
        """Read an event; unknown or missing fields are refused, never guessed."""
        try:
            skellam = fields.get("skellam")
            if skellam is not None:
                fields = {**fields, "skellam": SkellamMechanism(**skellam)}
            return cls(**fields)
        except (TypeError, AttributeError) as error:
            raise PrivacyError(f"unknown privacy event {fields}: {error}") from error


def _is_sane(event: PrivacyEvent) -> bool:
    """Everything but the noise; exact types, since 1.0 and True would pass for 1."""
    rate, count = event.sampling_rate, event.count
    return (
        event.mechanism in ("gaussian", "skellam", "none")
        and event.unit in ("record", "client")
        and event.sampling in ("poisson", "full")
        and type(rate) in (float, int)
        and 0 < rate <= 1
        and (event.sampling == "poisson" or rate == 1)
        and type(count) is int
        and 0 <= count <= _LARGEST_COUNT
        and _factor_is_sane(event)
    )


def _factor_is_sane(event: PrivacyEvent) -> bool:
    factor = event.replacement_factor
    if factor is None:
        return True
    # Skellam noise is for sums, in which a client is there or counts as zero.
    allowed = {"gaussian": (1, 2), "skellam": (2,), "none": ()}[event.mechanism]
    return event.unit == "client" and type(factor) is int and factor in allowed


def _noise_is_sane(event: PrivacyEvent) -> bool:
    noise, skellam = event.noise_multiplier, event.skellam
    if type(noise) not in (float, int):
        return False
    if event.mechanism == "none":
        return noise == 0 and skellam is None
    if event.mechanism == "skellam" and (
        not isinstance(skellam, SkellamMechanism) or skellam.noise_multiplier != noise
    ):
        return False
    if event.mechanism == "gaussian" and skellam is not None:
        return False
    return 1e-6 <= noise <= 1e12
