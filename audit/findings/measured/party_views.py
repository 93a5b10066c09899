"""What each party received in this run, by captured bytes, and what attacks made of it.

Figures are computed from the evidence of `calyx.audit.attacks.party_views`. A view without captured
bytes is not shown: the bytes that an attack used must be in the evidence, with the hash that was
taken when they crossed the boundary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from calyx.audit.attacks.inversion.quality import MARGIN_DB, psnr
from calyx.audit.attacks.party_views import CAPTURED, NAME, PICTURES
from calyx.audit.evidence.store import Arrays, EvidenceStore
from calyx.audit.findings.measured.pictures import Picture, pictures
from calyx.audit.finished_run import AuditedRun
from calyx.audit.replay.capture import AUTHORITY, NETWORK, PUBLIC, SERVER
from calyx.audit.section import AttackSection, Section
from calyx.shared.errors import EvidenceError

_ASSUMED = {
    SERVER: "keeps to the protocol while it looks; it may keep and compute with all it gets",
    AUTHORITY: "does not work together with the server, which has the single uploads",
    NETWORK: "a wire tap gets these bytes only where TLS is broken; otherwise sizes, times and "
    "addresses. A simulation has no network: these are the bytes that would travel",
    PUBLIC: "gets the final model; code, configuration and first weights are known to everyone",
}
# By kind of message, from the server and to it.
_KINDS = {
    "query": ("request to introduce itself", "introduction"),
    "query.sealing": ("public key with admission", "acceptance of the key"),
    "train": ("training instruction with the global model", "update"),
    "evaluate": ("request to evaluate the global model", "evaluation"),
}
_CLIENT_ASSUMED = "keeps its own records, noise and every global model that it is sent"


class CapturedKind(Section):
    """All messages of one kind in one direction."""

    kind: str
    direction: str = Field(description="sent, received, or seen by a wire tap")
    messages: int
    bytes: int


class LabelLeak(Section):
    """Classes that the output bias gives away."""

    named: int = Field(description="classes with a negative gradient")
    right: int = Field(description="of these, classes that are among the records")
    by_chance: float = Field(description="how many would be right if they were drawn by lot")
    present: int = Field(description="classes among the records")
    classes: int


class Reconstruction(Section):
    """Pictures of one attack."""

    attack: str
    psnr_db: float
    best_db: float
    baseline_db: float = Field(description="mean image, paired with records in the same way")
    recovered: int
    pictures: tuple[Picture, ...]
    truth: tuple[Picture, ...]


class GradientEstimate(Section):
    """An estimate of a gradient that the party can make, and every attack on it."""

    name: str
    sees: str
    clients: int
    records: int
    captured_bytes: int
    reconstructions: tuple[Reconstruction, ...]
    labels: LabelLeak | None = Field(description="None if the output layer has no bias")
    not_applicable: str = Field(description="attacks that do not apply, and why")


class View(Section):
    """All that one party received."""

    party: str
    captured: tuple[CapturedKind, ...]
    bytes: int
    digest: str = Field(description="SHA-256 over the hashes of all its messages, hex")
    assumed: str
    sights: tuple[GradientEstimate, ...]
    says: str


class ViewsSection(AttackSection):
    """All views."""

    baseline: Picture
    views: tuple[View, ...]


def find(run: AuditedRun, store: EvidenceStore) -> ViewsSection | None:
    """Views from the evidence, None if none was captured.

    Raises:
        EvidenceError: bytes in the evidence are not those that were captured.
    """
    if not store.has(NAME):
        return None
    facts, arrays = store.get_json(NAME), store.get_arrays(PICTURES)
    messages = facts["crossings"]
    check_bytes(messages, facts["sights"], store.get_arrays(CAPTURED))
    parties = list(dict.fromkeys(row["party"] for row in facts["sights"]))
    views = tuple(_view(party, messages, facts["sights"], arrays) for party in [*parties, NETWORK])
    return ViewsSection(
        title="What did each party get, and what can it make of it?",
        answer=_answer(views),
        setup={
            "bytes": "the first round of this run, repeated with its own configuration, data, "
            "and new noise and keys; each message as it travels",
            "attacks": "labels from the output bias, the first layer in closed form where there is "
            "one, and a search for up to 8 records whose gradient fits",
            "baseline": "the mean of the server's test records, paired with the records as "
            f"favourably as the pictures are; recovered means {MARGIN_DB:g} dB better than that",
        },
        caveats=(
            "Round 1 only. What all rounds give away together is bounded by epsilon and measured "
            "with canaries.",
            "The records beside the reconstructions are real training records: everyone who gets "
            "the report sees them.",
            "Sums over many records show at most what they have in common; that nothing was "
            "recovered says little about one record.",
        ),
        baseline=Picture.of(arrays["baseline"]),
        views=views,
    )


def check_bytes(
    messages: Sequence[Mapping[str, Any]], estimates: Sequence[Mapping[str, Any]], kept: Arrays
) -> None:
    """Refuse bytes that are not those whose hash was taken when they were captured.

    Raises:
        EvidenceError: naming the message.
    """
    for index in {number for estimate in estimates for number in estimate["crossings"]}:
        content = kept.get(f"crossing-{index}")
        if (
            content is None
            or hashlib.sha256(content.tobytes()).hexdigest() != (messages[index]["sha256"])
        ):
            raise EvidenceError(f"the bytes of captured message {index} are not those listed")


def _view(
    party: str,
    messages: Sequence[Mapping[str, Any]],
    estimates: Sequence[Mapping[str, Any]],
    arrays: Arrays,
) -> View:
    if party == NETWORK:
        own = [c for c in messages if c["receiver"] != PUBLIC]
    else:
        own = [c for c in messages if party in (c["sender"], c["receiver"])]
        own = [c for c in own if party == PUBLIC or c["receiver"] != PUBLIC]
    found = tuple(_estimate(row, messages, arrays) for row in estimates if row["party"] == party)
    hashes = "".join(c["sha256"] for c in own)
    return View(
        party=party,
        captured=_kinds(party, own),
        bytes=sum(c["bytes"] for c in own),
        digest=hashlib.sha256(hashes.encode()).hexdigest(),
        assumed=_ASSUMED.get(party, _CLIENT_ASSUMED),
        sights=found,
        says=_says(party, found),
    )


def _kinds(party: str, own: Sequence[Mapping[str, Any]]) -> tuple[CapturedKind, ...]:
    groups: dict[tuple[str, str], list[int]] = {}
    for message in own:
        direction = "sent" if message["sender"] == party else "received"
        direction = "seen" if party == NETWORK else direction
        kind = _KINDS.get(message["kind"], (message["kind"],) * 2)[message["sender"] != SERVER]
        groups.setdefault((kind, direction), []).append(message["bytes"])
    return tuple(
        CapturedKind(kind=kind, direction=direction, messages=len(sizes), bytes=sum(sizes))
        for (kind, direction), sizes in groups.items()
    )


def _estimate(
    row: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], arrays: Arrays
) -> GradientEstimate:
    name = row["name"]
    attacks = [] if row["search_failed"] else [("inverted", f"search, {row['search']}")]
    attacks += [("closed", "closed form of the first layer")] if row["closed_form"] else []
    missing = [] if row["closed_form"] else ["closed form: no layer with a bias sees whole records"]
    missing += [f"search: {row['search_failed']}"] if row["search_failed"] else []
    missing += [] if row["labels"] else ["labels: the output layer has no bias"]
    leak = None
    if row["labels"]:
        named, present = arrays[f"{name}-bias"] < 0, arrays[f"{name}-present"].astype(bool)
        leak = LabelLeak(
            named=int(named.sum()),
            right=int((named & present).sum()),
            by_chance=float(named.sum() * present.mean()),
            present=int(present.sum()),
            classes=len(present),
        )
    return GradientEstimate(
        name=name,
        sees=row["sees"],
        clients=row["clients"],
        records=row["records"],
        captured_bytes=sum(messages[index]["bytes"] for index in row["crossings"]),
        reconstructions=tuple(
            _reconstruction(f"{name}-{key}", words, arrays) for key, words in attacks
        ),
        labels=leak,
        not_applicable="; ".join(missing),
    )


def _reconstruction(key: str, words: str, arrays: Arrays) -> Reconstruction:
    found, truth = arrays[key], arrays[f"{key}-truth"]
    nearest = arrays[f"{key}-baseline-truth"]
    reached = psnr(found, truth)
    chance = psnr(np.broadcast_to(arrays["baseline"], nearest.shape), nearest)
    return Reconstruction(
        attack=words,
        psnr_db=float(reached.mean()),
        best_db=float(reached.max()),
        baseline_db=float(chance.mean()),
        # Pictures choose their records, so they have to beat the mean image's own best.
        recovered=int((reached > chance.max() + MARGIN_DB).sum()),
        pictures=pictures(found),
        truth=pictures(truth),
    )


def _says(party: str, estimates: Sequence[GradientEstimate]) -> str:
    if party == NETWORK:
        return "The union of what crossed all boundaries: no attack beyond those of the others."
    parts = []
    for estimate in estimates:
        best = max((r.recovered for r in estimate.reconstructions), default=0)
        verdict = (
            f"{best} of {len(estimate.reconstructions[0].pictures)} pictures recovered"
            if best
            else "no picture recovered"
            if estimate.reconstructions
            else "no search was possible"
        )
        told = _labels_said(estimate.labels)
        parts.append(f"From {estimate.sees} ({estimate.records:,} records): {verdict}{told}.")
    return " ".join(parts)


def _labels_said(leak: LabelLeak | None) -> str:
    # Where every class is among the records, any named class is right.
    if leak is None or not leak.named or leak.present == leak.classes:
        return ""
    return (
        f", {leak.named} classes named, {leak.right} of them rightly (by chance "
        f"{leak.by_chance:.1f}; {leak.present} of {leak.classes} are there)"
    )


def _answer(views: Sequence[View]) -> str:
    exposed = [
        view.party
        for view in views
        if any(r.recovered for estimate in view.sights for r in estimate.reconstructions)
    ]
    if exposed:
        return f"Records of this run were reconstructed from what these got: {', '.join(exposed)}."
    return (
        "From what each party got in the first round, no record was reconstructed better than the "
        "mean image."
    )
