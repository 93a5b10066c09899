"""When a run whose rounds come to nothing stops by itself. Every client pays for each of them.

A lost round has a *fault*, one word in its event:

=============  =====================================================================  ==========
fault          the round                                                              most
=============  =====================================================================  ==========
``refused``    the key authority does not release its sum, and names no client        2 in all
``unfit``      honest clients cannot add up to its sum (`aggregation.sum_bound`)      3 in all
``no-reply``   not one usable reply                                                   2 in a row
``too-few``    too few usable replies                                                 3 in a row
the last two   both together                                                          6, if that
                                                                                      is a third
=============  =====================================================================  ==========

*Refused and unfit sums are counted over the whole run*, not in a row: a client that spoils every
other round would otherwise never be stopped, and cost every client half its budget. Neither happens
by chance. A false alarm of the bound has a probability of 1e-9 a run, and a release without a
culprit is refused only where a sum is not that of its receipts, or holds values out of range.

Two refused ones, because the first may come from a fault that is over, such as a server that was
restored from a copy; three unfit ones, because the step was left out, the model is no worse for it,
and there is time to look for the culprit. Clients that do not answer come back, so rounds with too
few replies count in a row only. Two rounds without any reply are a fault of all clients, such as a
model that none of them can train, and the next round would show it again. But if there are too few
without a certain client, it could answer every third round and have the others pay for three rounds
for each step; so six such rounds are too many where they are a third of all rounds.

Counts come from the history in the checkpoint, so a crash does not reset them. An operator that
resumes a stopped run has looked into it; the run continues with the next round, and stops at the
next fault of that kind.
"""

from __future__ import annotations

from collections.abc import Sequence

from calyx.server.state.journal import Event
from calyx.server.state.outcome import said

REFUSED, UNFIT, NO_REPLY, TOO_FEW = "refused", "unfit", "no-reply", "too-few"
MOST_IN_ALL = {REFUSED: 2, UNFIT: 3}
MOST_IN_A_ROW = {NO_REPLY: 2, TOO_FEW: 3}
# Of rounds with too few replies, where they are at least one in `ONE_IN` of all rounds so far.
MOST_SCATTERED, ONE_IN = 6, 3

_WORDS = {
    REFUSED: "the key authority refused the sums of {rounds} and cannot name the clients at fault",
    UNFIT: "honest clients cannot add up to the sums of {rounds}, and no step was taken",
    NO_REPLY: "{rounds} brought no usable reply",
    TOO_FEW: "{rounds} had too few usable replies",
}
_ADVICE = {
    REFUSED: "look at the server and the clients, revoke the client at fault",
    UNFIT: "a client poisons them or is broken: find it, and revoke it",
    NO_REPLY: "mend the clients",
    TOO_FEW: "mend the clients",
}


def reason_to_stop(history: Sequence[Event]) -> str | None:
    """Why a run should not continue after the last of its rounds; None if it may.

    Args:
        history: events of its rounds, see `calyx.server.round.events.round_event`.
    """
    if not history or not (fault := str(history[-1].get("fault", ""))):
        return None
    if fault in MOST_IN_ALL:
        most = MOST_IN_ALL[fault]
        lost = [event for event in history if event.get("fault") == fault]
    else:
        fault, most, lost = _few_replies(history)
    if len(lost) < most:
        return None
    numbers = [str(event["round"]) for event in lost[-most:]]
    rounds = f"rounds {', '.join(numbers[:-1])} and {numbers[-1]}"
    return (
        f"{_WORDS[fault].format(rounds=rounds)} ({said(lost[-most:])}); every client has paid "
        f"for them, so the run stops here; {_ADVICE[fault]}, and then resume the run"
    )


def _few_replies(
    history: Sequence[Event],
) -> tuple[str, int, list[Event]]:
    """The last rounds with too few replies; fewer are allowed where they had none at all.

    Or all of them, where they are a large part of the run.
    """
    for fault, counted in ((NO_REPLY, {NO_REPLY}), (TOO_FEW, {NO_REPLY, TOO_FEW})):
        most = MOST_IN_A_ROW[fault]
        last = [event for event in history[-most:] if event.get("fault") in counted]
        if len(last) == most:
            return fault, most, last
    all_lost = [event for event in history if event.get("fault") in (NO_REPLY, TOO_FEW)]
    if ONE_IN * len(all_lost) >= len(history):
        return TOO_FEW, MOST_SCATTERED, all_lost
    return TOO_FEW, MOST_IN_A_ROW[TOO_FEW], []
