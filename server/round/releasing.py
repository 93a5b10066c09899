"""From a round's replies to its outcome, where the key authority may refuse their sum.

A refusal that names its culprits (a revoked client, or a receipt that is not right) comes before
anything is decrypted. So the round still has its one release, and the others have paid for it: they
are asked again, and repeat their earlier answers (`calyx.client.sealing.kept_reply`), which costs
them nothing. This does not let anyone compare two sums of one round: nothing of the first was
released, and after a release, or a decryption that failed, the authority refuses every other
request for the round (rules 5 and 9 of `calyx.authority.release`). The server chooses the clients
of a sum anyway, within the minimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from calyx.server.aggregation.collection import Combined
from calyx.server.roster import ClientOutcome, RoundRecord, is_enough
from calyx.server.round.lost_rounds import NO_REPLY, REFUSED, TOO_FEW, UNFIT
from calyx.shared.errors import ReleaseRefused, RoundError, UnfitSum
from calyx.shared.protocol.authority.interface import Refusal

# Refusals that concern a run or a client, and not one sum.
_FOR_GOOD = frozenset(
    {
        Refusal.UNKNOWN_RUN,
        Refusal.CLOSED_RUN,
        Refusal.SUSPENDED_RUN,
        Refusal.NOT_ENROLLED,
        Refusal.REVOKED,
    }
)
# Culprits that have broken no rule: they are listed, not punished.
_LEFT_OUT = frozenset({Refusal.NOT_ENROLLED, Refusal.REVOKED, Refusal.NOT_IN_RUN})

Combine = Callable[[], Combined]
Again = Callable[[], Combine]


@dataclass(frozen=True)
class RoundOutcome:
    """What came of a round.

    Attributes:
        combined: the next weights; None if the round is lost.
        reason: why it is.
        fault: the same in one word, see `calyx.server.round.lost_rounds`.
    """

    combined: Combined | None
    reason: str = ""
    fault: str = ""


def outcome(
    record: RoundRecord, combine: Combine, again: Again, *, min_replies: int, least: int
) -> RoundOutcome:
    """Combine a round's replies; where some make their sum be refused, combine the others'.

    Args:
        record: of the round; culprits are noted in it.
        combine: combines what `record.ok` sent.
        again: has the clients that are then silent in `record` asked once more.
        min_replies: usable replies that a round needs.
        least: the same, and what a sealed sum needs.

    Raises:
        ReleaseRefused: every further sum would be refused as well, or too few clients are left
            without the culprits. The round is still open, so that nothing is lost for good.
    """
    while is_enough(record, min_replies):
        try:
            return RoundOutcome(combine())
        except ReleaseRefused as error:
            if Refusal.of(error) is Refusal.ROLLED_BACK:
                raise  # its sum is kept: a round asked again could be released a second time
            named = [client for client in record.ok if client in error.culprits]
            if not named and Refusal.of(error) not in _FOR_GOOD:
                return RoundOutcome(None, error.full_text, REFUSED)
            if not named or len(record.ok) - len(named) < least:
                raise ReleaseRefused(
                    str(error),
                    error.culprits,
                    hint=(
                        "repair it at the key authority, or revoke that client here too, and then "
                        "resume the run; the round is still open, and paid for"
                    ),
                ) from error
            _leave_out(record, named, error)
            combine = again()
        except UnfitSum as error:
            return RoundOutcome(None, error.full_text, UNFIT)
        except RoundError as error:
            return RoundOutcome(None, error.full_text, TOO_FEW)
    reason = f"{len(record.ok)} usable replies, {min_replies} are needed"
    return RoundOutcome(None, reason, TOO_FEW if record.ok else NO_REPLY)


def _leave_out(record: RoundRecord, culprits: Sequence[str], error: ReleaseRefused) -> None:
    outcomes = [
        ClientOutcome(client, f"refused by the key authority: {error.full_text}")
        for client in culprits
    ]
    if Refusal.of(error) in _LEFT_OUT:
        record.reopen(declined=outcomes, rejected=[])
    else:
        record.reopen(declined=[], rejected=outcomes)
