"""Who sees what, what holds against whom, and how many may work together before it fails.

From the configuration alone; what was actually captured on the wires is in
`calyx.audit.findings.measured.party_views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised import guarantee
from calyx.audit.findings.promised.guarantee import GuaranteeSection, finite
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent


class Party(Section):
    """One party, or several that work together."""

    name: str
    sees: str
    does_not_see: str
    is_bounded: bool = Field(description="whether differential privacy bounds what it learns")
    epsilon: float | None = Field(description="the bound against it; None where there is none")
    trusted_for: str
    was_there: bool = Field(
        True, description="false: no one in that role took part in this run, so nothing is claimed"
    )


class PartiesSection(Section):
    """All parties."""

    parties: tuple[Party, ...]
    holds_against: tuple[str, ...] = Field(description="against whom the headline holds, in words")
    does_not_hold_against: tuple[str, ...]
    releases: tuple[str, ...] = Field(description="what is released, to whom")
    colluders_tolerated: int | None = Field(
        description="clients a round that may work with the server; None: any number"
    )
    collusion: str


def find(run: AuditedRun, store: EvidenceStore) -> PartiesSection:
    """Put together what each party sees in a run of this configuration."""
    return seen(run, guarantee.find(run, store))


def seen(run: AuditedRun, found: GuaranteeSection) -> PartiesSection:
    """The parties, given what is guaranteed."""
    noise = run.config.privacy.noise
    parties = [_server(run, found)]
    if run.is_sealed:
        parties += [_authority(run, found), _both(run, found)]
    parties += [_client(run, found), _network(run, found), _public(found, noise)]
    tolerated, collusion = _collusion(run)
    return PartiesSection(
        parties=tuple(parties),
        holds_against=tuple(p.name for p in parties if p.was_there and _headline(p, found)),
        does_not_hold_against=tuple(
            p.name for p in parties if p.was_there and not _headline(p, found)
        ),
        releases=_releases(run),
        colluders_tolerated=tolerated,
        collusion=collusion,
    )


def single_upload(run: AuditedRun) -> float | None:
    """Epsilon against anyone who decrypts single uploads, each with only one share of the noise.

    A client adds variance mu/k of distributed noise, so what it uploads is the same mechanism with
    1/sqrt(k) of the noise. None where nothing is bounded.
    """
    unit, delta = run.config.privacy.unit, run.config.privacy.delta
    costs = [
        spent(_with_one_share(run.own_events(ledger)), delta, unit).epsilon
        for ledger in run.ledgers
    ]
    return finite(max(costs))


def _with_one_share(events: Sequence[PrivacyEvent]) -> list[PrivacyEvent]:
    single = []
    for event in events:
        if event.skellam is None:
            single.append(event)
            continue
        noise = event.noise_multiplier / event.skellam.shares**0.5
        alone = replace(event.skellam, noise_multiplier=noise, shares=1)
        single.append(replace(event, noise_multiplier=noise, skellam=alone))
    return single


def _headline(party: Party, found: GuaranteeSection) -> bool:
    return party.is_bounded and party.epsilon is not None and party.epsilon == found.epsilon


def _server(run: AuditedRun, found: GuaranteeSection) -> Party:
    noise = run.config.privacy.noise
    trusted = "delivering messages, and a correct model"
    metrics = ", and exact metrics of clients" if found.outside else ""
    if run.is_sealed:
        exact = "noised " if run.config.privacy.is_noised_by_clients else "exact "
        bounded = run.config.privacy.is_noised_by_clients and not found.outside
        return Party(
            name="server",
            sees=f"ciphertexts of each update, and the {exact}sums that are released to it"
            + metrics,
            does_not_see="a single update, a record, the secret key",
            is_bounded=bounded,
            epsilon=found.epsilon if bounded else None,
            trusted_for=trusted,
        )
    return Party(
        name="server",
        sees="each client's update, one by one, "
        + ("with the client's noise" if noise == "local" else "without any noise")
        + metrics,
        does_not_see="records" + (", updates without noise" if noise == "local" else ""),
        is_bounded=noise == "local" and not found.outside,
        epsilon=found.epsilon if noise == "local" and not found.outside else None,
        trusted_for=trusted if noise == "local" else f"everything it sees; {trusted}",
    )


def _authority(run: AuditedRun, found: GuaranteeSection) -> Party:
    bounded = run.config.privacy.is_noised_by_clients
    least = run.config.secure_aggregation.min_contributors
    return Party(
        name="key authority",
        sees=f"sums of at least {least} clients" + (", already noised" if bounded else ", exact"),
        does_not_see="a single update (unless it works with the server), a record",
        is_bounded=bounded,
        epsilon=found.epsilon if bounded else None,
        trusted_for="keeping the secret key, and releasing by its rules only",
    )


def _both(run: AuditedRun, found: GuaranteeSection) -> Party:
    noise = run.config.privacy.noise
    if noise == "distributed":
        epsilon = single_upload(run)
    else:
        epsilon = found.epsilon if noise == "local" else None
    if found.outside:
        epsilon = None
    shares = run.mechanism.shares if run.mechanism else 1
    return Party(
        name="server and key authority together",
        sees="each client's update, decrypted"
        + (f", with one of {shares} shares of the noise" if noise == "distributed" else ""),
        does_not_see="records",
        is_bounded=epsilon is not None,
        epsilon=epsilon,
        trusted_for="not working together",
    )


def _client(run: AuditedRun, found: GuaranteeSection) -> Party:
    noise = run.config.privacy.noise
    return Party(
        name="another client",
        sees="the global model after each round, its own records",
        does_not_see="another client's update or records",
        is_bounded=noise != "none",
        epsilon=found.epsilon,
        trusted_for="its share of the noise" if noise == "distributed" else "nothing private",
        was_there=run.config.federation.clients > 1,
    )


def _network(run: AuditedRun, found: GuaranteeSection) -> Party:
    bounded = run.config.privacy.is_noised_by_clients
    return Party(
        name="anyone watching the network",
        sees="nothing in this simulation, which has no network; in a deployment who talks to whom, "
        "when, and how much, over TLS",
        does_not_see="contents of messages",
        is_bounded=bounded,
        epsilon=found.epsilon if bounded else None,
        trusted_for="nothing",
        was_there=False,
    )


def _public(found: GuaranteeSection, noise: str) -> Party:
    return Party(
        name="anyone with the final model",
        sees="the final model, its loss and metrics on the server's test records",
        does_not_see="updates, records"
        + (", the journal with exact metrics of clients" if found.outside else ""),
        is_bounded=noise != "none",
        epsilon=found.epsilon,
        trusted_for="nothing",
    )


def _releases(run: AuditedRun) -> tuple[str, ...]:
    config = run.config
    rounds, least = config.training.rounds, config.secure_aggregation.min_contributors
    to_server = (
        f"to the server: {rounds} sums of at least {least} clients' updates"
        if run.is_sealed
        else f"to the server: in each of {rounds} rounds every asked client's update"
    )
    told = guarantee.exact_metrics(config)
    return (
        to_server,
        f"to every client: the global model of each of {rounds} rounds",
        "to anyone given the run: the final model, the journal, the partition and the ledgers",
        *(f"to the server and the journal: {what}, not covered by ε" for what in told),
    )


def _collusion(run: AuditedRun) -> tuple[int | None, str]:
    noise, mechanism = run.config.privacy.noise, run.mechanism
    if noise == "distributed" and mechanism:
        spare = mechanism.contributors - mechanism.shares
        return spare, (
            f"The noise counts on {mechanism.shares} honest clients in each sum of up to "
            f"{mechanism.contributors}. With all of them contributing, up to {spare} may tell the "
            "server their values and noise; in a sum of only "
            f"{mechanism.shares}, none may. Server and key authority must not work together."
        )
    if noise == "local":
        return None, (
            "Each client protects itself: the bound holds no matter who works together, even "
            "everyone except the client."
        )
    if noise == "central":
        return 0, "Everything rests on the server: it sees sums without noise and must add it."
    return 0, "There is no bound that collusion could break."
