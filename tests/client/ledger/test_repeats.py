"""What a repeated instruction costs, and what a ledger can be asked."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import pytest

from calyx.client.ledger.ledger import Ledger
from calyx.shared.errors import BudgetExceeded, LedgerError
from calyx.shared.privacy.accounting import spent
from tests.client.ledgers import (
    CLIENT_EVENT,
    DELTA,
    EVENT,
    FINGERPRINT,
    ROOMY,
    budget_for,
    charge,
    instruction,
)


class TestRepeating:
    def test_repeating_a_seeded_instruction_returns_the_entry_and_charges_nothing(
        self, ledger: Ledger
    ) -> None:
        first = charge(ledger, 1, repeatable=True)
        assert charge(ledger, 1, repeatable=True) == first
        assert ledger.entries() == (first,)

    def test_it_does_so_after_reopening_and_with_nothing_left_to_spend(self, path: Path) -> None:
        budget = budget_for([EVENT])
        with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
            first = charge(ledger, 1, repeatable=True, budget=budget)
        with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
            assert charge(ledger, 1, repeatable=True, budget=budget) == first
            with pytest.raises(BudgetExceeded):
                charge(ledger, 2, repeatable=True, budget=budget)

    def test_with_fresh_noise_every_repetition_is_charged(self, ledger: Ledger) -> None:
        charge(ledger, 1, repeatable=True)
        assert charge(ledger, 1, repeatable=False).sequence == 2
        assert charge(ledger, 1, repeatable=False).sequence == 3

    @pytest.mark.parametrize("changed", ["run", "round", "instruction", "event"])
    def test_whatever_differs_is_charged(self, ledger: Ledger, changed: str) -> None:
        first = charge(ledger, 1, repeatable=True)
        second = ledger.charge(
            run="other" if changed == "run" else first.run,
            round=2 if changed == "round" else first.round,
            instruction=instruction(9) if changed == "instruction" else first.instruction,
            event=replace(EVENT, count=2) if changed == "event" else first.event,
            budget=ROOMY,
            repeatable=True,
        )
        assert second.sequence == 2


class TestAsking:
    def test_spent_is_the_composition_of_all_events(self, ledger: Ledger) -> None:
        events = [EVENT, replace(EVENT, count=4), CLIENT_EVENT]
        for number, event in enumerate(events):
            charge(ledger, number, event=event)
        assert ledger.events() == tuple(events)
        assert ledger.spent(DELTA, "record") == spent(events, DELTA, "record")
        assert math.isinf(ledger.spent(DELTA, "client").epsilon)

    def test_each_run_can_be_asked_for_alone(self, ledger: Ledger) -> None:
        for number, run in enumerate(["a", "b", "a"]):
            charge(ledger, number, run=run)
        by_run = ledger.spent_by_run(DELTA, "record")
        assert by_run == {
            "a": spent([EVENT] * 2, DELTA, "record"),
            "b": spent([EVENT], DELTA, "record"),
        }
        total = ledger.spent(DELTA, "record").epsilon
        assert max(s.epsilon for s in by_run.values()) < total
        assert total < sum(s.epsilon for s in by_run.values())

    def test_a_ledger_of_other_data_is_refused_and_both_are_named(self, path: Path) -> None:
        other = hashlib.sha256(b"other records").hexdigest()
        Ledger.open(path, data_fingerprint=FINGERPRINT).close()
        with pytest.raises(LedgerError) as caught:
            Ledger.open(path, data_fingerprint=other)
        assert FINGERPRINT[:12] in str(caught.value)
        assert other[:12] in str(caught.value)

    def test_looking_needs_no_fingerprint_and_charges_nothing(
        self, ledger: Ledger, path: Path
    ) -> None:
        entry = charge(ledger, 1)
        with Ledger.read_only(path) as view:
            assert view.data_fingerprint == FINGERPRINT
            assert view.entries() == (entry,)
            assert view.verify() == 1
            with pytest.raises(LedgerError, match="read-only"):
                charge(view, 2)

    def test_looking_never_creates(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerError, match="there is no ledger"):
            Ledger.read_only(tmp_path / "ledger")
        assert list(tmp_path.iterdir()) == []

    def test_an_open_ledger_sees_what_another_one_charged(self, ledger: Ledger, path: Path) -> None:
        assert ledger.entries() == ()
        with Ledger.open(path, data_fingerprint=FINGERPRINT) as other:
            theirs = charge(other, 1)
        ours = charge(ledger, 2)
        assert ledger.entries() == (theirs, ours)
