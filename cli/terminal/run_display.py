"""What a run looks like while it goes on, made from its events.

On a terminal one line is redrawn; elsewhere each round is a line of its own. The events come from
the thread that follows the run's journal. Rounds before the ``start`` event are the history of a
resumed run.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Protocol

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from calyx.cli.terminal.console import Terminal, plain
from calyx.cli.terminal.formatting import (
    NO_PRIVACY,
    count_text,
    delta_warning,
    duration_text,
    metric_text,
    number_text,
)
from calyx.server.state.journal import Event, judged_by, metrics_of
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text, whom_text

_NOTES_SHOWN = 5
_FIGURES_WIDTH = 62
# Of the headline's name, on a line that is redrawn and must not be wrapped.
_NAME_WIDTH = 12
_KINDS = {
    "rejected": "reply rejected, not asked again",
    "declined": "takes no further part",
    "failed": "failed, will be asked again",
}


class RunDisplay:
    """Shows the events of one run; use as a context manager around it."""

    def __init__(self, terminal: Terminal) -> None:
        self.rounds: list[Event] = []
        self.start: Event | None = None
        self._terminal = terminal
        self._lines: _Lines = _Redrawn(terminal) if terminal.is_live else _Written(terminal)

    def __enter__(self) -> RunDisplay:
        self._lines.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.end()

    def on_event(self, event: Event) -> None:
        """Show one event; kinds that mean nothing to people are passed over."""
        match event["event"]:
            case "data":
                for line in event["done"]:
                    self._terminal.say(f"data: {line}")
                for line in event["warnings"]:
                    self._terminal.warn(line)
            case "start":
                self.start = event
                self._show_start(event)
            case "declined":
                self._show_declined(event)
            case "reply" if self.start is not None:
                self._lines.reply(event, self.start, self.rounds)
            case "round":
                self.rounds.append(event)
                if self.start is not None:
                    self._show_notes(event)
                    self._lines.round(event, self.start, self.rounds)

    def _show_start(self, start: Event) -> None:
        for line in start_lines(start):
            self._terminal.say(line)
        units = start["train_records"] if start["unit"] == "record" else start["clients"]
        warning = delta_warning(start["delta"], units, start["unit"])
        if start["noise"] != "none" and warning:
            self._terminal.warn(warning)
        if start["first_round"] > start["rounds"]:
            self._terminal.line("all rounds were done already")
        elif start["first_round"] > 1:
            self._terminal.line(f"going on at round {start['first_round']} of {start['rounds']}")
        self._lines.started(start, self.rounds)

    def _show_notes(self, event: Event) -> None:
        for kind, consequence in _KINDS.items():
            notes = event[kind]
            for note in notes[:_NOTES_SHOWN]:
                who = f"round {event['round']}: client {note['client']} {consequence}: "
                self._terminal.say(who + note["reason"], "yellow")
            if len(notes) > _NOTES_SHOWN:
                more = len(notes) - _NOTES_SHOWN
                self._terminal.say(f"round {event['round']}: {more} more {kind}", "yellow")
        if event["skipped"]:
            text = f"round {event['round']} skipped: {event['reason']}"
            self._terminal.say(f"{text}; the model stays as it was", "yellow")

    def _show_declined(self, event: Event) -> None:
        """Who takes no part, before anything was spent on it."""
        for note in event["clients"][:_NOTES_SHOWN]:
            text = f"client {note['client']} takes no part in this run: {note['reason']}"
            self._terminal.say(text, "yellow")
        if len(event["clients"]) > _NOTES_SHOWN:
            more = len(event["clients"]) - _NOTES_SHOWN
            self._terminal.say(f"{more} more clients take no part in this run", "yellow")


def start_lines(start: Event) -> list[Text]:
    """What is about to be run, and what it promises."""
    what = ", ".join(
        [
            count_text(start["clients"], "client"),
            count_text(start["train_records"], "training record"),
            f"{start['test_records']:,} for testing",
            count_text(start["parameters"], "parameter"),
        ]
    )
    engine = f"{start['engine']} engine, {count_text(start['workers'], 'worker')}"
    return [
        Text(plain(start["preset"]) or "run", style="bold"),
        Text(what),
        _promise(start),
        Text(f"{count_text(start['rounds'], 'round')}, {engine}"),
    ]


def _promise(start: Event) -> Text:
    if start["noise"] == "none":
        return Text(NO_PRIVACY, style="bold")
    whom = whom_text(start["unit"], start["noise"])
    return Text.assemble(
        (f"ε ≤ {promise_text(start['epsilon_target'])}", "bold"),
        f" at δ = {delta_text(start['delta'])} for each {whom}, {start['noise']} noise, "
        f"noise multiplier {number_text(start['noise_multiplier'])}",
    )


class _Lines(Protocol):
    """How the rounds are shown."""

    def begin(self) -> None: ...
    def started(self, start: Event, history: list[Event]) -> None: ...
    def reply(self, event: Event, start: Event, rounds: list[Event]) -> None: ...
    def round(self, event: Event, start: Event, rounds: list[Event]) -> None: ...
    def end(self) -> None: ...


class _Written:
    """One line a round, for pipes and files."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def begin(self) -> None:
        """Nothing to say yet."""

    def started(self, start: Event, history: list[Event]) -> None:
        """All has been said."""

    def reply(self, event: Event, start: Event, rounds: list[Event]) -> None:
        """Too much for a file."""

    def round(self, event: Event, start: Event, rounds: list[Event]) -> None:
        """Write the line."""
        number = f"{event['round']:>{len(str(start['rounds']))}}"
        metric = judged_by(start)[0]
        value = metric_text(metric, metrics_of(event).get(metric.name))
        parts = [
            f"round {number}/{start['rounds']}",
            f"{plain(metric.shown)} {value:>6}",
            f"loss {number_text(event['loss'])}",
            f"ε {epsilon_text(event['epsilon_max'])}",
            _replies(event),
            duration_text(event["seconds"]),
        ]
        self._terminal.line(Text("  ".join(parts)))

    def end(self) -> None:
        """Nothing is open."""


