"""What neither the guarantee nor this audit covers, stated as plainly as what they do."""

from __future__ import annotations

from calyx.audit.evidence.store import OF_EVERY_REPORT, EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section


class Limit(Section):
    """One thing that is not covered."""

    name: str
    text: str


class LimitsSection(Section):
    """All of them."""

    limits: tuple[Limit, ...]


def _chosen_by_the_run(run: AuditedRun) -> list[Limit]:
    """What this configuration alone brings about."""
    training, found = run.config.training, []
    if training.start_sha256:
        found.append(
            Limit(
                name="the weights it started from",
                text=f"The run started from weights with SHA-256 {training.start_sha256}. What "
                "they were trained on is not covered: if it was these records, their cost adds up.",
            )
        )
    if training.patience:
        found.append(
            Limit(
                name="the test figure",
                text=f"The run could end after {training.patience} rounds without a better result "
                "on the test records. They decided when to stop, so their figure is "
                "kind to the model.",
            )
        )
    return found


def find(run: AuditedRun, store: EvidenceStore) -> LimitsSection:
    """List what is not covered in a run of this configuration."""
    was_attacked = not OF_EVERY_REPORT.issuperset(store.names())
    privacy, federation = run.config.privacy, run.config.federation
    person = (
        Limit(
            name="people with several records",
            text="The unit is one record. A person with several, at one client or at many, has to "
            "add up; the report gives the figure for two and for five.",
        )
        if privacy.unit == "record"
        else Limit(
            name="people at several clients",
            text="The unit is one client. A person with records at several has to add up.",
        )
    )
    found = [
        *_chosen_by_the_run(run),
        Limit(
            name="what is true of many",
            text="What is true of many records is what the model is meant to learn. Conclusions "
            "about a person that follow from it are not prevented, whether that person took part "
            "or not.",
        ),
        person,
        Limit(
            name="simulation",
            text="This was a simulation: all parties ran on one machine"
            + (
                ", its noise follows from the seed in the run folder, and anyone who has that can "
                "subtract it. The figures say what a real run of this form would cost. They "
                "protect no one's data here."
                if run.config.is_private
                else "."
            ),
        ),
        Limit(
            name="accesses outside the ledgers",
            text="Earlier runs on copies of the data, and whatever prepared them; see the list of "
            "uncounted accesses.",
        ),
        Limit(
            name="floating point",
            text="The analysis is for real numbers. "
            + (
                "The noise of sealed sums is drawn and added in integers, the accounting is in "
                "floating point, rounded towards more cost."
                if run.mechanism
                else "Noise is drawn and added in double precision with known mitigations, which "
                "are no proof; the accounting is rounded towards more cost."
            ),
        ),
        Limit(
            name="a wrong model",
            text="Nothing here says that the model is right or fair, or that no client poisoned it."
            + (
                " In sealed runs single updates cannot be examined."
                if run.is_sealed
                else f" Updates are examined ({federation.strategy}), within limits."
            ),
        ),
        Limit(
            name="devices and side channels",
            text="The device of each client and the code on it are trusted with everything. Time, "
            "memory, swap and traffic are not protected.",
        ),
        Limit(
            name="other attacks",
            text="A lower bound is what the attacks of this audit found. Others may find more, up "
            "to the guarantee; that no attack succeeded is no guarantee."
            if was_attacked
            else "None was made for this report. That none succeeded would be no guarantee.",
        ),
    ]
    if not run.config.is_private:
        return LimitsSection(
            limits=(
                Limit(
                    name="everything",
                    text="There is no differential privacy: nothing bounds what the updates or the "
                    "model give away.",
                ),
                *(limit for limit in found if limit.name not in (person.name, "floating point")),
            )
        )
    return LimitsSection(limits=tuple(found))
