from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from calyx.cli.terminal.console import Terminal
from calyx.cli.terminal.run_display import RunDisplay
from calyx.cli.terminal.run_summary import run_summary

Event = dict[str, Any]
MakeRound = Callable[..., Event]


def written(events: list[Event], closing: Event | None = None, **settings: bool) -> str:
    """What a run shows where standard output is no terminal."""
    out = io.StringIO()
    terminal = Terminal(out, io.StringIO(), **settings)
    _play(terminal, events, closing)
    return out.getvalue()


class Screen(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(events: list[Event], width: int, closing: Event | None = None) -> Console:
    """The console of a terminal of that width on which a run was shown, recorded."""
    terminal = Terminal(io.StringIO(), io.StringIO())
    terminal.human = Console(
        file=Screen(), force_terminal=True, width=width, record=True, highlight=False
    )
    _play(terminal, events, closing)
    return terminal.human


def _play(terminal: Terminal, events: list[Event], closing: Event | None) -> None:
    display = RunDisplay(terminal)
    with display:
        for event in events:
            display.on_event(event)
    if closing is not None:
        terminal.show(run_summary(closing, display.start, display.rounds))


def test_a_file_gets_the_promise_and_one_line_a_round_without_control_characters(
    start_event: Event, round_event: MakeRound, result: Event
) -> None:
    events = [start_event, {"event": "reply", "round": 1, "arrived": 3, "asked": 10}]
    text = written([*events, round_event(1), round_event(2)], result)
    lines = text.splitlines()
    assert lines[:4] == [
        "digits-cnn",
        "10 clients, 1,437 training records, 360 for testing, 9,258 parameters",
        "ε ≤ 8 at δ = 0.0001 for each record, local noise, noise multiplier 1.524",
        "20 rounds, local engine, 2 workers",
    ]
    assert lines[4] == "round  1/20  accuracy 51.0 %  loss 1.000  ε 0.10  10/10 ok  0.2 s"
    assert lines[5] == "round  2/20  accuracy 52.0 %  loss 0.500  ε 0.20  10/10 ok  0.2 s"
    assert "privacy            ε = 8.00 at δ = 0.0001 for each record" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_run_without_noise_says_so_before_and_after(
    start_event: Event, round_event: MakeRound, result: Event
) -> None:
    plain = {"noise": "none", "epsilon_target": None, "noise_multiplier": 0.0, "delta": 0.5}
    rounds = [round_event(n, epsilon_max=None) for n in (1, 2)]
    text = written([start_event | plain, *rounds], result | {"epsilon_max": None})
    assert text.count("no differential privacy") == 2
    assert "ε ∞" in text
    assert "noise multiplier" not in text
    assert "warning" not in text


def test_a_delta_that_is_too_large_is_warned_about_before_the_first_round(
    start_event: Event, round_event: MakeRound
) -> None:
    text = written([start_event | {"delta": 0.01}, round_event(1)])
    assert text.index("warning: delta = 0.01") < text.index("round  1/20")


def test_every_client_that_was_lost_is_named_with_the_reason(
    start_event: Event, round_event: MakeRound
) -> None:
    event = round_event(
        3,
        ok=0,
        skipped=True,
        reason="0 usable replies, 2 are needed",
        rejected=[{"client": "7", "reason": "NaN in conv1.weight"}],
        declined=[{"client": "2", "reason": "budget spent"}],
        failed=[{"client": str(n), "reason": "no answer"} for n in range(8)],
    )
    text = written([start_event, event])
    assert "round 3: client 7 reply rejected, not asked again: NaN in conv1.weight\n" in text
    assert "round 3: client 2 takes no further part: budget spent\n" in text
    assert text.count("failed, will be asked again: no answer") == 5
    assert "round 3: 3 more failed\n" in text
    assert "round 3 skipped: 0 usable replies, 2 are needed; the model stays" in text
    assert "0/10 ok, 10 failed" in text


def test_clients_that_take_no_part_are_named_before_the_run_starts(start_event: Event) -> None:
    out = [{"client": str(n), "reason": "4 more rounds are too many"} for n in range(7)]
    text = written([{"event": "declined", "round": 0, "clients": out}, start_event])
    assert "client 0 takes no part in this run: 4 more rounds are too many\n" in text
    assert "2 more clients take no part in this run\n" in text


def test_a_clients_words_cannot_bring_control_characters_lines_or_markup(
    start_event: Event, round_event: MakeRound
) -> None:
    reason = "\x1b]0;owned\x07 \x1b[2J [bold]x[/bold]\nround 4/20 accuracy 99.9 %\u202e"
    text = written([start_event, round_event(1, rejected=[{"client": "7", "reason": reason}])])
    (line,) = [line for line in text.splitlines() if "owned" in line]
    assert "[bold]x[/bold] round 4/20" in line
    assert all(character.isprintable() for character in line)


def test_a_resumed_run_shows_where_it_goes_on_and_keeps_its_history(
    start_event: Event, round_event: MakeRound
) -> None:
    history = [round_event(1), round_event(2)]
    text = written([*history, start_event | {"first_round": 3}, round_event(3)])
    assert "going on at round 3 of 20" in text
    assert "round  1/20" not in text
    assert "round  3/20" in text


def test_with_json_words_for_people_leave_standard_output_alone(
    start_event: Event, round_event: MakeRound
) -> None:
    out, err = io.StringIO(), io.StringIO()
    _play(Terminal(out, err, as_json=True), [start_event, round_event(1)], None)
    assert out.getvalue() == ""
    assert "round  1/20" in err.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_one_line_with_the_latest_figures_that_leaves_room(
    start_event: Event, round_event: MakeRound, width: int
) -> None:
    events = [start_event, *(round_event(n) for n in range(1, 13))]
    console = drawn([*events, {"event": "reply", "round": 13, "arrived": 5, "asked": 10}], width)
    text = console.export_text()
    (bar,) = re.findall(r"\S round 13/20 .*left", text)
    assert re.search("━ accuracy 62.0 %  ε 1.20 of 8  10/10 ok  2.0 s left$", bar)
    assert len(bar) <= width - 3
    assert "round  1/20" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_closing_table_shows_both_curves_within_the_width(
    start_event: Event, round_event: MakeRound, result: Event, width: int
) -> None:
    events = [start_event, *(round_event(n) for n in range(1, 21))]
    text = drawn(events, width, result).export_text()
    table = text[text.index("test accuracy") :].splitlines()
    assert table[0].rstrip() == "test accuracy      83.1 %   ▁▁▂▂▂▃▃▄▄▄▅▅▅▆▆▇▇▇██"
    assert table[2].rstrip() == "privacy            ε = 8.00 at δ = 0.0001 for each record"
    assert table[3].rstrip() == "ε by round         0.10 ▁▁▂▂▂▃▃▄▄▄▅▅▅▆▆▇▇▇██ 2.00"
    assert table[5].rstrip() == "rounds             20 (0.8 s each, 24 s in all)"
    assert table[6].rstrip() == "clients            10, 1 reply rejected"
    assert max(map(len, table)) <= width


REGRESSION = [
    {"name": "mae", "shown": "MAE", "is_share": False, "higher_is_better": False},
    {"name": "r2", "shown": "R²", "is_share": False, "higher_is_better": True},
]


@pytest.fixture
def regression(start_event: Event, round_event: MakeRound, result: Event) -> tuple[Any, ...]:
    """Start, rounds and result of a run that is judged by an error."""
    rounds = [
        round_event(number, accuracy=None, metrics={"mae": 60.0 - number, "r2": -0.05})
        for number in range(1, 21)
    ]
    rounds[-1]["clients"] = {"client-mae": 40.0, "client-mae-worst": 71.5, "client-loss": 1.0}
    result |= {"accuracy": None, "metrics": {"mae": 40.0, "r2": -0.05}}
    return start_event | {"metrics": REGRESSION}, rounds, result


def test_each_round_is_shown_by_the_metric_of_the_task(regression: tuple[Any, ...]) -> None:
    start, rounds, result = regression
    text = written([start, *rounds], result)
    assert "round  1/20  MAE  59.00  loss 1.000  ε 0.10" in text
    assert "test MAE              40.00 (lower is better)   ██▇" in text
    assert "other metrics         R² -0.0500\n" in re.sub(" +\n", "\n", text)
    assert "on clients' records   MAE 40.00 on average, 71.50 for the worst tenth" in text
    assert "accuracy" not in text


def test_all_metrics_of_the_last_round_are_in_the_closing_table(
    start_event: Event, round_event: MakeRound, result: Event
) -> None:
    facts = [
        {"name": "f1", "shown": "F1", "is_share": True, "higher_is_better": True},
        {"name": "accuracy", "shown": "accuracy", "is_share": True, "higher_is_better": True},
        {"name": "auc", "shown": "AUC", "is_share": False, "higher_is_better": True},
    ]
    metrics = {"f1": 0.5, "accuracy": 0.75, "auc": None}
    rounds = [round_event(1, accuracy=0.75, metrics=metrics)]
    text = written([start_event | {"metrics": facts}, *rounds], result | {"metrics": metrics})
    assert re.search(r"test F1 +50.0 % *\n", text)
    assert re.search(r"other metrics +accuracy 75.0 %, AUC - *\n", text)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("shown", "name"),
    [("MAE", "MAE"), ("word error rate", "word error …"), ("\x1b[2Jx", "�\\[2Jx")],
)
def test_the_redrawn_line_stays_one_line_with_any_name(
    regression: tuple[Any, ...], width: int, shown: str, name: str
) -> None:
    start, rounds, _ = regression
    start["metrics"] = [start["metrics"][0] | {"shown": shown}]
    console = drawn([start, *rounds[:12], {"event": "reply", "arrived": 5, "asked": 10}], width)
    (bar,) = re.findall(r"\S round 13/20 .*left", console.export_text())
    assert re.search(f"━ {name} 48.00  ε 1.20 of 8  10/10 ok  2.0 s left$", bar)
    assert len(bar) <= width - 3


def test_no_color_takes_the_colours_away(
    start_event: Event, round_event: MakeRound, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = round_event(1, rejected=[{"client": "7", "reason": "NaN"}])
    coloured = drawn([start_event, event], 80)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = drawn([start_event, event], 80)
    assert "\x1b[33m" in coloured.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[33m" not in plain.file.getvalue()  # type: ignore[attr-defined]