class _Redrawn:
    """A bar with the latest figures, for terminals."""

    def __init__(self, terminal: Terminal) -> None:
        # The line must not fill the width: the ^C of an interrupt would wrap it, and a wrapped
        # line is not taken away cleanly.
        self._room = terminal.human.width - _FIGURES_WIDTH
        self._bar = BarColumn(bar_width=max(min(self._room, 40), 5))
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            self._bar,
            TextColumn("{task.fields[figures]}"),
            console=terminal.human,
            transient=True,
        )
        self._task = self._progress.add_task("loading", total=None, figures="")
        self._round_began = time.monotonic()

    def begin(self) -> None:
        """Turn the spinner on."""
        self._progress.start()

    def started(self, start: Event, history: list[Event]) -> None:
        """From here on the bar counts rounds."""
        self._round_began = time.monotonic()
        self._bar.bar_width = max(min(self._room - len(_short_name(start)) - 1, 40), 5)
        self._update(len(history), start, history)

    def reply(self, event: Event, start: Event, rounds: list[Event]) -> None:
        """Move the bar within the round."""
        self._update(len(rounds) + event["arrived"] / max(event["asked"], 1), start, rounds)

    def round(self, event: Event, start: Event, rounds: list[Event]) -> None:
        """Move the bar to the end of the round."""
        self._round_began = time.monotonic()
        self._update(len(rounds), start, rounds)

    def end(self) -> None:
        """Take the bar away."""
        self._progress.stop()

    def _update(self, done: float, start: Event, rounds: list[Event]) -> None:
        current = min(int(done) + 1, start["rounds"])
        self._progress.update(
            self._task,
            description=f"round {current}/{start['rounds']}",
            completed=done,
            total=start["rounds"],
            figures=self._figures(start, rounds),
        )

    def _figures(self, start: Event, rounds: list[Event]) -> str:
        if not rounds:
            return "first round"
        last = rounds[-1]
        privacy = f"ε {epsilon_text(last['epsilon_max'])}"
        if start["noise"] != "none":
            privacy += f" of {start['epsilon_target']:g}"
        each = median(event["seconds"] for event in rounds[-5:])
        spent = time.monotonic() - self._round_began
        left = max(each * (start["rounds"] - len(rounds)) - min(spent, each), 0.0)
        metric = judged_by(start)[0]
        value = metric_text(metric, metrics_of(last).get(metric.name))
        return "  ".join(
            [
                f"{_short_name(start)} {value}",
                privacy,
                _replies(last),
                f"{duration_text(left)} left",
            ]
        )


def _short_name(start: Event) -> str:
    name = plain(judged_by(start)[0].shown)
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"


def _replies(event: Event) -> str:
    text = f"{event['ok']}/{event['asked']} ok"
    lost = event["asked"] - event["ok"]
    return f"{text}, {lost} failed" if lost else text
