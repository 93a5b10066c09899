"""The first thing that is read, and the order of bad news, which comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calyx.audit.findings.measured.replay import ReplaySection
from calyx.audit.findings.measured.utility import UtilitySection
from calyx.audit.findings.promised.agreement import AgreementSection
from calyx.audit.findings.promised.guarantee import GuaranteeSection
from calyx.audit.findings.promised.parties import PartiesSection
from calyx.audit.findings.promised.sampling import SamplingSection
from calyx.audit.report.schema import Headline
from calyx.audit.section import LowerBound, Section
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, lower_bound_text

# `calyx.audit.finished_run` reads nothing else: a deployment's ledgers are on its devices.
_SIMULATED = True
_NOTHING_LEARNED = "Nothing was learned: no round had an effect"


def headline(
    guarantee: GuaranteeSection,
    parties: PartiesSection,
    agreement: AgreementSection,
    sampling: SamplingSection,
    replay: ReplaySection | None,
    utility: UtilitySection,
    bounds: Sequence[LowerBound],
    attacks: Mapping[str, Section | None],
    *,
    rounds_with_effect: int,
    is_audit: bool,
) -> Headline:
    """Put the result of the whole report in a few sentences.

    In order: a contradiction by measurement, a folder that is not what its configuration gives, a
    run in which nothing was learned, a disagreement of records, a headline that had to be moved, a
    delta that is no protection, a headline that could not be confirmed, and only then what is
    guaranteed.
    """
    epsilon = guarantee.epsilon
    contradicted = any(getattr(section, "violated", False) for section in attacks.values())
    proven = [bound for bound in bounds if bound.kind == "bound"]
    contradicted |= epsilon is not None and any(b.epsilon > epsilon for b in proven)
    contradicted |= guarantee.below_least
    not_guaranteed = [
        f"Against {party.name}: "
        + ("no bound." if party.epsilon is None else f"only ε = {epsilon_text(party.epsilon)}.")
        for party in parties.parties
        if party.name in parties.does_not_hold_against
    ]
    if epsilon is None:
        return Headline(
            status="no guarantee" if rounds_with_effect else "nothing learned",
            simulated=_SIMULATED,
            title="No differential privacy" if rounds_with_effect else _NOTHING_LEARNED,
            guaranteed="Nothing is guaranteed: what the released values say about a record or a "
            "client is not bounded.",
            for_whom="no one",
            against_whom="no one",
            measured=_measured(bounds, epsilon, attacks),
            model=_model(utility),
            not_guaranteed=tuple(not_guaranteed),
        )
    shown = f"ε = {epsilon_text(epsilon)} at δ = {delta_text(guarantee.delta)}"
    if guarantee.outside:
        shown += ", exact metrics not included"
    if guarantee.epsilon_record is None and guarantee.unit == "client":
        not_guaranteed.append("For one record by itself: no bound.")
    elif guarantee.epsilon_record is not None and guarantee.epsilon_record > epsilon:
        not_guaranteed.append(
            "For one record, or for a client whose data are replaced by others and not left out: "
            f"only ε = {epsilon_text(guarantee.epsilon_record)}."
        )
    not_guaranteed += [
        f"Nothing bounds what {what} gives away: it is sent to the server and is in the journal."
        for what in guarantee.outside
    ]
    if contradicted:
        status, title = "contradicted", "The guarantee is contradicted by measurement"
    elif replay is not None and replay.verdict == "not the same":
        status, title = "disagrees", "This folder is not what its configuration gives"
    elif not rounds_with_effect:
        status, title = "nothing learned", f"{_NOTHING_LEARNED}; {shown} was spent on it"
    elif not agreement.agrees:
        status, title = "disagrees", "Ledgers, configuration and journal disagree"
    elif sampling.verdict in ("not as assumed", "not measured") and guarantee.note:
        status, title = "moved", f"{shown}, more than was claimed"
    elif not guarantee.delta_is_small:
        status = "delta too large"
        title = (
            f"δ = {delta_text(guarantee.delta)} is no protection among {guarantee.units:,} "
            f"{guarantee.unit}s"
        )
    elif not agreement.same_code or not _is_repeated(replay, is_audit):
        status, title = "not confirmed", f"{shown}, by what the folder says"
    else:
        status, title = "guaranteed", shown
    return Headline.model_validate(
        {
            "status": status,
            "simulated": _SIMULATED,
            "title": title,
            "guaranteed": _guaranteed(guarantee, epsilon),
            "for_whom": f"{guarantee.units:,} {guarantee.unit}s",
            "against_whom": ", ".join(parties.holds_against) or "no one",
            "measured": _measured(bounds, epsilon, attacks),
            "model": _model(utility),
            "not_guaranteed": tuple(not_guaranteed),
        }
    )


def _is_repeated(replay: ReplaySection | None, is_audit: bool) -> bool:
    """Whether the run's repetition confirms it; without that, no audit may be green."""
    if replay is None:
        return not is_audit
    return replay.verdict == "the same"


