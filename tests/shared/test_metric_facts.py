"""Values of a metric are written in its own unit, and cost is counted in its own direction."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from calyx.shared.metric_facts import ACCURACY, MetricFacts, number_of_any_size

MAE = MetricFacts("mae", "MAE", higher_is_better=False)
R2 = MetricFacts("r2", "R²")
ERROR_RATE = MetricFacts("error_rate", "error rate", is_share=True, higher_is_better=False)


def test_a_share_is_shown_in_percent_and_anything_else_as_a_number() -> None:
    assert ACCURACY.text(0.8312) == "83.1 %"
    assert R2.text(0.4518) == "0.452"
    assert MAE.text(43.21) == "43.21"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.000"),
        (0.000123456, "0.000123"),
        (-0.0512, "-0.0512"),
        (0.05, "0.0500"),
        (0.4 - 0.5, "-0.100"),
        (0.45178, "0.452"),
        (-3.14159, "-3.142"),
        (53.2149, "53.21"),
        (512.345, "512.3"),
        (1512.3, "1,512"),
        (123456789.0, "1.23e+08"),
        (math.inf, "inf"),
    ],
)
def test_a_figure_of_any_size_has_three_or_four_digits(value: float, text: str) -> None:
    assert number_of_any_size(value) == text


@pytest.mark.parametrize(
    ("metric", "private", "plain", "cost", "text"),
    [
        (ACCURACY, 0.8, 0.9, 0.1, "10.0 points"),
        (ERROR_RATE, 0.2, 0.1, 0.1, "10.0 points"),
        (MAE, 50.0, 45.0, 5.0, "5.000"),
        (R2, 0.5, 0.4, -0.1, "-0.100"),
    ],
)
def test_cost_is_above_zero_where_privacy_made_it_worse(
    metric: MetricFacts, private: float, plain: float, cost: float, text: str
) -> None:
    found = metric.cost(private, plain)
    assert found == pytest.approx(cost)
    assert metric.cost_text(found) == text


def test_only_a_metric_that_should_be_small_says_so() -> None:
    assert ACCURACY.direction == R2.direction == ""
    assert MAE.named_text(43.21) == "MAE 43.21 (lower is better)"
    assert R2.named_text(None) == "R² -"


def test_a_heading_keeps_abbreviations() -> None:
    assert [m.heading for m in (ACCURACY, MAE, R2)] == ["Accuracy", "MAE", "R²"]


def test_facts_are_read_as_they_were_written_and_what_is_new_is_passed_over() -> None:
    assert MetricFacts.read(MAE.as_dict()) == MAE
    assert MetricFacts.read(MAE.as_dict() | {"unit": "mmHg"}) == MAE


@pytest.mark.parametrize(
    "stored",
    [None, "accuracy", [], {}, {"name": "mae"}, ACCURACY.as_dict() | {"is_share": "yes"}],
    ids=str,
)
def test_anything_else_is_refused(stored: object) -> None:
    with pytest.raises(ValueError, match="not what is told of a metric"):
        MetricFacts.read(stored)


def test_a_display_reads_a_journal_without_pytorch() -> None:
    code = "import sys, calyx.server.state.outcome; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
