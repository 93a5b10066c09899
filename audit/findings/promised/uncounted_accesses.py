"""Accesses to the records, or to facts about them, that epsilon does not count.

What the configuration shows is stated as a fact. Calyx cannot know what happened before it saw the
data, and says so.
"""

from __future__ import annotations

from typing import Literal

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.finished_run import AuditedRun
from calyx.audit.section import Section

Status = Literal["none", "public", "not counted", "unknown"]


class Access(Section):
    """One kind of access."""

    name: str
    status: Status
    text: str


class UncountedAccessesSection(Section):
    """All of them."""

    accesses: tuple[Access, ...]


def find(run: AuditedRun, _: EvidenceStore) -> UncountedAccessesSection:
    """Go through the accesses that are commonly forgotten."""
    config = run.config
    privacy, data = config.privacy, config.data
    tests = int(run.start["test_records"])
    return UncountedAccessesSection(
        accesses=(
            Access(
                name="choice of settings",
                status="unknown",
                text="Each further run on the same records, for example to choose the learning "
                "rate, is an access. This run's ledgers hold only what was charged to them; ask "
                "how often the data were trained on before.",
            ),
            Access(
                name="normalisation and vocabularies",
                status="unknown",
                text="Calyx scales by constants only and learns no vocabulary from the records. "
                "Whatever was done to the data before (means, scales, word lists, cleaning, "
                "labelling) is not counted.",
            ),
            Access(
                name="early stopping",
                status="none",
                text=f"All {config.training.rounds} configured rounds were run and the last model "
                "was kept"
                + (
                    " (as a running average of models)." if config.federation.average_decay else "."
                ),
            ),
            Access(
                name="server's test records",
                status="not counted",
                text=f"Loss and metrics on {tests:,} test records were computed exactly after "
                "each round. They are not training records; if they belong to people, these "
                "people have no guarantee.",
            ),
            Access(
                name="record counts",
                status="public" if config.tells_record_counts else "none",
                text="How many records each client holds is declared public and known to the "
                "server."
                if config.tells_record_counts
                else f"Every client counts as {privacy.nominal_records} records; its own number "
                "does not leave it.",
            ),
            Access(
                name="metrics of clients",
                status="not counted" if _clients_tell(run) else "none",
                text="Clients send exact loss or metrics on their own records."
                if _clients_tell(run)
                else "No client sends loss or metrics"
                + (", nor an exact count." if not config.tells_record_counts else "."),
            ),
            Access(
                name="how records were divided",
                status="public",
                text=f"The partition ({data.partition}) and what a label can be are settings of "
                "the run, and public."
                + (" It was drawn with regard to the labels." if data.partition != "iid" else ""),
            ),
            Access(
                name="participation and timing",
                status="not counted",
                text="Which client answered in which round, when, and with how many bytes is known "
                "to the server and to anyone watching the network.",
            ),
        )
    )


def _clients_tell(run: AuditedRun) -> bool:
    config = run.config
    return (
        config.privacy.release_metrics
        or config.federation.client_evaluation
        or not config.is_private
    )
