"""What the ledger records, what it refuses, and what it says was spent."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import stat
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.errors import BudgetExceeded, LedgerError, PrivacyError
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.skellam_mechanism import fit_mechanism
from tests.client.ledgers import (
    CLIENT_EVENT,
    DELTA,
    EVENT,
    FINGERPRINT,
    ROOMY,
    UNPROTECTED,
    budget_for,
    charge,
    instruction,
)


class TestCreating:
    def test_only_the_owner_may_read_or_write_a_new_ledger_and_its_folder(self, path: Path) -> None:
        previous = os.umask(0)
        try:
            Ledger.open(path, data_fingerprint=FINGERPRINT).close()
        finally:
            os.umask(previous)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_creating_leaves_nothing_but_the_ledger(self, ledger: Ledger, path: Path) -> None:
        charge(ledger, 1)
        ledger.close()
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_the_mode_of_a_folder_that_was_there_is_left_alone(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        Ledger.open(tmp_path / "ledger", data_fingerprint=FINGERPRINT).close()
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755

    def test_a_new_ledger_has_spent_nothing(self, ledger: Ledger) -> None:
        assert ledger.entries() == ()
        assert ledger.verify() == 0
        assert ledger.spent(DELTA, "record").epsilon == 0.0

    def test_two_ledgers_never_share_a_chain(self, tmp_path: Path) -> None:
        heads = set()
        for name in ("a", "b"):
            with Ledger.open(tmp_path / name, data_fingerprint=FINGERPRINT) as one:
                heads.add(one.head_hash)
        assert len(heads) == 2

    def test_a_folder_that_cannot_be_made_is_one_clear_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(LedgerError, match="cannot be created") as caught:
            Ledger.open(tmp_path / "file" / "ledger", data_fingerprint=FINGERPRINT)
        assert "\n" not in str(caught.value)

    def test_a_ledger_needs_to_know_its_data(self, path: Path) -> None:
        with pytest.raises(LedgerError, match="fingerprint"):
            Ledger.open(path, data_fingerprint="")
        assert not path.exists()


class TestCharging:
    def test_a_charge_is_in_the_file_when_it_returns(self, ledger: Ledger, path: Path) -> None:
        entry = charge(ledger, 3)
        with Ledger.read_only(path) as other:
            assert other.entries() == (entry,)

    def test_an_entry_says_what_was_charged_when_and_after_which_other(
        self, ledger: Ledger
    ) -> None:
        genesis = ledger.head_hash
        first, second = charge(ledger, 1), charge(ledger, 2, event=CLIENT_EVENT)
        assert (first.sequence, first.run, first.round) == (1, "run", 1)
        assert (first.instruction, first.event) == (instruction(1), EVENT)
        assert first.previous_hash == genesis
        assert (second.sequence, second.previous_hash) == (2, first.hash)
        assert ledger.head_hash == second.hash
        recorded = datetime.fromisoformat(second.recorded_at)
        assert recorded.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - recorded) < timedelta(minutes=1)

    def test_a_round_that_exactly_uses_up_the_budget_is_allowed_and_the_next_is_not(
        self, ledger: Ledger
    ) -> None:
        budget = budget_for([EVENT] * 3)
        for number in range(3):
            charge(ledger, number, budget=budget)
        with pytest.raises(BudgetExceeded):
            charge(ledger, 4, budget=budget)

    def test_a_refused_round_leaves_no_trace(self, ledger: Ledger, path: Path) -> None:
        charge(ledger, 1)
        before, head = path.read_bytes(), ledger.head_hash
        with pytest.raises(BudgetExceeded):
            charge(ledger, 2, budget=budget_for([EVENT]))
        assert (path.read_bytes(), ledger.head_hash) == (before, head)
        assert charge(ledger, 2).sequence == 2

    def test_the_refusal_says_what_is_spent_what_it_would_be_and_what_to_do(
        self, ledger: Ledger
    ) -> None:
        charge(ledger, 1)
        now, then = (spent([EVENT] * n, DELTA, "record").epsilon for n in (1, 2))
        with pytest.raises(BudgetExceeded) as caught:
            charge(ledger, 2, budget=Budget(now, DELTA, "record"))
        text = caught.value.full_text
        assert "\n" not in text
        assert f"epsilon spent from {epsilon_text(now)} to {epsilon_text(then)}" in text
        assert f"epsilon {now} at delta 1e-05 for each record" in text
        assert "owner" in text

    def test_spending_adds_up_over_reopening_and_over_runs(self, path: Path) -> None:
        budget = budget_for([EVENT] * 3)
        for number in range(3):
            with Ledger.open(path, data_fingerprint=FINGERPRINT) as reopened:
                charge(reopened, 1, run=f"run {number}", budget=budget)
        with (
            Ledger.open(path, data_fingerprint=FINGERPRINT) as reopened,
            pytest.raises(BudgetExceeded),
        ):
            charge(reopened, 1, run="yet another run", budget=budget)

    def test_a_budget_that_was_lowered_counts_at_once(self, ledger: Ledger) -> None:
        charge(ledger, 1)
        charge(ledger, 2)
        with pytest.raises(BudgetExceeded):
            charge(ledger, 3, budget=budget_for([EVENT] * 2))

    def test_unprotected_training_fits_no_finite_budget(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExceeded, match="∞"):
            charge(ledger, 1, event=UNPROTECTED, budget=Budget(1e300, DELTA, "record"))

    def test_after_unprotected_training_no_finite_budget_is_left(self, ledger: Ledger) -> None:
        charge(ledger, 1, event=UNPROTECTED, budget=Budget(math.inf, DELTA, "record"))
        assert math.isinf(ledger.spent(DELTA, "record").epsilon)
        with pytest.raises(BudgetExceeded):
            charge(ledger, 2)

    def test_record_level_noise_fits_no_client_level_budget(self, ledger: Ledger) -> None:
        budget = Budget(1000.0, DELTA, "client")
        charge(ledger, 1, event=CLIENT_EVENT, budget=budget)
        with pytest.raises(BudgetExceeded, match="∞"):
            charge(ledger, 2, event=EVENT, budget=budget)

    @pytest.mark.parametrize(
        ("run", "round", "digest"),
        [
            ("", 1, instruction(1)),
            ("r" * 201, 1, instruction(1)),
            ("two\nlines", 1, instruction(1)),
            ("run", -1, instruction(1)),
            ("run", 2**63, instruction(1)),
            ("run", 1, "abc"),
            ("run", 1, "Z" * 64),
        ],
    )
    def test_names_that_cannot_be_recorded_are_refused(
        self, ledger: Ledger, run: str, round: int, digest: str
    ) -> None:
        with pytest.raises(LedgerError, match="cannot be recorded") as caught:
            ledger.charge(
                run=run,
                round=round,
                instruction=digest,
                event=EVENT,
                budget=ROOMY,
                repeatable=False,
            )
        assert "\n" not in str(caught.value)
        assert ledger.entries() == ()

    def test_a_closed_ledger_charges_nothing(self, ledger: Ledger) -> None:
        ledger.close()
        with pytest.raises(LedgerError):
            charge(ledger, 1)

    def test_a_charge_on_a_hundred_entries_takes_milliseconds(self, ledger: Ledger) -> None:
        for number in range(100):
            charge(ledger, number)
        seconds = []
        for number in range(100, 120):
            start = time.perf_counter()
            charge(ledger, number)
            seconds.append(time.perf_counter() - start)
        assert statistics.median(seconds) < 0.05


# Rare settings only, so that the accountant's cache keeps the examples cheap.
_EVENTS = st.sampled_from(
    [
        PrivacyEvent("gaussian", "record", 1.0, "full", 1.0, 1),
        PrivacyEvent("gaussian", "record", 4.0, "full", 1.0, 2),
        PrivacyEvent("gaussian", "client", 4.0, "full", 1.0, 1),
        UNPROTECTED,
    ]
)


@settings(max_examples=25, deadline=None)
@given(events=st.lists(_EVENTS, max_size=8), epsilon=st.sampled_from([0.5, 2.0, 5.0, 9.0]))
def test_whatever_is_asked_no_more_than_the_budget_is_ever_spent(
    events: list[PrivacyEvent], epsilon: float
) -> None:
    budget = Budget(epsilon, DELTA, "record")
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(Path(folder) / "ledger", data_fingerprint=FINGERPRINT) as ledger,
    ):
        accepted: list[PrivacyEvent] = []
        for number, event in enumerate(events):
            would_cost = spent([*accepted, event], DELTA, "record").epsilon
            try:
                charge(ledger, number, event=event, budget=budget)
            except BudgetExceeded:
                assert would_cost > epsilon
            else:
                accepted.append(event)
        assert ledger.events() == tuple(accepted)
        assert ledger.spent(DELTA, "record").epsilon <= epsilon


def test_a_sealed_rounds_event_is_kept_whole(path: Path) -> None:
    mechanism = fit_mechanism(
        dimension=1000,
        clip_norm=1.0,
        noise_multiplier=4.0,
        shares=5,
        contributors=10,
        releases=30,
        signal_norm=10.0,
        value_bound=8191,
    )
    event = PrivacyEvent("skellam", "record", 4.0, "poisson", 0.2, 1, mechanism)
    budget = Budget(spent([EVENT, event], DELTA, "record").epsilon, DELTA, "record")
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        charge(ledger, 1, event=EVENT, budget=budget)
        charge(ledger, 2, event=event, budget=budget)
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
        assert ledger.events() == (EVENT, event)
        assert ledger.verify() == 2
        with pytest.raises(BudgetExceeded):
            charge(ledger, 3, event=event, budget=budget)


@pytest.mark.parametrize(
    ("epsilon", "delta", "unit"),
    [
        (0.0, DELTA, "record"),
        (-1.0, DELTA, "record"),
        (math.nan, DELTA, "record"),
        (1.0, 0.0, "record"),
        (1.0, 1.0, "record"),
        (1.0, math.nan, "record"),
        (1.0, DELTA, "household"),
    ],
)
def test_what_is_no_budget_is_refused(epsilon: float, delta: float, unit: str) -> None:
    with pytest.raises(PrivacyError, match="is not a budget"):
        Budget(epsilon, delta, unit)  # type: ignore[arg-type]


class TestOlderLedgers:
    """Written before client-level events said what they mean for a record."""

    @staticmethod
    def _append(path: Path) -> str:
        """One round of central noise as the older version stored it; returns its hash."""
        event = {
            "count": 1,
            "mechanism": "gaussian",
            "noise_multiplier": 4.0,
            "sampling": "full",
            "sampling_rate": 1.0,
            "unit": "client",
        }
        with sqlite3.connect(path) as database:
            (genesis,) = database.execute("SELECT hash FROM head").fetchone()
            content = {
                "sequence": 1,
                "run": "old",
                "round": 1,
                "instruction": "0" * 64,
                "event": event,
                "recorded_at": "2026-01-01T00:00:00.000+00:00",
                "previous_hash": genesis,
            }

            def canonical(fields: object) -> str:
                return json.dumps(fields, sort_keys=True, separators=(",", ":"))

            own = hashlib.sha256(canonical(content).encode()).hexdigest()
            row = (*content.values(), own)
            database.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [canonical(value) if isinstance(value, dict) else value for value in row],
            )
            database.execute("UPDATE head SET count = 1, hash = ?", (own,))
        database.close()
        return own

    def test_they_are_read_verified_and_counted_at_twice_the_norm(self, path: Path) -> None:
        Ledger.open(path, data_fingerprint=FINGERPRINT).close()
        own = self._append(path)
        with Ledger.open(path, data_fingerprint=FINGERPRINT) as ledger:
            assert ledger.verify() == 1
            assert ledger.head_hash == own
            told = PrivacyEvent("gaussian", "client", 4.0, "full", 1.0, 1, None, 2)
            assert ledger.spent(DELTA, "record") == spent([told], DELTA, "record")
            by_record, by_client = (ledger.spent(DELTA, whom) for whom in ("record", "client"))
            assert by_record.epsilon > 2 * by_client.epsilon
            charge(ledger, 2, event=told)
            assert ledger.verify() == 2
