"""How the guarantee is made: noise, clipping, sampling, randomness, encryption, versions."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.promised.guarantee import finite
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section


class EncryptionFacts(Section):
    """Parameters of the sealed sums, derived again, and who holds which key."""

    scheme: str
    security_bits: int
    ring_degree: int
    coefficient_modulus_bits: tuple[int, ...]
    plain_modulus: int
    fields_per_slot: int
    field_bits: int
    value_bound: int
    overflow_headroom_bits: float
    noise_headroom_bits: float | None
    upload_bytes: int
    expansion: float = Field(description="upload over the same vector as float32")
    min_contributors: int
    is_tagged: bool = Field(description="the authority can verify what it decrypts")
    keys: str


class MechanismSection(Section):
    """What each client did, in every round."""

    noise_kind: Literal["none", "local", "distributed", "central"]
    noise: str = Field(description="who adds noise, and its distribution, in words")
    noise_multipliers: tuple[float, ...] = Field(description="σ of the ledgers, without repeats")
    clip_norm: float
    sensitivity_factor: float
    sampling_rates: tuple[float, ...]
    steps_per_round: tuple[int, ...]
    rounds: int
    uses: int = Field(description="T: uses of the mechanism on a client's records, at most")
    divisor: str
    skellam: dict[str, float | int | str] | None
    randomness: str
    seed: int
    encryption: EncryptionFacts | None
    model: str
    parameters: int
    versions: dict[str, str]
    code_hash: str
    git_commit: str | None


def find(run: AuditedRun, _: EvidenceStore) -> MechanismSection:
    """Put together what ledgers, configuration and environment say."""
    events = [event for ledger in run.ledgers for event in run.own_events(ledger)]
    factor = run.plans[0].sensitivity_factor
    environment, config = run.environment, run.config
    mechanism = run.mechanism
    packages = dict(environment.get("packages", {}))
    versions = {
        "calyx": environment.get("calyx"),
        "python": environment.get("python"),
        **packages,
    }
    return MechanismSection(
        noise_kind=config.privacy.noise,
        noise=_noise_in_words(run),
        noise_multipliers=tuple(sorted({e.noise_multiplier * factor for e in events})),
        clip_norm=config.privacy.clip_norm,
        sensitivity_factor=factor,
        sampling_rates=tuple(sorted({e.sampling_rate for e in events})),
        steps_per_round=tuple(sorted({e.count for e in events})),
        rounds=config.training.rounds,
        uses=max(
            (sum(e.count for e in run.own_events(ledger)) for ledger in run.ledgers), default=0
        ),
        divisor="a public constant, the expected number of records in a batch"
        if config.is_private
        else "the number of records",
        skellam={
            "rounding": mechanism.rounding,
            "dimension": mechanism.dimension,
            "grid step": mechanism.step,
            "clip norm in steps": mechanism.scaled_norm,
            "honest contributors counted on": mechanism.shares,
            "contributors at most": mechanism.contributors,
            "clamp": mechanism.clamp,
        }
        if mechanism
        else None,
        randomness=str(environment.get("randomness", {}).get("noise", "unknown")),
        seed=config.seed,
        encryption=_encryption(run),
        model=config.model.name,
        parameters=int(run.start["parameters"]),
        versions={name: str(version) for name, version in versions.items() if version},
        code_hash=str(environment.get("code_hash", "")),
        git_commit=environment.get("git_commit"),
    )


def _noise_in_words(run: AuditedRun) -> str:
    privacy = run.config.privacy
    mechanism = run.mechanism
    if privacy.noise == "none":
        return "none: training without differential privacy"
    if privacy.noise == "central":
        return (
            "Gaussian, added by the server to the sum of the clients' clipped updates, which it "
            "sees in clear"
        )
    if privacy.noise == "distributed" and mechanism:
        return (
            f"Skellam (integers), a share from each client; the shares of {mechanism.shares} "
            "honest clients together are the noise counted on"
        )
    what = "the gradients of every step" if privacy.unit == "record" else "each whole update"
    return f"Gaussian, added by every client on its device to {what}"


def _encryption(run: AuditedRun) -> EncryptionFacts | None:
    sealing = run.sealing
    if sealing is None:
        return None
    headroom = sealing.noise_headroom_bits
    return EncryptionFacts(
        scheme=sealing.scheme.upper(),
        security_bits=sealing.security_bits,
        ring_degree=sealing.poly_modulus_degree,
        coefficient_modulus_bits=sealing.coeff_mod_bits,
        plain_modulus=sealing.plain_modulus,
        fields_per_slot=sealing.fields_per_slot,
        field_bits=sealing.field_bits,
        value_bound=sealing.value_bound,
        overflow_headroom_bits=sealing.field_headroom_bits,
        noise_headroom_bits=finite(headroom) if not math.isnan(headroom) else None,
        upload_bytes=sealing.upload_bytes,
        expansion=sealing.expansion,
        min_contributors=run.config.secure_aggregation.min_contributors,
        is_tagged=sealing.scheme == "bfv",
        keys="One key pair a run, made by the key authority, which alone has the secret key and "
        "decrypts sums only. Clients hold the public key; the server holds neither. In this "
        "simulation the authority ran in the same process, with its keys in a temporary folder.",
    )
