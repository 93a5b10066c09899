"""Whether a run came to anything, judged by its round events in the journal.

A round that had no effect cost each client its share of epsilon all the same, so a run of such
rounds is not called a success. `calyx.server.round.lost_rounds` ends it early.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calyx.shared.errors import RoundError

Event = Mapping[str, Any]
_REASONS_SHOWN = 3


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


def said(rounds: Sequence[Event]) -> str:
    """The first reasons given by clients or by the rounds themselves."""
    notes = [
        n for e in rounds for kind in ("declined", "failed", "rejected") for n in e.get(kind, ())
    ]
    clients = dict.fromkeys(f"client {note['client']}: {note['reason']}" for note in notes)
    reasons = dict.fromkeys(event.get("reason", "") for event in rounds)
    return "; ".join([*clients, *filter(None, reasons)][:_REASONS_SHOWN]) or "no client answered"
