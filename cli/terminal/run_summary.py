"""What came of a run, as a table with the course of its metric and of epsilon."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from calyx.cli.terminal.chart import sparkline
from calyx.cli.terminal.console import facts, plain
from calyx.cli.terminal.formatting import NO_PRIVACY, duration_text, metric_text, number_text
from calyx.server.state.journal import Event, judged_by, metrics_of
from calyx.server.state.outcome import on_clients, rounds_with_effect
from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, whom_text


def run_summary(result: Event, start: Event | None, rounds: Sequence[Event]) -> Table:
    """The table at the end of a run.

    Args:
        result: the figures of `simulations.RunResult`.
        start: the run's ``start`` event, if it was seen.
        rounds: its ``round`` events.
    """
    headline, *others = judged_by(start or {})
    course = [v for e in rounds if (v := metrics_of(e).get(headline.name)) is not None]
    metrics = metrics_of(result)
    epsilons = [e["epsilon_max"] for e in rounds if e["epsilon_max"] is not None]
    is_learned = rounds_with_effect(rounds) > 0 or not rounds
    style = "bold green" if is_learned else "bold red"
    value = Text.assemble((metric_text(headline, metrics.get(headline.name)), style))
    if headline.direction:
        value.append(f" ({headline.direction})")
    if len(course) > 1:
        value.append(f"   {sparkline(course)}", style="cyan")
    if result["epsilon_max"] is None:
        privacy = Text(f"{NO_PRIVACY} (ε = ∞)", style="bold")
    else:
        unit = f" for each {whom_text(start['unit'], start['noise'])}" if start is not None else ""
        privacy = Text.assemble(
            (f"ε = {epsilon_text(result['epsilon_max'])}", "bold"),
            f" at δ = {delta_text(result['delta'])}{unit}",
        )
    rows: dict[str, str | Text] = {}
    if not is_learned:
        rows["learned"] = Text("nothing: no round had an effect", style="bold red")
    rows |= {f"test {plain(headline.shown)}": value, "test loss": number_text(result["loss"])}
    if others:
        rows["other metrics"] = ", ".join(
            metric.named_text(metrics.get(metric.name)) for metric in others
        )
    if rounds and (told := on_clients(headline, rounds[-1])):
        rows["on clients' records"] = told
    rows["privacy"] = privacy
    by_record = None if start is None else start.get("epsilon_record")
    if by_record is not None:
        rows["for one record"] = f"ε ≤ {epsilon_text(by_record)} over all rounds"
    if len(epsilons) > 1:
        spending = Text(epsilon_text(epsilons[0]))
        spending.append(f" {sparkline(epsilons)} ", style="cyan").append(epsilon_text(epsilons[-1]))
        rows["ε by round"] = spending
    if result["epsilon_max"] is not None:
        rows["noise multiplier"] = number_text(result["noise_multiplier"])
    each, whole = duration_text(result["seconds_per_round"]), duration_text(result["seconds"])
    rows["rounds"] = f"{result['rounds']} ({each} each, {whole} in all)"
    rejected = result["rejected"]
    rows["clients"] = f"{result['clients']}" + (
        f", {rejected} {'reply' if rejected == 1 else 'replies'} rejected" if rejected else ""
    )
    return facts(rows)
