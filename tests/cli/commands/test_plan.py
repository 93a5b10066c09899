from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from calyx.cli.commands.forecast import Forecast, forecast
from calyx.cli.commands.plan import _show
from calyx.cli.terminal.console import terminal
from calyx.shared.privacy.epsilon_text import epsilon_text
from calyx.simulations.presets import resolve

Calyx = Callable[..., Any]
SETTINGS = [
    "training.rounds=3",
    "federation.clients=3",
    "data.partition=dirichlet",
    "privacy.noise=local",
    "privacy.sampling=poisson",
    "privacy.epsilon=8",
    "secure_aggregation.scheme=none",
]
SHORT = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def uneven() -> Forecast:
    """Three clients of different size."""
    return forecast(resolve("digits-cnn", SETTINGS))


def test_a_plan_tells_noise_epsilon_and_traffic(calyx: Calyx) -> None:
    outcome = calyx("plan", "--json", *SHORT)
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    plan = json.loads(line)
    assert plan["guarantee"] == "(8, 0.0001)-DP for each record"
    assert sum(row["records"] * row["clients"] for row in plan["plans"]) == plan["train_records"]
    for row in plan["plans"]:
        assert 0 < row["epsilon_round_pld"] < row["epsilon_pld"] <= 8.0
        assert row["sampling_rate"] == pytest.approx(32 / row["records"])
        assert row["steps"] == 3 * row["steps_per_round"]
    assert [point["round"] for point in plan["epsilon_by_round"]] == [1, 2, 3]
    assert plan["epsilon_by_round"][-1]["pld"] == plan["epsilon_max"]
    assert plan["bytes_up_per_client_round"] == 4 * plan["parameters"]
    assert plan["bytes_up_per_round"] == 3 * 4 * plan["parameters"]
    assert plan["warnings"] == []
    for words in (
        "ε ≤ 8 at δ = 0.0001 for each record",
        "ε end",
        "not sealed: the server sees each of them",
    ):
        assert words in outcome.err


def test_without_noise_it_says_so_and_epsilon_is_infinite(calyx: Calyx) -> None:
    settings = (*SHORT, "--set", "privacy.noise=none", "--set", "privacy.delta=0.5")
    outcome = calyx("plan", *settings)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "no differential privacy (ε = ∞)" in outcome.out
    assert "warning" not in outcome.out
    plan = json.loads(calyx("plan", "--json", *settings).out)
    assert {row["sampling_rate"] for row in plan["plans"]} == {None}
    assert plan["guarantee"] == "no differential privacy"
    assert plan["epsilon_max"] is None
    assert plan["epsilon_target"] is None


def test_clients_of_different_size_have_their_own_noise(uneven: Forecast) -> None:
    sizes = [entry.plan.declared_records for entry in uneven.plans]
    assert sizes == sorted(sizes)
    assert len(sizes) > 1
    assert len({entry.plan.noise_multiplier for entry in uneven.plans}) > 1
    assert all(entry.total_cost.epsilon <= 8.0 for entry in uneven.plans)


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_fits_the_terminal(
    uneven: Forecast, width: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    with terminal() as screen:
        _show(screen, uneven)
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    (heading,) = [line for line in lines if line.startswith("records")]
    largest = lines[lines.index(heading) + len(uneven.plans)].split()
    assert largest[0] == str(uneven.plans[-1].plan.declared_records)
    assert len(largest) == 10
    top = next(line for line in lines if line.startswith("   8.00 │"))
    assert top.endswith("███")
    assert any(line.split() == ["1", "2", "3"] for line in lines)


def test_a_delta_of_one_over_n_is_warned_about() -> None:
    settings = ["privacy.delta=0.01", "privacy.sampling=full", *SETTINGS]
    (warning,) = forecast(resolve("digits-cnn", settings)).warnings
    assert warning.startswith("delta = 0.01 is not below 1/n = ")


def test_a_client_level_plan_counts_rounds_not_batches() -> None:
    found = forecast(resolve("digits-cnn", ["privacy.unit=client", *SETTINGS])).as_dict()
    assert found["guarantee"] == "(8, 0.0001)-DP for each client (its data replaced)"
    assert found["epsilon_record"] == found["epsilon_max"]
    assert {row["sampling_rate"] for row in found["plans"]} == {1.0}
    assert len({row["noise_multiplier"] for row in found["plans"]}) == 1


def test_bits_so_few_that_rounding_takes_much_noise_are_warned_about() -> None:
    settings = ["federation.clients=500", "secure_aggregation.min_contributors=400"]
    many = ["data.partition=iid", *settings, "secure_aggregation.bits=8"]
    (warning,) = forecast(resolve("digits-cnn", many)).warnings
    assert re.search(r"takes \d+% more noise; secure_aggregation.bits = \d+ would not", warning)
    assert forecast(resolve("digits-cnn", settings)).warnings == []


def test_a_sum_of_clients_says_what_it_costs_one_record(calyx: Calyx) -> None:
    """8 for a client that is left out is more than 17 for one record that is replaced."""
    lines = [*SETTINGS[:2], "privacy.unit=client", "privacy.noise=central", "privacy.epsilon=8"]
    lines.append("secure_aggregation.scheme=none")
    outcome = calyx("plan", "--json", *(word for line in lines for word in ("--set", line)))
    found = json.loads(outcome.out)
    assert found["guarantee"].endswith("for each client (its update against none)")
    assert found["epsilon_max"] <= 8 and 17 < found["epsilon_record"] < 21
    assert f"ε ≤ {epsilon_text(found['epsilon_record'])} at the same δ" in outcome.err


def test_delta_is_held_against_all_records_or_all_clients() -> None:
    by_record = [*SETTINGS, "privacy.delta=0.001"]  # below one over any client's count
    assert "1,438 records" in forecast(resolve("digits-cnn", by_record)).warnings[0]
    by_client = [*SETTINGS, "privacy.unit=client", "privacy.delta=0.34"]
    assert "3 clients" in forecast(resolve("digits-cnn", by_client)).warnings[0]
