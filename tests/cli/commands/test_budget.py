from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calyx.client.ledger.ledger import Budget, Ledger
from calyx.shared.config.schema import PrivacyConfig
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.epsilon_text import epsilon_text
from calyx.shared.privacy.event import PrivacyEvent

Calyx = Callable[..., Any]
EVENT = PrivacyEvent("gaussian", "record", 1.5, "poisson", 0.2, 4)
NO_LIMIT = Budget(math.inf, 1e-4, "record")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Two runs on the same records."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, data_fingerprint="ab" * 32) as opened:
        for run, rounds in (("first", 3), ("second", 2)):
            for number in range(1, rounds + 1):
                opened.charge(
                    run=run,
                    round=number,
                    instruction="0" * 64,
                    event=EVENT,
                    budget=NO_LIMIT,
                    repeatable=False,
                )
    return path


def test_the_budget_is_composed_over_runs_and_told_run_by_run(calyx: Calyx, ledger: Path) -> None:
    outcome = calyx("client", "budget", str(ledger), "--json", "--verify", "--delta", "1e-5")
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    found = json.loads(line)
    whole = spent([EVENT] * 5, 1e-5)
    assert (found["epsilon"], found["epsilon_pld"]) == (whole.epsilon, whole.pld)
    assert found["epsilon_rdp"] == whole.rdp
    assert found["entries"] == 5
    assert found["chain_ok"]
    assert [(run["run"], run["entries"]) for run in found["runs"]] == [("first", 3), ("second", 2)]
    assert found["runs"][0]["epsilon_pld"] == spent([EVENT] * 3, 1e-5).pld
    shown = calyx("client", "budget", str(ledger))
    assert "at δ = 0.0001 for each record" in shown.out
    assert "5 rounds charged" in shown.out
    assert "chain ok" in shown.out
    assert found["head_hash"] in shown.out


def test_its_delta_is_that_of_a_run(calyx: Calyx, ledger: Path) -> None:
    assert json.loads(calyx("client", "budget", str(ledger), "--json").out)["delta"] == (
        PrivacyConfig().delta
    )


def test_record_level_noise_promises_nothing_to_a_whole_client(calyx: Calyx, ledger: Path) -> None:
    outcome = calyx("client", "budget", str(ledger), "--unit", "client")
    assert "no differential privacy for a whole client (ε = ∞)" in outcome.out


def test_one_round_without_noise_is_no_differential_privacy(calyx: Calyx, ledger: Path) -> None:
    with Ledger.open(ledger, data_fingerprint="ab" * 32) as opened:
        opened.charge(
            run="third",
            round=1,
            instruction="0" * 64,
            event=PrivacyEvent("none", "record", 0.0, "full", 1.0, 1),
            budget=NO_LIMIT,
            repeatable=False,
        )
    found = json.loads(calyx("client", "budget", str(ledger), "--json").out)
    assert found["epsilon"] is None
    assert found["guarantee"] == "no differential privacy"


def test_an_empty_ledger_has_spent_nothing(calyx: Calyx, tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    Ledger.open(path, data_fingerprint="ab" * 32).close()
    outcome = calyx("client", "budget", str(path), "--verify")
    assert outcome.code == 0
    assert "ε = 0 at" in outcome.out
    assert "0 rounds charged" in outcome.out


@pytest.mark.parametrize("arguments", [[], ["--verify"], ["--json"]], ids=str)
def test_an_altered_ledger_is_one_line_and_exit_code_1(
    calyx: Calyx, ledger: Path, arguments: list[str]
) -> None:
    database = sqlite3.connect(ledger)
    database.execute("DROP TRIGGER entries_are_fixed")
    database.execute("UPDATE entries SET run = 'other' WHERE sequence = 2")
    database.commit()
    database.close()
    outcome = calyx("client", "budget", str(ledger), *arguments)
    assert outcome.code == 1
    assert outcome.out == ""
    assert "entry 2" in outcome.error_line


def test_what_is_no_ledger_is_one_line_and_exit_code_1(calyx: Calyx, tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to have a header of one")
    for path in (text, tmp_path / "missing.sqlite", tmp_path):
        outcome = calyx("client", "budget", str(path))
        assert outcome.code == 1
        assert str(path) in outcome.error_line


def test_a_run_name_is_shown_as_it_is_and_brings_no_markup(calyx: Calyx, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path, data_fingerprint="ab" * 32) as opened:
        opened.charge(
            run="[red]a run[/red]",
            round=1,
            instruction="0" * 64,
            event=EVENT,
            budget=NO_LIMIT,
            repeatable=False,
        )
    assert "[red]a run[/red]" in calyx("client", "budget", str(path)).out


def test_a_client_level_ledger_is_told_for_a_record_at_twice_the_sensitivity(
    calyx: Calyx, tmp_path: Path
) -> None:
    path = tmp_path / "clients.sqlite"
    event = PrivacyEvent("gaussian", "client", 4.0, "full", 1.0, 1, None, 2)
    with Ledger.open(path, data_fingerprint="ab" * 32) as opened:
        opened.charge(
            run="r",
            round=1,
            instruction="0" * 64,
            event=event,
            budget=NO_LIMIT,
            repeatable=False,
        )
    by_client = json.loads(calyx("client", "budget", str(path), "--unit", "client", "--json").out)
    by_record = json.loads(calyx("client", "budget", str(path), "--json").out)
    assert by_record["epsilon"] == by_client["epsilon_replaced"] > 2 * by_client["epsilon"]
    assert by_record["epsilon_replaced"] is None
    shown = calyx("client", "budget", str(path), "--unit", "client").out
    assert f"ε = {epsilon_text(by_client['epsilon_replaced'])}, one record or all" in shown
