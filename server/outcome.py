"""Whether a run came to anything, as its rounds tell; each check is of the journal's round events.

A round that no client could answer cost each of them its share of epsilon all the same, so a run
in which nothing arrives is ended early, and one that had no effect is not called a success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import RoundError

Event = Mapping[str, Any]
_FRUITLESS_ROUNDS = 2
_REASONS_SHOWN = 3


def rounds_with_effect(rounds: Sequence[Event]) -> int:
    """Rounds whose replies became part of the model."""
    return sum(not event["skipped"] for event in rounds)


def end_if_fruitless(rounds: Sequence[Event]) -> None:
    """End a run whose last two rounds brought not one usable reply.

    One such round may be an accident. Two are a fault that the next will show again, and each
    client that was asked has paid for them.

    Raises:
        RoundError: with what the clients said.
    """
    last = rounds[-_FRUITLESS_ROUNDS:]
    if len(last) == _FRUITLESS_ROUNDS and not any(event["ok"] for event in last):
        raise RoundError(
            f"{_FRUITLESS_ROUNDS} rounds in a row brought no usable reply, so the run was ended "
            f"before it cost more; {_said(last)}"
        )


def check_effect(rounds: Sequence[Event]) -> None:
    """Call a run failed of which no round had an effect, although all of them were gone through.

    Raises:
        RoundError: with what the clients said.
    """
    if rounds and not rounds_with_effect(rounds):
        raise RoundError(f"nothing was learned: no round had an effect; {_said(rounds)}")


def _said(rounds: Sequence[Event]) -> str:
    notes = [n for e in rounds for kind in ("declined", "failed", "rejected") for n in e[kind]]
    said = dict.fromkeys(f"client {note['client']}: {note['reason']}" for note in notes)
    reasons = dict.fromkeys(event.get("reason", "") for event in rounds)
    return "; ".join([*said, *filter(None, reasons)][:_REASONS_SHOWN]) or "no client answered"
