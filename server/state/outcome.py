"""What a run came to, and whether that is anything, as its journal tells.

A round that had no effect cost each client its share of epsilon all the same, so a run of such
rounds is not called a success. `calyx.server.round.lost_rounds` ends it early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calyx.server.state.journal import Event, RunEvents, clients_metrics
from calyx.shared.errors import RoundError, RunError
from calyx.shared.metric_facts import MetricFacts

_REASONS_SHOWN = 3


@dataclass(frozen=True)
class RunFigures:
    """What a run came to.

    Attributes:
        accuracy: share of right predictions on the server's test set, after the last round; None
            where the task has no accuracy.
        metrics: all metrics of the task on the same, by name, the headline first; None where the
            test set does not define one.
        loss: mean loss on the same, in the unit of the task's loss.
        epsilon_max: what the server's plans say was spent; None without privacy.
        delta: at which `epsilon_max` holds.
        noise_multiplier: largest among the clients' plans; 0 without privacy.
        rounds: completed rounds.
        clients: clients in the run.
        rejected, declined: replies rejected, and refused by clients, over all rounds.
        rounds_with_effect: of the rounds, those that changed the model.
        seconds_per_round: mean over all rounds, training to checkpoint.
    """

    accuracy: float | None
    metrics: dict[str, float | None]
    loss: float
    epsilon_max: float | None
    delta: float
    noise_multiplier: float
    rounds: int
    clients: int
    rejected: int
    declined: int
    rounds_with_effect: int
    seconds_per_round: float

    @classmethod
    def of(cls, told: RunEvents) -> RunFigures:
        """The figures of a run that has gone through a round.

        Raises:
            RunError: it has not.
        """
        start, rounds = told.start, told.rounds
        if not start or not rounds:
            raise RunError("the run's journal tells of no round")
        last = rounds[-1]
        return cls(
            accuracy=last["accuracy"],
            metrics=told.metrics(-1),
            loss=last["loss"],
            epsilon_max=last["epsilon_max"],
            delta=start["delta"],
            noise_multiplier=start["noise_multiplier"],
            rounds=len(rounds),
            clients=start["clients"],
            rejected=sum(len(event["rejected"]) for event in rounds),
            declined=sum(len(event["declined"]) for event in rounds),
            rounds_with_effect=rounds_with_effect(rounds),
            seconds_per_round=round(sum(event["seconds"] for event in rounds) / len(rounds), 4),
        )


def rounds_with_effect(rounds: Sequence[Event]) -> int:
    """Rounds whose replies became part of the model."""
    return sum(not event["skipped"] for event in rounds)


def check_effect(rounds: Sequence[Event]) -> None:
    """Call a run failed if none of its rounds had an effect, although all were carried out.

    Raises:
        RoundError: with what the clients said.
    """
    if rounds and not rounds_with_effect(rounds):
        raise RoundError(f"nothing was learned: no round had an effect; {said(rounds)}")


def on_clients(headline: MetricFacts, event: Event) -> str:
    """The headline on the clients' own records in a round, in words; empty where none told it."""
    told = clients_metrics(event)
    if headline.name not in told:
        return ""
    text = f"{headline.shown} {headline.text(told[headline.name])} on average"
    worst = told.get(f"{headline.name}-worst")
    return text if worst is None else f"{text}, {headline.text(worst)} for the worst tenth"


def said(rounds: Sequence[Event]) -> str:
    """The first reasons given by clients or by the rounds themselves."""
    notes = [
        n for e in rounds for kind in ("declined", "failed", "rejected") for n in e.get(kind, ())
    ]
    clients = dict.fromkeys(f"client {note['client']}: {note['reason']}" for note in notes)
    reasons = dict.fromkeys(event.get("reason", "") for event in rounds)
    return "; ".join([*clients, *filter(None, reasons)][:_REASONS_SHOWN]) or "no client answered"