def _guaranteed(guarantee: GuaranteeSection, epsilon: float) -> str:
    outside = "".join(f", except {what}" for what in guarantee.outside)
    sentences = [
        f"By a real run of this form: ({epsilon_text(epsilon)}, {delta_text(guarantee.delta)})-"
        f"differential privacy for each {guarantee.unit}, over everything that was released in all "
        f"rounds together{outside}.",
        guarantee.note,
    ]
    if not guarantee.delta_is_small:
        sentences.append(
            f"With δ at or above 1/n this promises no one anything: giving away "
            f"{delta_text(guarantee.delta_times_units)} of {guarantee.units:,} {guarantee.unit}s "
            "whole would be allowed."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _model(utility: UtilitySection) -> str:
    """What the model is good for, in a sentence."""
    found = utility.headline
    metric, records = found.metric, utility.test_records
    if found.value is None:
        return f"{metric.heading} is not defined on the {records:,} test records."
    direction = f" ({metric.direction})" if metric.direction else ""
    sentence = f"{metric.heading} {metric.text(found.value)} on {records:,} test records{direction}"
    if found.without_privacy is None or found.cost is None:
        return f"{sentence}."
    plain, cost = metric.text(found.without_privacy), metric.cost_text(abs(found.cost))
    effect = f"privacy costs {cost}" if found.cost >= 0 else f"it is {cost} better with privacy"
    return f"{sentence}; without privacy {plain}, so {effect}."


def largest_proven(bounds: Sequence[LowerBound]) -> LowerBound | None:
    """The largest bound of the observer who knows most and so comes last; None without bounds.

    The observer is fixed beforehand, since the largest bound of several observers would be too
    large too often. `calyx audit selftest` measures that the largest of its methods is not.
    """
    proven = [bound for bound in bounds_of_strongest(bounds) if bound.kind == "bound"]
    return max(proven, key=lambda bound: bound.epsilon, default=None)


def bounds_of_strongest(bounds: Sequence[LowerBound]) -> list[LowerBound]:
    """The bounds of the observer who knows most and so comes last among those that are proven."""
    proven = [bound for bound in bounds if bound.kind == "bound"]
    return [bound for bound in bounds if proven and bound.observer == proven[-1].observer]


def _measured(
    bounds: Sequence[LowerBound], epsilon: float | None, attacks: Mapping[str, Section | None]
) -> str:
    best = largest_proven(bounds)
    promised = "nothing" if epsilon is None else f"at most {epsilon_text(epsilon)}"
    models = [bound for bound in bounds if bound.kind == "model"]
    if best is None and models:
        return (
            f"Attacks of this audit show an ε of at least {lower_bound_text(models[-1].epsilon)} "
            f"with {100 * models[-1].confidence:.0f} % confidence, if what is released is "
            f"Gaussian; {promised} is guaranteed."
        )
    if best is None and any(attacks.values()):
        return "No lower bound on ε was measured: the attack with canaries was left out."
    if best is None:
        return "Nothing was measured: this report was made without attacks."
    ceiling = best.ceiling
    could = (
        f" That many canaries could have shown up to {lower_bound_text(ceiling)}."
        if ceiling
        else ""
    )
    return (
        f"Attacks of this audit show an ε of at least {lower_bound_text(best.epsilon)} with "
        f"{100 * best.confidence:.0f} % confidence; {promised} is guaranteed.{could}"
    )
