"""Is the folder what its configuration and this code give? What the repeated run showed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from calyx.audit.attacks.replay import NAME
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section

ReplayVerdict = Literal["the same", "not the same", "not comparable"]


class ReplaySection(Section):
    """The run, repeated from its configuration, against the content of the folder."""

    verdict: ReplayVerdict = Field(
        description="not comparable: another machine, other versions, or other code than the run's"
    )
    answer: str
    differs: tuple[str, ...] = Field(description="what is not the same, in words")
    environment: tuple[str, ...] = Field(
        description="what of the machine, versions and code is not that of the run"
    )
    model_distance: float | None = Field(
        description="norm of the difference of both final models, over that of the repeated one"
    )


def find(run: AuditedRun, store: EvidenceStore) -> ReplaySection | None:
    """Compare both sides of the evidence; None if the run was not repeated."""
    if not store.has(NAME):
        return None
    found = store.get_json(NAME)
    differs = _differences(found)
    environment = _environment(found["environment"])
    if not differs:
        verdict: ReplayVerdict = "the same"
        answer = (
            "The run was repeated from its configuration. Final model, charges of every ledger, "
            "rounds and partition are the same to the last bit."
        )
    elif environment:
        verdict = "not comparable"
        answer = (
            "The run was repeated, but not under the conditions that it was made under, so a "
            "difference proves nothing. Whether this folder is what its configuration gives was "
            "not shown: " + "; ".join(environment) + "."
        )
    else:
        verdict = "not the same"
        answer = (
            "The same code on the same machine makes something else of this configuration than "
            "lies in this folder: " + "; ".join(differs) + "."
        )
    return ReplaySection(
        verdict=verdict,
        answer=answer,
        differs=tuple(differs),
        environment=tuple(environment),
        model_distance=found["distance"],
    )


def _differences(found: dict[str, Any]) -> list[str]:
    here, again = found["run"], found["again"]
    differs = []
    if here["model"] != again["model"]:
        far = found["distance"]
        by = "" if far is None else f", by {far:.2g} of its norm"
        differs.append(f"the final model is another one{by}")
    pairs = zip(here["ledgers"], again["ledgers"], strict=True)
    others = [number for number, (one, other) in enumerate(pairs) if one != other]
    if others:
        differs.append(
            f"{len(others)} of {len(here['ledgers'])} ledgers hold other charges (client "
            f"{others[0]} is the first)"
        )
    if here["rounds"] != again["rounds"]:
        differs.append("the journal tells of other rounds")
    if here["partition"] != again["partition"]:
        differs.append("the records are divided otherwise")
    return differs


def _environment(sides: dict[str, dict[str, Any]]) -> list[str]:
    then, now = sides["run"], sides["here"]
    words = {"code_hash": "code", "python": "Python", "machine": "processor"}
    differs = [
        f"{words[key]} {str(now[key])[:12]} here, {str(then.get(key))[:12]} then"
        for key in words
        if now[key] != then.get(key)
    ]
    before, packages = then.get("packages") or {}, now["packages"]
    differs += [
        f"{name} {packages.get(name)} here, {before.get(name)} then"
        for name in sorted({*packages, *before})
        if packages.get(name) != before.get(name)
    ]
    return differs
