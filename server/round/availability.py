"""Which clients a round can ask: present, as declared, not revoked, willing, with the key."""

from __future__ import annotations

from collections.abc import Mapping

from calyx.server.roster import ClientOutcome, Roster, RoundRecord, Standing
from calyx.server.round.attendance import Attendance
from calyx.server.round.key_offers import KeyOffers
from calyx.server.round.preflight import Preflight


class Availability:
    """Checks all of that before each round, and notes which clients are out for good.

    Args:
        attendance: the clients present.
        least: clients that a round needs.
        approved: in a deployment, the name that each node was approved under, without those that
            were revoked. None in a simulation.
    """

    def __init__(
        self, attendance: Attendance, least: int, approved: Mapping[int, str] | None
    ) -> None:
        self._attendance, self._least, self._approved = attendance, least, approved

    def of(
        self, roster: Roster, preflight: Preflight, rounds_left: int, offers: KeyOffers | None
    ) -> list[str]:
        """Clients that can be asked now. Waits while they are too few: a round that cannot succeed
        would spend every client's budget on nothing.

        Args:
            roster: of the run; clients that are out are noted in it.
            preflight: asks clients whether they would take part in the whole run.
            rounds_left: of the run.
            offers: of a sealed run's public key; None otherwise.

        Raises:
            RoundError: too few came in time.
        """
        if self._approved is not None:
            gone = [m.client for m in roster.active if m.client not in self._approved.values()]
            _decline(
                roster, [ClientOutcome(client, "this server has revoked it") for client in gone]
            )
        active = [member.client for member in roster.active]
        if len(active) < self._least:
            return active  # waiting cannot help
        there = self._attendance.wait_for(active, self._least)
        _decline(roster, self._changed(there, roster))
        there = [client for client in there if roster[client].standing is Standing.ACTIVE]
        there, unwilling = preflight.ask(there, self._attendance.node_ids, roster, rounds_left)
        _decline(roster, unwilling)
        if offers is not None:
            there, refused = offers.make(there, self._attendance.node_ids)
            _decline(roster, refused)
        return there

    def _changed(self, there: list[str], roster: Roster) -> list[ClientOutcome]:
        outcomes = []
        for client in there:
            now, then = self._attendance.members[client], roster[client]
            if now.standing is not Standing.ACTIVE:
                outcomes.append(ClientOutcome(client, now.reason))
            elif now.declared_records != then.declared_records:
                outcomes.append(
                    ClientOutcome(client, "it declares another record count than before")
                )
        return outcomes


def _decline(roster: Roster, outcomes: list[ClientOutcome]) -> None:
    roster.apply(RoundRecord(0, [], declined=outcomes))
