"""The same run without differential privacy: what privacy cost.

Data, partition, model, rounds and seed are the same; only ``privacy.noise`` is ``none``. Where
the private run takes one step per round over all records, the unprotected one trains locally as
usual, so the difference is the whole cost of choosing privacy, and not that of the noise alone.
"""

from __future__ import annotations

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.server.state.journal import metrics_of
from calyx.shared.config import Config
from calyx.shared.config.load import build
from calyx.simulations.run_folder import RunFolder

NAME = "unprotected-twin"


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Train without privacy and put the metrics of each round into evidence."""
    config = folder.stored_config()
    if not config.is_private:
        return
    plain = without_privacy(config)
    total = config.training.rounds
    observers = Observers(on_round=lambda number: progress("without privacy", number / total))
    with replayed_run(plain, observers) as repeated:
        rounds = repeated.told().rounds
    store.put_json(
        NAME,
        {
            "metrics": [metrics_of(event) for event in rounds],
            "rounds": [event["round"] for event in rounds],
        },
    )


def metrics_without_privacy(store: EvidenceStore) -> dict[str, float | None]:
    """The metrics after the last round, by name; empty if nothing was trained."""
    if not store.has(NAME):
        return {}
    found = store.get_json(NAME)
    # Evidence from before there were tasks has the accuracy only.
    rounds = found.get("metrics") or [{"accuracy": value} for value in found["accuracy"]]
    last: dict[str, float | None] = rounds[-1]
    return last


def without_privacy(config: Config) -> Config:
    """The same configuration with no noise and nothing sealed."""
    settings = config.model_dump()
    settings["privacy"]["noise"] = "none"
    settings["secure_aggregation"]["scheme"] = "none"
    return build(settings)
