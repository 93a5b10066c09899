from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx.cli.terminal.chart import columns, sparkline, thinned
from calyx.cli.terminal.formatting import (
    bound_text,
    bytes_text,
    count_text,
    delta_warning,
    duration_text,
    number_text,
    percent_text,
)
from calyx.shared.privacy.epsilon_text import (
    delta_text,
    epsilon_text,
    lower_bound_text,
    odds_text,
    promise_text,
    whom_text,
)


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_a_printed_epsilon_is_never_smaller_than_the_true_one(epsilon: float) -> None:
    assert float(epsilon_text(epsilon).replace(",", "")) >= epsilon * (1 - 1e-12) - 1e-10
    assert (
        float(epsilon_text(epsilon, decimals=4).replace(",", "")) >= epsilon * (1 - 1e-12) - 1e-10
    )
    assert float(promise_text(epsilon)) == epsilon


@given(st.floats(min_value=0, max_value=20))
def test_printed_odds_are_never_smaller_than_the_true_ones(epsilon: float) -> None:
    assert float(odds_text(epsilon).replace(",", "")) >= math.exp(epsilon) * (1 - 1e-10)


@given(st.floats(min_value=1e-15, max_value=10))
def test_a_printed_delta_is_never_smaller_than_the_true_one(delta: float) -> None:
    assert delta <= float(delta_text(delta)) * (1 + 1e-11)
    assert float(delta_text(delta)) <= delta * 1.0011


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (odds_text(1.0), "2.72"),
        (odds_text(8.0), "2,981"),
        (odds_text(700.0), "∞"),
        (epsilon_text(8.00001), "8.01"),
        (epsilon_text(7.99834, decimals=4), "7.9984"),
        (epsilon_text(math.nan), "∞"),
        (promise_text(8.0), "8"),
        (promise_text(8.0000001), "8.0000001"),
        (promise_text(math.inf), "∞"),
        (delta_text(1e-4), "0.0001"),
        (delta_text(1e-5), "1e-05"),
        (delta_text(0.1 + 0.2), "0.3"),
        (delta_text(0.00012341), "0.0001235"),
        (delta_text(143 * 1e-4), "0.0143"),
        (whom_text("record", "local"), "record"),
        (whom_text("client", "local"), "client (its data replaced)"),
        (whom_text("client", "central"), "client (its update against none)"),
    ],
)
def test_figures_of_guarantees_as_they_are_printed(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [
        (3.899, "3.90"),
        (8.0, "8.00"),
        (8.000000000000002, "8.00"),
        (0.001, "0.01"),
        (0.0, "0"),
        (321.2, "322"),
        (1321.2, "1,322"),
        (None, "∞"),
        (math.inf, "∞"),
    ],
)
def test_epsilon_is_rounded_up_and_infinity_is_shown(epsilon: float | None, text: str) -> None:
    assert epsilon_text(epsilon) == text


@pytest.mark.parametrize(("epsilon", "text"), [(0.969, "0.96"), (8.0, "8.00"), (None, "–")])
def test_what_was_shown_is_rounded_down(epsilon: float | None, text: str) -> None:
    assert lower_bound_text(epsilon) == text


@pytest.mark.parametrize(
    ("bound", "headline", "text"),
    [
        (math.inf, 3.0, "-"),
        (None, 3.0, "-"),
        (3.0, 3.0, "3.00"),
        (math.inf, math.inf, "∞"),
        (None, None, "∞"),
    ],
)
def test_an_accountant_without_a_bound_is_silent_only_if_another_has_one(
    bound: float | None, headline: float | None, text: str
) -> None:
    assert bound_text(bound, headline) == text


def test_a_diverged_model_has_no_accuracy_and_no_loss() -> None:
    assert percent_text(None) == percent_text(math.nan) == "-"
    assert number_text(None) == number_text(math.nan) == "-"
    assert percent_text(0.8312) == "83.1 %"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (37032, "37.0 kB"),
        (999960, "1.0 MB"),
        (168656800, "169 MB"),
        (2500000000000.0, "2.5 TB"),
        (3e16, "30000 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(size: float, text: str) -> None:
    assert bytes_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"),
        (9.99, "10.0 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_change_unit_where_the_next_begins(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_counts_agree_with_their_noun() -> None:
    assert count_text(1, "client") == "1 client"
    assert count_text(1437, "record") == "1,437 records"


@pytest.mark.parametrize(
    ("delta", "units", "warned"), [(1e-4, 144, False), (1e-4, 10_000, True), (0.01, 144, True)]
)
def test_a_delta_of_one_over_n_or_more_is_warned_about(
    delta: float, units: int, warned: bool
) -> None:
    for unit in ("record", "client"):
        text = delta_warning(delta, units, unit)
        assert (text is not None) is warned
        assert text is None or f"{units:,} {unit}s" in text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200), st.integers(2, 60))
def test_a_sparkline_keeps_to_its_width_and_shows_the_extremes(
    values: list[float], width: int
) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    if len(set(values)) > 1 and len(values) <= width:
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"


def test_a_sparkline_of_equal_values_is_flat() -> None:
    assert sparkline([0.5, 0.5, 0.5]) == "▁▁▁"


def test_columns_grow_from_the_bottom_and_the_highest_fills_the_chart() -> None:
    assert columns([0.0, 0.01, 4.0, 8.0], height=2, top=8.0) == ["   █", " ▁██"]


@given(st.lists(st.integers(), min_size=1, max_size=300), st.integers(2, 50))
def test_thinning_keeps_order_and_both_ends(items: list[int], most: int) -> None:
    kept = thinned(items, most)
    assert len(kept) == min(len(items), most)
    assert (kept[0], kept[-1]) == (items[0], items[-1])
    remaining = iter(items)
    assert all(item in remaining for item in kept)
