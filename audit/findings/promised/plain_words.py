"""The guarantee in plain words, as odds to argue with.

Two explanations that studies found to be understood best (Nanayakkara, Smart, Cummings, Kaptchuk,
Redmiles 2023): how likely an observer is to conclude that a person took part, with and without
that person; and what a sceptic who gave it even odds before may believe afterwards.

A sceptic with prior odds p : 1-p who learns everything that is released can move to at most
e^eps times those odds, apart from a chance of about delta that the bound fails. Rounded so that
the promise is never understated.
"""

from __future__ import annotations

import math

from pydantic import Field

from calyx.audit.findings.promised import privacy_curve
from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.section import Section
from calyx.shared.privacy.epsilon_text import delta_text, odds_text

_PRIORS = (0.01, 0.1, 0.5)
_FALSE_ALARM = 0.1
_VAGUE = 0.99


class Belief(Section):
    """What a sceptic may believe before and, at most, afterwards."""

    before: float
    at_most: float
    at_least: float
    words: str


class PlainWordsSection(Section):
    """Plain words."""

    promise: str = Field(description="one sentence")
    with_and_without: str = Field(description="out of 100 observers")
    beliefs: tuple[Belief, ...]
    failure: str = Field(description="what delta means")
    judgement: str = Field(description="how strong that is")


def in_words(found: GuaranteeSection) -> PlainWordsSection:
    """The guarantee in plain words."""
    whose = "one record" if found.unit == "record" else "one client"
    if found.epsilon is None:
        return PlainWordsSection(
            promise="There is no differential privacy. Nothing bounds what the model, or the "
            "updates it was made from, say about anyone.",
            with_and_without="",
            beliefs=(),
            failure="",
            judgement="No bound.",
        )
    factor = math.exp(min(found.epsilon, 700.0))
    outside = ", apart from exact metrics of clients," if found.outside else ""
    power = privacy_curve.worst_power(found.curve, _FALSE_ALARM)
    return PlainWordsSection(
        promise=f"Seeing everything that is released{outside} can change the odds that any "
        f"statement about {whose} is true by a factor of at most {odds_text(found.epsilon)}.",
        with_and_without=f"Take an observer who wrongly believes that {whose} took part in "
        f"{_of_hundred(_FALSE_ALARM, up=True)} cases where it did not. Where it did, the same "
        f"observer believes so in at most {_of_hundred(power, up=True)} cases.",
        beliefs=tuple(_belief(prior, factor) for prior in _PRIORS),
        failure=f"Apart from a chance of about {_one_in(found.delta)} for each {found.unit} that "
        f"the bound does not hold (δ = {delta_text(found.delta)}; over all {found.units:,}, "
        f"{delta_text(found.delta_times_units)} are expected).",
        judgement=_judgement(found.epsilon)
        if found.delta_is_small
        else "No guarantee to rely on, whatever ε is: δ is not below 1/n, so giving away a "
        f"whole {found.unit} could pass.",
    )


def _belief(prior: float, factor: float) -> Belief:
    high = prior * factor / (1 - prior + prior * factor)
    low = prior / (prior + (1 - prior) * factor)
    return Belief(
        before=prior,
        at_most=high,
        at_least=low,
        words=f"Someone who gave it {_of_hundred(prior, up=True)} before may give it at most "
        f"{_of_hundred(high, up=True)} afterwards, and at least {_of_hundred(low, up=False)}.",
    )


def _of_hundred(share: float, *, up: bool) -> str:
    """``12 in 100``; close to certainty or impossibility, with more digits."""
    if share > _VAGUE or 1 - share > _VAGUE:
        for base in (1_000, 10_000, 100_000, 1_000_000):
            if min(share, 1 - share) * base >= 1:
                return f"{_whole(share * base, up=up):,} in {base:,}"
        return "all" if share > _VAGUE else "none"
    return f"{_whole(share * 100, up=up)} in 100"


def _whole(value: float, *, up: bool) -> int:
    return math.ceil(value - 1e-9) if up else math.floor(value + 1e-9)


def _one_in(chance: float) -> str:
    return f"one in {math.floor(1 / chance + 1e-6):,}"


def _judgement(epsilon: float) -> str:
    """NIST SP 800-226 and Ponomareva et al. 2023 call up to 1 strong and up to 10 reasonable."""
    if epsilon <= 1:
        return "A strong guarantee (ε up to 1), by the usual reading of NIST SP 800-226."
    if epsilon <= 10:
        return (
            "A reasonable guarantee (ε between 1 and 10) by the tiers of Ponomareva et al. 2023: "
            "weak against the worst imaginable attacker, in practice usually much better."
        )
    return "A weak guarantee (ε above 10): by itself it promises little."
