"""The reconstruction scenarios: how well a picture comes back, from no protection to all of it.

Every figure is computed from the pictures in the evidence
(`calyx.audit.attacks.inversion.scenarios`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import Field

from calyx.audit.attacks.inversion.quality import MARGIN_DB, psnr
from calyx.audit.attacks.inversion.scenarios import NAME, PICTURES
from calyx.audit.evidence.store import Arrays, EvidenceStore
from calyx.audit.findings.measured.pictures import Picture, pictures
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import AttackSection, Section

_TITLES = {
    "plain-closed-form": "Update in clear, fully connected network",
    "plain-smooth": "Update in clear, smooth network",
    "plain-fedavg": "Update in clear after several local steps, smooth network",
    "plain-cnn": "Update in clear, CNN of the product",
    "noise-closed-form": "Update with local noise, fully connected network",
    "noise-smooth": "Update with local noise, smooth network",
    "noise-cnn": "Update with local noise, CNN of the product",
    "sealed-upload": "One sealed upload: its ciphertexts as numbers",
    "public-key": "One sealed upload without noise, attacked with the public key",
    "authority": "Key authority: the sum of 2 that it decrypts, with noise",
    "colluding-client": "Client that takes its own part out of a noised sum of 2",
}


class Captured(Section):
    """Bytes that an observer received."""

    kind: str
    sender: str
    receiver: str
    bytes: int
    sha256: str


class Scenario(Section):
    """One observer, one kind of protection, one attack."""

    name: str
    title: str
    view: str = Field(description="whose bytes were attacked")
    attack: str
    clients: int
    sealed: bool
    noise_multiplier: float = Field(description="standard deviation of the noise over clip norm")
    psnr_db: float = Field(description="mean over the pictures, in dB")
    best_db: float = Field(description="of the best picture")
    baseline_db: float = Field(description="mean image against the same records, mean in dB")
    margin_db: float = Field(description="largest of PSNR less baseline, over the pictures")
    recovered: int = Field(description=f"pictures more than {MARGIN_DB:g} dB above their baseline")
    pictures: tuple[Picture, ...]
    truth: tuple[Picture, ...]
    captured: tuple[Captured, ...]
    says: str = Field(description="in plain words")


class InversionSection(AttackSection):
    """The reference scenarios."""

    source: str = Field(description="where the pictures come from")
    baseline: Picture = Field(
        description="the mean image, the guess of an attacker who knows nothing"
    )
    rungs: tuple[Scenario, ...]


def find(run: AuditedRun, store: EvidenceStore) -> InversionSection | None:
    """The scenarios from the evidence, None if they were not run."""
    if not store.has(NAME):
        return None
    facts, arrays = store.get_json(NAME), store.get_arrays(PICTURES)
    scenarios = tuple(_scenario(row, arrays) for row in facts["rungs"])
    noise = max((scenario.noise_multiplier for scenario in scenarios), default=0.0)
    return InversionSection(
        title="Can pictures be reconstructed from updates?",
        answer=_answer(scenarios),
        setup={
            "pictures": f"{facts['source']}, 28x28, one record a client, first weights",
            "bytes": "captured from real servers, clients and key authorities, one round each",
            "told to the attacker": "the labels, the number of records, code and configuration",
            "noise": f"clip norm 1, noise multiplier {noise:.2f}, one round",
            "baseline": "the mean of records that the attacker has himself; a picture counts as "
            f"recovered if it is more than {MARGIN_DB:g} dB better than that",
            "PSNR": "above 30 dB a picture is hard to tell from the record",
        },
        caveats=(
            "The scenarios are about mechanisms, not about this run: their records, noise and "
            "number of rounds differ. What this run's parties got is shown under views.",
            "Other attacks may do better. What noise gives away at most is bounded by epsilon, "
            "which does not depend on an attack.",
            f"The pictures shown are {facts['source']}: everyone who gets the report sees them.",
            "A ciphertext that could not be inverted is no proof that it cannot be: that rests "
            "on the encryption's security level. It is shown beside the sum that is released.",
        ),
        source=facts["source"],
        baseline=Picture.of(arrays["baseline"]),
        rungs=scenarios,
    )


def _scenario(row: dict[str, Any], arrays: Arrays) -> Scenario:
    name = row["name"]
    found, truth = arrays[name], arrays[f"{name}-truth"]
    reached = psnr(found, truth)
    chance = psnr(np.broadcast_to(arrays["baseline"], truth.shape), truth)
    recovered = int((reached > chance + MARGIN_DB).sum())
    return Scenario(
        name=name,
        title=_title(row),
        view=row["view"],
        attack=row["attack"],
        clients=row["clients"],
        sealed=row["sealed"],
        noise_multiplier=row["noise_multiplier"],
        psnr_db=float(reached.mean()),
        best_db=float(reached.max()),
        baseline_db=float(chance.mean()),
        margin_db=float((reached - chance).max()),
        recovered=recovered,
        pictures=pictures(found),
        truth=pictures(truth),
        captured=tuple(
            Captured(
                kind=seen["kind"],
                sender=seen["from"],
                receiver=seen["to"],
                bytes=seen["bytes"],
                sha256=seen["sha256"],
            )
            for seen in row["observed"]
        ),
        says=_says(recovered, len(found), row["facts"]),
    )


def _title(row: dict[str, Any]) -> str:
    if (title := _TITLES.get(row["name"])) is not None:
        return title
    noise = "with noise" if row["noise_multiplier"] else "without noise"
    return f"Released sum of {row['clients']} clients, {noise}"


def _says(recovered: int, count: int, facts: dict[str, Any]) -> str:
    if recovered:
        words = "The record was recovered." if count == 1 else f"{recovered} of {count} recovered."
    else:
        words = "Nothing was recovered: the mean image is at least as good a guess."
    if "largest_correlation" in facts:
        # For that many independent numbers: three standard deviations, as there are some guesses.
        chance = 3 / math.sqrt(facts["numbers"])
        words += (
            f" {facts['candidates']} guesses, the right one among them, were encrypted with the "
            f"public key: {facts['equal_ciphertexts']} ciphertexts equalled those captured, and "
            f"none correlated by more than {facts['largest_correlation']:.4f} (chance: up to some "
            f"{chance:.4f})."
        )
    if "correlation_with_update" in facts:
        words += f" Correlation with the update: {facts['correlation_with_update']:+.4f}."
    return words


def _answer(scenarios: tuple[Scenario, ...]) -> str:
    bare = [r for r in scenarios if not r.noise_multiplier and r.clients == 1]
    sums = [r for r in scenarios if not r.noise_multiplier and r.name.startswith("sum-")]
    noised = [r for r in scenarios if r.noise_multiplier]
    words = []
    if bare:
        low, high = min(r.psnr_db for r in bare), max(r.psnr_db for r in bare)
        verb = "come back" if all(r.recovered for r in bare) else "come back in part"
        words.append(f"From updates in clear, pictures {verb} ({low:.0f} to {high:.0f} dB).")
    if exposed := [r.clients for r in sums if r.recovered]:
        words.append(
            f"Sums alone do not protect: without noise, pictures were recovered from sums of up to "
            f"{max(exposed)} clients."
        )
    if noised:
        best = max(r.margin_db for r in noised)
        if any(r.recovered for r in noised):
            words.append("Some were recovered in spite of the noise.")
        else:
            words.append(
                "With noise nothing was recovered by any observer: every picture is at least "
                f"{-best:.1f} dB worse than the mean image."
                if best < 0
                else "With noise nothing was recovered by any observer."
            )
    return " ".join(words)
