"""When a run whose rounds come to nothing stops by itself. Each of them is paid for by everybody.

A lost round has a *fault*, one word in its event:

=============  =====================================================================  ==========
fault          the round                                                              most
=============  =====================================================================  ==========
``refused``    the key authority does not release its sum, and names nobody           2 in all
``unfit``      the released sum is none of honest clients (`server.sum_bound`)        3 in all
``too-few``    too few usable replies                                                 3 in a row
=============  =====================================================================  ==========

*Refused and unfit sums are counted over the whole run*, not in a row: a client that spoils every
other round would otherwise never be stopped, and cost everybody half a budget. Neither happens by
chance. A false alarm of the bound has a probability of 1e-9 a run, and a release without a culprit
is refused only where a sum is not that of its receipts, or holds values out of range.

Two refused ones, because the first may come of a fault that is over, such as a server that was
restored from a copy; three unfit ones, because the step was left out, the model is none the worse,
and whoever is behind it can be looked for meanwhile. Clients that do not answer come back, so
rounds with too few replies count in a row only.

Counts come from the history in the checkpoint, so a crash does not begin them anew. Whoever
resumes a stopped run has looked into it; it goes on with the next round, and stops at the next
fault of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

REFUSED, UNFIT, TOO_FEW = "refused", "unfit", "too-few"
MOST_IN_ALL = {REFUSED: 2, UNFIT: 3}
MOST_IN_A_ROW = {TOO_FEW: 3}

_WORDS = {
    REFUSED: "the key authority refused the sums of {rounds} and cannot say because of whom",
    UNFIT: "the sums of {rounds} were none that honest clients add up to, and no step was taken",
    TOO_FEW: "{rounds} had too few usable replies",
}
_ADVICE = {
    REFUSED: "look at the server and the clients, revoke who is at fault",
    UNFIT: "a client poisons them or is broken: find it, and revoke it",
    TOO_FEW: "mend the clients",
}


def reason_to_stop(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a run should not go on after the last of its rounds; None if it may.

    Args:
        history: events of its rounds, see `server.events.round_event`.
    """
    if not history or not (fault := str(history[-1].get("fault", ""))):
        return None
    lost = [event for event in history if event.get("fault") == fault]
    most = MOST_IN_ALL.get(fault)
    if most is None:
        most = MOST_IN_A_ROW[fault]
        lost = lost[-most:] if [e.get("fault") for e in history[-most:]] == [fault] * most else []
    if len(lost) < most:
        return None
    numbers = [str(event["round"]) for event in lost[-most:]]
    rounds = f"rounds {', '.join(numbers[:-1])} and {numbers[-1]}"
    return (
        f"{_WORDS[fault].format(rounds=rounds)} ({history[-1]['reason']}); every client has paid "
        f"for them, so the run stops here; {_ADVICE[fault]}, and then resume the run"
    )
